"""Two axes make a plane: the separable outputs of both trees, and their complex combinations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dtwpt.arrays import (
    Array,
    complex_empty,
    empty,
    namespace,
    permute,
    real_and_imaginary,
)
from dtwpt.axis import Axis, axis_for
from dtwpt.layout import Layout, lay_out
from dtwpt.packets import PLANE_GAIN
from dtwpt.scratch import Scratch
from dtwpt.wavelets import Wavelet

__all__ = ["Part", "Piece", "Plane", "Stretch", "Window", "combine", "plane_for"]

# Work goes through in pieces of about this many pixels, so that every intermediate array stays in
# a core's own cache (about 1 MiB of float32).
_PIECE = 300_000
# Parts of large images: wide rather than square, as memory is reached a page, part of a row, at a
# time.
_PART_HEIGHT, _PART_WIDTH = 256, 2048


@dataclass(frozen=True)
class Part:
    """A part of an axis: ``place`` in the output, and the ``cells`` that it needs.

    These see the samples ``source`` of the signal (a slice, if they are neighbours), extended
    by taking of them the ones that ``layout`` names.
    """

    place: slice
    cells: int
    source: slice | NDArray[np.intp]
    layout: Layout


@dataclass(frozen=True)
class Piece:
    """A part of some planes: its pixels (B, H, W), its rows and its columns."""

    planes: slice
    pixels: Array
    rows: Part
    columns: Part

    @property
    def place(self) -> tuple[slice, slice, slice]:
        """Planes, rows and columns of the output that come of it."""
        return self.planes, self.rows.place, self.columns.place


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some neighbouring parts of an axis.

    ``place`` in the output; the ``samples`` of the signal that they see, in order and each once;
    the ``parts``, whose own places and sources are counted from there.
    """

    place: slice
    samples: NDArray[np.intp]
    parts: list[Part]

    @property
    def length(self) -> int:
        """Places in the output."""
        return int(self.place.stop - self.place.start)


@dataclass(frozen=True, eq=False)
class Window:
    """A rectangle of the output, worked through from the pixels that it sees alone.

    Its pieces are those of the whole image, so what comes out is the same, bit for bit.
    """

    rows: Stretch
    columns: Stretch

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the output."""
        return self.rows.place, self.columns.place

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the output, their number."""
        return self.rows.length, self.columns.length

    def pieces(self, x: Array) -> Iterator[Piece]:
        """Yield the pieces of the pixels (B, rows.samples, columns.samples)."""
        return _pieces(x, 1, self.rows.parts, self.columns.parts)


@dataclass(frozen=True)
class Plane:
    """The two axes of images of one size."""

    vertical: Axis
    horizontal: Axis

    @property
    def packets(self) -> int:
        """Packets an axis."""
        return self.horizontal.channels // 2

    @property
    def size(self) -> tuple[int, int]:
        """Cells down and across."""
        return self.vertical.count, self.horizontal.count

    def pieces(self, x: Array, pool: int = 1, hop: int = 1) -> Iterator[Piece]:
        """Yield the pieces in which images (B, H, W) are worked through.

        Small images go through several at a time, large ones in parts. With ``pool`` and
        ``hop``, every place of the output needs ``pool`` cells, ``hop`` further on than the last.
        """
        tall, wide = self._cut(pool, hop)
        yield from _pieces(x, self._group, tall, wide)

    def windows(self, size: int, pool: int = 1, hop: int = 1) -> list[list[Window]]:
        """Return rectangles that make up the output: rows of windows, from the top left.

        Each is of whole pieces, about ``size`` pixels a side, at least one piece; ``pool`` and
        ``hop`` as for :meth:`pieces`. All but the last of a row or column are of one size.
        """
        tall, wide = self._cut(pool, hop)
        across = list(_stretches(wide, size // (self.horizontal.step * hop)))
        return [
            [Window(rows, columns) for columns in across]
            for rows in _stretches(tall, size // (self.vertical.step * hop))
        ]

    def _cut(self, pool: int, hop: int) -> tuple[list[Part], list[Part]]:
        return (
            _parts(self.vertical, _PART_HEIGHT, pool, hop),
            _parts(self.horizontal, _PART_WIDTH, pool, hop),
        )

    @property
    def _group(self) -> int:
        return max(1, _PIECE // (self.vertical.n * self.horizontal.n))

    def trees(self, piece: Piece, scratch: Scratch) -> tuple[Array, Array, Array, Array]:
        """Return the outputs aa, ab, ba, bb (vertical tree, horizontal tree) of a piece.

        Each of shape (B, P, P, rows, columns): (plane, vertical packet, horizontal packet, ...),
        there until the next piece is worked through.
        """
        halfway = self._halfway(piece, scratch)
        planes, height = halfway.shape[:2]
        out = self.vertical.rows(
            halfway.reshape(planes, height, -1), piece.rows.cells, scratch.named("rows")
        )
        return _by_tree(
            out.reshape(
                (planes, piece.rows.cells, 2, self.packets, 2, self.packets, piece.columns.cells)
            )
        )

    def _halfway(self, piece: Piece, scratch: Scratch) -> Array:
        """Analyse along the columns, and extend down the rows: (B, extended rows, 2P, columns)."""
        columns = piece.columns
        halfway = self.horizontal.columns(piece.pixels, columns.layout, columns.cells, scratch)
        return lay_out(halfway, piece.rows.layout, scratch.named("extended rows"))

    def real_parts(self, piece: Piece, scratch: Scratch) -> Iterator[Array]:
        """Yield the real parts of sign +1 and -1, for which two of the four outputs suffice.

        Each is there until the next one is asked for.
        """
        halfway = self._halfway(piece, scratch)
        planes, height = halfway.shape[:2]
        flat = halfway.reshape(planes, height, -1)
        half = flat.shape[2] // 2
        shape = (planes, piece.rows.cells, self.packets, self.packets, piece.columns.cells)
        first, second = self.vertical.trees
        aa, bb = (
            permute(
                axis.rows(columns, piece.rows.cells, scratch.named(name)).reshape(shape),
                (0, 2, 3, 1, 4),
            )
            for name, axis, columns in (
                ("rows 1", first, flat[..., :half]),
                ("rows 2", second, flat[..., half:]),
            )
        )
        xp = namespace(aa)
        real = scratch.named("real")(tuple(aa.shape), aa)
        yield xp.subtract(aa, bb, out=real)
        yield xp.add(aa, bb, out=real)

    def analyse(self, x: Array) -> Array:
        """Transform (B, H, W) to complex (B, 2, P, P, H', W')."""
        c = complex_empty((x.shape[0], 2, self.packets, self.packets, *self.size), x)
        real, imaginary = real_and_imaginary(c)
        scratch = Scratch()
        for piece in self.pieces(x):
            planes, rows, columns = piece.place
            trees = self.trees(piece, scratch)
            for sign in range(2):
                at = (planes, sign, slice(None), slice(None), rows, columns)
                combine(trees, sign, real[at], imaginary[at])
        return c

    def adjoint(self, c: Array) -> Array:
        """Apply the adjoint of :meth:`analyse`, (B, 2, P, P, H', W') to (B, H, W)."""
        xp = namespace(c)
        real, imaginary = real_and_imaginary(c)
        height, width = self.vertical.n, self.horizontal.n
        rows, columns = self.size
        x = empty((c.shape[0], height, width), real)
        # The axes are undone one after the other; each pass is cut along the other axis.
        group = self._group
        wide = max(1, _PIECE // (group * height * self.horizontal.step))
        tall = max(1, _PIECE // (group * width))
        for start in range(0, c.shape[0], group):
            planes = slice(start, min(start + group, c.shape[0]))
            count = planes.stop - planes.start
            halfway = empty((count, height, 2 * self.packets, columns), real)
            for left in range(0, columns, wide):
                part = slice(left, min(left + wide, columns))
                shape = (rows, 2, self.packets, 2, self.packets, part.stop - part.start)
                trees = empty((count, *shape), real)
                aa, ab, ba, bb = _by_tree(trees)
                re, im = real[planes, ..., part], imaginary[planes, ..., part]
                xp.add(re[:, 0], re[:, 1], out=aa)
                xp.subtract(im[:, 0], im[:, 1], out=ab)
                xp.add(im[:, 0], im[:, 1], out=ba)
                xp.subtract(re[:, 1], re[:, 0], out=bb)
                flat = trees.reshape(count, rows, 2 * self.packets, -1)
                down = self.vertical.rows_adjoint(flat)
                halfway[..., part] = down.reshape(count, height, 2 * self.packets, -1)
            for top in range(0, height, tall):
                part = slice(top, top + tall)
                x[planes, part] = self.horizontal.columns_adjoint(halfway[:, part])
        return x

    def solve(self, x: Array) -> Array:
        """Undo the Gram matrices of both axes, in place: the adjoint becomes the inverse."""
        return self.horizontal.columns_solve(self.vertical.rows_solve(x))


def combine(
    trees: tuple[Array, Array, Array, Array],
    sign: int,
    real: Array | None = None,
    imaginary: Array | None = None,
) -> tuple[Array, Array]:
    """Return real and imaginary part of the packets of one sign from the outputs of the trees.

    ``trees`` are aa, ab, ba, bb (vertical tree, horizontal tree); ``sign`` is 0 for +1, 1 for -1.
    """
    aa, ab, ba, bb = trees
    xp = namespace(aa)
    if sign == 0:
        return xp.subtract(aa, bb, out=real), xp.add(ab, ba, out=imaginary)
    return xp.add(aa, bb, out=real), xp.subtract(ba, ab, out=imaginary)


def _by_tree(trees: Array) -> tuple[Array, Array, Array, Array]:
    """Return aa, ab, ba, bb of (B, rows, tree, P, tree, P, columns), (B, P, P, rows, columns)."""
    view = permute(trees, (2, 4, 0, 3, 5, 1, 6))
    return view[0, 0], view[0, 1], view[1, 0], view[1, 1]


# For images one by one, finding the parts anew would take a good part of the time. As few are kept
# as axes are.
@lru_cache(maxsize=32)
def _parts(axis: Axis, pixels: int, pool: int, hop: int) -> list[Part]:
    """Return the parts of an axis, of about so many pixels each."""
    parts = []
    total = (axis.count - pool) // hop + 1
    # Where filters are long, neighbouring parts share much, so they are made longer.
    size = total if axis.dense else max(pixels, 2 * axis.length) // (axis.step * hop)
    for start in range(0, total, size):
        stop = min(start + size, total)
        cells = (stop - start - 1) * hop + pool
        seen = axis.seen(start * hop, start * hop + cells)
        used = np.unique(seen[seen >= 0])
        index = np.where(seen < 0, -1, np.searchsorted(used, seen))
        neighbours = used[-1] - used[0] == used.size - 1
        source = slice(int(used[0]), int(used[-1]) + 1) if neighbours else used
        parts.append(Part(slice(start, stop), cells, source, Layout.of(index)))
    return parts


def _pieces(x: Array, group: int, tall: list[Part], wide: list[Part]) -> Iterator[Piece]:
    for start in range(0, x.shape[0], group):
        planes = slice(start, min(start + group, x.shape[0]))
        for rows in tall:
            band = x[planes, rows.source]
            for columns in wide:
                yield Piece(planes, band[:, :, columns.source], rows, columns)


def _stretches(parts: list[Part], places: int) -> Iterator[Stretch]:
    """Yield the parts of an axis together, as many as fit into so many places."""
    count = max(1, places // parts[0].place.stop)
    for start in range(0, len(parts), count):
        chosen = parts[start : start + count]
        first = chosen[0].place.start
        sources = [
            np.arange(part.source.start, part.source.stop)
            if isinstance(part.source, slice)
            else part.source
            for part in chosen
        ]
        samples = np.unique(np.concatenate(sources))
        moved = []
        for part, source in zip(chosen, sources, strict=True):
            local: slice | NDArray[np.intp] = np.searchsorted(samples, source)
            if isinstance(part.source, slice):
                start_at = int(np.searchsorted(samples, part.source.start))
                local = slice(start_at, start_at + source.size)
            place = slice(part.place.start - first, part.place.stop - first)
            moved.append(Part(place, part.cells, local, part.layout))
        yield Stretch(slice(first, chosen[-1].place.stop), samples, moved)


def plane_for(
    height: int,
    width: int,
    depth: int,
    wavelet: Wavelet,
    stride: int,
    mode: str,
    *,
    pool: int | None = None,
) -> Plane:
    """Return the plane for images of one size; arguments as for :func:`axis_for`."""
    return Plane(
        axis_for(height, depth, wavelet, stride, mode, gain=PLANE_GAIN, pool=pool),
        axis_for(width, depth, wavelet, stride, mode, pool=pool),
    )
