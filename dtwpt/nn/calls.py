"""Record of a network's module calls: trace and Call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "all_names", "example_output", "quiet", "trace"]

# Image sizes to try: few networks accept none of them.
_SIZES = ((128, 160), (224, 224))


class Call(NamedTuple):
    """One call of a module: its first name, and its input and output tensors."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]

    def reads(self, tensors: list[Tensor]) -> bool:
        """Return whether an input is one of the tensors, the same object."""
        return any(a is b for a in self.inputs for b in tensors)


def all_names(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every name that a module has in a network."""
    named = model.named_modules(remove_duplicate=False)
    return [name for name, other in named if other is module]


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Run a network in eval mode, without gradients or forward hooks; restore all at the end."""
    modes = [(module, module.training) for module in model.modules()]
    hooks = [(module, module._forward_hooks) for module in model.modules()]
    try:
        for module in model.modules():
            module.training = False
            module._forward_hooks = type(module._forward_hooks)()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, registered in hooks:
            module._forward_hooks = registered


def trace(model: nn.Module, x: Tensor) -> tuple[Any, list[Call]]:
    """Call a network quietly; return its output, and the calls in order of completion.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor, shape (N, C, H, W)
    """
    calls: list[Call] = []
    with quiet(model):
        handles = []
        for name, module in model.named_modules():

            def record(
                module: nn.Module, args: Any, kwargs: Any, out: Any, name: str = name
            ) -> None:
                tensors = [_tensors(part) for part in ((args, kwargs), out)]
                calls.append(Call(name, module, *tensors))

            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_hook(record, with_kwargs=True))
        try:
            out = model(x)
        finally:
            for handle in handles:
                handle.remove()
    return out, calls


def example_output(
    model: nn.Module, channels: int, images: Tensor | None = None
) -> tuple[Tensor | None, Any, list[Call]]:
    """Return an image that a network accepts, its output, and its module calls.

    Parameters
    ----------
    model : torch.nn.Module
    channels : int
        Of the image.
    images : Tensor, shape (N, C, H, W), optional
        Default: noise of several sizes. None is returned if the network accepts none of them.
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
        except Exception:  # any error means that it does not accept this image
            continue
    return None, None, []


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
