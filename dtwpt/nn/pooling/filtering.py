"""Maps filtered by the same filter in both directions, then subsampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dtwpt.nn.pooling.borders import padded

__all__ = ["binomial", "filtered"]

# Longer filters are applied along one axis, then along the other.
_LONGEST_SQUARE = 4


def binomial(taps: int) -> list[float]:
    """Return the binomial filter of a number of taps, which sums to 1.

    Whole numbers over a power of two: exact in every dtype down to bfloat16, and so are products.
    """
    return [math.comb(taps - 1, k) / 2 ** (taps - 1) for k in range(taps)]


def filtered(
    x: Tensor, taps: Sequence[float], mode: str, stride: int | tuple[int, int] = 1
) -> Tensor:
    """Filter maps along both axes, and keep every ``stride``-th row and column.

    Output i of an axis is the sum over t of ``taps[t] * x[stride * i + t - (len(taps) - 1) // 2]``.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W) or (C, H, W)
    taps : sequence of float
    mode : str
        Padding mode at the borders.
    stride : int or (int, int)

    Returns
    -------
    Tensor, shape (N, C, ceil(H / stride), ceil(W / stride)), without N if ``x`` has none
    """
    down, across = (stride, stride) if isinstance(stride, int) else stride
    count, channels = len(taps), x.shape[-3]
    if count == 1:
        kept = x[..., ::down, ::across]
        return kept if taps[0] == 1 else kept * taps[0] ** 2
    # Created on the device at each call, so there is no buffer to copy, convert or average.
    kernel = torch.cat([x.new_full((1,), tap) for tap in taps])
    first, last = (count - 1) // 2, count // 2
    if count <= _LONGEST_SQUARE:
        square = torch.outer(kernel, kernel).expand(channels, 1, count, count)
        x = padded(x, (first, first), (last, last), mode)
        return functional.conv2d(x, square, stride=(down, across), groups=channels)
    column, row = kernel[:, None].expand(channels, 1, -1, 1), kernel.expand(channels, 1, 1, -1)
    x = padded(x, (first, 0), (last, 0), mode)
    x = functional.conv2d(x, column, stride=(down, 1), groups=channels)
    x = padded(x, (0, first), (0, last), mode)
    return functional.conv2d(x, row, stride=(1, across), groups=channels)
