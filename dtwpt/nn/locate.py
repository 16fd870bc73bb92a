"""Stem of a network: its first convolution, normalisation, activation and pooling."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dtwpt.nn.probe import WRAPPERS, shape_only
from dtwpt.nn.replaceable import check_replaceable

__all__ = ["Stem", "copied", "find_stem", "put", "refuse_wrapper", "set_reduction"]

Model = TypeVar("Model", bound=nn.Module)

_HOW_TO_NAME = (
    'name its modules: conv="backbone.conv1", norm="backbone.bn1", act="backbone.relu", '
    'pool="backbone.maxpool" (leave out what it does not have)'
)
# Maximum number of convolutions in a stem: HGNet's has five.
_MOST_CONVOLUTIONS = 6


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
        """Names of the existing modules, in the order in which they are applied."""
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

    @property
    def reference(self) -> Tensor:
        """A parameter that has the device and the floating-point dtype of the stem."""
        parameters = self.model.get_submodule(self.conv).parameters()
        return next((p for p in parameters if p.is_floating_point()), torch.empty(0))

    def output_shapes(self, sizes: Iterable[int]) -> list[tuple[int, int, int] | None]:
        """Return channels, rows and columns for square images of each size.

        None where the stem accepts no image of that size. Only shapes are computed.

        Raises
        ------
        ValueError
            If the stem's output is not maps (N, C, H, W).
        """
        stem = nn.Sequential(*[self.model.get_submodule(name) for name in self.names])
        channels, dtype = self.convolution.in_channels, self.reference.dtype
        shapes: list[tuple[int, int, int] | None] = []
        with torch.no_grad(), torch.device("meta"):
            twin = shape_only(stem)
            for size in sizes:
                try:
                    out = twin(torch.empty(1, channels, size, size, dtype=dtype, device="meta"))
                except Exception:  # smaller than a window, which may raise anything
                    shapes.append(None)
                    continue
                if not isinstance(out, Tensor) or out.ndim != 4:
                    given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                    raise ValueError(
                        f"{', '.join(self.names)} must give maps (N, C, H, W), got {given}"
                    )
                shapes.append((out.shape[1], out.shape[2], out.shape[3]))
        return shapes

    def strides(self) -> tuple[float, float]:
        """Return how many pixels of the image, down and across, make one of the output.

        Raises
        ------
        ValueError
            If the stem takes no image of 224 pixels, or gives no maps (N, C, H, W).
        """
        near, far = self.output_shapes((224, 320))
        if near is None or far is None:
            raise ValueError(f"the stem {', '.join(self.names)} takes no image of 224 pixels")
        down, across = ((320 - 224) / max(far[k] - near[k], 1e-9) for k in (1, 2))
        return down, across

    def put(self, module: nn.Module) -> None:
        """Replace the convolution by a module, and the others by Identity."""
        parents = list(self.model.modules())  # the new module may contain those that it replaces
        for name in self.names:
            _put(parents, self.module(name), module if name == self.conv else nn.Identity())


def set_reduction(model: nn.Module, names: Collection[str], pixels: int) -> None:
    """Set how many pixels of the image make one in the maps of some modules.

    In the tables of timm's networks (``feature_info``), which ``forward_intermediates`` uses.
    """
    for prefix, module in model.named_modules():
        table = getattr(module, "feature_info", None)
        for entry in table if isinstance(table, list) else ():
            name = entry.get("module") if isinstance(entry, dict) else None
            if (f"{prefix}.{name}" if prefix else name) in names:
                entry["reduction"] = pixels


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of that name by another, under all of its names."""
    _put(list(model.modules()), model.get_submodule(name), module)


def _put(parents: list[nn.Module], old: nn.Module | None, new: nn.Module) -> None:
    for parent in parents:
        # Not named_children: it leaves out further names of one module.
        for child, present in list(parent._modules.items()):
            if present is old and old is not None:
                parent.add_module(child, new)


def copied(model: Model) -> Model:
    """Return a deep copy of a network, even if a hook computes a weight (pruning)."""
    computed = {
        id(value): value.detach()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed)


def find_stem(
    model: nn.Module,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
    *,
    replaceable: bool = True,
) -> Stem:
    """Find the first layer of a network.

    It recognises a first convolution followed by a pooling, in the order in which the modules are
    defined, with at most a normalisation and an activation between them; or several convolutions in
    a module of their own. The first convolution is the one that timm names
    (``default_cfg["first_conv"]``), or else the first that is defined.

    Parameters
    ----------
    model : torch.nn.Module
    conv, norm, act, pool : str, optional
        Dotted names of the modules, for any other network.
    replaceable : bool, default: True
        Check that the stem can be replaced: see :func:`check_replaceable`.

    Raises
    ------
    TypeError, ValueError
        If no stem, or more than one, is recognised; if a name is not that of a module; if model
        is a wrapper for several devices or a compiled network; or if the stem is not replaceable.
    """
    refuse_wrapper(model)
    given = {"conv": conv, "norm": norm, "act": act, "pool": pool}
    if conv is None:
        named = [role for role, name in given.items() if name is not None]
        if named:
            raise ValueError(f"conv must be named, too, if {' and '.join(named)} is")
        return _checked(_recognised(model), replaceable)
    for role, name in given.items():
        if name is not None:
            _check_name(model, role, name)
    stem = Stem(model, conv, norm, act, pool)
    for first in stem.names:
        if sum((name + ".").startswith(first + ".") for name in stem.names) > 1:
            raise ValueError(
                f"conv, norm, act and pool must be different modules, none within another, got "
                f"{list(stem.names)}"
            )
    return _checked(stem, replaceable)


def _checked(stem: Stem, replaceable: bool) -> Stem:
    if any(map(nn.parameter.is_lazy, stem.convolution.parameters())):
        raise ValueError(f"{stem.conv} is lazy: run the network on an image once, then change it")
    if replaceable:
        check_replaceable(stem)
    return stem


def refuse_wrapper(model: nn.Module) -> None:
    """Raise an error if a network is wrapped for several devices, sharded, compiled or scripted."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for kind in type(model).__mro__:
        inside = WRAPPERS.get(kind.__name__)
        if inside is not None and hasattr(model, inside):
            raise ValueError(
                f"model is wrapped in {kind.__name__}, which keeps references to its parts: "
                f"change model.{inside}, then wrap or compile it again"
            )
        if kind.__name__ == "FSDPModule":
            raise ValueError("model is sharded by fully_shard: change it before it is sharded")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model is a ScriptModule: change the network that it was made of")


class _Unit(NamedTuple):
    """A module that the search does not enter, and its role in a stem."""

    name: str
    kind: str  # conv, norm, act, pool, none (does nothing in evaluation), ours or other


def _recognised(model: nn.Module) -> Stem:
    units = list(_units(model))
    starts = _starts(model, units)
    if not starts:
        raise _unknown(model, units, "it has no nn.Conv2d")
    found: list[Stem] = []
    reasons: list[str] = []
    for start in starts:
        stem = _from_first_convolution(model, units, start)
        if isinstance(stem, str):
            reasons.append(stem)
        else:
            found.append(stem)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(", ".join(stem.names) for stem in found[:4])
        raise ValueError(
            f"{type(model).__name__} has {len(found)} stems that look alike ({listed}); "
            f"{_HOW_TO_NAME}"
        )
    raise _unknown(model, units, reasons[0])


def _unknown(model: nn.Module, units: list[_Unit], reason: str) -> ValueError:
    first = ", ".join(
        f"{name} ({type(model.get_submodule(name)).__name__})" for name, _ in units[:5]
    )
    return ValueError(
        f"no stem was recognised in {type(model).__name__}: {reason}. Its first modules are "
        f"{first or 'none'}. For another network, {_HOW_TO_NAME}"
    )


def _units(module: nn.Module, prefix: str = "", seen: set[int] | None = None) -> Iterator[_Unit]:
    """Yield the units within a module, in the order in which they are defined."""
    seen = set() if seen is None else seen
    for child_name, child in module.named_children():
        if id(child) in seen:
            continue
        seen.add(id(child))
        name = prefix + child_name
        kind = _kind(child_name, child)
        if kind is not None:
            yield _Unit(name, kind)
        elif any(True for _ in child.children()):
            yield from _units(child, name + ".", seen)
        else:
            yield _Unit(name, "other")


def _kind(name: str, module: nn.Module) -> str | None:
    """Return the role of a module in a stem, or None if the search must enter it."""
    kind, home = type(module).__name__, type(module).__module__
    empty = isinstance(module, nn.Sequential) and not len(module)
    conditions = {
        "ours": home.startswith("dtwpt.") and "Pool" not in kind,
        "conv": isinstance(module, nn.Conv2d),
        "none": empty or isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)),
        "pool": "Adaptive" not in kind and ("Pool" in kind or "pool" in name.lower()),
        "norm": "Norm" in kind and "Conv" not in kind,
        "act": home.rpartition(".")[2].startswith("activation"),
    }
    return next((known for known, holds in conditions.items() if holds), None)


def _starts(model: nn.Module, units: list[_Unit]) -> list[int]:
    """Return names of first convolutions: those that timm lists, or the first and similar ones."""
    convolutions = {unit.name: k for k, unit in enumerate(units) if unit.kind == "conv"}
    named = []
    for prefix, module in model.named_modules():
        config = getattr(module, "default_cfg", None)
        known = config.get("first_conv") if isinstance(config, dict) else None
        for name in [known] if isinstance(known, str) else known or ():
            full = f"{prefix}.{name}" if prefix else name
            named += [convolutions[full]] if full in convolutions else []
    if named or not convolutions:
        return named

    def geometry(name: str) -> tuple[Any, ...]:
        conv = model.get_submodule(name)
        return conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride

    first = geometry(next(iter(convolutions)))
    return [k for name, k in convolutions.items() if geometry(name) == first]


def _from_first_convolution(model: nn.Module, units: list[_Unit], start: int) -> Stem | str:
    """Return the stem that begins with a convolution, or the reason why there is none."""
    conv = units[start].name
    first = f"its first convolution, {conv}, of stride {model.get_submodule(conv).stride}"
    for k, unit in enumerate(units):
        if unit.kind == "ours":
            return f"{unit.name} is a {type(model.get_submodule(unit.name)).__name__} already"
        if k > start and unit.kind == "pool":
            chain = [unit for unit in units[start : k + 1] if unit.kind != "none"]
            break
    else:
        return _deep_without_pooling(model, units, conv) or f"no pooling comes after {first}"
    pool = _whole_pooling(units, chain[-1].name)
    # The convolution itself, or the smallest module that holds all but one of each kind.
    place = conv
    while place:
        inside = [unit for unit in units if _within(unit.name, place) and unit.kind != "none"]
        convolutions = sum(unit.kind == "conv" for unit in inside)
        if not set(inside) <= set(chain) or convolutions > _MOST_CONVOLUTIONS:
            break
        called = not isinstance(model.get_submodule(place), (nn.ModuleDict, nn.ModuleList))
        rest = {unit.kind: unit.name for unit in chain if unit not in inside}
        alone = len(rest) == len(chain) - len(inside)
        if called and alone and not rest.keys() - {"norm", "act", "pool"}:
            return Stem(
                model,
                place,
                rest.get("norm"),
                rest.get("act"),
                pool if "pool" in rest else None,
            )
        place = place.rpartition(".")[0]
    between = [unit.name for unit in chain[1:-1]]
    return _deep_without_pooling(model, units, conv) or (
        f"{', '.join(between[:4])}{' and more' if len(between) > 4 else ''} lie between {first}, "
        f"and its first pooling, {chain[-1].name}, and no module holds just these"
    )


def _whole_pooling(units: list[_Unit], pool: str) -> str:
    """Return the largest module around a pooling that holds nothing else (a blur after it)."""
    parent = pool.rpartition(".")[0]
    while parent and all(
        unit.kind in ("pool", "none", "other") for unit in units if _within(unit.name, parent)
    ):
        pool, parent = parent, parent.rpartition(".")[0]
    return pool


def _deep_without_pooling(model: nn.Module, units: list[_Unit], conv: str) -> Stem | None:
    """Return a module of several convolutions, named as a stem, with the stride of one."""
    place = conv
    while place:
        held = [unit for unit in units if _within(unit.name, place)]
        named = "stem" in place.rpartition(".")[2].lower()
        if named and 1 < sum(unit.kind == "conv" for unit in held) <= _MOST_CONVOLUTIONS:
            stem = Stem(model, place)
            try:
                return stem if set(stem.strides()) in ({4}, {8}) else None
            except ValueError:
                return None
        place = place.rpartition(".")[0]
    return None


def _within(name: str, place: str) -> bool:
    return (name + ".").startswith(place + ".")


def _check_name(model: nn.Module, role: str, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{role} must be the name of a module, got {type(name).__name__}")
    try:
        found = bool(name) and isinstance(model.get_submodule(name), nn.Module)
    except AttributeError:
        found = False
    if not found:
        children = ", ".join(child for child, _ in model.named_children())
        raise ValueError(
            f"{role}={name!r} is no module of {type(model).__name__}, whose own are {children}"
        )
