"""Blur pooling: a binomial filter, then subsampling."""

from __future__ import annotations

from torch import Tensor, nn

from dtwpt.checks import as_mode
from dtwpt.nn.pooling.checks import as_blur, as_step, check_maps
from dtwpt.nn.pooling.filtering import binomial, filtered
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["BlurPool2d"]


class BlurPool2d(nn.Module):
    """Blur with a binomial filter, then subsample.

    Nothing is learned. Not exact: a shift by a multiple of the stride shifts the output, another
    one changes it, less the longer the filter is.

    Parameters
    ----------
    stride : int, default: 2
        At least 2.
    blur : int, default: 4
        Taps of the filter in each direction, 1 to 7; 1 does not blur.
    mode : {"reflect", "symmetric", "replicate", "periodic", "zero"}
        Padding mode at the borders; default: that of the paper.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input is no batch of floating-point maps.

    Notes
    -----
    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    Output i of an axis is the sum over t of ``binomial[t] * x[stride * i + t - (blur - 1) // 2]``,
    the filter of R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019,
    section 3. There are no parameters and no buffers; the output has the dtype of the input, also
    under autocast.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import BlurPool2d
    >>> BlurPool2d()(torch.rand(1, 16, 9, 8)).shape
    torch.Size([1, 16, 5, 4])
    """

    def __init__(self, stride: int = 2, blur: int = 4, mode: str = "reflect") -> None:
        super().__init__()
        self.stride, self.blur, self.mode = as_step(stride), as_blur(blur), as_mode(mode)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred and subsampled maps."""
        check_maps(x)
        with full_dtype(x):
            return filtered(x, binomial(self.blur), self.mode, self.stride)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"stride={self.stride}, blur={self.blur}, mode={self.mode!r}"
