"""Correction of the inverse at the borders: one small linear system for each end of an axis.

Away from the ends the columns of the analysis matrix A of an axis are orthonormal, up to the
gain, so that the adjoint inverts it. On the infinite line all cells together give the identity;
near an end those are missing that would begin beyond it, and the extension adds copies. So

    A^T A / gain = E^T E - E^T (M_first + M_last) E,

E being the extension, which gives each position one sample at most, and M the product of the
missing cells with themselves. A missing cell further out sees the same taps, moved: M is the
product of one cell, summed along its diagonals. Only the samples within half a filter of an end
see any of it, whatever the length of the axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine.spec import Analysis, Axis

# Deviation from the identity that is ignored: that of the published taps.
_TOLERANCE = 1e-8
# Larger matrices are not cached (2 MiB).
_KEPT = 2**18

#: Samples, counted from the end where negative, and the inverse of their part of the Gram matrix.
Block = tuple[NDArray[np.intp], NDArray[np.float64]]


def solve(x: NDArray[Any], analysis: Analysis) -> NDArray[Any]:
    """Undo the Gram matrices of all axes on (B, *shape), in place."""
    for dim, n in enumerate(x.shape[1:], start=1):
        moved = np.moveaxis(x, dim, -1)
        if _is_kept(analysis):
            for near, inverse in blocks(analysis, n):
                moved[..., near] = moved[..., near] @ inverse.astype(x.dtype)
        else:
            for near, gram in _grams(_one_axis(analysis), n):
                there = moved[..., near].reshape(-1, near.size)
                solved = np.linalg.solve(gram, there.T)
                moved[..., near] = solved.T.reshape(*moved.shape[:-1], near.size)
    return x


def blocks(analysis: Analysis, n: int) -> list[Block]:
    """Return the blocks in which the Gram matrix of an axis of n samples is not the identity."""
    # All longer axes of one remainder have the same ends.
    shortest = 2 * (analysis.length + analysis.stride)
    n = min(n, shortest + (n - shortest) % analysis.stride)
    find = _blocks if _is_kept(analysis) else _blocks.__wrapped__
    return find(_one_axis(analysis), n)


def _one_axis(analysis: Analysis) -> Analysis:
    return Analysis(analysis.depth, analysis.wavelet, analysis.stride, analysis.mode, 1)


def _is_kept(analysis: Analysis) -> bool:
    return (analysis.length // 2) ** 2 <= _KEPT


@lru_cache(maxsize=64)
def _blocks(analysis: Analysis, n: int) -> list[Block]:
    out = []
    for near, gram in _grams(analysis, n):
        inverse = np.asarray(np.linalg.inv(gram), np.float64)
        # Negligible entries would be subnormal in float32, which is very slow.
        inverse[np.abs(inverse) < 1e-20] = 0
        out.append((near, inverse))
    return out


def _grams(analysis: Analysis, n: int) -> Iterator[Block]:
    """Yield the samples of each block, and their part of the Gram matrix."""
    (axis,) = analysis.axes((n,), analysis.size((n,)), "complex")
    source = axis.index
    copies = np.bincount(source[source >= 0], minlength=n)
    beyond = axis.length - axis.stride  # positions that a missing cell sees, too
    ends = [source[:beyond], source[axis.extended - beyond :]]
    changed = np.flatnonzero(copies != 1)
    sides = changed[changed < n // 2], changed[changed >= n // 2]
    first, last = (np.union1d(end[end >= 0], side) for end, side in zip(ends, sides, strict=True))
    apart = first.size > 0 and last.size > 0 and first.max() < last.min()
    groups: list[tuple[NDArray[Any], tuple[int, ...]]] = [(first, (0,)), (last, (1,))]
    if not apart:
        groups = [(np.union1d(first, last), (0, 1))]
    for near, which in groups:
        gram = np.diag(copies[near].astype(float))
        for end in which:
            gram -= _missing(analysis.taps, axis, ends[end], near, end)
        if np.abs(gram - np.eye(near.size)).max() > _TOLERANCE:
            # Counted from the end, so that it holds for longer axes.
            yield np.where(near >= n // 2, near - n, near), gram


def _missing(
    taps: NDArray[np.float64], axis: Axis, source: NDArray[Any], near: NDArray[Any], end: int
) -> NDArray[np.float64]:
    """Return E^T M E for one end, 0 or 1, on the samples ``near``."""
    stride, length = axis.stride, axis.length
    cells = taps.T @ taps
    if end == 0:
        for at in range((length - stride - 1) // stride * stride, -1, -stride):
            size = min(stride, length - stride - at)
            cells[at : at + size, :-stride] += cells[at + stride : at + stride + size, stride:]
        cells = cells[stride:, stride:]
    else:
        for at in range(stride, length, stride):
            size = min(stride, length - at)
            cells[at : at + size, stride:] += cells[at - stride : at - stride + size, :-stride]
        cells = cells[:-stride, :-stride]
    inside = np.flatnonzero(source >= 0)
    inside = inside[np.argsort(source[inside], kind="stable")]
    starts = np.searchsorted(source[inside], near)
    starts, seen = starts[starts < inside.size], np.isin(near, source[inside])
    missing = np.zeros((near.size, near.size))
    folded = np.add.reduceat(cells[inside], starts[seen[: starts.size]], axis=0)
    folded = np.add.reduceat(folded[:, inside], starts[seen[: starts.size]], axis=1)
    missing[np.ix_(seen, seen)] = folded
    return missing
