"""Places where known networks subsample, and where a pooling goes in their stead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Place", "find_places"]


@dataclass(frozen=True)
class Place:
    """One subsampling of a network.

    Parameters
    ----------
    name : str
        Dotted name of the layer that subsamples.
    role : {"stem", "stem pool", "layer", "shortcut"}
    stride, channels : int
        Of the pooling that replaces it.
    at : str
        Name of the layer that gets the pooling.
    side : {"before", "after", "instead"}
        Of that layer.
    leader : str, optional
        Name of the place in the main branch whose phase a shortcut shares.
    """

    name: str
    role: str
    stride: int
    channels: int
    at: str
    side: str
    leader: str | None = None


def find_places(model: nn.Module) -> list[Place]:
    """Return where a network subsamples, in the order of its layers.

    Raises
    ------
    ValueError
        If the network is none of the known ones, or subsamples in layers that are not known.
    """
    found: list[Place] = []
    known = False
    for prefix, module in model.named_modules():
        for kind in type(module).__mro__:
            if kind.__name__ in _FAMILIES:
                known = True
                start = f"{prefix}." if prefix else ""
                found += _FAMILIES[kind.__name__](module, start)
                break
    names = {place.name for place in found}
    rest = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name not in names and _subsamples(module)
    ]
    if rest or not known:
        raise ValueError(
            f"replace_downsampling does not know the layers of {type(model).__name__} that "
            f"subsample: {', '.join(rest) or 'none was found'}"
        )
    return found


def stride_of(module: Any) -> int:
    """Return the stride of a layer, 1 if it has none."""
    stride = getattr(module, "stride", 1)
    if isinstance(stride, (tuple, list)):
        if len(set(stride)) > 1:
            raise ValueError(f"{module} has two strides: a pooling has one")
        stride = stride[0]
    return int(stride)


def _subsamples(module: nn.Module) -> bool:
    kind = type(module).__name__
    if isinstance(module, nn.Conv2d) or "Pool" in kind:
        stride = getattr(module, "stride", 1)
        return max(stride) > 1 if isinstance(stride, (tuple, list)) else stride > 1
    return False


def _resnet(model: Any, start: str) -> Iterator[Place]:
    conv, pool = model.conv1, model.maxpool
    channels = model.bn1.num_features
    if stride_of(conv) > 1:
        yield Place(start + "conv1", "stem", stride_of(conv), channels, start + "maxpool", "before")
    if not isinstance(pool, nn.Identity):
        yield Place(
            start + "maxpool", "stem pool", stride_of(pool), channels, start + "maxpool", "after"
        )
    for name, block in model.named_modules():
        if hasattr(block, "conv2") and hasattr(block, "downsample"):
            yield from _block(block, f"{start}{name}.")


def _block(block: Any, start: str) -> Iterator[Place]:
    # A basic block subsamples in its first convolution, a bottleneck in its second.
    leader = None
    for first, second in (("conv1", "conv2"), ("conv2", "conv3")):
        conv = getattr(block, first)
        if stride_of(conv) > 1:
            leader = start + first
            channels = conv.out_channels
            yield Place(leader, "layer", stride_of(conv), channels, start + second, "before")
            break
    if block.downsample is None:
        return
    for name, layer in block.downsample.named_children():
        if isinstance(layer, (nn.Conv2d, nn.AvgPool2d)) and stride_of(layer) > 1:
            full = f"{start}downsample.{name}"
            if isinstance(layer, nn.Conv2d):
                channels, side = layer.in_channels, "before"
            else:
                channels, side = block.downsample[1].in_channels, "instead"
            yield Place(full, "shortcut", stride_of(layer), channels, full, side, leader)


_FAMILIES: dict[str, Callable[[Any, str], Iterator[Place]]] = {"ResNet": _resnet}
