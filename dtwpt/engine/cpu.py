"""Engines on the CPU, for NumPy arrays: choice of the engine and number of threads."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import native, reference
from dtwpt.engine.spec import Analysis, Axis, Kind, Statistic

ENGINES = ("native", "reference")

_COMPLEX = {"float32": np.complex64, "float64": np.complex128}
# Limit of the calling thread, not of the process.
_limit: ContextVar[int | None] = ContextVar("dtwpt_threads", default=None)


def analyse(
    x: NDArray[Any],
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: Kind,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Analyse (B, *shape), in C order, to (B, ..., *size) of a kind."""
    if not _is_native(analysis):
        return _put(reference.analyse(x, analysis, axes, kind), out)
    if out is None:
        dtype = _COMPLEX[x.dtype.name] if kind == "complex" else x.dtype
        size = analysis.size_of(axes, kind)
        out = np.empty((len(x), *analysis.output(kind, size)), dtype)
    native.analyse(x, analysis, axes, kind, out, threads or thread_count())
    return out


def adjoint(
    c: NDArray[Any],
    analysis: Analysis,
    shape: tuple[int, ...],
    kind: Kind,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Apply the adjoint of :func:`analyse`, (B, ..., *size) to (B, *shape)."""
    axes = analysis.axes(shape, c.shape[-analysis.ndim :], kind)
    if not _is_native(analysis):
        return _put(reference.adjoint(c, analysis, axes, kind), out)
    if out is None:
        out = np.empty((len(c), *shape), c.real.dtype)
    native.adjoint(c, analysis, axes, kind, out, threads or thread_count())
    return out


def modulus_backward(
    x: NDArray[Any],
    grad: NDArray[Any],
    analysis: Analysis,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Return the gradient of ``sum(grad * modulus)``, of the shape of x."""
    size = grad.shape[2:]
    axes = analysis.axes(x.shape[1:], size, "modulus")
    if _is_native(analysis):
        if out is None:
            out = np.empty_like(x)
        native.modulus_backward(x, grad, analysis, axes, out, threads or thread_count())
        return out
    parts = reference.analyse(x, analysis, axes, "parts")
    modulus = np.hypot(parts[:, 0], parts[:, 1])
    modulus[modulus == 0] = 1
    parts *= (grad / modulus)[:, None]
    return _put(reference.adjoint(parts, analysis, axes, "parts"), out)


def pool(
    x: NDArray[Any],
    analysis: Analysis,
    kind: Kind,
    grid: tuple[int, int],
    statistics: tuple[Statistic, ...],
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Pool maps of a kind over the cells of a grid: (B, S, K, *grid), statistics in their order."""
    size = analysis.size(x.shape[1:])
    axes = analysis.axes(x.shape[1:], size, kind)
    if out is None:
        out = np.empty((len(x), len(statistics), analysis.channels, *grid), x.dtype)
    if _is_native(analysis):
        native.pool(x, analysis, axes, kind, grid, statistics, out, threads or thread_count())
        return out
    for image, pooled in zip(x, out, strict=True):
        maps = reference.analyse(image[None], analysis, axes, kind)[0].astype(np.float64)
        for row, rows in enumerate(cuts(size[0], grid[0])):
            for column, columns in enumerate(cuts(size[1], grid[1])):
                cell = maps[:, rows, columns]
                for values, statistic in zip(pooled, statistics, strict=True):
                    values[:, row, column] = getattr(cell, statistic)((1, 2))
    return out


def cuts(length: int, parts: int) -> list[slice]:
    """Return the slices that cut an axis into parts, as evenly as its length allows."""
    return [slice(part * length // parts, (part + 1) * length // parts) for part in range(parts)]


# Which engine, how many threads ---------------------------------------------------------------


def engine(analysis: Analysis | None = None) -> str:
    """Return the name of the engine for an analysis, or in general.

    Raises
    ------
    RuntimeError
        If ``DTWPT_ENGINE`` asks for one that is unknown or not available.
    """
    asked = os.environ.get("DTWPT_ENGINE", "")
    if asked not in ("", *ENGINES):
        raise RuntimeError(f"DTWPT_ENGINE must be one of {', '.join(ENGINES)}, got {asked!r}")
    if asked == "reference":
        return "reference"
    reason = native.unavailable()
    if reason and asked == "native":
        raise RuntimeError(f"DTWPT_ENGINE is native, which is not available: {reason}")
    if reason:
        _warn_once(reason)
    if reason or (analysis is not None and not native.available(analysis)):
        return "reference"
    return "native"


@lru_cache(maxsize=1)
def _warn_once(reason: str) -> None:
    message = (
        f"dtwpt has no native engine here ({reason}): the reference engine, some fifty times "
        "slower, is used instead. With a C++ compiler, install dtwpt again; DTWPT_ENGINE=reference "
        "silences this"
    )
    warnings.warn(message, RuntimeWarning, stacklevel=5)


def thread_count() -> int:
    """Return the threads that a call may use: one for each core that the process may run on.

    Fewer where :func:`threads`, ``DTWPT_NUM_THREADS`` or ``OMP_NUM_THREADS`` says so. Results do
    not depend on it.
    """
    limit = _limit.get()
    if limit is not None:
        return limit
    for name in ("DTWPT_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads(limit: int) -> Iterator[None]:
    """Limit the threads of calls from this thread."""
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def _is_native(analysis: Analysis) -> bool:
    return engine(analysis) == "native"


def _put(result: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    if out is None:
        return result
    out[...] = result
    return out
