"""Blur in the max pooling of a stem, by a fixed or by a predicted filter."""

from __future__ import annotations

from torch import nn

from dtwpt.nn.pooling.adaptive import AdaptiveBlurPool2d
from dtwpt.nn.pooling.max_blur import MaxBlurPool2d

__all__ = ["adaptive_blur", "blurred_max_pool"]

_GROUPS = 8


def adaptive_blur(channels: int) -> AdaptiveBlurPool2d:
    """Return an adaptive blur of stride 2 with the paper's groups: up to 8, of 8 channels or more.

    Examples
    --------
    >>> from dtwpt.nn.adaptive import adaptive_blur
    >>> adaptive_blur(16).groups
    2
    """
    groups = max(
        g for g in range(1, _GROUPS + 1) if (channels % g == 0 and channels >= 8 * g) or g == 1
    )
    return AdaptiveBlurPool2d(channels, groups=groups)


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
    return nn.Sequential(nn.MaxPool2d(kernel, 1, padding), adaptive_blur(channels))
