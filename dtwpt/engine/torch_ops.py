"""Operators ``dtwpt::...`` of torch: schemas, shapes, kernels, and vmap.

An operator takes tensors with any leading axes, (..., H, W) or (..., N), and the analysis as
text. Its kernels are those of :mod:`dtwpt.engine.cpu` on a CPU, of :mod:`dtwpt.engine.gpu` on a GPU
and the reference elsewhere. :mod:`dtwpt.engine.torch_autograd` has the derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dtwpt.engine import cpu, gram, reference
from dtwpt.engine.spec import STATISTICS, Analysis, Kind, Statistic, parse

LIBRARY: Any = torch.library.Library("dtwpt", "DEF")  # type: ignore[no-untyped-call]
ops: Any = torch.ops.dtwpt

_HALF = (torch.float16, torch.bfloat16)


# Definitions ------------------------------------------------------------------------------------


def _define(schema: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Define an operator whose shapes and dtypes the decorated function gives."""
    LIBRARY.define(schema)
    name = "dtwpt::" + schema.split("(", maxsplit=1)[0]

    def decorate(fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
        torch.library.register_fake(name, fake, lib=LIBRARY)
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


# Statistics are words, separated by spaces.
@_define("pool(Tensor x, str analysis, str kind, SymInt[] grid, str statistics) -> Tensor")
def _(x: Tensor, text: str, kind: str, grid: Any, statistics: str) -> Tensor:
    analysis = parse(text)
    return _like(x, (len(statistics.split()), analysis.channels, *grid), kind, analysis.ndim)


@_define("solve(Tensor x, str analysis) -> Tensor")
def _(x: Tensor, text: str) -> Tensor:
    return x.new_empty(x.shape)


# Parts made of torch operators ----------------------------------------------------


def parts_dim(text: str) -> int:
    """Return the axis of real and imaginary parts."""
    return -2 - parse(text).ndim


def unit(parts: Tensor, text: str) -> Tensor:
    """Return coefficients of modulus 1, or 0 with derivative 0 where they are 0."""
    real, imaginary = parts.unbind(parts_dim(text))
    zero = (real == 0) & (imaginary == 0)
    size = torch.hypot(torch.where(zero, 1.0, real), imaginary)
    return torch.where(
        zero.unsqueeze(parts_dim(text)), 0.0, parts / size.unsqueeze(parts_dim(text))
    )


def pooled(real: Tensor, text: str) -> Tensor:
    """Return the max pooling of real parts, (..., *cells) to (..., *size)."""
    analysis = parse(text)
    flat = real.reshape(-1, *real.shape[-1 - analysis.ndim :])
    pool = functional.max_pool2d if analysis.ndim == 2 else functional.max_pool1d
    out = pool(flat, analysis.pool, stride=2)  # type: ignore[arg-type]
    return out.reshape(*real.shape[: -analysis.ndim], *out.shape[-analysis.ndim :])


def grid_pool(maps: Tensor, grid: tuple[int, ...], statistics: str) -> Tensor:
    """Pool maps, (..., K, *size), over the cells of a grid: (..., S, K, *grid)."""
    columns = [
        torch.stack(
            [
                torch.stack([_statistic(maps[..., down, across], name) for name in names], -2)
                for down in cpu.cuts(maps.shape[-2], grid[0])
            ],
            -1,
        )
        for names in [statistics.split()]
        for across in cpu.cuts(maps.shape[-1], grid[1])
    ]
    return torch.stack(columns, -1)


def _statistic(cell: Tensor, name: str) -> Tensor:
    if name == "mean":
        return cell.mean((-2, -1))
    if name == "max":
        return cell.amax((-2, -1))
    variance = (cell - cell.mean((-2, -1), keepdim=True)).square().mean((-2, -1))
    zero = variance == 0  # where the derivative of the root is infinite
    return torch.where(zero, 0.0, torch.where(zero, 1.0, variance).sqrt())


# Kernels ----------------------------------------------------------------------------------------


def kernel(*keys: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Make a function ``_NAME_on_...`` the kernel of an operator for some dispatch keys."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        for key in keys:
            LIBRARY.impl(function.__name__.strip("_").rpartition("_on_")[0], function, key)
        return function

    return decorate


def _images(x: Tensor, ndim: int) -> Tensor:
    """Return (B, *shape), in C order, in a dtype that engines compute in."""
    x = x.resolve_conj().resolve_neg()
    x = x.reshape(-1, *x.shape[x.ndim - ndim :]).contiguous()
    return x.float() if x.dtype in _HALF else x


def _threads() -> int:
    return min(torch.get_num_threads(), cpu.thread_count())


@kernel("CPU")
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


@kernel("CPU")
def _modulus_on_cpu(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_cpu(x, text, size, "modulus")


@kernel("CPU")
def _rmax_on_cpu(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_cpu(x, text, size, "rmax")


@kernel("CPU")
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


@kernel("CPU")
def _modulus_backward_on_cpu(x: Tensor, grad: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    images = _images(x, analysis.ndim)
    grads = _images(grad, analysis.ndim + 1).to(images.dtype)
    out = torch.empty_like(images)
    threads = _threads()
    cpu.modulus_backward(images.numpy(), grads.numpy(), analysis, out.numpy(), threads)
    return out.reshape(x.shape).to(x.dtype)


@kernel("CPU")
def _pool_on_cpu(x: Tensor, text: str, kind: Kind, grid: list[int], statistics: str) -> Tensor:
    analysis, names = parse(text), _names(statistics)
    images = _images(x, analysis.ndim)
    out = images.new_empty((len(images), len(names), analysis.channels, *grid))
    threads = _threads()
    cpu.pool(images.numpy(), analysis, kind, (grid[0], grid[1]), names, out.numpy(), threads)
    return out.reshape(*x.shape[: x.ndim - analysis.ndim], *out.shape[1:]).to(x.dtype)


def _names(statistics: str) -> tuple[Statistic, ...]:
    words = statistics.split()
    return tuple(name for name in STATISTICS if name in words)


@kernel("CPU")
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


@kernel("CompositeExplicitAutograd")
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


@kernel("CompositeExplicitAutograd")
def _modulus_on_any(x: Tensor, text: str, size: list[int]) -> Tensor:
    return _analyse_on_any(x, text, size, "modulus")


@kernel("CompositeExplicitAutograd")
def _rmax_on_any(x: Tensor, text: str, size: list[int]) -> Tensor:
    cells = tuple(parse(text).cells(n) for n in size)
    return pooled(ops.analyse(x, text, cells, "real"), text)


@kernel("CompositeExplicitAutograd")
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


@kernel("CompositeExplicitAutograd")
def _modulus_backward_on_any(x: Tensor, grad: Tensor, text: str) -> Tensor:
    analysis = parse(text)
    triton = _triton(x, analysis)
    if triton is None:
        size, shape = tuple(grad.shape[-analysis.ndim :]), tuple(x.shape[-analysis.ndim :])
        parts = unit(ops.analyse(x, text, size, "parts"), text)
        parts = parts * grad.to(parts.dtype).unsqueeze(parts_dim(text))
        out: Tensor = ops.adjoint(parts, text, shape, "parts")
        return out.to(x.dtype)
    images = x.reshape(-1, *x.shape[x.ndim - analysis.ndim :])
    grads = grad.reshape(-1, *grad.shape[grad.ndim - analysis.ndim - 1 :])
    size = tuple(grad.shape[grad.ndim - analysis.ndim :])
    axes = analysis.axes(tuple(images.shape[1:]), size, "modulus")
    out = triton.modulus_backward(images, grads, analysis, axes)
    return out.reshape(x.shape)


@kernel("CompositeExplicitAutograd")
def _pool_on_any(x: Tensor, text: str, kind: Kind, grid: list[int], statistics: str) -> Tensor:
    analysis = parse(text)
    size = analysis.size(x.shape[x.ndim - analysis.ndim :])
    maps = (ops.modulus if kind == "modulus" else ops.rmax)(x, text, size)
    pooled = grid_pool(maps.float() if x.dtype in _HALF else maps, tuple(grid), statistics)
    return pooled.to(x.dtype)


@kernel("CompositeExplicitAutograd")
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
    """Return the module of the GPU kernels, if they support the call."""
    if x.device.type != "cuda":
        return None
    try:
        from dtwpt.engine import gpu
    except ImportError:
        return None
    return gpu if gpu.available(x, analysis) else None


# vmap: one more leading axis --------------------------------------------------------------------


def _vectorise(name: str) -> None:
    operator = getattr(ops, name)

    def rule(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return operator(x.movedim(in_dims[0], 0), *rest), 0

    torch.library.register_vmap(f"dtwpt::{name}", rule, lib=LIBRARY)


for _name in ("analyse", "adjoint", "modulus", "rmax", "pool", "solve"):
    _vectorise(_name)


def _modulus_backward_rule(
    info: Any, in_dims: Any, x: Tensor, grad: Tensor, text: str
) -> tuple[Tensor, int]:
    x, grad = (
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((x, grad), in_dims, strict=False)
    )
    return ops.modulus_backward(x, grad, text), 0


torch.library.register_vmap("dtwpt::modulus_backward", _modulus_backward_rule, lib=LIBRARY)
