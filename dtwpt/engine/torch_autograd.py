"""Entry points for tensors, and the derivatives of the torch operators.

Derivatives are made of the same operators, so they can be differentiated again. Graphs that are
exported hold the reference itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from dtwpt.engine import reference
from dtwpt.engine.spec import Analysis, Kind, Statistic, parse
from dtwpt.engine.torch_ops import grid_pool, kernel, ops, parts_dim, pooled, unit

# Entry points -------------------------------------------------------------------------


def analyse(x: Tensor, analysis: Analysis, size: tuple[int, ...], kind: Kind) -> Tensor:
    """Analyse (..., *shape) to (..., ..., *size) of a kind, see :class:`Analysis`."""
    if _is_exporting():
        return _reference(x, analysis, size, kind)
    if kind == "modulus":
        return _modulus(x, analysis.text, size)
    if kind == "rmax":
        return _rmax(x, analysis.text, size)
    return _analyse(x, analysis.text, size, kind)


def pool(
    x: Tensor,
    analysis: Analysis,
    kind: Kind,
    grid: tuple[int, int],
    statistics: tuple[Statistic, ...],
) -> Tensor:
    """Pool the maps of a kind over the cells of a grid: (..., S, K, *grid)."""
    return _pool(x, analysis.text, kind, grid, " ".join(statistics))


def synthesise(c: Tensor, analysis: Analysis, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`analyse` of kind "complex": (..., K, *size) to (..., *shape)."""
    return _solve(_adjoint(c, analysis.text, shape, "complex"), analysis.text)


def modulus(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return ``hypot``, whose derivatives where both are zero are zero."""
    if _is_exporting():
        exported: Tensor = reference.modulus(real, imaginary)
        return exported
    zero = (real == 0) & (imaginary == 0)
    safe = torch.hypot(torch.where(zero, 1.0, real), imaginary)
    return torch.where(zero, 0.0, safe)


def _is_exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", bool)
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return bool(exporting()) or tracing


def _reference(x: Tensor, analysis: Analysis, size: tuple[int, ...], kind: Kind) -> Tensor:
    shape = tuple(x.shape[-analysis.ndim :])
    half = x.dtype in (torch.float16, torch.bfloat16)
    images = x.reshape(-1, *shape)
    out: Tensor = reference.analyse(
        images.float() if half else images, analysis, analysis.axes(shape, size, kind), kind
    )
    out = out.reshape(*x.shape[: -analysis.ndim], *out.shape[1:])
    return out.to(x.dtype) if half and kind not in ("complex", "parts") else out


# Derivatives ------------------------------------------------------------------------------------


# The output is never a view: a view made in a Function may not be changed in place.
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)


def _below(operator: Any, *arguments: Any) -> Tensor:
    """Call an operator's kernel, without its derivative."""
    with torch._C._AutoDispatchBelowAutograd(), torch._C._ExcludeDispatchKeyGuard(_VIEWS):
        out: Tensor = operator(*arguments)
    return out


class _Analyse(Function):
    @staticmethod
    def forward(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
        return _below(ops.analyse, x, text, size, kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.arguments = inputs
        ctx.shape = tuple(x.shape[-parse(inputs[1]).ndim :])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        text, _, kind = ctx.arguments
        return _adjoint(grad, text, ctx.shape, kind), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _analyse(tangent, *ctx.arguments)


class _Adjoint(Function):
    @staticmethod
    def forward(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
        return _below(ops.adjoint, c, text, shape, kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        c, *ctx.arguments = inputs
        ctx.size = tuple(c.shape[-parse(inputs[1]).ndim :])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        text, _, kind = ctx.arguments
        return _analyse(grad, text, ctx.size, kind), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _adjoint(tangent, *ctx.arguments)


class _Solve(Function):
    @staticmethod
    def forward(x: Tensor, text: str) -> Tensor:
        return _below(ops.solve, x, text)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.text = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _solve(grad, ctx.text), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _solve(tangent, ctx.text)


class _Modulus(Function):
    @staticmethod
    def forward(x: Tensor, text: str, size: Any) -> Tensor:
        return _below(ops.modulus, x, text, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.text, ctx.size = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        return _modulus_backward(x, grad, ctx.text), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (x,) = ctx.saved_tensors
        phase = unit(_analyse(x, ctx.text, ctx.size, "parts"), ctx.text)
        moved = _analyse(tangent, ctx.text, ctx.size, "parts")
        out: Tensor = (phase * moved).sum(parts_dim(ctx.text))
        return out.to(x.dtype)


def _over_leading_axes(function: Any) -> Any:
    """Return the rule of vmap: functions take any leading axes, so one more as well."""

    def vmap(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return function.apply(x.movedim(in_dims[0], 0), *rest), 0

    return staticmethod(vmap)


for _function in (_Analyse, _Adjoint, _Solve, _Modulus):
    _function.vmap = _over_leading_axes(_function)  # type: ignore[method-assign]


def _modulus_gradient(x: Tensor, grad: Tensor, text: str) -> Tensor:
    """Return what ``modulus_backward`` does, in operators that torch can differentiate."""
    analysis = parse(text)
    size, shape = tuple(grad.shape[-analysis.ndim :]), tuple(x.shape[-analysis.ndim :])
    phase = unit(_analyse(x, text, size, "parts"), text)
    scaled = phase * grad.to(phase.dtype).unsqueeze(parts_dim(text))
    return _adjoint(scaled, text, shape, "parts").to(x.dtype)


class _Same(Function):
    """One tensor, with the derivative of another that is equal up to rounding."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor, derived: Tensor) -> tuple[Tensor, int]:
        value, derived = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((value, derived), in_dims, strict=True)
        )
        return _Same.apply(value, derived), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def forward(value: Tensor, derived: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, grad

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


def _pooled_real(x: Tensor, text: str, size: Any) -> Tensor:
    cells = tuple(parse(text).cells(n) for n in size)
    return pooled(_analyse(x, text, cells, "real"), text)


# Eager code calls the functions, which torch.func can transform; a compiler gets the operators,
# which have the same derivatives.


def _analyse(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
    return _call(_Analyse, ops.analyse, x, text, size, kind)


def _adjoint(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
    return _call(_Adjoint, ops.adjoint, c, text, shape, kind)


def _solve(x: Tensor, text: str) -> Tensor:
    return _call(_Solve, ops.solve, x, text)


def _modulus(x: Tensor, text: str, size: Any) -> Tensor:
    return _call(_Modulus, ops.modulus, x, text, size)


def _modulus_backward(x: Tensor, grad: Tensor, text: str) -> Tensor:
    if _is_tracked(x, grad):
        return _modulus_gradient(x, grad, text)
    return ops.modulus_backward(x, grad, text)  # type: ignore[no-any-return]


def _rmax(x: Tensor, text: str, size: Any) -> Tensor:
    if _is_tracked(x):
        return _pooled_real(x, text, size)
    return ops.rmax(x, text, size)  # type: ignore[no-any-return]


def _pool(x: Tensor, text: str, kind: str, grid: Any, statistics: str) -> Tensor:
    if not _is_tracked(x):
        return ops.pool(x, text, kind, grid, statistics)  # type: ignore[no-any-return]
    return _same_pool(ops.pool(x.detach(), text, kind, grid, statistics), x, text, kind, statistics)


def _same_pool(value: Tensor, x: Tensor, text: str, kind: str, statistics: str) -> Tensor:
    """Return pooled maps with the derivative that those of torch's own operators have."""
    size = parse(text).size(x.shape[-parse(text).ndim :])
    maps = _modulus(x, text, size) if kind == "modulus" else _rmax(x, text, size)
    derived = grid_pool(maps, tuple(value.shape[-2:]), statistics)
    return _Same.apply(value, derived)  # type: ignore[no-any-return, no-untyped-call]


def _call(function: Any, operator: Any, *arguments: Any) -> Tensor:
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    out: Tensor = operator(*arguments) if compiling else function.apply(*arguments)
    return out


def _is_tracked(*tensors: Tensor) -> bool:
    """Whether a derivative may be needed."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return True
    level = forward_ad._current_level
    return level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
        for x in tensors
    )


@kernel("Autograd")
def _analyse_on_autograd(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
    return _Analyse.apply(x, text, size, kind)  # type: ignore[no-any-return, no-untyped-call]


@kernel("Autograd")
def _adjoint_on_autograd(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
    return _Adjoint.apply(c, text, shape, kind)  # type: ignore[no-any-return, no-untyped-call]


@kernel("Autograd")
def _solve_on_autograd(x: Tensor, text: str) -> Tensor:
    return _Solve.apply(x, text)  # type: ignore[no-any-return, no-untyped-call]


@kernel("Autograd")
def _modulus_on_autograd(x: Tensor, text: str, size: Any) -> Tensor:
    return _Modulus.apply(x, text, size)  # type: ignore[no-any-return, no-untyped-call]


@kernel("Autograd")
def _modulus_backward_on_autograd(x: Tensor, grad: Tensor, text: str) -> Tensor:
    if _needs_grad(x, grad):
        return _modulus_gradient(x, grad, text)
    return _below(ops.modulus_backward, x, grad, text)


@kernel("Autograd")
def _rmax_on_autograd(x: Tensor, text: str, size: Any) -> Tensor:
    if _needs_grad(x):
        return _pooled_real(x, text, size)
    return _below(ops.rmax, x, text, size)


@kernel("Autograd")
def _pool_on_autograd(x: Tensor, text: str, kind: str, grid: Any, statistics: str) -> Tensor:
    pooled = _below(ops.pool, x, text, kind, grid, statistics)
    return _same_pool(pooled, x, text, kind, statistics) if _needs_grad(x) else pooled


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
