"""Adaptive blur pooling: low-pass filters that are predicted from the maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_count, as_mode, as_pool
from dtwpt.nn.pooling.borders import padded
from dtwpt.nn.pooling.checks import as_step, check_maps
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["AdaptiveBlurPool2d"]


class AdaptiveBlurPool2d(nn.Module):
    """Blur each pixel with a filter of its own, then subsample (DDAC).

    A convolution predicts the filters, one for each pixel and group of channels; their weights are
    positive and sum to 1. Not exact: the pixels that are kept are fixed.

    Parameters
    ----------
    channels : int
    stride : int, default: 2
        At least 2.
    kernel : int, default: 3
        Side of the filters and of the convolution, odd.
    groups : int, default: 8
        Groups of channels; ``channels`` must be a multiple.
    mode : {"reflect", "symmetric", "replicate", "periodic", "zero"}
        Padding mode at the borders; default: that of the paper.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input is no batch of floating-point maps of that many
        channels.

    Notes
    -----
    X. Zou, F. Xiao, Z. Yu, Y. J. Lee, "Delving Deeper into Anti-aliasing in ConvNets", BMVC 2020,
    section 3. The softmax is over the weights of one filter; that of the published code is over all
    groups, whose filters then sum to 1 together. ``groups * kernel ** 2 * (channels * kernel ** 2 +
    2)`` parameters. Training computes filters at every pixel, for the statistics of the
    normalisation; evaluation only those that are used.

    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import AdaptiveBlurPool2d
    >>> AdaptiveBlurPool2d(16, groups=2)(torch.rand(1, 16, 9, 8)).shape
    torch.Size([1, 16, 5, 4])
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        kernel: int = 3,
        groups: int = 8,
        mode: str = "reflect",
    ) -> None:
        super().__init__()
        self.channels, self.stride = as_count(channels, "channels"), as_step(stride)
        self.groups, self.mode = as_count(groups, "groups"), as_mode(mode)
        if as_pool(kernel) != kernel or kernel < 3:
            raise ValueError(f"kernel must be an odd integer of at least 3, got {kernel!r}")
        self.kernel = kernel
        if self.channels % self.groups:
            raise ValueError(f"groups={groups} does not divide channels={channels}")
        self.conv = nn.Conv2d(channels, groups * kernel**2, kernel, bias=False)
        self.norm = nn.BatchNorm2d(groups * kernel**2)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred and subsampled maps."""
        check_maps(x, self.channels)
        step = self.stride
        reach = (self.kernel // 2,) * 2
        with full_dtype(x):
            full = padded(x.to(self.conv.weight.dtype), reach, reach, self.mode)
            if self.training:  # statistics are those of all pixels
                logits = self.norm(self.conv(full))[:, :, ::step, ::step]
            else:
                logits = self.norm(functional.conv2d(full, self.conv.weight, stride=step))
            weights = torch.unflatten(logits, 1, (self.groups, self.kernel**2)).softmax(2)
            windows = functional.unfold(full, self.kernel, stride=step)
            sizes = self.groups, self.channels // self.groups, self.kernel**2
            grouped = windows.reshape(-1, *sizes, *logits.shape[2:])
            out: Tensor = (grouped * weights[:, :, None]).sum(3)
        return out.flatten(1, 2).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return (
            f"{self.channels}, stride={self.stride}, kernel={self.kernel}, groups={self.groups}, "
            f"mode={self.mode!r}"
        )
