"""Blur at every subsampling of a torchvision network."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from dtwpt.nn.adaptive import adaptive_blur, blurred_max_pool
from dtwpt.nn.pooling.max_blur import MaxBlurPool2d
from dtwpt.nn.stem import WaveletStem

__all__ = ["blurred"]


def blurred(model: nn.Module, blur: int | str) -> nn.Module:
    """Return a copy of a ResNet or AlexNet of torchvision that blurs where it subsamples.

    Max pooling has stride 1, then blur and stride 2. In a residual block the strided convolution
    has stride 1, and the next one gets blurred and subsampled maps, as does the shortcut's. The
    first convolution, and a :class:`WaveletStem`, stay as they are.

    Parameters
    ----------
    model : torch.nn.Module
    blur : int or "adaptive"
        As in :class:`WaveletStem`.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    TypeError, ValueError
        If ``blur`` does not fit, or a pooling is not square.

    Notes
    -----
    R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3; X. Zou et
    al., "Delving Deeper into Anti-aliasing in ConvNets", BMVC 2020.

    Examples
    --------
    >>> from torch import nn
    >>> from dtwpt.nn.blurring import blurred
    >>> blurred(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1)), 3)[1].blur
    3
    """
    model = copy.deepcopy(model)
    channels = 0
    inside: set[int] = set()
    for name, module in list(model.named_modules()):
        if id(module) in inside:
            continue
        if isinstance(module, WaveletStem):
            inside |= {id(part) for part in module.modules()}
            channels = module.out_channels
        elif isinstance(module, nn.Conv2d):
            channels = module.out_channels
        elif isinstance(module, nn.MaxPool2d):
            kernel, padding = module.kernel_size, module.padding
            if not isinstance(kernel, int) or not isinstance(padding, int):
                raise ValueError(f"{name} is a pooling over {kernel}: its window must be square")
            model.set_submodule(
                name, blurred_max_pool(channels, kernel, padding, module.ceil_mode, blur)
            )
        elif hasattr(module, "downsample") and hasattr(module, "conv2"):
            _blur_block(module, blur)
    return model


def _blur_block(block: nn.Module, blur: int | str) -> None:
    # A basic block subsamples in its first convolution, a bottleneck in its second.
    for first, second in (("conv1", "conv2"), ("conv2", "conv3")):
        conv: Any = getattr(block, first)
        if conv.stride != (1, 1):
            conv.stride = (1, 1)
            follower = getattr(block, second)
            setattr(block, second, nn.Sequential(_blur(conv.out_channels, blur), follower))
            break
    shortcut = getattr(block, "downsample", None)
    if not isinstance(shortcut, nn.Sequential):
        return
    projection: Any = shortcut[0]
    if projection.stride != (1, 1):
        projection.stride = (1, 1)
        blurring = _blur(projection.in_channels, blur)
        block.downsample = nn.Sequential(blurring, *shortcut)


def _blur(channels: int, blur: int | str) -> nn.Module:
    if blur == "adaptive":
        return adaptive_blur(channels)
    return MaxBlurPool2d(1, 2, 0, blur=blur)  # type: ignore[arg-type]
