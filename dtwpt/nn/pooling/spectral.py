"""Spectral pooling: the low frequencies of the maps, at fewer pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dtwpt.checks import as_pair
from dtwpt.nn.pooling.checks import as_step, check_maps
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["SpectralPool2d"]


class SpectralPool2d(nn.Module):
    """Keep the low frequencies of the discrete Fourier transform, and subsample.

    One layer for spectral pooling, FLC, ASAP (``window="hamming"``) and the pooling of FDCNN.
    Nothing is learned. A shift of the input by any fraction of a pixel, circular and band-limited,
    is one of the output; a ReLU between two such layers ends that, so that a network is not exact.

    Parameters
    ----------
    stride : int, default: 2
        At least 2.
    output_size : int or (int, int), optional
        Rows and columns of the output instead of a stride; at most those of the input.
    window : {"hamming"}, optional
        Weights of the frequencies before they are cut.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input is no batch of floating-point maps or smaller than
        the output.

    Notes
    -----
    Of N pixels, frequencies ``|f| < N / (2 * stride)`` are kept, and ``ceil(N / stride)`` pixels
    computed from them: trigonometric interpolation. The bin at exactly that frequency, which the
    published codes keep on one side, is left out, and the cut is centred at every size: theirs is
    not where N / 2 is odd. The window is the square root of Hamming's, centred on frequency 0.

    Computed in float32 at least by two matrix products, one an axis, which is faster on maps of the
    sizes of networks than Fourier transforms, and can be exported.

    O. Rippel, J. Snoek, R. P. Adams, "Spectral Representations for Convolutional Neural Networks",
    NeurIPS 2015, section 4; J. Grabinski et al., "FrequencyLowCut Pooling", ECCV 2022, and "Fix
    your downsampling ASAP!", 2023; J. Goh, Y. Chen, W. Lim, arXiv 2106.12736, 2021.

    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)) or the output's size.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import SpectralPool2d
    >>> wave = torch.cos(2 * torch.pi * torch.arange(14) / 14).expand(1, 1, 14, 14)
    >>> torch.allclose(SpectralPool2d()(wave), wave[..., ::2, ::2], atol=1e-6)
    True
    """

    def __init__(
        self,
        stride: int = 2,
        output_size: int | tuple[int, int] | None = None,
        window: str | None = None,
    ) -> None:
        super().__init__()
        self.stride = as_step(stride)
        self.output_size = None if output_size is None else as_pair(output_size, "output_size")
        if window not in (None, "hamming"):
            raise ValueError(f'window must be None or "hamming", got {window!r}')
        self.window = window

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the maps at fewer pixels."""
        check_maps(x)
        height, width = x.shape[2:]
        with full_dtype(x):
            full = x.to(torch.promote_types(x.dtype, torch.float32))
            rows = self._matrix(height, 0, full)
            columns = self._matrix(width, 1, full)
            return (rows @ full @ columns.mT).to(x.dtype)

    def _matrix(self, n: int, axis: int, like: Tensor) -> Tensor:
        """Return the matrix that resamples n pixels, shape (outputs, n)."""
        if self.output_size is None:
            count, highest = -(-n // self.stride), (n - 1) // (2 * self.stride)
        else:
            count = self.output_size[axis]
            if count > n:
                raise ValueError(f"output_size {count} is larger than the {n} pixels of the input")
            highest = (count - 1) // 2
        # In float64, and angles from whole numbers below n: rounded once, at the end.
        frequency = torch.arange(highest + 1, device=like.device)
        inputs, outputs = (
            turns(frequency[:, None] * torch.arange(side, device=like.device), side)
            for side in (n, count)
        )
        weight = torch.where(frequency == 0, 1.0, 2.0).to(torch.float64) / n
        if self.window is not None:
            weight = weight * (0.54 + 0.46 * turns(frequency, n).cos()).sqrt()
        matrix = (weight[:, None] * outputs.cos()).mT @ inputs.cos()
        matrix = matrix + (weight[:, None] * outputs.sin()).mT @ inputs.sin()
        return matrix.to(like.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        size = f"stride={self.stride}" if self.output_size is None else f"{self.output_size}"
        return f"{size}, window={self.window!r}"


def turns(numerator: Tensor, denominator: int) -> Tensor:
    """Return the angle of a fraction of a turn, in float64 radians below one turn."""
    # The divisor may be a symbol of torch's; the exporter to ONNX wants it as a tensor.
    remainder = numerator % numerator.new_full((), denominator)
    return remainder.to(torch.float64) * (2 * math.pi / denominator)
