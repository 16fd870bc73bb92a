"""Images rolled to their phase, before a strided layer that is to be exact."""

from __future__ import annotations

import torch
from torch import Tensor

from dtwpt.engine.borders import source_index
from dtwpt.nn.pooling.checks import as_step, check_divisible, check_maps
from dtwpt.nn.pooling.phases import Select, as_select, selected
from dtwpt.nn.precision import full_dtype

__all__ = ["anchor"]


def anchor(x: Tensor, stride: int, select: Select = "l2") -> Tensor:
    """Roll each image so that the phase of its largest norm comes first.

    Before a layer of this stride, such as the patch embedding of a vision transformer or the first
    convolution of a network that is trained already: its output is then shifted exactly by every
    circular shift of the image. All layers that follow must be exact for the network to be.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    stride : int
        At least 2; H and W must be multiples of it.
    select : {"l2", "l1", "linf", "l1min", "l2min"} or callable, default: "l2"
        As in :class:`PolyphasePool2d`.

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or H or W is no multiple of the stride.

    Notes
    -----
    Polyphase anchoring: P. Ding, D. Soselia, T. Armstrong, J. Su, F. Huang, "Reviving Shift
    Equivariance in Vision Transformers", 2023. Images in which two phases have equal norms, as
    binary ones may, are not rolled exactly.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn.pooling import anchor
    >>> x = torch.rand(1, 3, 8, 8)
    >>> a, b = anchor(x, 4), anchor(x.roll((1, 6), (2, 3)), 4)
    >>> any(torch.equal(b, a.roll((i, j), (2, 3))) for i in (0, 4) for j in (0, 4))
    True
    """
    stride, select = as_step(stride), as_select(select)
    check_maps(x)
    check_divisible(x, stride)
    with full_dtype(x):
        phase = selected(x, stride, select)
    first = torch.div(phase, stride, rounding_mode="floor"), phase % stride
    for axis, offset in zip((2, 3), first, strict=True):
        side = x.shape[axis]
        index = source_index(
            torch.arange(side, device=x.device) + offset[:, None], side, "periodic"
        )
        shape = [x.shape[0], 1, 1, 1]
        shape[axis] = side
        x = x.gather(axis, index.reshape(shape).expand_as(x))
    return x
