"""Places where supported networks subsample, and where their poolings go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from dtwpt.nn.antialiased import AntialiasedStem
from dtwpt.nn.stem import WaveletStem

__all__ = ["Place", "find_places", "own_stem"]


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
        If the network is not supported, or subsamples in layers that are not.
    """
    found: list[Place] = []
    known = False
    for prefix, module in model.named_modules():
        family = next((k.__name__ for k in type(module).__mro__ if k.__name__ in _FAMILIES), None)
        if family is not None:
            known = True
            found += _FAMILIES[family](module, f"{prefix}." if prefix else "")
    names = {place.name for place in found}
    stem = own_stem(model)
    rest = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name not in names
        and not (stem and (name + ".").startswith(stem + "."))
        and _subsamples(module)
    ]
    if rest or not known:
        families = ", ".join(_FAMILIES)
        raise ValueError(
            f"{type(model).__name__} subsamples in layers that are not known: "
            f"{', '.join(rest) or 'none that was found'}; known are those of torchvision's and "
            f"timm's {families} (timm's MobileNetV2)"
        )
    return found


def own_stem(model: nn.Module) -> str | None:
    """Return the name of a first layer of this library."""
    kinds = WaveletStem, AntialiasedStem
    return next((name for name, m in model.named_modules() if isinstance(m, kinds)), None)


def _stride(module: Any) -> int:
    """Return the stride of a convolution or a pooling; 1 for any other module."""
    if not (isinstance(module, nn.Conv2d) or "Pool" in type(module).__name__):
        return 1
    stride = getattr(module, "stride", 1)
    return max(stride) if isinstance(stride, (tuple, list)) else stride


def _subsamples(module: nn.Module) -> bool:
    return _stride(module) > 1 or isinstance(module, nn.PixelUnshuffle)


def _replaceable(module: Any) -> bool:
    """Whether a module is a convolution or a pooling of torch with one stride above 1."""
    stride = getattr(module, "stride", 1)
    if _stride(module) == 1 or (isinstance(stride, (tuple, list)) and len(set(stride)) > 1):
        return False
    plain = type(module) in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    dilated = type(module) is nn.MaxPool2d and module.dilation not in (1, (1, 1))
    return (plain and not dilated) or type(module).__name__ == "BlurPool2d"


def _pooling(module: nn.Module, name: str, role: str, channels: int) -> Iterator[Place]:
    """Yield the place of a pooling, which may have a blur for its stride."""
    if isinstance(module, nn.Sequential) and len(module) == 2:
        window = module[0]
        if type(window) is nn.MaxPool2d and window.stride in (1, (1, 1)):
            yield from _pooling(module[1], f"{name}.1", role, channels)
    elif _replaceable(module) and not isinstance(module, nn.Conv2d):
        side = "after" if type(module) is nn.MaxPool2d else "instead"
        yield Place(name, role, _stride(module), channels, name, side)


def _resnet(model: Any, start: str) -> Iterator[Place]:
    conv = model.conv1
    channels = [m for m in conv.modules() if hasattr(m, "out_channels")][-1].out_channels
    if isinstance(conv, nn.Sequential):  # several convolutions
        convs = [name for name, module in conv.named_children() if isinstance(module, nn.Conv2d)]
        for name, following in pairwise(convs):
            yield from _conv(conv, name, f"{start}conv1.", "stem", following)
    elif _replaceable(conv):
        at, side = f"{start}maxpool", "before"
        yield Place(f"{start}conv1", "stem", _stride(conv), channels, at, side)
    yield from _pooling(model.maxpool, f"{start}maxpool", "stem pool", channels)
    if isinstance(model.maxpool, nn.Sequential):  # a convolution in its place
        yield from _conv(model.maxpool, "0", f"{start}maxpool.", "stem pool")
    for name, block in model.named_modules():
        if hasattr(block, "conv2") and hasattr(block, "downsample"):
            yield from _block(block, f"{start}{name}.")


def _conv(
    parent: nn.Module, name: str, start: str, role: str, following: str | None = None
) -> Iterator[Place]:
    """Yield the place of a convolution, with a pooling before the next one or else after it."""
    conv: Any = parent.get_submodule(name)
    if isinstance(conv, nn.Conv2d) and _replaceable(conv):
        at, side = (name, "after") if following is None else (following, "before")
        yield Place(start + name, role, _stride(conv), conv.out_channels, start + at, side)


def _block(block: Any, start: str) -> Iterator[Place]:
    # A basic block subsamples in its first convolution, a bottleneck in its second; or after it.
    leader = None
    for first, second in (("conv1", "conv2"), ("conv2", "conv3")):
        for place in _conv(block, first, start, "layer", second) if hasattr(block, second) else ():
            leader = place.name
            yield place
    blur = getattr(block, "aa", None)
    if leader is None and isinstance(blur, nn.Module) and _replaceable(blur):
        leader = f"{start}aa"
        last = block.conv3 if hasattr(block, "conv3") else block.conv2
        yield Place(leader, "layer", _stride(blur), last.in_channels, leader, "instead")
    if not isinstance(block.downsample, nn.Module):
        return
    for name, layer in block.downsample.named_children():
        if _replaceable(layer):
            full = f"{start}downsample.{name}"
            convs = [m for m in block.downsample.children() if isinstance(m, nn.Conv2d)]
            side = "before" if layer is convs[0] else "instead"
            channels = convs[0].in_channels
            yield Place(full, "shortcut", _stride(layer), channels, full, side, leader)


def _vgg(model: Any, start: str) -> Iterator[Place]:
    channels = 0
    for name, layer in model.features.named_children():
        channels = getattr(layer, "out_channels", channels)
        yield from _pooling(layer, f"{start}features.{name}", "layer", channels)


def _mobilenet(model: Any, start: str) -> Iterator[Place]:
    convs = [(n, m) for n, m in model.features.named_modules() if isinstance(m, nn.Conv2d)]
    # A shortcut starts from the input of a block, before any pooling of its first layer.
    plain = not getattr(model.features[1], "use_res_connect", True)
    for number, ((name, _), (following, _)) in enumerate(pairwise(convs)):
        first = number == 0
        yield from _conv(
            model.features,
            name,
            f"{start}features.",
            "stem" if first else "layer",
            following if plain or not first else None,
        )


def _efficientnet(model: Any, start: str) -> Iterator[Place]:
    if not hasattr(model, "conv_stem"):
        return
    block = model.blocks[0][0]
    plain = not getattr(block, "has_skip", True)
    name = next(name for name, module in block.named_modules() if isinstance(module, nn.Conv2d))
    yield from _conv(model, "conv_stem", start, "stem", f"blocks.0.0.{name}" if plain else None)
    for name, block in model.blocks.named_modules():
        blur = getattr(block, "aa", None)
        if not isinstance(blur, nn.Module):
            continue
        where = f"{start}blocks.{name}."
        children = list(block.named_children())
        strided = [(child, layer) for child, layer in children if _replaceable(layer)]
        last = [layer for _, layer in children if isinstance(layer, nn.Conv2d)][-1]
        for child, layer in strided if len(strided) == 1 else ():
            at, channels = f"{where}aa", last.in_channels
            yield Place(where + child, "layer", _stride(layer), channels, at, "instead")


def _densenet(model: Any, start: str) -> Iterator[Place]:
    start = f"{start}features."
    convs = [n for n, m in model.features.named_children() if isinstance(m, nn.Conv2d)]
    following = convs[1] if len(convs) > 1 else "pool0"
    yield from _conv(model.features, convs[0], start, "stem", following)
    channels = model.features.get_submodule(convs[-1]).out_channels
    yield from _pooling(model.features.pool0, f"{start}pool0", "stem pool", channels)
    for name, layer in model.features.named_children():
        if hasattr(layer, "pool") and isinstance(layer.conv, nn.Conv2d):
            yield from _pooling(layer.pool, f"{start}{name}.pool", "layer", layer.conv.out_channels)


def _convnext(model: Any, start: str) -> Iterator[Place]:
    # Patches are embedded by a linear layer, with no activation after it.
    for name, module in model.named_modules():
        first = name.startswith(("stem.", "features.0."))
        within = first or "downsample" in name or name.count(".") == 2
        if within and isinstance(module, nn.Conv2d):
            yield from _conv(model, name, start, "stem" if first else "layer")


_FAMILIES: dict[str, Callable[[Any, str], Iterator[Place]]] = {
    "ResNet": _resnet,
    "VGG": _vgg,
    "MobileNetV2": _mobilenet,
    "EfficientNet": _efficientnet,
    "DenseNet": _densenet,
    "ConvNeXt": _convnext,
}
