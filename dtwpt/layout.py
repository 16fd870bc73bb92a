"""Rows laid out after one another, such as those of an image that goes on beyond its borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtwpt.arrays import Allocate, Array, empty, take

__all__ = ["Layout", "lay_out"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Places along an axis of which copies are taken, -1 for a zero; see :func:`lay_out`.

    They go up one by one for the most part: from ``start`` to ``stop``, that block begins at place
    ``first``. The rest is ``wanted``, as counted in what is being laid out if all of it is in
    the block (``within``), which lies better in memory than where it came from.
    """

    size: int
    start: int
    stop: int
    first: int
    wanted: NDArray[np.intp]
    within: bool

    @classmethod
    def of(cls, index: NDArray[np.intp]) -> Layout:
        """Return the layout that takes the places ``index``."""
        start, stop = _longest_run(index)
        first = int(index[start]) if stop > start else 0
        wanted = np.concatenate([index[:start], index[stop:]])
        inside = (wanted >= first) & (wanted < first + stop - start)
        within = bool((inside | (wanted < 0)).all())
        if within:
            wanted = np.where(wanted < 0, -1, wanted - first + start)
        return cls(index.size, start, stop, first, wanted, within)


def lay_out(x: Array, layout: Layout, allocate: Allocate = empty) -> Array:
    """Return copies of rows of each plane, (B, R, ...) to (B, layout.size, ...), in C order."""
    start, stop, length = layout.start, layout.stop, layout.size
    planes = x.shape[0]
    out = allocate((planes, length, *x.shape[2:]), x)
    out[:, start:stop] = x[:, layout.first : layout.first + stop - start]
    if layout.wanted.size == 0:
        return out
    if layout.within:  # rows of all planes after one another
        at = length * np.arange(planes)[:, None] + layout.wanted
        at = np.where(layout.wanted < 0, -1, at)
        taken = take(out.reshape(planes * length, -1), at.ravel(), 0)
        taken = taken.reshape(planes, layout.wanted.size, *x.shape[2:])
    else:
        taken = take(x, layout.wanted, 1)
    out[:, :start] = taken[:, :start]
    out[:, stop:] = taken[:, start:]
    return out


def _longest_run(index: NDArray[np.intp]) -> tuple[int, int]:
    """Start and stop of the longest run in which an index goes up one by one from 0 or more."""
    breaks = np.flatnonzero((np.diff(index) != 1) | (index[:-1] < 0)) + 1
    edges = np.concatenate([[0], breaks, [index.size]])
    longest = int(np.argmax(np.diff(edges)))
    start, stop = int(edges[longest]), int(edges[longest + 1])
    return (start, stop) if index[start] >= 0 else (start, start)
