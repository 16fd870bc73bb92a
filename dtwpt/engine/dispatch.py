"""The analysis, its adjoint and its inverse, on NumPy arrays and on tensors.

One function for each selects the engine: native kernels or the reference on a CPU, Triton kernels
on a GPU. Arrays have any leading axes.
"""

from __future__ import annotations

from typing import Any

from dtwpt.arrays import Array, is_tensor
from dtwpt.engine import cpu, gram
from dtwpt.engine.spec import Analysis, Kind, Statistic, parse


def analyse(x: Array, analysis: Analysis, kind: Kind) -> Array:
    """Analyse (..., *shape) to (..., ..., *size) of a kind, see :class:`Analysis`."""
    size = analysis.size(x.shape[-analysis.ndim :])
    if is_tensor(x):
        return _torch().analyse(x, analysis, size, kind)
    images = x.reshape(-1, *x.shape[-analysis.ndim :])
    axes = analysis.axes(images.shape[1:], size, kind)
    out = cpu.analyse(images, parse(analysis.text), axes, kind)
    return out.reshape(*x.shape[: -analysis.ndim], *out.shape[1:])


def pool(
    x: Array,
    analysis: Analysis,
    kind: Kind,
    grid: tuple[int, int],
    statistics: tuple[Statistic, ...],
) -> Array:
    """Pool the maps of a kind over the cells of a grid: (..., S, K, *grid).

    The statistics are some of ``STATISTICS``, in their order.
    """
    if is_tensor(x):
        return _torch().pool(x, analysis, kind, grid, statistics)
    images = x.reshape(-1, *x.shape[-analysis.ndim :])
    out = cpu.pool(images, parse(analysis.text), kind, grid, statistics)
    return out.reshape(*x.shape[: -analysis.ndim], *out.shape[1:])


def synthesise(c: Array, analysis: Analysis, shape: tuple[int, ...]) -> Array:
    """Invert :func:`analyse` of kind "complex": (..., K, *size) to (..., *shape)."""
    if is_tensor(c):
        return _torch().synthesise(c, analysis, shape)
    analysis, inner = parse(analysis.text), 1 + analysis.ndim
    x = cpu.adjoint(c.reshape(-1, *c.shape[-inner:]), analysis, shape, "complex")
    return gram.solve(x, analysis).reshape(*c.shape[:-inner], *shape)


def _torch() -> Any:
    from dtwpt.engine import torch_autograd

    return torch_autograd
