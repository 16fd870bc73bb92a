"""Circular convolution of stride 1, directly or in the frequency domain: CircularConv2d."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_pair
from dtwpt.engine.borders import source_index
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["CircularConv2d"]


class CircularConv2d(nn.Conv2d):
    """Convolution of stride 1 with periodic padding: it commutes with every roll.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
        Of any size, even larger than the image.
    stride, padding : int or (int, int), default: 1, 0
        No other value is accepted. They are for tools that build a layer of the same type with the
        arguments of ``Conv2d``, such as LoRA.
    groups : int, default: 1
    bias : bool, default: True
    fft : bool, default: False
        Whether to multiply spectra. The result is the same to rounding. It is faster for large
        kernels only; ``python benchmarks/circular_convolution.py`` prints the size from which on it
        is.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input has another shape than (N, C, H, W) or (C, H, W).

    Notes
    -----
    Shape: (N, in_channels, H, W) to (N, out_channels, H, W). The centre of an even kernel is the
    pixel before its middle. The weights are spatial, as in ``Conv2d``, for either ``fft``, so a
    state dict fits both. Spectra are computed in float32 at least, and the result has the dtype of
    the input.

    The product of spectra is what H. Goh, F. Chen, W. Lim, arXiv 2106.12736, call a frequency
    domain convolution. It makes a network neither more nor less stable under shifts than padding
    circularly does.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import CircularConv2d
    >>> conv = CircularConv2d(3, 8, 5, fft=True)
    >>> x = torch.rand(1, 3, 16, 16)
    >>> torch.allclose(conv(x.roll(3, -1)), conv(x).roll(3, -1), atol=1e-5)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        *,
        groups: int = 1,
        bias: bool = True,
        fft: bool = False,
    ) -> None:
        for name, value, only in (("stride", stride, 1), ("padding", padding, 0)):
            if value not in (only, (only, only), [only, only]):
                raise ValueError(f"{name} of a circular convolution must be {only}, got {value!r}")
        super().__init__(
            in_channels, out_channels, as_pair(kernel_size, "kernel_size"), groups=groups, bias=bias
        )
        if not isinstance(fft, bool):
            raise TypeError(f"fft must be True or False, got {fft!r}")
        self.fft = fft

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution."""
        if input.ndim not in (3, 4):
            raise ValueError(
                f"input must have shape (N, C, H, W) or (C, H, W), got {tuple(input.shape)}"
            )
        if not self.fft:
            padded = _padded(input, self.kernel_size)
            direct: Tensor = self._conv_forward(padded, self.weight, self.bias)
            return direct
        batch = input[None] if input.ndim == 3 else input
        with full_dtype(batch):
            out = self._by_spectra(batch).to(input.dtype)
        return out[0] if input.ndim == 3 else out

    def _by_spectra(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        sides = x.shape[-2:]
        spectrum = torch.fft.rfft2(x.to(dtype))
        kernel = torch.fft.rfft2(_wrapped(self.weight.to(dtype), sides)).conj()
        # (N, groups, channels in, frequencies) with (groups, channels out, channels in, ...).
        spectrum = spectrum.reshape(len(x), self.groups, -1, *spectrum.shape[-2:])
        kernel = kernel.reshape(self.groups, -1, *kernel.shape[1:])
        product = torch.einsum("ngihw,goihw->ngohw", spectrum, kernel).flatten(1, 2)
        out: Tensor = torch.fft.irfft2(product, sides)
        if self.bias is not None:
            out = out + self.bias.to(dtype)[:, None, None]
        return out

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        described: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{described}, fft={self.fft}"


def _padded(x: Tensor, kernel_size: tuple[int, ...]) -> Tensor:
    edges = [(k - 1) // 2 for k in kernel_size], [k // 2 for k in kernel_size]
    if all(max(pair) <= n for *pair, n in zip(*edges, x.shape[-2:], strict=True)):
        (up, left), (down, right) = edges
        return functional.pad(x, (left, right, up, down), mode="circular")
    for axis, before, after in zip((-2, -1), *edges, strict=True):  # torch wraps at most once
        side: Any = x.shape[axis]
        positions = torch.arange(-before, side + after, device=x.device)
        x = x.index_select(axis, source_index(positions, side, "periodic"))
    return x


def _wrapped(kernel: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Return kernels padded to the image size, centred on the first pixel, wrapped around."""
    for axis, side in zip((-2, -1), sides, strict=True):
        taps = kernel.shape[axis]
        full = -(-taps // side) * side
        shape = [full - taps if k == axis % kernel.ndim else n for k, n in enumerate(kernel.shape)]
        kernel = torch.cat([kernel, kernel.new_zeros(shape)], axis)
        kernel = kernel.roll(-((taps - 1) // 2), axis)
        shape = list(kernel.shape)
        shape[axis % kernel.ndim : axis % kernel.ndim + 1] = [full // side, side]
        kernel = kernel.reshape(shape).sum(axis - 1)
    return kernel
