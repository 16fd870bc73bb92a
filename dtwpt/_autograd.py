"""Derivatives for torch; imported only once a tensor has come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dtwpt.arrays import full_precision


class LinearMap(torch.autograd.Function):
    """A linear map given with its adjoint, differentiable any number of times.

    For a map from real to complex arrays the adjoint is the one of the real inner product
    ``Re <., .>``, which is torch's convention for complex gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.maps = forward, adjoint
        with full_precision(x):
            return forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        forward, adjoint = ctx.maps
        return LinearMap.apply(grad, adjoint, forward), None, None  # type: ignore[no-untyped-call]
