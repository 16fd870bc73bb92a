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
    matrices: NDArray[np.float16]
    width: int
    align: int
    read: str


class Cover(NamedTuple):
    """Cells that see tiles of samples of an axis: ``seen`` numbers a tile, -1 where fewer."""

    cells: NDArray[np.int32]
    table: NDArray[np.int32]
    matrices: NDArray[np.float16]
    seen: int


def pieces(length: int, longest: int = 1024) -> Pieces:
    """Cut a multiple of 16 into the longest powers of two, as (first, length)."""
    cut, first = [], 0
    while first < length:
        piece = min(longest, 1 << ((length - first).bit_length() - 1))
        cut.append((first, piece))
        first += piece
    return tuple(cut)


def span(length: int, most: int, longest: int = 1024) -> int:
    """Return the least length of at most ``most`` pieces that is no less than a length."""
    length = -(-length // 16) * 16
    while len(pieces(length, longest)) > most:
        length += 16
    return length


# Analysis ---------------------------------------------------------------------------------------


def window(
    analysis: Analysis, axis: Axis, cells: int, align: int, terms: int, vertical: bool
) -> Window:
    """Tabulate tiles of ``cells`` cells; starts are multiples of ``align``, in units of it.

    Matrices are (U, terms, 2 P cells, width) along the vertical axis, (U, terms, width, 2 P cells)
    along the other one.
    """
    seen = (cells - 1) * axis.stride + axis.length
    width = span(seen, 2) if vertical else span(seen, 4, 64)
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
    """Return (U, ...) as sums of float16, (U, terms, ...)."""
    rest, parts = _SCALE * matrices, []
    for _ in range(terms):
        parts.append(rest.astype(np.float16))
        rest = rest - parts[-1]
    return np.ascontiguousarray(np.stack(parts, 1))


# Adjoint ----------------------------------------------------------------------------------------


def cover(analysis: Analysis, axis: Axis, side: int, terms: int, vertical: bool) -> Cover:
    """Tabulate tiles of ``side`` samples.

    Matrices are (U, terms, tree, side, count * P) along the vertical axis, packets innermost, and
    (U, terms, packet, tree, count, side) along the other one.
    """
    tiles = -(-axis.n // side)
    first = np.arange(tiles) * side
    inside, low, high = _interior(axis, first, side)
    p = analysis.count
    groups, table = [], np.zeros(tiles, np.int32)
    if inside.any():
        tile = int(inside.argmax())
        cells = np.arange(low[tile], high[tile] + 1)
        groups.append((cells, _seen(analysis, axis, cells, int(first[tile]), side)))
    for tile in np.flatnonzero(~inside).tolist():
        reach = axis.length // axis.stride + side // axis.stride + 8
        near = np.arange(low[tile] - reach, high[tile] + reach + 1)
        ends = np.concatenate([near, np.arange(2 * reach), axis.count - 1 - np.arange(2 * reach)])
        cells = np.unique(ends[(ends >= 0) & (ends < axis.count)])
        matrix = _seen(analysis, axis, cells, int(first[tile]), side)
        some = matrix.any(axis=(1, 2))
        table[tile] = len(groups)
        groups.append((cells[some], matrix[some]))
    most = max(len(cells) for cells, _ in groups)
    if vertical:
        count = span(most * p, 3) // p
        while count < most or count * p % 16 or len(pieces(count * p)) > 3:
            count += 1
    else:
        count = max(16, 1 << (most - 1).bit_length())
    numbers = np.full((tiles, count), -1, np.int32)
    matrices: NDArray[np.float64] = np.zeros((len(groups), count, 2, p, side))
    for unique, (_, matrix) in enumerate(groups):
        matrices[unique, : len(matrix)] = matrix.reshape(-1, 2, p, side)
    for tile in range(tiles):
        direct = np.arange(low[tile], high[tile] + 1)
        cells = direct if inside[tile] else groups[table[tile]][0]
        numbers[tile, : len(cells)] = cells
    if vertical:
        rows = matrices.transpose(0, 2, 4, 1, 3).reshape(-1, 2, side, count * p)
        return Cover(numbers, table, _split(rows, terms), count)
    return Cover(numbers, table, _split(matrices.transpose(0, 3, 2, 1, 4), terms), count)


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


def _seen(
    analysis: Analysis, axis: Axis, cells: NDArray[Any], first: int, side: int
) -> NDArray[np.float64]:
    """Return (cells, 2 P, side): weights with which cells see the samples of a tile."""
    taps = np.arange(axis.length)
    source = axis.index[cells[:, None] * axis.stride + taps] - first
    matrix = np.zeros((len(cells), side, 2 * analysis.count))
    number, tap = np.nonzero((source >= 0) & (source < side) & (source + first >= 0))
    np.add.at(matrix, (number, source[number, tap]), analysis.taps.T[tap])
    return matrix.swapaxes(1, 2)
