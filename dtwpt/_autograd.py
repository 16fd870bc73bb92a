"""Derivatives for torch; imported only once a tensor has come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Map: TypeAlias = Callable[[Tensor], Tensor]


class LinearMap(torch.autograd.Function):
    """A linear map given with its adjoint, differentiable any number of times.

    For a map from real to complex arrays the adjoint is the one of the real inner product
    ``Re <., .>``, which is torch's convention for complex gradients. The first axis of what goes
    in and comes out runs over independent planes.
    """

    @staticmethod
    def forward(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
        return forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        ctx.maps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        forward, adjoint = ctx.maps
        return _apply(grad, adjoint, forward), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _apply(tangent, *ctx.maps)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None, None], x: Tensor, forward: Map, adjoint: Map
    ) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0)
        out = _apply(x.flatten(0, 1), forward, adjoint)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0


def _apply(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
    out: Tensor = LinearMap.apply(x, forward, adjoint)  # type: ignore[no-untyped-call]
    return out
