"""Shape-only runs of a network, without its weights and hooks."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Flow", "follow", "shape_only"]

# Wrappers of a network, and the attribute that holds the network.
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


class _ShapeOnly:
    """Maker of modules that share a network's code and hold tensors without memory.

    They are called directly, so that no hook runs, local or global: a hook might read values, and
    there are none. The network itself is not touched.
    """

    def __init__(
        self, watched: dict[int, Callable[..., Any]], device: torch.device | str = "meta"
    ) -> None:
        self._made: dict[int, Any] = {}
        self._watched, self._device = watched, device

    def __call__(self, value: Any) -> Any:
        """Return a stand-in for a module or tensor, also within a list, tuple or dict."""
        if not isinstance(value, (nn.Module, Tensor)):
            if type(value) in (dict, OrderedDict):
                return type(value)((key, self(item)) for key, item in value.items())
            return type(value)(map(self, value)) if type(value) in (list, tuple) else value
        if id(value) not in self._made:
            if isinstance(value, Tensor):
                self._made[id(value)] = self._tensor(value)
            else:
                self._module(value)
        return self._made[id(value)]

    def _tensor(self, value: Tensor) -> Tensor:
        if nn.parameter.is_lazy(value):
            return value
        return torch.empty(value.shape, dtype=value.dtype, device=self._device)

    def _module(self, module: nn.Module) -> None:
        kinds = [kind.__name__ for kind in type(module).__mro__]
        inside = next((WRAPPERS[kind] for kind in kinds if kind in WRAPPERS), "")
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, inside):
            self._made[id(module)] = self(getattr(module, inside)) if inside else module
            return
        twin = object.__new__(type(module))
        self._made[id(module)] = twin
        state = twin.__dict__
        for name, value in module.__dict__.items():
            if inspect.ismethod(value) and value.__self__ is module:
                state[name] = value.__func__.__get__(twin)
            else:
                state[name] = self(value)
        state["training"] = False
        forward = partial(_unhooked, twin)
        watch = self._watched.get(id(module))
        state["_compiled_call_impl"] = forward if watch is None else partial(watch, forward)


def _unhooked(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module.forward(*args, **kwargs)


def shape_only(module: nn.Module, device: torch.device | str = "meta") -> nn.Module:
    """Return a stand-in for a module: its code in evaluation mode, neither memory nor hooks.

    It takes tensors on the device "meta"; within ``torch.device("meta")``, what it makes itself
    is there, too. On another device it has no memory within a ``FakeTensorMode`` only.
    """
    twin: nn.Module = _ShapeOnly({}, device)(module)
    return twin


class Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record of a run about modules that should be applied one after the other.

    Parameters
    ----------
    names : tuple of str
        The modules, in order.
    kept : str, optional
        One of them that may be used elsewhere, too.

    Attributes
    ----------
    calls : Counter
        How often each was called.
    returned, reused : str or None
        A module before the last whose output was returned by the network, or was combined with
        what comes after the last.
    broken : bool
        Whether the last one was called on something other than the output of the first.
    resized : str or None
        A module that was called on maps of a different shape than its predecessor's output.
    finished : bool
        Whether the run was completed.
    """

    def __init__(self, names: tuple[str, ...], kept: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.kept = names, kept
        self.calls: Counter[str] = Counter()
        self.returned: str | None = None
        self.reused: str | None = None
        self.resized: str | None = None
        self.broken = self.finished = False
        self._shape: torch.Size | None = None

    def watch(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the module of that name, given its forward."""

        def call(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            last = name == self.names[-1]
            inside = [t for t in tree_leaves((args, kwargs)) if _inside(t)]
            if name == self.kept and self.calls[name] and not inside:
                return forward(*args, **kwargs)
            self.calls[name] += 1
            if name != self.names[0]:
                self.broken |= last and not inside
                if inside and inside[0].shape != self._shape:
                    self.resized = name
            out = forward(*args, **kwargs)
            self._shape = getattr(out, "shape", None)
            # A new tensor: an image may pass through an Identity unchanged.
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor):
                    tensor.dtwpt_side = ("after", name) if last else ("inside", name)  # type: ignore[attr-defined]
            return out

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record that its output comes from its inputs."""
        out = func(*args, **(kwargs or {}))
        sides = [getattr(t, "dtwpt_side", None) for t in tree_leaves((args, kwargs))]
        inside = next((side for side in sides if side and side[0] == "inside"), None)
        after = next((side for side in sides if side and side[0] == "after"), None)
        if inside and after:
            self.reused = inside[1]
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (inside or after):
                tensor.dtwpt_side = inside or after  # type: ignore[attr-defined]
        return out

    def finish(self, out: Any) -> None:
        """Inspect the output of the network."""
        self.finished = True
        leaves = tree_leaves(out)
        for leaf in list(leaves):
            if not isinstance(leaf, Tensor) and hasattr(leaf, "__dict__"):
                leaves += tree_leaves(list(vars(leaf).values()))
        self.returned = next(filter(None, map(_inside, leaves)), None)


def _inside(tensor: Any) -> str | None:
    side = getattr(tensor, "dtwpt_side", None)
    return side[1] if side and side[0] == "inside" else None


def follow(
    root: nn.Module,
    modules: dict[str, nn.Module],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    kept: str | None = None,
) -> Flow:
    """Run a network on an image of that shape, as far as it goes, and watch some of its modules."""
    flow = Flow(tuple(modules), kept)
    watched = {id(module): flow.watch(name) for name, module in modules.items()}
    image = torch.empty(shape, dtype=dtype, device="meta")
    # The network may raise anything for an image that it does not accept.
    with torch.no_grad(), torch.device("meta"), flow, suppress(Exception):
        flow.finish(_ShapeOnly(watched)(root)(image))
    return flow
