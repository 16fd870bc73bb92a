"""Modules that symbolic tracing (torch.fx) treats as one call: leaf."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch.fx import Proxy

__all__ = ["leaf"]

Forward = TypeVar("Forward", bound=Callable[..., Any])


def leaf(forward: Forward) -> Forward:
    """Make a module's ``forward`` record a call of the module when it is traced symbolically.

    Otherwise ``torch.fx`` looks into every module that is not torch's own, and fails where Python
    depends on a size or a dtype. torchvision's ``create_feature_extractor`` traces like this.

    Parameters
    ----------
    forward : callable
        A method of a ``torch.nn.Module``.

    Returns
    -------
    callable

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from dtwpt.nn import MaxBlurPool2d
    >>> [node.op for node in torch.fx.symbolic_trace(nn.Sequential(MaxBlurPool2d())).graph.nodes]
    ['placeholder', 'call_module', 'output']
    """

    @wraps(forward)
    def traced(self: Any, *args: Any, **options: Any) -> Any:
        for value in (*args, *options.values()):
            if isinstance(value, Proxy):
                path = value.tracer.path_of_module(self)  # type: ignore[attr-defined]
                return value.tracer.create_proxy("call_module", path, args, options)
        return forward(self, *args, **options)

    return traced  # type: ignore[return-value]
