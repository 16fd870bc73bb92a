"""Matrices and positions that the GPU kernels read, for tiles of an axis.

Tiles away from the borders share one matrix; each tile at a border has its own, in which the
extension of the signal is folded onto the samples. So kernels see nothing of the modes, except
that a periodic signal is read with wrapped positions in the analysis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine.spec import Analysis, Axis

Pieces = tuple[tuple[int, int], ...]

# Matrices are multiplied by it, so that small terms of entries are normal numbers in float16.
_SCALE = 2.0**4


class Window(NamedTuple):
    """What tiles of cells see along an axis: ``width`` samples from ``start`` on, by ``table``.

    ``read`` is "whole" where all of these are samples, "masked" where some are not, as the signal
    is short, and "wrapped" in a periodic signal.
    """

    start: NDArray[np.int32]
    table: NDArray[np.int32]
    matrices: NDArray[Any]
    width: int
    align: int
    read: str


class Cover(NamedTuple):
    """Cells that see tiles of samples of an axis, ``seen`` numbers a tile, by ``table``.

    Where ``direct``, they follow each other, from a multiple of ``align`` on.
    """

    cells: NDArray[np.int32]
    table: NDArray[np.int32]
    matrices: NDArray[np.float16]
    seen: int
    align: int
    direct: bool


def pieces(length: int, longest: int = 1024) -> Pieces:
    """Cut a multiple of 16 into the longest powers of two, as (first, length)."""
    cut, first = [], 0
    while first < length:
        piece = min(longest, 1 << ((length - first).bit_length() - 1))
        cut.append((first, piece))
        first += piece
    return tuple(cut)


def span(length: int, most: int, longest: int = 1024, least: int = 16) -> int:
    """Return the least multiple of ``least``, in at most ``most`` pieces, not below a length."""
    length = -(-length // least) * least
    while len(pieces(length, longest)) > most:
        length += least
    return length


# Analysis ---------------------------------------------------------------------------------------


def window(
    analysis: Analysis,
    axis: Axis,
    cells: int,
    align: int,
    terms: int,
    vertical: bool,
    least: int = 16,
) -> Window:
    """Tabulate tiles of ``cells`` cells; starts are multiples of ``align``, in units of it.

    The width of a horizontal one is a multiple of ``least``.

    Matrices are (U, terms, 2 P cells, width) along the vertical axis, (U, terms, width, 2 P cells)
    along the other one.
    """
    seen = (cells - 1) * axis.stride + axis.length
    width = span(seen, 2) if vertical else span(seen, 4, max(64, least), least)
    periodic = axis.mode == "periodic"
    while (periodic and align > 1) or seen + align - 1 > width or cells * axis.stride % align:
        align //= 2
    read = "wrapped" if periodic else "whole" if axis.n >= width else "masked"
    tiles = -(-axis.count // cells)
    start = (axis.first + np.arange(tiles) * cells * axis.stride) // align * align
    whole = np.arange(1, tiles + 1) * cells <= axis.count
    inside = periodic | (start >= 0) & (start + width <= axis.n) & whole
    table = np.zeros(tiles, np.int32)
    unique = []
    if inside.any():
        offset = axis.first - axis.first // align * align
        unique.append(_matrix(analysis, offset + np.arange(seen), axis.stride, cells, width))
    for tile in np.flatnonzero(~inside).tolist():
        own = min(cells, axis.count - tile * cells)
        at = tile * cells * axis.stride
        source = axis.index[at : at + (own - 1) * axis.stride + axis.length]
        least = int(source[source >= 0].min(initial=axis.n - 1))
        start[tile] = max(0, min(least // align * align, axis.n - width))
        positions = np.where(source >= 0, source - int(start[tile]), -1)
        table[tile] = len(unique)
        unique.append(_matrix(analysis, positions, axis.stride, own, width, cells))
    p = analysis.count
    trees = np.stack(unique).reshape(-1, cells, 2, p, width)
    if vertical:
        # Eight rows of tree 1, then the same of tree 2: one thread of a product holds both.
        rows = trees.transpose(0, 2, 3, 1, 4).reshape(-1, 2, p * cells // 8, 8, width)
        matrices = rows.transpose(0, 2, 1, 3, 4).reshape(-1, 2 * p * cells, width)
    else:
        matrices = trees.transpose(0, 4, 2, 3, 1).reshape(-1, width, 2 * p * cells)
    first = (start // align).astype(np.int32)
    return Window(first, table, _split(matrices, terms), width, align, read)


def _matrix(
    analysis: Analysis,
    positions: NDArray[Any],
    stride: int,
    own: int,
    width: int,
    cells: int | None = None,
) -> NDArray[np.float64]:
    """Return (cells, 2 P, width) of cells that see columns ``positions``, -1 being none."""
    matrix = np.zeros((cells or own, width, 2 * analysis.count))
    for cell in range(own):
        source = positions[cell * stride : cell * stride + analysis.length]
        seen = source >= 0
        np.add.at(matrix[cell], source[seen], analysis.taps.T[seen])
    return matrix.swapaxes(1, 2)


def _split(matrices: NDArray[Any], terms: int) -> NDArray[np.float16]:
    """Return (U, ...) as sums of float16, (U, terms, ...); with no terms as float32, unscaled."""
    if not terms:
        return matrices[:, None].astype(np.float32)
    rest, parts = _SCALE * matrices, []
    for _ in range(terms):
        parts.append(rest.astype(np.float16))
        rest = rest - parts[-1]
    return np.ascontiguousarray(np.stack(parts, 1))


# Adjoint ----------------------------------------------------------------------------------------


def cover(
    analysis: Analysis, axis: Axis, side: int, align: int, terms: int, vertical: bool
) -> Cover:
    """Tabulate tiles of ``side`` samples; ``align`` divides the number of cells.

    Matrices are (U, terms, tree, side, seen * P) along the vertical axis, packets innermost, and
    (U, terms, packet, tree, seen, side) along the other one.
    """
    tiles = -(-axis.n // side)
    first = np.arange(tiles) * side
    inside, low, high = _interior(axis, first, side)
    cells = [
        np.arange(low[tile], high[tile] + 1)
        if inside[tile]
        else _seeing(axis, int(low[tile]), int(high[tile]), int(first[tile]), side)
        for tile in range(tiles)
    ]
    p = analysis.count
    # As for a long signal, so that kernels are compiled for few numbers.
    most = max((side + axis.length - 2) // axis.stride + 1, *map(len, cells))
    if vertical:
        seen, align = most, 1
        while seen * p % 16 or len(pieces(seen * p)) > 3:
            seen += 1
    else:
        seen = max(16, 1 << (most - 1).bit_length())
        while most + align - 1 > seen or side // axis.stride % align:
            align //= 2
    direct = not vertical and axis.mode != "periodic"
    numbers = np.empty((tiles, seen), np.int32)
    for tile, some in enumerate(cells):
        if direct:
            start = int(some[0]) // align * align
            inside[tile] &= start + seen <= axis.count
            numbers[tile] = max(0, min(start, axis.count - seen)) + np.arange(seen)
        else:  # the last one again, with no weight
            numbers[tile] = np.pad(some, (0, seen - len(some)), mode="edge")
    table = np.cumsum(~inside).astype(np.int32)
    table[inside] = 0
    own = np.concatenate([np.flatnonzero(inside)[:1], np.flatnonzero(~inside)])
    if not inside.any():
        table -= 1
    matrices: NDArray[np.float64] = np.zeros((len(own), seen, 2, p, side))
    for matrix, tile in zip(matrices, own.tolist(), strict=True):
        at = np.searchsorted(numbers[tile], cells[tile])
        matrix[at] = _weights(analysis, axis, cells[tile], int(first[tile]), side)
    if vertical:
        rows = matrices.transpose(0, 2, 4, 1, 3).reshape(-1, 2, side, seen * p)
        return Cover(numbers, table, _split(rows, terms), seen, align, direct)
    across = matrices.transpose(0, 3, 2, 1, 4)
    return Cover(numbers, table, _split(across, terms), seen, align, direct)


def _interior(
    axis: Axis, first: NDArray[Any], side: int
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any]]:
    """Return which tiles no extension reaches, and the first and last cell that see each directly.

    These tiles are alike, as a side is a multiple of the stride.
    """
    low = -((axis.first + axis.length - 1 - first) // axis.stride)
    high = (first + side - 1 - axis.first) // axis.stride
    over = axis.first + axis.extended - axis.n
    reach = max(-axis.first, over, 0)
    inside = (first > reach) & (first + side < axis.n - reach)
    inside &= (low >= 0) & (high < axis.count) & (side % axis.stride == 0)
    return inside, low, high


def _seeing(axis: Axis, low: int, high: int, first: int, side: int) -> NDArray[Any]:
    """Return the cells that see any sample of a tile, by the extension or directly."""
    # These are near the cells that would see it directly, or at the ends.
    reach = axis.length // axis.stride + side // axis.stride + 8
    near = np.arange(low - reach, high + reach + 1)
    ends = np.arange(2 * reach)
    cells = np.unique(np.concatenate([near, ends, axis.count - 1 - ends]))
    cells = cells[(cells >= 0) & (cells < axis.count)]
    source = axis.index[cells[:, None] * axis.stride + np.arange(axis.length)]
    cells_that_see = np.unique(np.nonzero((source >= first) & (source < first + side))[0])
    # A tile that no cell sees has one all the same.
    return cells[cells_that_see] if cells_that_see.size else cells[:1]


def _weights(
    analysis: Analysis, axis: Axis, cells: NDArray[Any], first: int, side: int
) -> NDArray[np.float64]:
    """Return (cells, 2, P, side): weights with which cells see the samples of a tile."""
    source = axis.index[cells[:, None] * axis.stride + np.arange(axis.length)]
    matrix = np.zeros((len(cells), side, 2 * analysis.count))
    number, tap = np.nonzero((source >= first) & (source < first + side))
    np.add.at(matrix, (number, source[number, tap] - first), analysis.taps.T[tap])
    return matrix.swapaxes(1, 2).reshape(len(cells), 2, -1, side)
