"""Poolings by name, for a number of channels and a stride."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any, TypeAlias

from torch import nn

from dtwpt.nn.pooling.blur import BlurPool2d
from dtwpt.nn.pooling.polyphase import PolyphasePool2d

__all__ = ["EXACT", "POOLS", "Pool", "make_pool"]

#: A name, or a function that makes a pooling of stride 2 for a number of channels.
Pool: TypeAlias = "str | Callable[[int], nn.Module]"

#: Poolings by name: channels, stride and padding mode to layer.
POOLS: dict[str, Callable[[int, int, str | None], nn.Module]] = {
    "blur": lambda channels, stride, mode: BlurPool2d(stride, mode=mode or "reflect"),
    "aps": lambda channels, stride, mode: PolyphasePool2d(stride),
}

#: Names of the exact ones.
EXACT = ("aps", "lps")


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
        If there is none of that name, or what is made is no module or has another stride.
    """
    if isinstance(pool, str):
        if pool not in POOLS:
            raise ValueError(
                f"pool must be one of {', '.join(POOLS)} or a function that makes a layer for a "
                f"number of channels, got {pool!r}"
            )
        return POOLS[pool](channels, stride, "periodic" if circular else None)
    made = [pool(channels)]
    own: Any = getattr(made[0], "stride", stride)
    if own not in (stride, (stride, stride)):
        times = round(log(stride, own)) if isinstance(own, int) and own > 1 else 0
        if not times or own**times != stride:
            raise ValueError(
                f"pool makes a layer of stride {own} where the network has stride {stride}"
            )
        made += [pool(channels) for _ in range(times - 1)]
    if not all(isinstance(layer, nn.Module) for layer in made):
        raise TypeError(f"pool must make an nn.Module, got {type(made[0]).__name__}")
    return made[0] if len(made) == 1 else nn.Sequential(*made)
