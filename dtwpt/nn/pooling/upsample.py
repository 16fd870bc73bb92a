"""Polyphase upsampling: the adjoint of a polyphase pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtwpt.checks import as_mode
from dtwpt.nn.pooling.checks import as_blur, as_step, check_maps
from dtwpt.nn.pooling.filtering import binomial, filtered
from dtwpt.nn.pooling.phases import put_phase
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["PolyphaseUpsample2d"]


class PolyphaseUpsample2d(nn.Module):
    """Put maps back to the phase that a polyphase pooling took, with zeros elsewhere.

    Exact: pooling and upsampling together commute with every circular shift.

    Parameters
    ----------
    stride : int, default: 2
        That of the pooling.
    blur : int, default: 1
        Taps of a binomial filter that is applied afterwards, 1 to 7; 1 does not blur.
    mode : str, default: "periodic"
        Padding mode of the blur; exact with "periodic" alone.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, the input is no batch of floating-point maps, or ``phase`` is
        not what a pooling of this stride returned for the same batch.

    Notes
    -----
    A. Chaman, I. Dokmanic, "Truly shift-equivariant convolutional neural networks with adaptive
    polyphase upsampling", Asilomar 2021; with weights of phases, as a
    :class:`LearnedPolyphasePool2d` returns them in training, each phase gets the maps times its
    weight (Rojas-Gomez et al., NeurIPS 2022). The filter sums to 1, so that without further weights
    the mean over the pixels is that of the maps divided by ``stride ** 2``.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import PolyphasePool2d, PolyphaseUpsample2d
    >>> x = torch.rand(2, 3, 8, 8)
    >>> y, phase = PolyphasePool2d(return_phase=True)(x)
    >>> up = PolyphaseUpsample2d()(y, phase)
    >>> up.shape, bool((up[up != 0] == x[up != 0]).all())
    (torch.Size([2, 3, 8, 8]), True)
    """

    def __init__(self, stride: int = 2, blur: int = 1, mode: str = "periodic") -> None:
        super().__init__()
        self.stride, self.blur, self.mode = as_step(stride), as_blur(blur), as_mode(mode)

    @leaf
    def forward(self, x: Tensor, phase: Tensor) -> Tensor:
        """Upsample maps.

        Parameters
        ----------
        x : Tensor, shape (N, C, h, w)
        phase : Tensor
            What the pooling returned with ``return_phase=True``.

        Returns
        -------
        Tensor, shape (N, C, stride * h, stride * w)
        """
        check_maps(x)
        n, count = x.shape[0], self.stride**2
        expected = (n, count) if phase.is_floating_point() else (n,)
        if phase.shape != expected or phase.dtype == torch.bool:
            raise ValueError(
                f"phase must be integers of shape ({n},) or weights of shape ({n}, {count}), got "
                f"{phase.dtype} of shape {tuple(phase.shape)}"
            )
        with full_dtype(x):
            spread = put_phase(x, phase, self.stride)
            return filtered(spread, binomial(self.blur), self.mode)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"stride={self.stride}, blur={self.blur}, mode={self.mode!r}"
