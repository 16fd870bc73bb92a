"""Poolings by name, for a number of channels and a stride."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any, TypeAlias

from torch import nn

from dtwpt.nn.pooling.adaptive import AdaptiveBlurPool2d
from dtwpt.nn.pooling.blur import BlurPool2d
from dtwpt.nn.pooling.learned import LearnedPolyphasePool2d
from dtwpt.nn.pooling.mixed import MixedPolyphasePool2d
from dtwpt.nn.pooling.polyphase import PolyphasePool2d
from dtwpt.nn.pooling.spectral import SpectralPool2d
from dtwpt.nn.pooling.wavelet import WaveletPool2d

__all__ = ["EXACT", "POOLS", "Pool", "make_pool"]

#: A name, or a function that makes a pooling of stride 2 for a number of channels.
Pool: TypeAlias = "str | Callable[[int], nn.Module]"

#: Names of the exact ones.
EXACT = ("aps", "lps")

# Of the published LPS on ImageNet: 8 of 64 to 64 of 512.
_HIDDEN = 8
_MOST_GROUPS = 8


def _adaptive(channels: int, stride: int, circular: bool) -> nn.Module:
    groups = next(g for g in range(_MOST_GROUPS, 0, -1) if channels % g == 0)
    mode = "periodic" if circular else "reflect"
    return AdaptiveBlurPool2d(channels, stride, groups=groups, mode=mode)


#: Poolings by name, from channels, stride and whether they pad circularly.
POOLS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "blur": lambda channels, stride, circular: BlurPool2d(
        stride, mode="periodic" if circular else "reflect"
    ),
    "aps": lambda channels, stride, circular: PolyphasePool2d(stride),
    "lps": lambda channels, stride, circular: LearnedPolyphasePool2d(
        channels, stride, hidden=max(channels // _HIDDEN, 1)
    ),
    "tips": lambda channels, stride, circular: MixedPolyphasePool2d(
        channels, stride, how="roll" if circular else "fill"
    ),
    "adaptive": _adaptive,
    "spectral": lambda channels, stride, circular: SpectralPool2d(stride),
    "wavelet": lambda channels, stride, circular: WaveletPool2d(
        stride=stride, mode="periodic" if circular else "symmetric"
    ),
    "average": lambda channels, stride, circular: nn.AvgPool2d(stride, ceil_mode=True),
}


def make_pool(pool: Pool, channels: int, stride: int, circular: bool) -> nn.Module:
    """Return a pooling.

    Parameters
    ----------
    pool : str or callable
    channels, stride : int
    circular : bool
        Whether a pooling that is named is padded circularly.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or the result is not a module or has another stride.
    """
    if isinstance(pool, str) and pool in POOLS:
        return POOLS[pool](channels, stride, circular)
    if isinstance(pool, str) or not callable(pool):
        raise ValueError(
            f"pool must be one of {', '.join(POOLS)} or a function that makes a layer for a number "
            f"of channels, got {pool!r}"
        )
    made = [pool(channels)]
    if not isinstance(made[0], nn.Module):
        raise TypeError(f"pool must make an nn.Module, got {type(made[0]).__name__}")
    own: Any = getattr(made[0], "stride", 2)
    own = own[0] if isinstance(own, tuple) else own
    times = round(log(stride, own)) if own > 1 else 0
    if own**times != stride or not times:
        raise ValueError(
            f"pool makes a layer of stride {own} where the network has stride {stride}"
        )
    made += [pool(channels) for _ in range(times - 1)]
    return made[0] if times == 1 else nn.Sequential(*made)
