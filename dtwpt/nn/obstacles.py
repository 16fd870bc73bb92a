"""Reasons why a first layer cannot be replaced: check_replaceable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dtwpt.nn.calls import Call, trace
from dtwpt.nn.locate import Stem

__all__ = ["all_names", "check_replaceable", "check_same_shapes", "example_output"]

# Sizes of the images that are tried: few networks take none of them.
_SIZES = ((128, 160), (224, 224))


def all_names(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every name that a module has in a network."""
    named = model.named_modules(remove_duplicate=False)
    return [name for name, other in named if other is module]


def example_output(
    model: nn.Module, channels: int, images: Tensor | None = None
) -> tuple[Tensor | None, Any, list[Call]]:
    """Return an image that a network takes, what it returns, and its module calls.

    Parameters
    ----------
    model : torch.nn.Module
    channels : int
        Of the image.
    images : Tensor, shape (N, C, H, W), optional
        Default: noise of several sizes. None is returned if the network takes none of them.
    """
    if images is not None:
        return images, *trace(model, images)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    if parameter.device.type == "meta":
        return None, None, []
    generator = torch.Generator().manual_seed(0)
    for size in _SIZES:
        noise = torch.rand(1, channels, *size, generator=generator).to(parameter)
        try:
            return noise, *trace(model, noise)
        except Exception:  # whatever the network raises: it does not take this image
            continue
    return None, None, []


def check_replaceable(stem: Stem, calls: list[Call], kept: nn.Module | None) -> None:
    """Refuse a stem whose parts are used for something else, too.

    Parameters
    ----------
    stem : Stem
    calls : list of Call
        Of the network before it is changed.
    kept : torch.nn.Module or None
        A module of the stem that stays where it is, so that other uses of it do no harm.

    Raises
    ------
    ValueError
        If a part is called more than once, or if a map between the parts is returned by the
        network or read by another module.
    """
    _check_hooks(stem)
    modules = [stem.model.get_submodule(name) for name in stem.names]
    inside = {id(part) for module in modules for part in module.modules()}
    interior: list[Tensor] = []
    for name, module in zip(stem.names, modules, strict=True):
        own = [call for call in calls if call.module is module]
        if len(own) > 1 and module is not kept:
            raise ValueError(
                f"{name} is called {len(own)} times in one pass, and replacing it would change "
                "what it does elsewhere: give the first layer a module of its own"
            )
        interior += own[0].outputs if own else []
    last = next((c.outputs for c in calls if c.module is modules[-1]), [])
    interior = [t for t in interior if not any(t is out for out in last)]
    for call in calls:
        held = {id(part) for part in call.module.modules()}
        whole = all(id(module) in held for module in modules)
        partly = id(call.module) in inside or any(id(module) in held for module in modules)
        passing = call.module is kept or isinstance(call.module, nn.Identity)
        leaks = call.returns(interior) if whole else not (partly or passing)
        if leaks and (whole or call.reads(interior)):
            verb = "returns" if whole else "reads"
            raise ValueError(
                f"{call.name or type(call.module).__name__} {verb} a map from between "
                f"{', '.join(stem.names)}, which would not be there any more: take the network "
                "without that map (timm: out_indices=(1, 2, 3, 4)), or change it before it "
                "becomes part of this one"
            )


def check_same_shapes(stem: Stem, x: Tensor, before: Any) -> None:
    """Refuse a changed network that fails, or returns other shapes than before.

    Parameters
    ----------
    stem : Stem
        Of the network after it was changed.
    x : Tensor
    before : object
        Output for x of the network as it was.
    """
    reason = "; a map from within the first layer is probably used elsewhere"
    try:
        after, _ = trace(stem.model, x)
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


def _check_hooks(stem: Stem) -> None:
    """Refuse timm's FeatureHookNet, which collects maps by forward hooks."""
    for module in stem.model.modules():
        ids = getattr(getattr(module, "hooks", None), "_hook_ids", None)
        if ids is None:
            continue
        for name in stem.names[:-1]:
            part = stem.model.get_submodule(name)
            if any("_collect_output_hook" in repr(hook) for hook in part._forward_hooks.values()):
                raise ValueError(
                    f"the network returns the output of {name} by a hook, which would not be there "
                    "any more: leave it out (timm: out_indices=(1, 2, 3, 4))"
                )
