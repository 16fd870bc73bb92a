"""The native engine: loader of a library of C++ kernels, and its functions.

They take C-contiguous NumPy arrays of float32 or float64 and fill ``out``, which has the shape and
dtype of what the same function of :mod:`dtwpt.engine.reference` returns. Results have the same bits
for any batch, number of threads and instruction set.

``DTWPT_INSTRUCTION_SET`` forces an instruction set, ``DTWPT_NATIVE_LIBRARY`` names another library,
and with ``DTWPT_POISON=1`` work memory is filled with NaN first (for tests).
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine.spec import Analysis, Axis, Kind, Statistic

__all__ = ["adjoint", "analyse", "available", "info", "modulus_backward", "pool"]

_KINDS = {"complex": 0, "parts": 1, "real": 2, "modulus": 3, "rmax": 4}
_ANALYSE, _POOL, _ADJOINT, _MODULUS_BACKWARD = range(4)
_STATISTICS = {"mean": 1, "std": 2, "max": 4}
_INTERFACE = 2000  # dtwpt_interface in dispatch.cpp, without the size of the plan
_NO_MEMORY = 1
_MAX_DEPTH = 12  # kMaxDepth in plan.h

Float = NDArray[Any]


class _Plan(ctypes.Structure):
    """``Plan`` in plan.h."""

    _fields_ = [
        ("depth", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("pool", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("taps_first", ctypes.c_int32),
        ("taps_later", ctypes.c_int32),
        ("shift", ctypes.c_int32 * 4),
        ("taps", ctypes.c_void_p),
        ("packet", ctypes.c_void_p),
        ("place", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
    ]


# Library ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _library() -> tuple[Any, str, str]:
    """Return the library or None, its path, and why it could not be loaded."""
    suffix = ".dylib" if "macos" in sysconfig.get_platform() else ".so"
    path = os.environ.get("DTWPT_NATIVE_LIBRARY") or str(
        Path(__file__).parent / f"_kernels{suffix}"
    )
    try:
        library = ctypes.CDLL(path)
        library.dtwpt_instruction_set.argtypes = [ctypes.c_int]
        library.dtwpt_instruction_set.restype = ctypes.c_char_p
        library.dtwpt_supported.argtypes = [ctypes.c_int]
        if not hasattr(library, "dtwpt_interface"):
            return None, path, _other_sources(path)
        library.dtwpt_interface.restype = ctypes.c_size_t
        number, wide, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
        side: tuple[Any, ...] = (number, number, pointer)
        library.dtwpt_run.argtypes = [
            *(number, number, number, pointer, number, wide),
            *side,
            *side,
            *(pointer, pointer, pointer, number, number, number, number, number),
        ]
    except (OSError, AttributeError) as error:
        return None, path, str(error)
    if library.dtwpt_interface() != _INTERFACE + ctypes.sizeof(_Plan):
        return None, path, _other_sources(path)
    return library, path, ""


def _other_sources(path: str) -> str:
    return f"{path} was built from other sources; build it again"


@lru_cache(maxsize=1)
def _compiled() -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the numbers of the instruction sets compiled in, and those this machine has."""
    library, _, _ = _library()
    numbers: dict[str, int] = {}
    while library is not None and (name := library.dtwpt_instruction_set(len(numbers))):
        numbers[name.decode()] = len(numbers)
    return numbers, tuple(name for name in numbers if library.dtwpt_supported(numbers[name]))


def _instruction_set() -> str | None:
    """Return the name of the instruction set to use, None if there is none."""
    numbers, supported = _compiled()
    forced = os.environ.get("DTWPT_INSTRUCTION_SET")
    if not forced:
        return supported[0] if supported else None
    if forced not in numbers:
        raise RuntimeError(
            f"DTWPT_INSTRUCTION_SET={forced!r} is not compiled in; choose one of {[*numbers]}"
        )
    if forced not in supported:
        raise RuntimeError(
            f"DTWPT_INSTRUCTION_SET={forced!r}, which this machine does not have; "
            f"choose one of {[*supported]}"
        )
    return forced


def info() -> dict[str, Any]:
    """Return the configuration of the engine.

    Returns
    -------
    dict
        ``instruction_set`` in use or None, those ``compiled`` in, those ``supported`` by the
        machine, the ``library``'s path, and as ``error`` why it could not be loaded, or None.

    Raises
    ------
    RuntimeError
        If DTWPT_INSTRUCTION_SET names one that is not compiled in or not supported.
    """
    library, path, error = _library()
    numbers, supported = _compiled()
    return {
        "instruction_set": None if library is None else _instruction_set(),
        "compiled": tuple(numbers),
        "supported": supported,
        "library": path,
        "error": error or None,
    }


def available(analysis: Analysis) -> bool:
    """Return whether the engine can run an analysis on this machine.

    Raises
    ------
    RuntimeError
        If DTWPT_INSTRUCTION_SET names one that is not compiled in or not supported.
    """
    if _library()[0] is None or _instruction_set() is None:
        return False
    if analysis.ndim not in (1, 2) or analysis.depth > _MAX_DEPTH:
        return False
    taps: int = analysis.stages[-1].shape[3]
    return taps % 2 == 0


def unavailable() -> str:
    """Return why the engine cannot run on this machine; nothing if it can."""
    _, _, error = _library()
    if not error and _instruction_set() is None:
        return f"it has kernels for {', '.join(_compiled()[0])}, which this machine does not have"
    return error


# Plans ------------------------------------------------------------------------------------------


class _Prepared:
    """An analysis as the library takes it, with the arrays that it points to."""

    def __init__(self, analysis: Analysis, dtype: np.dtype[Any]) -> None:
        first, *later = analysis.stages
        taps = first.shape[3] - 2
        shift = np.array([[0, 2], [1, 1]])  # where the taps begin that are not zeros of both ends
        trimmed = np.stack(
            [[first[t, 0, c, shift[t, c] : shift[t, c] + taps] for c in (0, 1)] for t in (0, 1)]
        )[:, None]
        # One stage is the first and the last: both trees' filters must then start together.
        if analysis.depth > 1 and np.sum(trimmed**2) == np.sum(first**2):
            first = trimmed
        else:
            shift[:] = 0
        stages = [stage.swapaxes(2, 3).ravel() for stage in (first, *later)]
        packets = np.arange(analysis.count)
        nodes = packets ^ (packets >> 1)
        packet = np.empty_like(packets)
        packet[nodes] = packets
        kept = analysis.place >= 0
        kept = kept.reshape(-1, kept.shape[-2] if kept.ndim == 3 else 1, analysis.count)
        # In one dimension there are no packets of rows.
        rows = np.broadcast_to(np.asarray(kept.any((0, 2))), analysis.count)
        columns = np.asarray(kept.any((0, 1)))
        self.arrays = (
            np.concatenate(stages).astype(dtype),
            packet.astype(np.int32),
            np.ascontiguousarray(analysis.place),
            _needed(rows[packet]),
            _needed(columns[packet]),
        )
        self.plan = _Plan(
            analysis.depth,
            analysis.ndim,
            analysis.stride,
            analysis.pool or 0,
            analysis.channels,
            analysis.length,
            first.shape[3],
            later[0].shape[3] if later else first.shape[3],
            (ctypes.c_int32 * 4)(*shift.ravel().tolist()),
            *(array.ctypes.data for array in self.arrays),
        )
        self.pointer = ctypes.addressof(self.plan)


def _needed(leaves: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return for each node of a binary tree, the root at 1, whether a leaf below it is needed."""
    needed: NDArray[np.bool_] = np.concatenate([np.zeros_like(leaves), leaves])
    for node in range(len(leaves) - 1, 0, -1):
        needed[node] = needed[2 * node : 2 * node + 2].any()
    return needed.astype(np.uint8)


@lru_cache(maxsize=64)
def _prepared(analysis: Analysis, dtype: np.dtype[Any]) -> _Prepared:
    return _Prepared(analysis, dtype)


# As many entries as the cache of indices.
@lru_cache(maxsize=64)
def _side(axis: Axis) -> tuple[int, int, int, NDArray[np.int32]]:
    """Return size, cells and address of the index, and the index, which must live on."""
    # Read once: two concurrent threads may each get their own array.
    index = axis.index
    return axis.n, axis.count, _address(index), index


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


# Functions --------------------------------------------------------------------------------------


def analyse(
    x: Float, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, out: Float, threads: int
) -> None:
    """Analyse (B, *shape) to what ``kind`` says, (B, ..., *size); see :class:`Analysis`."""
    _run(_ANALYSE, x.dtype, analysis, axes, kind, len(x), (x, None, out), threads)


def pool(
    x: Float,
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: Kind,
    grid: tuple[int, int],
    statistics: tuple[Statistic, ...],
    out: Float,
    threads: int,
) -> None:
    """Pool maps (kind "modulus" or "rmax") over the cells of a grid: (B, S, K, *grid).

    Rows are cut at ``part * rows // grid[0]``, columns likewise. Sums over runs of 16 rows are in
    the dtype of ``x``, those over runs and columns, and all of squares, in double precision.
    """
    bits = sum(_STATISTICS[name] for name in statistics)
    _run(_POOL, x.dtype, analysis, axes, kind, len(x), (x, None, out), threads, grid, bits)


def adjoint(
    c: Float, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, out: Float, threads: int
) -> None:
    """Apply the adjoint, in the real inner product, of :func:`analyse`: to (B, *shape).

    The kind is "complex", "parts" or "real". The cells are those of ``axes``, not pooled.
    """
    _run(_ADJOINT, out.dtype, analysis, axes, kind, len(c), (None, c, out), threads)


def modulus_backward(
    x: Float, g: Float, analysis: Analysis, axes: tuple[Axis, ...], out: Float, threads: int
) -> None:
    """Apply the adjoint to ``g * c / |c|``, c the coefficients of x: 0 where c is."""
    work = _MODULUS_BACKWARD
    _run(work, x.dtype, analysis, axes, "modulus", len(x), (x, g, out), threads)


def _run(
    operation: int,
    dtype: np.dtype[Any],
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: Kind,
    batch: int,
    arrays: tuple[Float | None, ...],
    threads: int,
    grid: tuple[int, int] = (1, 1),
    statistics: int = 0,
) -> None:
    name = _instruction_set()
    if name is None:
        raise RuntimeError("the native engine cannot run on this machine: see info()")
    prepared = _prepared(analysis, dtype)
    sides = [_side(axis) for axis in axes]
    result = _library()[0].dtwpt_run(
        operation,
        _compiled()[0][name],
        dtype.itemsize == 8,
        prepared.pointer,
        _KINDS[kind],
        batch,
        *(sides[0][:3] if len(sides) == 2 else (1, 1, None)),
        *sides[-1][:3],
        *(None if array is None else _address(array) for array in arrays),
        *grid,
        statistics,
        threads,
        os.environ.get("DTWPT_POISON") == "1",
    )
    if result == _NO_MEMORY:
        raise MemoryError("not enough memory for the buffers of the native engine")
    if result:
        raise RuntimeError(f"the native engine failed with code {result}")
