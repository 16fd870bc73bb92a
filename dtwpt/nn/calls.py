"""Record of a network's module calls: trace and Call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "quiet", "trace"]


class Call(NamedTuple):
    """One call of a module: its first name, and the tensors that it got and gave."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]

    def reads(self, tensors: list[Tensor]) -> bool:
        """Return whether an input is one of the tensors, the same object."""
        return _share(self.inputs, tensors)

    def returns(self, tensors: list[Tensor]) -> bool:
        """Return whether an output is one of the tensors, the same object."""
        return _share(self.outputs, tensors)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Run a network in eval mode, without gradients or forward hooks; restore all afterwards."""
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
    """Call a network quietly; return its output and the calls in the order in which they ended.

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


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _share(left: list[Tensor], right: list[Tensor]) -> bool:
    return any(a is b for a in left for b in right)
