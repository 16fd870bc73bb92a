"""Analysis of images on a GPU, and its adjoint, in one kernel each.

The results are those of :mod:`dtwpt.engine.reference` within 1e-5 of the largest value for float32
and within 1e-2 for float16, bfloat16 and ``fast``; in practice within 3e-6 and 5e-3. They are
identical, bit for bit, at every call. Precision settings of torch are not used. A value that is not
finite reaches at least the coefficients that see it, and at most those of their tile.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dtwpt.engine.gpu_tables import cover, pieces, window
from dtwpt.engine.spec import Analysis, Axis, Kind

try:
    import triton

    from dtwpt.engine import gpu_kernels as kernels
except ImportError:  # pragma: no cover - torch comes without it on some platforms
    triton = None


class Tiling(NamedTuple):
    """Tile of a kernel: cells (analysis) or pixels (adjoint).

    A program goes through ``images`` images at most, with its matrices in shared memory. With
    ``once`` it loads the pixels of a tile at once, and keeps them in shared memory for products, or
    else reads them again from the cache. Products are of blocks of ``piece`` rows (of pixels, or
    packets and cells) at most, and ``chunk`` columns of pixels. Some tilings give wrong results,
    see kernels: benchmarks/gpu.py checks those in use.
    """

    rows: int
    columns: int
    warps: int = 4
    stages: int = 1
    images: int = 16
    once: bool = False
    chunk: int = 64
    piece: int = 32
    registers: int | None = None


#: Tilings by depth and terms: 2 for float32, 1 for ``fast`` and for directions of 16 bits, or 0.
ANALYSIS = {
    (1, 0): Tiling(16, 16, once=True),
    (1, 1): Tiling(16, 16, once=True),
    (1, 2): Tiling(16, 16, once=True),
    (2, 0): Tiling(8, 16, once=True, chunk=128),
    (2, 1): Tiling(8, 16, once=True, chunk=128),
    (2, 2): Tiling(8, 8, once=True),
    (3, 0): Tiling(4, 8, once=True),
    (3, 1): Tiling(4, 8, chunk=32, piece=64),
    (3, 2): Tiling(4, 4, chunk=32, piece=64),
    (4, 0): Tiling(2, 4, chunk=32, piece=64),
    (4, 1): Tiling(2, 4, chunk=32, piece=64),
    (4, 2): Tiling(2, 2, chunk=32, piece=64),
}
#: The same for kinds that write two numbers of each coefficient, where others are faster.
ANALYSIS_OF_PAIRS = {
    (2, 0): Tiling(8, 8, once=True),
}
ADJOINT = {
    (1, 1): Tiling(64, 32),
    (1, 2): Tiling(64, 32),
    (2, 1): Tiling(64, 64, piece=64),
    (2, 2): Tiling(64, 64),
    (3, 1): Tiling(64, 64),
    (3, 2): Tiling(64, 64),
    (4, 1): Tiling(64, 32),
    (4, 2): Tiling(64, 32),
}

#: For strides below ``2**depth``: more cells see a pixel.
DENSE_ADJOINT = Tiling(32, 32)

# Maximum shared memory of the kernels, in bytes, by depth.
_SHARED = {1: 101376, 2: 101376, 3: 101376, 4: 135168}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def available(x: Tensor, analysis: Analysis) -> bool:
    """Tell whether the kernels can analyse images ``x``, (B, H, W)."""
    if triton is None or analysis.ndim != 2 or not 1 <= analysis.depth <= 4:
        return False
    strides = (2**analysis.depth, 2 ** (analysis.depth - 1))
    if x.dtype not in _DTYPES or analysis.stride not in strides:
        return False
    # Positions within an image are of 32 bits.
    height, width = x.shape[-2:]
    numbers = 2 * (height // analysis.stride + 4) * (width // analysis.stride + 4)
    if max(height * width, numbers * analysis.channels) >= 2**31:
        return False
    if x.is_cuda:
        return _shared(x.device) >= _SHARED[analysis.depth]
    return x.device.type == "cpu" and _interpreted()


def analyse(
    x: Tensor, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, *, fast: bool = False
) -> Tensor:
    """Analyse images (B, H, W); see :class:`dtwpt.engine.spec.Analysis`.

    Parameters
    ----------
    x : Tensor
        float32, float16 or bfloat16.
    analysis : Analysis
    axes : (Axis, Axis)
    kind : {"complex", "parts", "real", "modulus"}
    fast : bool
        Let float32 have the products of tf32's precision.

    Returns
    -------
    Tensor
        "complex" and "parts" in single precision, others of the dtype of x.
    """
    shape = (len(x), analysis.channels, axes[0].count, axes[1].count)
    if kind == "complex":
        out = torch.empty(shape, dtype=torch.complex64, device=x.device)
        _analyse(x, torch.view_as_real(out), None, None, analysis, axes, kind, fast)
        return out
    if kind == "parts":
        out = torch.empty((shape[0], 2, *shape[1:]), dtype=torch.float32, device=x.device)
    else:
        out = torch.empty(shape, dtype=x.dtype, device=x.device)
    _analyse(x, out, None, None, analysis, axes, kind, fast)
    return out


def adjoint(
    c: Tensor, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, dtype: torch.dtype
) -> Tensor:
    """Apply the adjoint, in the real inner product, of :func:`analyse`: to (B, H, W) of ``dtype``.

    ``kind`` is one of "complex", "parts" and "real".
    """
    c = c.contiguous()
    numbers = torch.view_as_real(c.resolve_conj()) if kind == "complex" else c
    maxima = torch.zeros(len(c), dtype=torch.int32, device=c.device)
    size = numbers[0].numel() if len(c) else 0
    block, steps = 1024, 8
    for start in range(0, len(c) if size else 0, 65535):
        some = slice(start, min(start + 65535, len(c)))
        grid = (-(-size // (block * steps)), some.stop - start)
        with _on(c):
            kernels.maxima_kernel[grid](
                numbers[some], maxima[some], size, BLOCK=block, STEPS=steps, num_warps=4
            )
    return _adjoint(numbers, maxima, analysis, axes, kind, dtype)


def modulus_backward(
    x: Tensor, g: Tensor, analysis: Analysis, axes: tuple[Axis, ...], *, fast: bool = False
) -> Tensor:
    """Return the gradient of images from that of their modulus, (B, K, *size).

    That is the adjoint of ``g c / |c|``, 0 where the coefficient c is 0; c is computed again.
    """
    g = g.contiguous()
    shape = (len(x), 2, *g.shape[1:])
    parts = torch.empty(shape, dtype=x.dtype, device=x.device)
    maxima = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    _analyse(x, parts, g, maxima, analysis, axes, "direction", fast)
    return _adjoint(parts, maxima, analysis, axes, "parts", x.dtype, fast)


# Launches ---------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A launch of a kernel, which tests also compile without a GPU."""

    kernel: Any
    grid: tuple[int, int]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, Any]

    def run(self) -> None:
        """Launch it."""
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)


def _analyse(
    x: Tensor,
    out: Tensor,
    g: Tensor | None,
    maxima: Tensor | None,
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: str,
    fast: bool,
) -> None:
    if out.numel():
        # Directions of small coefficients need more than the 8 bits of no terms.
        narrow = 1 if kind == "direction" else 0
        terms = narrow if x.dtype != torch.float32 else 1 if fast else 2
        tiling = analysis_tiling(analysis.depth, terms, kind)
        with _on(x):
            analysis_call(x.contiguous(), out, g, maxima, analysis, axes, kind, terms, tiling).run()


def analysis_tiling(depth: int, terms: int, kind: str) -> Tiling:
    """Return the tiling in use."""
    found = ANALYSIS[depth, terms]
    if kind in ("complex", "parts", "direction"):
        return ANALYSIS_OF_PAIRS.get((depth, terms), found)
    return found


def analysis_call(
    x: Tensor,
    out: Tensor,
    g: Tensor | None,
    maxima: Tensor | None,
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: str,
    terms: int,
    tiling: Tiling,
) -> Call:
    """Prepare the analysis of x to ``out``; kind "direction" needs gradients and maxima."""
    align = _divisor(axes[1].n, 16 // x.element_size())
    even = _divisor(axes[1].count, 8)
    # The types of matrices with no terms, see kernels.
    own, wide = (None, None) if terms else (x.dtype, torch.bfloat16)
    v = _window(analysis, axes[0], tiling.rows, 1, terms, True, x.device, dtype=own)
    # Chunks of 128 are one, with zeros; pieces of 64 rows have no chunk of 16 columns, see kernels.
    least = 128 if tiling.chunk == 128 else 16 if tiling.piece < 64 else 32
    h = _window(analysis, axes[1], tiling.columns, align, terms, False, x.device, least, wide)
    tiles = len(v.start) * len(h.start)
    per = _images(len(x), tiles, tiling.images, _processors(x.device))
    arguments = {
        "x": x,
        "out": out,
        "g": out if g is None else g,
        "maxima": v.table if maxima is None else maxima,
        "vertical": v.matrices,
        "horizontal": h.matrices,
        "row_start": v.start,
        "row_table": v.table,
        "column_start": h.start,
        "column_table": h.table,
        "place": _place(analysis, x.device),
        "B": len(x),
        "per": per,
        "H": axes[0].n,
        "units": axes[1].n // h.align,
        "nh": axes[0].count,
        "cell_units": axes[1].count // even,
        "K": analysis.channels,
        "tiles": len(h.start),
    }
    constants = {
        "CELLS_V": tiling.rows,
        "CELLS_H": tiling.columns,
        "P": analysis.count,
        "ROWS": pieces(v.width, tiling.piece),
        "COLUMNS": pieces(h.width, tiling.chunk),
        "WINDOW_V": v.width,
        "WINDOW_H": h.width,
        "SPAN": 1 << (h.width - 1).bit_length(),
        "ALIGN": h.align,
        "READ": "masked" if "masked" in (v.read, h.read) else v.read,
        "ONCE": tiling.once,
        "EVEN": even,
        "TERMS": terms,
        "KIND": kind,
        "ALL": analysis.packets is None,
    }
    grid = (tiles, -(-len(x) // per))
    return Call(kernels.analyse_kernel, grid, arguments, constants, _options(tiling))


def _adjoint(
    c: Tensor,
    maxima: Tensor,
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: str,
    dtype: torch.dtype,
    fast: bool = False,
) -> Tensor:
    shape = (len(c), axes[0].n, axes[1].n)
    if not c.numel():
        return torch.zeros(shape, dtype=dtype, device=c.device)
    out = torch.empty(shape, dtype=dtype, device=c.device)
    terms = 1 if fast or dtype != torch.float32 else 2
    dense = analysis.stride < 2**analysis.depth
    tiling = DENSE_ADJOINT if dense else ADJOINT[analysis.depth, terms]
    with _on(c):
        adjoint_call(c, out, maxima, analysis, axes, kind, terms, tiling).run()
    return out


def adjoint_call(
    c: Tensor,
    out: Tensor,
    maxima: Tensor,
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: str,
    terms: int,
    tiling: Tiling,
) -> Call:
    """Prepare the adjoint of c to ``out``; ``maxima`` are those of magnitudes in c, as bits."""
    align = _divisor(axes[1].count, 4 if c.element_size() > 2 else 8)
    even = _divisor(axes[1].n, 8)
    v = _cover(analysis, axes[0], tiling.rows, 1, terms, True, c.device)
    h = _cover(analysis, axes[1], tiling.columns, align, terms, False, c.device)
    tiles = len(v.table) * len(h.table)
    per = _images(len(c), tiles, tiling.images, _processors(c.device))
    arguments = {
        "c": c,
        "out": out,
        "maxima": maxima,
        "vertical": v.matrices,
        "horizontal": h.matrices,
        "row_cells": v.cells,
        "row_table": v.table,
        "column_cells": h.cells,
        "column_table": h.table,
        "place": _place(analysis, c.device),
        "B": len(c),
        "per": per,
        "H": axes[0].n,
        "units": axes[1].n // even,
        "nh": axes[0].count,
        "cell_units": axes[1].count // h.align,
        "K": analysis.channels,
        "tiles": len(h.table),
    }
    constants = {
        "SIDE_V": tiling.rows,
        "SIDE_H": tiling.columns,
        "P": analysis.count,
        "ROWS": pieces(v.seen * analysis.count, tiling.piece),
        "CELLS_V": v.seen,
        "CELLS_H": h.seen,
        "ALIGN": h.align,
        "EVEN": even,
        "DIRECT": h.direct,
        "NARROW": h.direct and h.seen > axes[1].count,
        "TERMS": terms,
        "KIND": kind,
        "ALL": analysis.packets is None,
    }
    grid = (tiles, -(-len(c) // per))
    return Call(kernels.adjoint_kernel, grid, arguments, constants, _options(tiling))


def _options(tiling: Tiling) -> dict[str, Any]:
    options = {"num_warps": tiling.warps, "num_stages": tiling.stages}
    return options if tiling.registers is None else {**options, "maxnreg": tiling.registers}


@lru_cache(maxsize=1024)
def _images(count: int, tiles: int, most: int, processors: int) -> int:
    """Return how many images a program processes, so that all processors are busy to the end.

    About three programs run on a processor at a time; starting one takes about as long as an image.
    """

    def cost(per: int) -> int:
        programs = tiles * -(-count // per)
        return -(-programs // (3 * processors)) * (per + 1)

    per = min(range(1, most + 1), key=cost)
    return max(per, -(-count // 65535))  # the limit of a grid


def _divisor(n: int, most: int) -> int:
    """Return the largest power of two up to ``most`` that divides n."""
    return min(most, n & -n)


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@lru_cache(maxsize=16)
def _shared(device: torch.device) -> int:
    """Return the shared memory that a program can have, 0 where the kernels cannot run."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None or properties.major < 8:
        return 0
    # Older versions of torch do not report it; this is the minimum from compute capability 8 on.
    return int(getattr(properties, "shared_memory_per_block_optin", 101376))


def _on(x: Tensor) -> Any:
    """Make the device of a tensor the current one."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


# Constants, uploaded once -----------------------------------------------------------------------
# The copy waits, so that any stream can use them.


@lru_cache(maxsize=256)
def _window(
    analysis: Analysis,
    axis: Axis,
    cells: int,
    align: int,
    terms: int,
    vertical: bool,
    device: torch.device,
    least: int = 16,
    dtype: torch.dtype | None = None,
) -> Any:
    table = window(analysis, axis, cells, align, terms, vertical, least)
    found: Any = type(table)(*(_on_device(field, device) for field in table))
    return found if dtype is None else found._replace(matrices=found.matrices.to(dtype))


@lru_cache(maxsize=256)
def _cover(
    analysis: Analysis,
    axis: Axis,
    side: int,
    align: int,
    terms: int,
    vertical: bool,
    device: torch.device,
) -> Any:
    table = cover(analysis, axis, side, align, terms, vertical)
    return type(table)(*(_on_device(field, device) for field in table))


@lru_cache(maxsize=64)
def _place(analysis: Analysis, device: torch.device) -> Any:
    return _on_device(analysis.place, device)


def _on_device(field: Any, device: torch.device) -> Any:
    if not isinstance(field, np.ndarray):
        return field
    return torch.from_numpy(field.copy()).to(device)
