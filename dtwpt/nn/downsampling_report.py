"""Report on where a network subsamples, and on obstacles to exactness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from dtwpt.nn.downsampling_layers import PooledConv2d, PooledMax2d
from dtwpt.nn.downsampling_places import own_stem
from dtwpt.nn.pooling.polyphase import Polyphase

__all__ = ["DownsamplingReport", "ReplacedPlace", "obstacles"]


@dataclass(frozen=True)
class ReplacedPlace:
    """What :func:`replace_downsampling` did in one place.

    Attributes
    ----------
    name : str
        Dotted name of the layer that subsampled.
    role : {"stem", "stem pool", "layer", "shortcut"}
        Where it is.
    stride : int
        Its stride.
    now : str
        Class of the layer that subsamples now, or "kept".
    leader : str or None
        For a shortcut: the layer of the main branch whose phase it shares.
    """

    name: str
    role: str
    stride: int
    now: str
    leader: str | None = None


@dataclass(frozen=True)
class DownsamplingReport:
    """Places where a network subsamples, as :func:`replace_downsampling` left them.

    Attributes
    ----------
    places : tuple of ReplacedPlace
        In the order of the layers.
    obstacles : tuple of str
        Reasons why the network is not exact in evaluation, under circular shifts of images whose
        sides are multiples of the product of the strides.
    """

    places: tuple[ReplacedPlace, ...]
    obstacles: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether circular shifts of an image leave the output unchanged, up to rounding."""
        return not self.obstacles

    def __iter__(self) -> Iterator[ReplacedPlace]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __str__(self) -> str:
        width = max((len(place.name) for place in self.places), default=0)
        return "\n".join(
            f"{place.name:<{width}}  {place.role:<9}  stride {place.stride}  {place.now}"
            + (f", phase of {place.leader}" if place.leader else "")
            for place in self.places
        )


def obstacles(model: nn.Module, places: Iterable[ReplacedPlace]) -> tuple[str, ...]:
    """Return sentences on why a network is not exact."""
    found = []
    kept = [place.name for place in places if place.now == "kept"]
    if kept:
        found.append(f"{', '.join(kept)} subsample as before")
    stem = own_stem(model)
    inexact: set[str] = set()
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in inside or name in kept:
            continue
        if name == stem:
            found.append(f"{stem} subsamples at fixed pixels")
            inside |= {id(part) for part in module.modules()}
            continue
        for pool in (getattr(module, "before", None), getattr(module, "after", None)):
            if isinstance(pool, nn.Module):
                inside |= {id(part) for part in pool.modules()}
                inexact |= set() if _exact(pool) else {type(pool).__name__}
        trouble = _trouble(module)
        if trouble:
            found.append(f"{name} {trouble}")
    found += [f"{kind} is not exact" for kind in sorted(inexact)]
    return tuple(found)


def _exact(pool: nn.Module) -> bool:
    phases = [module for module in pool.modules() if isinstance(module, Polyphase)]
    return bool(phases) and all(m.blur == 1 or m.mode == "periodic" for m in phases)


def _trouble(module: nn.Module) -> str | None:
    """Return why a layer does not commute with circular shifts."""
    single = 1, (1, 1)
    if isinstance(module, nn.Conv2d) and module.kernel_size not in single:
        around = isinstance(module, PooledConv2d) and module.around is not None
        if not around and module.padding_mode != "circular":
            return (
                f"is padded with {module.padding_mode}" if any(module.padding) else "is not padded"
            )
    if isinstance(module, (PooledMax2d, nn.MaxPool2d)) and module.kernel_size not in single:
        return None if getattr(module, "circular", False) else "is not padded circularly"
    pooling = isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
    if pooling and module.output_size not in single:
        return f"keeps {module.output_size} positions, which are distinguished"
    return None
