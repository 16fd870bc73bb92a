"""Wavelet pooling: the low band of a wavelet transform of one level."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from torch import Tensor, nn

from dtwpt.checks import as_mode
from dtwpt.nn.pooling.checks import as_step, check_maps
from dtwpt.nn.pooling.filtering import filtered
from dtwpt.nn.pooling.low_pass import LOW_PASSES, low_pass
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["WaveletPool2d"]


class WaveletPool2d(nn.Module):
    """Low-pass of a wavelet, then subsampling: the low band in both directions.

    Nothing is learned. Not exact: as :class:`BlurPool2d` with another filter, and for some wavelets
    with the same: "haar" is its filter of 2 taps, "bior2.2" of 3 and "bior3.3" of 4.

    Parameters
    ----------
    wavelet : str or sequence of float, default: "bior3.3"
        "haar", "db2" to "db6", "bior2.2", "bior3.3", "bior4.4", "bior5.5"; a wavelet of the dual
        tree, see :func:`dtwpt.wavelets`: the mean of its two trees; or taps of another filter.
    stride : int, default: 2
        At least 2.
    normalised : bool, default: True
        Whether the filter sums to 1, so that constants stay. False: to the square root of 2, as in
        wavelet transforms and in the published layer: constants are doubled. Taps that are given
        are used as they are.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders; the published code pads with zeros.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input is no batch of floating-point maps.

    Notes
    -----
    Q. Li, L. Shen, S. Guo, Z. Lai, "Wavelet Integrated CNNs for Noise-Robust Image Classification",
    CVPR 2020, with the reconstruction's low-pass, as in their code. Output i of an axis is the sum
    over t of ``taps[t] * x[stride * i + t - (len(taps) - 1) // 2]``.

    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import BlurPool2d, WaveletPool2d
    >>> x = torch.rand(1, 16, 8, 8)
    >>> torch.allclose(WaveletPool2d("bior3.3", mode="reflect")(x), BlurPool2d(blur=4)(x))
    True
    """

    def __init__(
        self,
        wavelet: str | Sequence[float] = "bior3.3",
        stride: int = 2,
        normalised: bool = True,
        mode: str = "symmetric",
    ) -> None:
        super().__init__()
        self.stride, self.mode, self.normalised = as_step(stride), as_mode(mode), normalised
        self.wavelet = wavelet
        if isinstance(wavelet, str):
            if wavelet not in LOW_PASSES:
                raise ValueError(
                    f"unknown wavelet {wavelet!r}; known wavelets: {', '.join(LOW_PASSES)}"
                )
            gain = 1.0 if normalised else 2**0.5
            self.taps = tuple(gain * tap for tap in low_pass(wavelet))
        else:
            try:
                self.taps = tuple(map(float, wavelet))
            except TypeError:
                raise TypeError(
                    f"wavelet must be a name or a sequence of taps, got {wavelet!r}"
                ) from None
            if not self.taps or not all(map(isfinite, self.taps)):
                raise ValueError(f"wavelet must have at least one tap, all finite, got {wavelet!r}")

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the low band."""
        check_maps(x)
        with full_dtype(x):
            return filtered(x, self.taps, self.mode, self.stride)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return (
            f"{self.wavelet!r}, stride={self.stride}, normalised={self.normalised}, "
            f"mode={self.mode!r}"
        )
