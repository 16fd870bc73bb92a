"""Adaptive blur: low-pass filters that are predicted from the maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.pooling.max_blur import MaxBlurPool2d

__all__ = ["AdaptiveBlur2d", "blurred_max_pool"]

_GROUPS = 8


class AdaptiveBlur2d(nn.Module):
    """Blur each pixel with a filter of its own, then subsample.

    A convolution predicts for each pixel and each of up to 8 groups of channels (of at least 8
    channels) the logarithms of the filter's weights, which sum to 1 ([1]_).

    Parameters
    ----------
    channels : int
    stride : int, default: 2
    taps : int, default: 3
        Side of the filters, odd.

    Notes
    -----
    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    References
    ----------
    .. [1] X. Zou, F. Xiao, Z. Yu, Y. J. Lee, "Delving Deeper into Anti-aliasing in ConvNets", BMVC
       2020, section 3.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn.adaptive import AdaptiveBlur2d
    >>> AdaptiveBlur2d(16)(torch.rand(1, 16, 9, 8)).shape
    torch.Size([1, 16, 5, 4])
    """

    def __init__(self, channels: int, stride: int = 2, taps: int = 3) -> None:
        super().__init__()
        self.stride, self.taps = stride, taps
        self.groups = max(
            g for g in range(1, _GROUPS + 1) if (channels % g == 0 and channels >= 8 * g) or g == 1
        )
        self.conv = nn.Conv2d(channels, self.groups * taps**2, taps, bias=False)
        self.norm = nn.BatchNorm2d(self.groups * taps**2)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred and subsampled maps."""
        step, (height, width) = self.stride, x.shape[2:]
        padded = functional.pad(x, (self.taps // 2,) * 4, mode="reflect")
        # Statistics are those of all pixels, as in the paper; filters only of those that stay.
        logits = self.norm(self.conv(padded))[:, :, ::step, ::step]
        weights = torch.unflatten(logits, 1, (self.groups, self.taps**2)).softmax(2)
        grouped = torch.unflatten(padded, 1, (self.groups, -1))
        out: Any = 0
        for tap in range(self.taps**2):
            top, left = divmod(tap, self.taps)
            shifted = grouped[..., top : top + height : step, left : left + width : step]
            out = out + shifted * weights[:, :, tap, None]
        blurred: Tensor = out.flatten(1, 2)
        return blurred


def blurred_max_pool(
    channels: int, kernel: int, padding: int, ceil_mode: bool, blur: int | str | None
) -> nn.Module:
    """Return a max pooling of stride 2: plain, with binomial or with adaptive blur.

    Parameters
    ----------
    channels, kernel, padding : int
    ceil_mode : bool
    blur : int or "adaptive", optional
        Taps of the binomial filter, 1 to 7; None: plain ``MaxPool2d``.

    Raises
    ------
    TypeError, ValueError
        If ``blur`` is something else, or adaptive with ``ceil_mode``.
    """
    if blur is None:
        return nn.MaxPool2d(kernel, 2, padding, ceil_mode=ceil_mode)
    if blur != "adaptive":
        if isinstance(blur, str):
            raise ValueError(f'blur must be an integer from 1 to 7 or "adaptive", got {blur!r}')
        return MaxBlurPool2d(kernel, 2, padding, ceil_mode, blur=blur)
    if ceil_mode:
        raise ValueError('blur="adaptive" is for ceil_mode=False')
    if not channels:
        return nn.Identity()
    return nn.Sequential(nn.MaxPool2d(kernel, 1, padding), AdaptiveBlur2d(channels))
