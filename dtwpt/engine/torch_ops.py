"""Operators ``dtwpt::...`` of torch, with all of their rules.

An operator takes tensors with any leading axes, (..., H, W) or (..., N), and the analysis as
text. Its kernels are those of :mod:`dtwpt.engine.cpu` on a CPU, of :mod:`dtwpt.engine.gpu` on a GPU
and the reference elsewhere; graphs that are exported hold the reference itself. Derivatives are
made of the same operators, so they can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import functional

from dtwpt.engine import cpu, gram, reference
from dtwpt.engine.spec import Analysis, Kind, parse

_LIBRARY = torch.library.Library("dtwpt", "DEF")
_ops: Any = torch.ops.dtwpt

_HALF = (torch.float16, torch.bfloat16)


# What the library calls -------------------------------------------------------------------------


def analyse(x: Tensor, analysis: Analysis, size: tuple[int, ...], kind: Kind) -> Tensor:
    """Analyse (..., *shape) to (..., ..., *size) of a kind, see :class:`Analysis`."""
    if _is_exporting():
        return _reference(x, analysis, size, kind)
    if kind == "modulus":
        return _modulus(x, analysis.text, size)
    if kind == "rmax":
        return _rmax(x, analysis.text, size)
    return _analyse(x, analysis.text, size, kind)


def mean(x: Tensor, analysis: Analysis, kind: Kind, grid: tuple[int, int]) -> Tensor:
    """Return the means of the maps of a kind over the cells of a grid, (..., K, *grid)."""
    return _mean(x, analysis.text, kind, grid)


def synthesise(c: Tensor, analysis: Analysis, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`analyse` of kind "complex": (..., K, *size) to (..., *shape)."""
    return _solve(_adjoint(c, analysis.text, shape, "complex"), analysis.text)


def modulus(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return ``hypot``, whose derivatives where both are zero are zero."""
    if _is_exporting():
        return reference.modulus(real, imaginary)
    zero = (real == 0) & (imaginary == 0)
    safe = torch.hypot(torch.where(zero, 1.0, real), imaginary)
    return torch.where(zero, 0.0, safe)


def _is_exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", bool)
    return bool(exporting() or torch.jit.is_tracing())  # type: ignore[no-untyped-call]


def _reference(x: Tensor, analysis: Analysis, size: tuple[int, ...], kind: Kind) -> Tensor:
    shape = tuple(x.shape[-analysis.ndim :])
    half = x.dtype in _HALF
    images = x.reshape(-1, *shape)
    out = reference.analyse(
        images.float() if half else images, analysis, analysis.axes(shape, size, kind), kind
    )
    out = out.reshape(*x.shape[: -analysis.ndim], *out.shape[1:])
    return out.to(x.dtype) if half and kind not in ("complex", "parts") else out


# Definitions ------------------------------------------------------------------------------------


def _define(schema: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Define an operator whose shapes and dtypes the decorated function gives."""
    _LIBRARY.define(schema)
    name = "dtwpt::" + schema.split("(", maxsplit=1)[0]

    def decorate(fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
        torch.library.register_fake(name, fake, lib=_LIBRARY)
        return fake

    return decorate


def _like(x: Tensor, shape: tuple[int, ...], kind: str, ndim: int) -> Tensor:
    dtype = x.dtype
    if kind in ("complex", "parts") and dtype in _HALF:
        dtype = torch.float32
    if kind == "complex":
        dtype = dtype.to_complex()
    return x.new_empty((*x.shape[: x.ndim - ndim], *shape), dtype=dtype)


@_define("analyse(Tensor x, str analysis, SymInt[] size, str kind) -> Tensor")
def _(x: Tensor, text: str, size: Any, kind: Any) -> Tensor:
    analysis = parse(text)
    return _like(x, analysis.output(kind, tuple(size)), kind, analysis.ndim)


@_define("adjoint(Tensor c, str analysis, SymInt[] shape, str kind) -> Tensor")
def _(c: Tensor, text: str, shape: Any, kind: Any) -> Tensor:
    analysis = parse(text)
    dtype = c.dtype.to_real() if kind == "complex" else c.dtype
    leading = c.shape[: c.ndim - len(analysis.output(kind, tuple(shape)))]
    return c.new_empty((*leading, *shape), dtype=dtype)


@_define("modulus(Tensor x, str analysis, SymInt[] size) -> Tensor")
def _(x: Tensor, text: str, size: Any) -> Tensor:
    analysis = parse(text)
    return _like(x, analysis.output("modulus", tuple(size)), "modulus", analysis.ndim)


@_define("modulus_backward(Tensor x, Tensor grad, str analysis) -> Tensor")
def _(x: Tensor, grad: Tensor, text: str) -> Tensor:
    return x.new_empty(x.shape)


@_define("rmax(Tensor x, str analysis, SymInt[] size) -> Tensor")
def _(x: Tensor, text: str, size: Any) -> Tensor:
    analysis = parse(text)
    return _like(x, analysis.output("rmax", tuple(size)), "rmax", analysis.ndim)


@_define("mean(Tensor x, str analysis, str kind, SymInt[] grid) -> Tensor")
def _(x: Tensor, text: str, kind: str, grid: Any) -> Tensor:
    analysis = parse(text)
    return _like(x, (analysis.channels, *grid), kind, analysis.ndim)


@_define("solve(Tensor x, str analysis) -> Tensor")
def _(x: Tensor, text: str) -> Tensor:
    return x.new_empty(x.shape)


# Kernels ----------------------------------------------------------------------------------------


def _kernel(*keys: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        for key in keys:
            _LIBRARY.impl(function.__name__.strip("_").rpartition("_on_")[0], function, key)
        return function

    return decorate


def _images(x: Tensor, ndim: int) -> Tensor:
    """Return (B, *shape), in C order, in a dtype that engines compute in."""
    x = x.resolve_conj().resolve_neg()
    x = x.reshape(-1, *x.shape[x.ndim - ndim :]).contiguous()
    return x.float() if x.dtype in _HALF else x


def _threads() -> int:
    return min(torch.get_num_threads(), cpu.thread_count())


@_kernel("CPU")
def _analyse_on_cpu(x: Tensor, text: str, size: list[int], kind: Kind) -> Tensor:
    analysis = parse(text)
    images, size_ = _images(x, analysis.ndim), tuple(size)
    dtype = images.dtype.to_complex() if kind == "complex" else images.dtype
    out = images.new_empty((len(images), *analysis.output(kind, size_)), dtype=dtype)
    threads = _threads()
    axes = analysis.axes(tuple(images.shape[1:]), size_, kind)
    cpu.analyse(images.numpy(), analysis, axes, kind, out.numpy(), threads)
    out = out.reshape(*x.shape[: x.ndim - analysis.ndim], *out.shape[1:])
    return out.to(x.dtype) if x.dtype in _HALF and kind not in ("complex", "parts") else out


@_kernel("CPU")
def _modulus_on_cpu(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_cpu(x, text, size, "modulus")


@_kernel("CPU")
def _rmax_on_cpu(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_cpu(x, text, size, "rmax")


@_kernel("CPU")
def _adjoint_on_cpu(c: Tensor, text: str, shape: list[int], kind: Kind) -> Tensor:
    analysis, to = parse(text), tuple(shape)
    inner = len(analysis.output(kind, to))
    coefficients = _images(c, inner)
    dtype = coefficients.dtype.to_real() if kind == "complex" else coefficients.dtype
    out = coefficients.new_empty((len(coefficients), *to), dtype=dtype)
    threads = _threads()
    cpu.adjoint(coefficients.numpy(), analysis, to, kind, out.numpy(), threads)
    out = out.reshape(*c.shape[: c.ndim - inner], *to)
    return out.to(c.dtype) if c.dtype in _HALF else out


@_kernel("CPU")
def _modulus_backward_on_cpu(x: Tensor, grad: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    images = _images(x, analysis.ndim)
    grads = _images(grad, analysis.ndim + 1).to(images.dtype)
    out = torch.empty_like(images)
    threads = _threads()
    cpu.modulus_backward(images.numpy(), grads.numpy(), analysis, out.numpy(), threads)
    return out.reshape(x.shape).to(x.dtype)


@_kernel("CPU")
def _mean_on_cpu(x: Tensor, text: str, kind: Kind, grid: list[int]) -> Tensor:
    analysis = parse(text)
    images = _images(x, analysis.ndim)
    out = images.new_empty((len(images), analysis.channels, *grid))
    threads = _threads()
    cpu.mean(images.numpy(), analysis, kind, tuple(grid), out.numpy(), threads)
    return out.reshape(*x.shape[: x.ndim - analysis.ndim], *out.shape[1:]).to(x.dtype)


@_kernel("CPU")
def _solve_on_cpu(x: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    images = _images(x, analysis.ndim).clone()
    gram.solve(images.numpy(), analysis)
    return images.reshape(x.shape).to(x.dtype)


# The reference on other devices, in float64 where a GPU would round the factors of float32.


def _exact(x: Tensor) -> Tensor:
    if x.device.type != "cuda":
        return x
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


@_kernel("CompositeExplicitAutograd")
def _analyse_on_any(x: Tensor, text: str, size: list[int], kind: Kind) -> Tensor:
    analysis = parse(text)
    triton = _triton(x, analysis)
    if triton is not None and kind != "rmax":
        images = x.reshape(-1, *x.shape[x.ndim - analysis.ndim :])
        axes = analysis.axes(tuple(images.shape[1:]), tuple(size), kind)
        out: Tensor = triton.analyse(images, analysis, axes, kind)
        return out.reshape(*x.shape[: x.ndim - analysis.ndim], *out.shape[1:])
    images = _exact(_images(x, analysis.ndim))
    axes = analysis.axes(tuple(images.shape[1:]), tuple(size), kind)
    out = reference.analyse(images, analysis, axes, kind)
    like = _like(x.to("meta"), analysis.output(kind, tuple(size)), kind, analysis.ndim)
    return out.reshape(like.shape).to(like.dtype)


@_kernel("CompositeExplicitAutograd")
def _modulus_on_any(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_any(x, text, size, "modulus")


@_kernel("CompositeExplicitAutograd")
def _rmax_on_any(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _pooled_real(x, text, size)


@_kernel("CompositeExplicitAutograd")
def _adjoint_on_any(c: Tensor, text: str, shape: list[int], kind: Kind) -> Tensor:
    analysis, to = parse(text), tuple(shape)
    inner = len(analysis.output(kind, to))
    axes = analysis.axes(to, tuple(c.shape[-analysis.ndim :]), kind)
    dtype = c.dtype.to_real() if kind == "complex" else c.dtype
    triton = _triton(c, analysis)
    if triton is not None:
        coefficients = c.reshape(-1, *c.shape[c.ndim - inner :])
        out: Tensor = triton.adjoint(coefficients, analysis, axes, kind, dtype)
    else:
        out = reference.adjoint(_exact(_images(c, inner)), analysis, axes, kind)
    return out.reshape(*c.shape[: c.ndim - inner], *to).to(dtype)


@_kernel("CompositeExplicitAutograd")
def _modulus_backward_on_any(x: Tensor, grad: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    triton = _triton(x, analysis)
    if triton is None:
        return _modulus_gradient(x, grad, text)
    images = x.reshape(-1, *x.shape[x.ndim - analysis.ndim :])
    grads = grad.reshape(-1, *grad.shape[grad.ndim - analysis.ndim - 1 :])
    size = tuple(grad.shape[grad.ndim - analysis.ndim :])
    axes = analysis.axes(tuple(images.shape[1:]), size, "modulus")
    out: Tensor = triton.modulus_backward(images, grads, analysis, axes)
    return out.reshape(x.shape)


@_kernel("CompositeExplicitAutograd")
def _mean_on_any(x: Tensor, text: str, kind: Kind, grid: list[int]) -> Tensor:
    analysis = parse(text)
    size = analysis.size(x.shape[x.ndim - analysis.ndim :])
    maps = _ops.modulus if kind == "modulus" else _ops.rmax
    return _grid_mean(maps(x, text, size), tuple(grid))


@_kernel("CompositeExplicitAutograd")
def _solve_on_any(x: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    images = _exact(_images(x, analysis.ndim)).clone()
    for dim, n in enumerate(images.shape[1:], start=1):
        for near, inverse in gram.blocks(analysis, n):
            index = torch.from_numpy(np.where(near < 0, near + n, near)).to(x.device)
            factor = torch.from_numpy(inverse).to(images)
            moved = images.movedim(dim, -1)
            solved = moved.index_select(-1, index) @ factor
            moved.index_copy_(-1, index, solved)
    return images.reshape(x.shape).to(x.dtype)


def _triton(x: Tensor, analysis: Analysis) -> Any:
    """Return the module of the kernels for GPUs, if they can do it."""
    if x.device.type != "cuda":
        return None
    try:
        from dtwpt.engine import gpu
    except ImportError:
        return None
    return gpu if gpu.available(x, analysis) else None


# Derivatives ------------------------------------------------------------------------------------


def _below(operator: Any, *arguments: Any) -> Tensor:
    """Call an operator's kernel, past its derivative."""
    with torch._C._AutoDispatchBelowAutograd():
        out: Tensor = operator(*arguments)
    return out


class _Analyse(Function):
    @staticmethod
    def forward(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
        return _below(_ops.analyse, x, text, size, kind)

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
        return _analyse(tangent, *ctx.arguments)  # type: ignore[no-any-return]


class _Adjoint(Function):
    @staticmethod
    def forward(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
        return _below(_ops.adjoint, c, text, shape, kind)

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
        return _adjoint(tangent, *ctx.arguments)  # type: ignore[no-any-return]


class _Solve(Function):
    @staticmethod
    def forward(x: Tensor, text: str) -> Tensor:
        return _below(_ops.solve, x, text)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.text = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _solve(grad, ctx.text), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _solve(tangent, ctx.text)  # type: ignore[no-any-return]


class _Modulus(Function):
    @staticmethod
    def forward(x: Tensor, text: str, size: Any) -> Tensor:
        return _below(_ops.modulus, x, text, size)

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
        unit = _unit(_analyse(x, ctx.text, ctx.size, "parts"), ctx.text)
        moved = _analyse(tangent, ctx.text, ctx.size, "parts")
        out: Tensor = (unit * moved).sum(_parts_dim(ctx.text))
        return out.to(x.dtype)


def _over_leading_axes(function: Any) -> Any:
    """Return the rule of vmap: functions take any leading axes, so one more as well."""

    def vmap(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return function.apply(x.movedim(in_dims[0], 0), *rest), 0

    return staticmethod(vmap)


for _function in (_Analyse, _Adjoint, _Solve, _Modulus):
    _function.vmap = _over_leading_axes(_function)  # type: ignore[method-assign]


def _parts_dim(text: str) -> int:
    return -2 - parse(text).ndim


def _unit(parts: Tensor, text: str) -> Tensor:
    """Return coefficients of modulus 1, or 0 with derivative 0 where they are 0."""
    real, imaginary = parts.unbind(_parts_dim(text))
    zero = (real == 0) & (imaginary == 0)
    size = torch.hypot(torch.where(zero, 1.0, real), imaginary)
    return torch.where(
        zero.unsqueeze(_parts_dim(text)), 0.0, parts / size.unsqueeze(_parts_dim(text))
    )


def _modulus_gradient(x: Tensor, grad: Tensor, text: str) -> Tensor:
    """Return what ``modulus_backward`` does, in operators that torch can differentiate."""
    analysis = parse(text)
    size, shape = tuple(grad.shape[-analysis.ndim :]), tuple(x.shape[-analysis.ndim :])
    unit = _unit(_analyse(x, text, size, "parts"), text)
    scaled = unit * grad.to(unit.dtype).unsqueeze(_parts_dim(text))
    return _adjoint(scaled, text, shape, "parts").to(x.dtype)  # type: ignore[no-any-return]


class _Same(Function):
    """One tensor, with the derivative of another that is equal but for rounding."""

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
    analysis = parse(text)
    cells = tuple(analysis.cells(n) for n in size)
    real = _analyse(x, text, cells, "real")
    flat = real.reshape(-1, *real.shape[-1 - analysis.ndim :])
    pool = functional.max_pool2d if analysis.ndim == 2 else functional.max_pool1d
    return pool(flat, analysis.pool, stride=2).reshape(*real.shape[: -analysis.ndim], *size)  # type: ignore[arg-type]


def _grid_mean(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    rows = [
        [maps[..., down, across].mean((-2, -1)) for across in cpu.cuts(maps.shape[-1], grid[1])]
        for down in cpu.cuts(maps.shape[-2], grid[0])
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


# What eager code calls are the functions themselves, which torch.func knows how to transform; a
# compiler gets the operators, which have the same derivatives.


def _analyse(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
    return _call(_Analyse, _ops.analyse, x, text, size, kind)


def _adjoint(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
    return _call(_Adjoint, _ops.adjoint, c, text, shape, kind)


def _solve(x: Tensor, text: str) -> Tensor:
    return _call(_Solve, _ops.solve, x, text)


def _modulus(x: Tensor, text: str, size: Any) -> Tensor:
    return _call(_Modulus, _ops.modulus, x, text, size)


def _modulus_backward(x: Tensor, grad: Tensor, text: str) -> Tensor:
    if _is_tracked(x, grad):
        return _modulus_gradient(x, grad, text)
    return _ops.modulus_backward(x, grad, text)  # type: ignore[no-any-return]


def _rmax(x: Tensor, text: str, size: Any) -> Tensor:
    if _is_tracked(x):
        return _pooled_real(x, text, size)
    return _ops.rmax(x, text, size)  # type: ignore[no-any-return]


def _mean(x: Tensor, text: str, kind: str, grid: Any) -> Tensor:
    if not _is_tracked(x):
        return _ops.mean(x, text, kind, grid)  # type: ignore[no-any-return]
    size = parse(text).size(x.shape[-parse(text).ndim :])
    maps = _modulus(x, text, size) if kind == "modulus" else _rmax(x, text, size)
    derived = _grid_mean(maps, grid)
    means = _ops.mean(x.detach(), text, kind, grid)
    return _Same.apply(means, derived)  # type: ignore[no-any-return, no-untyped-call]


def _call(function: Any, operator: Any, *arguments: Any) -> Tensor:
    compiling = torch.compiler.is_compiling()
    out: Tensor = operator(*arguments) if compiling else function.apply(*arguments)
    return out


def _is_tracked(*tensors: Tensor) -> bool:
    """Whether a derivative may be asked for."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return True
    level = forward_ad._current_level
    return level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


@_kernel("Autograd")
def _analyse_on_autograd(x: Tensor, text: str, size: Any, kind: str) -> Tensor:
    return _Analyse.apply(x, text, size, kind)  # type: ignore[no-any-return, no-untyped-call]


@_kernel("Autograd")
def _adjoint_on_autograd(c: Tensor, text: str, shape: Any, kind: str) -> Tensor:
    return _Adjoint.apply(c, text, shape, kind)  # type: ignore[no-any-return, no-untyped-call]


@_kernel("Autograd")
def _solve_on_autograd(x: Tensor, text: str) -> Tensor:
    return _Solve.apply(x, text)  # type: ignore[no-any-return, no-untyped-call]


@_kernel("Autograd")
def _modulus_on_autograd(x: Tensor, text: str, size: Any) -> Tensor:
    return _Modulus.apply(x, text, size)  # type: ignore[no-any-return, no-untyped-call]


@_kernel("Autograd")
def _modulus_backward_on_autograd(x: Tensor, grad: Tensor, text: str) -> Tensor:
    if _needs_grad(x, grad):
        return _modulus_gradient(x, grad, text)
    return _below(_ops.modulus_backward, x, grad, text)


@_kernel("Autograd")
def _rmax_on_autograd(x: Tensor, text: str, size: Any) -> Tensor:
    if _needs_grad(x):
        return _pooled_real(x, text, size)
    return _below(_ops.rmax, x, text, size)


@_kernel("Autograd")
def _mean_on_autograd(x: Tensor, text: str, kind: str, grid: Any) -> Tensor:
    means = _below(_ops.mean, x, text, kind, grid)
    if not _needs_grad(x):
        return means
    size = parse(text).size(x.shape[-parse(text).ndim :])
    maps = _modulus(x, text, size) if kind == "modulus" else _rmax(x, text, size)
    return _Same.apply(means, _grid_mean(maps, grid))  # type: ignore[no-any-return, no-untyped-call]


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


# vmap: one more leading axis --------------------------------------------------------------------


def _vectorise(name: str) -> None:
    operator = getattr(_ops, name)

    def rule(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return operator(x.movedim(in_dims[0], 0), *rest), 0

    torch.library.register_vmap(f"dtwpt::{name}", rule, lib=_LIBRARY)


for _name in ("analyse", "adjoint", "modulus", "rmax", "mean", "solve"):
    _vectorise(_name)


def _modulus_backward_rule(
    info: Any, in_dims: Any, x: Tensor, grad: Tensor, text: str
) -> tuple[Tensor, int]:
    x, grad = (
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((x, grad), in_dims, strict=False)
    )
    return _ops.modulus_backward(x, grad, text), 0


torch.library.register_vmap("dtwpt::modulus_backward", _modulus_backward_rule, lib=_LIBRARY)
