"""Put a pooling that is stable under shifts wherever a network subsamples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from dtwpt.checks import as_pair
from dtwpt.nn.downsampling_layers import (
    FollowingPool2d,
    LeadingPool2d,
    PhaseLink,
    PooledConv2d,
    PooledMax2d,
)
from dtwpt.nn.downsampling_places import Place, find_places
from dtwpt.nn.downsampling_pools import EXACT, Pool, make_pool
from dtwpt.nn.locate import copied, refuse_wrapper
from dtwpt.nn.pooling.polyphase import Polyphase

__all__ = ["DownsamplingReport", "ReplacedPlace", "replace_downsampling"]

Model = TypeVar("Model", bound=nn.Module)

_STEMS = ("keep", "pool", "full", "cmod")


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
        What subsamples now: the class of the pooling, or "kept".
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
    """

    places: tuple[ReplacedPlace, ...]

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


def replace_downsampling(
    model: Model,
    pool: Pool,
    *,
    stem: str | None = None,
    padding: str = "keep",
    max_kernel: int | None = None,
    inplace: bool = False,
) -> tuple[Model, DownsamplingReport]:
    """Put a pooling that is stable under shifts wherever a network subsamples.

    A strided convolution gets stride 1, and the next one pooled maps; max pooling gets stride 1 and
    is followed by the pooling; average pooling is replaced. In a residual block a polyphase pooling
    chooses one phase for both branches.

    Parameters
    ----------
    model : torch.nn.Module
        A ResNet or ResNeXt of torchvision or timm, or a network that contains one.
    pool : {"blur", "aps"} or callable
        Which pooling, or a function that makes one of stride 2 for a number of channels.
    stem : {"keep", "pool", "full", "cmod"}, optional
        The first layer: "keep" leaves it as it is; "pool" replaces its pooling and keeps its
        strided convolution, "full" both. Default: that of the publication, "full" for "aps",
        "pool" for the others.
    padding : {"keep", "circular"}
        "circular": pad all convolutions and windows of maxima circularly, as exactness needs.
    max_kernel : int, optional
        Window of the maxima instead of the network's; 2 as in the published forms.
    inplace : bool, default: False
        Change ``model`` itself, not a copy.

    Returns
    -------
    model : torch.nn.Module
        The network, whose state dict has the names of the original's.
    report : DownsamplingReport
        Every place where it subsamples.

    Raises
    ------
    TypeError, ValueError
        If the network is not known, which names its layers, or an argument does not fit.

    Examples
    --------
    >>> from torch import nn
    >>> from dtwpt.nn import replace_downsampling
    >>> class ResNet(nn.Sequential):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
    ...         self.bn1 = nn.BatchNorm2d(8)
    ...         self.maxpool = nn.MaxPool2d(3, 2, 1)
    >>> model, report = replace_downsampling(ResNet(), "aps", padding="circular")
    >>> print(report)
    conv1    stem       stride 2  PolyphasePool2d
    maxpool  stem pool  stride 2  PolyphasePool2d
    """
    if stem is None:
        stem = "full" if pool in EXACT else "pool"
    if stem not in _STEMS:
        raise ValueError(f"stem must be one of {', '.join(_STEMS)}, got {stem!r}")
    if padding not in ("keep", "circular"):
        raise ValueError(f'padding must be "keep" or "circular", got {padding!r}')
    if stem == "cmod":
        raise NotImplementedError('stem="cmod" is not there yet')
    refuse_wrapper(model)
    places = find_places(model)
    if not inplace:
        model = copied(model)
    circular = padding == "circular"
    kept = {"keep": ("stem", "stem pool"), "pool": ("stem",), "full": ()}[stem]
    _prepare(model, places, kept, circular, max_kernel)
    done = []
    leaders: dict[str, tuple[Polyphase, PhaseLink]] = {}
    for place in places:
        if place.role in kept:
            now = "kept"
        else:
            layer = make_pool(pool, place.channels, place.stride, circular)
            now = type(layer).__name__
            if isinstance(layer, Polyphase):
                if place.leader in leaders:
                    layer = FollowingPool2d(*leaders[place.leader])
                elif any(other.leader == place.name for other in places):
                    leaders[place.name] = layer, PhaseLink()
                    layer = LeadingPool2d(*leaders[place.name])
            _put(model, place, layer)
        shared = place.leader if place.leader in leaders and now != "kept" else None
        done.append(ReplacedPlace(place.name, place.role, place.stride, now, shared))
    return model, DownsamplingReport(tuple(done))


def _prepare(
    model: nn.Module,
    places: list[Place],
    kept: tuple[str, ...],
    circular: bool,
    max_kernel: int | None,
) -> None:
    """Put layers of stride 1, and with circular padding, in the place of those that change."""
    gone = {place.name: place for place in places if place.role not in kept}
    holders = gone.keys() | {place.at for place in gone.values()}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and (
            name in holders or (circular and any(module.padding))
        ):
            conv = PooledConv2d.of(module)
            if name in gone:
                conv.stride = (1, 1)
            if circular:
                conv.make_circular()
            model.set_submodule(name, conv)
        elif isinstance(module, nn.MaxPool2d) and name in holders:
            kernel = as_pair(max_kernel or module.kernel_size, "max_kernel")
            rows, columns = as_pair(module.padding, "padding", 0)
            within = (min(rows, (kernel[0] - 1) // 2), min(columns, (kernel[1] - 1) // 2))
            model.set_submodule(name, PooledMax2d(kernel, within, circular))


def _put(model: nn.Module, place: Place, layer: nn.Module) -> None:
    holder: Any = model.get_submodule(place.at)
    if place.side == "instead" or isinstance(holder, nn.Identity):
        model.set_submodule(place.at, layer)
    else:
        setattr(holder, place.side, layer)
