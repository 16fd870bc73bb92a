"""Check that a stem can be replaced: that the network does not need its parts elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dtwpt.nn.calls import trace
from dtwpt.nn.probe import WRAPPERS, Flow, follow

if TYPE_CHECKING:
    from dtwpt.nn.locate import Stem

__all__ = ["check_replaceable", "check_same_shapes"]

_SIDE = 224


def check_replaceable(stem: Stem, kept: str | None = None) -> None:
    """Raise an error if a network needs more of its stem than the last module's output.

    The network is run for its shapes alone, on one image. If it does not accept an image, the
    modules that contain the stem are run, from the largest to the smallest.

    Parameters
    ----------
    stem : Stem
    kept : str, optional
        A module of the stem that stays where it is, so that the network may use it again.

    Raises
    ------
    ValueError
        If the output of another module of the stem is returned by the network or used elsewhere,
        by a skip connection or a hook of the network's own; if the modules are not called one
        after the other, or one of them is called again; or if they are sharded, or wrapped.
    """
    names = stem.names
    modules = {name: stem.model.get_submodule(name) for name in names}
    for name, module in modules.items():
        if any(type(p).__name__ == "DTensor" for p in module.parameters()):
            raise ValueError(f"{name} is sharded: change the network before it is sharded")
    _refuse_own_hooks(stem, modules)
    _refuse_plain_references(stem, modules)
    shape = (1, stem.convolution.in_channels, *_size(stem.model))
    called, finished = False, False
    for prefix in _roots(names):
        root = stem.model.get_submodule(prefix)
        if prefix and (wrapper := next(_wrappers(root), None)):
            raise ValueError(
                f"{prefix} is wrapped in {wrapper}: change the module inside, then wrap it again"
            )
        flow = follow(root, modules, shape, stem.reference.dtype, kept)
        _judge(flow)
        finished |= flow.finished
        called |= bool(flow.calls[names[0]])
        if flow.finished and flow.calls[names[0]]:
            return
    if finished and not called:
        raise ValueError(
            f"the network does not call {names[0]} when it is given an image, so that a new stem "
            "in its place would do nothing"
        )
    for name, module in modules.items():
        others = [
            other
            for other, known in stem.model.named_modules(remove_duplicate=False)
            if known is module and name not in (other, kept)
        ]
        if others:
            raise ValueError(
                f"{name} is also called {others[0]}, and the network does not run on an image of "
                f"shape {shape}, which would tell whether it is used twice: give each use a module "
                "of its own"
            )


def check_same_shapes(model: nn.Module, x: Tensor, before: Any) -> None:
    """Raise an error if a changed network fails, or returns other shapes than before.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor
    before : object
        Output of the original network for x.

    Raises
    ------
    ValueError
    """
    reason = "; a map from within the first layer is probably used elsewhere"
    try:
        after, _ = trace(model, x)
    except Exception as error:  # whatever a network raises for maps of unexpected sizes
        raise ValueError(f"the changed network fails ({error}){reason}") from error
    shapes = [
        [tuple(leaf.shape) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for out in (before, after)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the changed network would return shapes {shapes[1]} in place of {shapes[0]}{reason}"
        )


def _judge(flow: Flow) -> None:
    first, last = flow.names[0], flow.names[-1]
    times = flow.calls[first]
    for name in flow.names[1:]:
        if flow.calls[name] > times > 0:
            raise ValueError(
                f"the network calls {name} {flow.calls[name]} times and {first} {times} times: "
                f"give each use a module of its own, or do not name {name}"
            )
        if flow.finished and flow.calls[name] < times:
            raise ValueError(f"the network calls {first} without {name}: name what it does call")
    if flow.broken:
        raise ValueError(
            f"{last} is not applied to what {first} gives, so that one module cannot stand for "
            "both: name modules that are applied one after the other"
        )
    if flow.resized is not None:
        raise ValueError(
            f"the network changes the size of the maps before {flow.resized}, by a module or a "
            f"padding that is not among {', '.join(flow.names)}: name a module that holds all of it"
        )
    kept = flow.returned or flow.reused
    if kept is not None:
        how = "returns the output of" if flow.returned else "also uses elsewhere the output of"
        raise ValueError(
            f"the network {how} {kept}, which would not be there any more once one module stands "
            f"for {first} to {last}: leave it out of what the network returns (timm: "
            "out_indices=(1, 2, 3, 4))"
        )


def _size(model: nn.Module) -> tuple[int, int]:
    """Return a size of image that the network takes: timm's and transformers' say so."""
    for module in model.modules():
        config = getattr(module, "default_cfg", None)
        if isinstance(config, dict) and len(config.get("input_size") or ()) == 3:
            _, height, width = config["input_size"]
            return int(height), int(width)
        side = getattr(getattr(module, "config", None), "image_size", None)
        if isinstance(side, int):
            return side, side
    return _SIDE, _SIDE


def _roots(names: tuple[str, ...]) -> Iterator[str]:
    """Yield names of the modules that contain all of these, the largest first."""
    paths = [name.split(".")[:-1] for name in names]
    prefix: list[str] = []
    yield ""
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            return
        prefix.append(parts[0])
        yield ".".join(prefix)


def _wrappers(module: nn.Module) -> Iterator[str]:
    kinds = {kind.__name__ for kind in type(module).__mro__}
    yield from sorted(kinds & (WRAPPERS.keys() | {"FSDPModule"}))


def _refuse_own_hooks(stem: Stem, modules: dict[str, nn.Module]) -> None:
    """Refuse hooks with which a network takes maps from its stem, or changes what goes in."""
    owned = {
        id(value)
        for module in stem.model.modules()
        for value in (module, *vars(module).values())
        if isinstance(value, (nn.Module, list, dict))
        or (hasattr(value, "__dict__") and not callable(value))
    }
    for name, module in modules.items():
        hooks: list[Any] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(id(owner) in owned for hook in hooks for owner in _owners(hook)):
            raise ValueError(
                f"the network takes the output of a module of {', '.join(stem.names)} with a hook "
                f"of its own on {name}, which would not be there any more: leave it out of what "
                "the network returns (timm: out_indices=(1, 2, 3, 4))"
            )


def _refuse_plain_references(stem: Stem, modules: dict[str, nn.Module]) -> None:
    """Refuse modules that the network also holds where torch does not know of them."""
    for name, parent in stem.model.named_modules():
        for attribute, value in vars(parent).items():
            held: Any = value
            if isinstance(value, dict):
                held = () if attribute == "_modules" else value.values()
            elif not isinstance(value, (list, tuple)):
                held = (value,)
            for place, module in modules.items():
                if any(item is module for item in held):
                    raise ValueError(
                        f"{name or type(parent).__name__} holds {place} a second time, in "
                        f"{attribute}, where it cannot be replaced: keep it as a submodule alone"
                    )


def _owners(hook: Any) -> Iterator[Any]:
    """Yield the objects that a hook belongs to or writes to."""
    while isinstance(hook, partial):
        yield from hook.args
        hook = hook.func
    yield getattr(hook, "__self__", None)
    for cell in getattr(hook, "__closure__", None) or ():
        yield cell.cell_contents
