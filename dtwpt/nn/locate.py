"""Where a network's first layer is: convolution, normalisation, activation, pooling."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Stem", "find_stem"]

# Names of conv, norm, act and pool beside one another, in the networks that are recognised.
_LAYOUTS: tuple[tuple[str, str | None, str, str], ...] = (
    ("conv1", "bn1", "relu", "maxpool"),  # torchvision
    ("conv1", "bn1", "act1", "maxpool"),  # timm
    ("embedder.convolution", "embedder.normalization", "embedder.activation", "pooler"),
    ("conv0", "norm0", "relu0", "pool0"),  # torchvision's DenseNet
    ("0", None, "1", "2"),  # AlexNet
)
_HOW_TO_NAME = (
    'name its modules: conv="backbone.conv1", norm="backbone.bn1", act="backbone.relu", '
    'pool="backbone.maxpool" (leave out what it does not have)'
)
# Modules around a network, which keep to themselves what its parameters were.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


@dataclass(frozen=True)
class Stem:
    """The first layer of ``model``: dotted names of its modules, None where there is none."""

    model: nn.Module
    conv: str
    norm: str | None = None
    act: str | None = None
    pool: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modules that there are, in the order in which they are applied."""
        return tuple(name for name in (self.conv, self.norm, self.act, self.pool) if name)

    def module(self, name: str | None) -> nn.Module | None:
        """Return the module of that name."""
        return None if name is None else self.model.get_submodule(name)

    @property
    def convolution(self) -> nn.Conv2d:
        """The convolution, or the first of several; its ``in_channels`` are the stem's."""
        for module in self.model.get_submodule(self.conv).modules():
            if isinstance(module, nn.Conv2d):
                return module
        raise ValueError(
            f"{self.conv} has no nn.Conv2d: it is a "
            f"{type(self.model.get_submodule(self.conv)).__name__}"
        )

    def output_shapes(self, sizes: Iterable[int]) -> Iterator[tuple[int, int, int] | None]:
        """Yield channels, rows and columns for square images of each size.

        None where the stem takes no image of that size. Nothing is computed but shapes.
        """
        conv = self.convolution
        modules = [self.model.get_submodule(name) for name in self.names]
        stem = copy.deepcopy(nn.Sequential(*modules)).to("meta").eval()
        for size in sizes:
            image = torch.empty(
                1, conv.in_channels, size, size, dtype=conv.weight.dtype, device="meta"
            )
            try:
                with torch.no_grad():
                    channels, rows, columns = stem(image).shape[1:]
            except RuntimeError:  # smaller than a window
                yield None
            else:
                yield channels, rows, columns

    def put(self, module: nn.Module) -> None:
        """Put a module where the convolution is, and nothing where the others are."""
        for name in self.names:
            put(self.model, name, module if name == self.conv else nn.Identity())


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where the one of that name is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def find_stem(
    model: nn.Module,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
) -> Stem:
    """Find the first layer of a network.

    Recognised by the names and kinds of their modules are ResNets and AlexNet as torchvision, timm
    and transformers build them, also within another module, and what is built alike.

    Parameters
    ----------
    model : torch.nn.Module
    conv, norm, act, pool : str, optional
        Dotted names of the modules, for any other network.

    Raises
    ------
    TypeError, ValueError
        If no stem, or more than one, is recognised; if a name is not that of a module; or if model
        is a wrapper for several devices or a compiled network.
    """
    refuse_wrapper(model)
    given = {"conv": conv, "norm": norm, "act": act, "pool": pool}
    if conv is not None:
        for role, name in given.items():
            if name is not None:
                _check_name(model, role, name)
        names = [name for name in given.values() if name is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"conv, norm, act and pool must be different modules, got {names}")
        stem = Stem(model, conv, norm, act, pool)
        _ = stem.convolution
        return stem
    named = [role for role, name in given.items() if name is not None]
    if named:
        raise ValueError(f"conv must be named, too, where {' and '.join(named)} is")
    found = list(_recognised(model))
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(", ".join(stem.names) for stem in found[:4])
        raise ValueError(
            f"{type(model).__name__} has {len(found)} stems that look alike ({listed}); "
            f"{_HOW_TO_NAME}"
        )
    looked_for = "; ".join(", ".join(filter(None, layout)) for layout in _LAYOUTS)
    leaves = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    raise ValueError(
        f"no stem was recognised in {type(model).__name__}: looked for modules {looked_for}, the "
        f"first a convolution; its first modules are {', '.join(leaves[:5]) or 'none'}. For "
        f"another network, {_HOW_TO_NAME}"
    )


def refuse_wrapper(model: nn.Module) -> None:
    """Raise an error if a network is wrapped for several devices, compiled or scripted."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for kind in type(model).__mro__:
        inside = _WRAPPERS.get(kind.__name__)
        if inside is not None and hasattr(model, inside):
            raise ValueError(
                f"model is wrapped in {kind.__name__}, which keeps to itself what it was made of: "
                f"change model.{inside}, then wrap or compile it again"
            )
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model is a ScriptModule: change the network that it was made of")


def _recognised(model: nn.Module) -> Iterator[Stem]:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    for prefix, parent in model.named_modules():
        for layout in _LAYOUTS:
            # Numbers are no names: further on they may be of any block.
            if _fits(parent, layout) and (layout[0] != "0" or _submodule(parent, "0") is first):
                conv, norm, act, pool = (
                    name and (f"{prefix}.{name}" if prefix else name) for name in layout
                )
                yield Stem(model, conv or "", norm, act, pool)


def _fits(parent: nn.Module, layout: tuple[str | None, ...]) -> bool:
    conv, norm, act, pool = (name and _submodule(parent, name) for name in layout)
    if layout[0] == "0":  # look at the kinds
        return (
            isinstance(parent, nn.Sequential)
            and isinstance(conv, nn.Conv2d)
            and type(act).__module__ == "torch.nn.modules.activation"
            and isinstance(pool, nn.MaxPool2d)
        )
    found = None not in (conv, norm, act, pool)
    return found and _begins_with_convolution(conv)


def _begins_with_convolution(module: Any) -> bool:
    leaf = next(m for m in module.modules() if not any(True for _ in m.children()))
    return isinstance(leaf, nn.Conv2d)


def _check_name(model: nn.Module, role: str, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{role} must be the name of a module, got {type(name).__name__}")
    if not name or _submodule(model, name) is None:
        children = ", ".join(child for child, _ in model.named_children())
        raise ValueError(
            f"{role}={name!r} is no module of {type(model).__name__}, whose own are {children}"
        )


def _submodule(parent: nn.Module, name: str) -> nn.Module | None:
    try:
        return parent.get_submodule(name)
    except AttributeError:
        return None
