"""The complex modulus of a real and an imaginary part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["modulus"]


def modulus(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return the root of the sum of squares; its derivative where both are zero is zero."""
    if torch.compiler.is_compiling():
        # A compiler makes one pass of it; not everything that graphs are exported to knows hypot.
        return torch.addcmul(real * real, imaginary, imaginary).add(_tiny(real)).sqrt()
    out: Tensor = _Modulus.apply(real, imaginary)  # type: ignore[no-untyped-call]
    return out


def _tiny(x: Tensor) -> float:
    """Return a number that is lost beside any but zero, which it keeps out of denominators."""
    return torch.finfo(x.dtype).tiny


class _Modulus(torch.autograd.Function):
    """``torch.hypot``, whose derivative at zero is not a number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(real: Tensor, imaginary: Tensor) -> Tensor:
        return torch.hypot(real, imaginary)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary, size = ctx.saved_tensors
        grad = grad / (size + _tiny(size))
        return grad * real, grad * imaginary

    @staticmethod
    def jvp(ctx: Any, real_tangent: Tensor, imaginary_tangent: Tensor) -> Tensor:
        real, imaginary, size = ctx.saved_tensors
        moved: Tensor = real * real_tangent + imaginary * imaginary_tangent
        moved = moved / (size + _tiny(size))
        return moved
