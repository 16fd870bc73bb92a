"""One axis of the transform: a real, banded matrix, its adjoint and its Gram matrix.

The two trees together turn n samples into ``count`` cells of ``2 P`` numbers (P packets of tree 1,
then of tree 2). Cell k is the product of the ``2 P x L`` matrix of taps with the samples
``first + k * step, ..., first + k * step + L - 1`` of the extended signal.

Arrays here have shape (B, ...): B planes that must not influence each other, not even in the
last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dtwpt.arrays import (
    Allocate,
    Array,
    contiguous,
    empty,
    permute,
    planes_product,
    planes_windows_product,
    take,
)
from dtwpt.engine.borders import source_index
from dtwpt.layout import Layout, lay_out
from dtwpt.packets import PacketBank
from dtwpt.scratch import Scratch
from dtwpt.wavelets import Wavelet

__all__ = ["Axis", "axis_for", "packet_taps", "place_cells"]

# Cells that one column takes when a single signal is laid out as columns to multiply together.
_CELLS_PER_COLUMN = 64
# Numbers in a matrix (4 MiB) beyond which to apply it whole is no faster and takes memory.
_DENSE_NUMBERS = 2**19
# Deviation of a Gram matrix from the identity that is left alone: that of the published taps.
_GRAM_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Axis:
    """The analysis matrix of one axis.

    Parameters
    ----------
    taps : ndarray, shape (2 P, L)
        Correlated with the signal.
    n : int
        Samples.
    step, first, count : int
        Cell k starts at position ``first + k * step``.
    mode : str
        How the signal goes on beyond its ends.
    """

    taps: NDArray[np.float64]
    n: int
    step: int
    first: int
    count: int
    mode: str

    @property
    def length(self) -> int:
        """Taps of a filter."""
        return int(self.taps.shape[1])

    @property
    def channels(self) -> int:
        """Numbers in a cell."""
        return int(self.taps.shape[0])

    @cached_property
    def trees(self) -> tuple[Axis, Axis]:
        """The same axis with tree 1's filters only, and with tree 2's."""
        half = self.channels // 2
        first, second = (
            Axis(taps, self.n, self.step, self.first, self.count, self.mode)
            for taps in (self.taps[:half], self.taps[half:])
        )
        return first, second

    @property
    def dense(self) -> bool:
        """Whether the matrix is applied whole, borders included.

        Where a signal is hardly longer than the filters, the band is most of the matrix, and to
        extend the signal first would only make the product longer.
        """
        numbers = self.count * self.channels * self.n
        return self.n <= 2 * self.length and numbers <= _DENSE_NUMBERS

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The whole analysis matrix, shape (count * 2 P, n)."""
        matrix = np.zeros((self.count, self.channels, self.n))
        cells = np.arange(self.count)
        for tap in range(self.length):
            source = source_index(self.first + cells * self.step + tap, self.n, self.mode)
            inside = source >= 0
            matrix[cells[inside], :, source[inside]] += self.taps[:, tap]
        return matrix.reshape(-1, self.n)

    @cached_property
    def _matrix_by_channel(self) -> NDArray[np.float64]:
        """The transposed matrix with its columns in the order (2 P, count)."""
        cells = self.matrix.reshape(self.count, self.channels, self.n)
        return np.ascontiguousarray(cells.transpose(2, 1, 0).reshape(self.n, -1))

    @property
    def _reach(self) -> int:
        """Cells that see one sample."""
        return -(-self.length // self.step)

    @cached_property
    def _adjoint_taps(self) -> NDArray[np.float64]:
        """Matrix from ``reach`` neighbouring cells to the ``step`` samples they all see."""
        reach = self._reach
        padded = np.zeros((self.channels, reach * self.step))
        padded[:, : self.length] = self.taps
        by_cell = padded.reshape(self.channels, reach, self.step)[:, ::-1]
        return np.ascontiguousarray(by_cell.transpose(2, 1, 0).reshape(self.step, -1))

    # Analysis -----------------------------------------------------------------------------------

    def seen(self, start: int, stop: int) -> NDArray[np.intp]:
        """Return the indices of the samples that the cells from start to stop - 1 see, in order.

        -1 stands for zero. All samples as they are, if the matrix is dense.
        """
        if self.dense:
            return np.arange(self.n)
        low = self.first + start * self.step
        high = self.first + (stop - 1) * self.step + self.length
        seen: NDArray[np.intp] = source_index(np.arange(low, high), self.n, self.mode)
        return seen

    def rows(self, x: Array, cells: int, allocate: Allocate = empty) -> Array:
        """Analyse, down the rows, what :meth:`seen` lists: (B, R, C) to (B, cells, 2P, C)."""
        if self.dense:
            out = planes_windows_product(self.matrix, x, 1, 1, allocate)
            return out.reshape(x.shape[0], cells, self.channels, x.shape[2])
        return planes_windows_product(self.taps, x, self.step, cells, allocate)

    def columns(self, x: Array, layout: Layout, cells: int, scratch: Scratch) -> Array:
        """Analyse, along the columns, those of x that :meth:`seen` lists and ``layout`` takes.

        (B, R, C) to (B, R, 2P, cells), not necessarily in C order.
        """
        if self.dense:
            out = planes_product(x, self._matrix_by_channel, scratch.named("columns"))
            return out.reshape(*x.shape[:2], self.channels, cells)
        extended = lay_out(permute(x, (0, 2, 1)), layout, scratch.named("extended columns"))
        out = self.rows(extended, cells, scratch.named("columns"))
        return permute(out, (0, 3, 2, 1))

    def signal(self, x: Array) -> Array:
        """Analyse whole signals: (B, n) to (B, 2P, count)."""
        if self.dense:
            out = self.rows(x[:, :, None], self.count)[..., 0]
            return contiguous(permute(out, (0, 2, 1)))
        # Stretches of the signal side by side are columns, and make one good matrix product.
        cells = min(_CELLS_PER_COLUMN, self.count)
        stretches = -(-self.count // cells)
        starts = self.first + cells * self.step * np.arange(stretches)
        height = (cells - 1) * self.step + self.length
        positions = np.arange(height)[:, None] + starts
        laid_out = take(x, source_index(positions.ravel(), self.n, self.mode), 1)
        out = self.rows(laid_out.reshape(x.shape[0], height, stretches), cells)
        out = permute(out, (0, 2, 3, 1)).reshape(x.shape[0], self.channels, -1)
        return contiguous(out[..., : self.count])

    # Adjoint ------------------------------------------------------------------------------------

    def rows_adjoint(self, c: Array) -> Array:
        """Apply the adjoint of :meth:`rows` over the whole axis: (B, count, 2P, C) to (B, n, C)."""
        planes, _, _, columns = c.shape
        if self.dense:
            flat = c.reshape(planes, -1, columns)
            return planes_windows_product(self.matrix.T, flat, 1, 1)[:, 0]
        margin = self._reach - 1
        padded = empty((planes, self.count + 2 * margin, self.channels, columns), c)
        padded[:, :margin] = 0
        padded[:, margin : margin + self.count] = c
        padded[:, margin + self.count :] = 0
        stretch = planes_windows_product(
            self._adjoint_taps,
            padded.reshape(planes, -1, columns),
            self.channels,
            self.count + margin,
        )
        return self._fold(stretch.reshape(planes, -1, columns))

    def columns_adjoint(self, c: Array) -> Array:
        """Apply the adjoint of :meth:`columns`: (B, R, 2P, count) to (B, R, n)."""
        if self.dense:
            flat = c.reshape(c.shape[0], c.shape[1], -1)
            return planes_product(flat, self._matrix_by_channel.T)
        return permute(self.rows_adjoint(permute(c, (0, 3, 2, 1))), (0, 2, 1))

    def signal_adjoint(self, c: Array) -> Array:
        """Apply the adjoint of :meth:`signal`: (B, 2P, count) to (B, n)."""
        planes = c.shape[0]
        if self.dense:
            return self.rows_adjoint(permute(c, (0, 2, 1))[..., None])[..., 0]
        margin = self._reach - 1
        total = self.count + margin
        cells = min(_CELLS_PER_COLUMN, total)
        stretches = -(-total // cells)
        index = np.arange(-margin, cells)[:, None] + cells * np.arange(stretches)
        index = np.where((index >= 0) & (index < self.count), index, -1)
        laid_out = take(c, index.ravel(), 2).reshape(planes, self.channels, *index.shape)
        laid_out = permute(laid_out, (0, 2, 1, 3)).reshape(planes, -1, stretches)
        out = planes_windows_product(self._adjoint_taps, laid_out, self.channels, cells)
        stretch = permute(out, (0, 3, 1, 2)).reshape(planes, -1)[:, : total * self.step]
        return self._fold(stretch[:, :, None])[..., 0]

    def _fold(self, x: Array) -> Array:
        """Add what stands beyond the ends to the samples it was copied from.

        The adjoint of extending: (B, R, C), row 0 at position ``first``, to (B, n, C).
        """
        low, high = max(-self.first, 0), self.n - self.first
        out = empty((x.shape[0], self.n, x.shape[2]), x)
        filled = min(high, x.shape[1]) - low
        out[:, :filled] = x[:, low : low + filled]
        out[:, filled:] = 0
        for beyond, start in ((x[:, :low], 0), (x[:, high:], high)):
            if beyond.shape[1] == 0:
                continue
            positions = self.first + start + np.arange(beyond.shape[1])
            source = source_index(positions, self.n, self.mode)
            targets, where = np.unique(source[source >= 0], return_inverse=True)
            if targets.size == 0:
                continue
            copies = np.zeros((targets.size, source.size))
            copies[where, np.flatnonzero(source >= 0)] = 1
            out[:, targets] += planes_windows_product(copies, beyond, 1, 1)[:, 0]
        return out

    # Inverse ------------------------------------------------------------------------------------

    def _near_ends(self, n: int) -> NDArray[np.intp]:
        """Return the samples of n that may share a cell with what stands beyond an end."""
        reach = min(self.length + self.step, -(-n // 2))
        return np.unique(np.concatenate([np.arange(reach), np.arange(n - reach, n)]))

    @cached_property
    def _gram_inverse(self) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """Where the Gram matrix is not the identity, and its inverse there; None if nowhere.

        Away from the ends the columns of the analysis matrix are orthonormal (up to the gain). What
        happens near the ends does not depend on their distance, so a shorter axis tells it.
        """
        shortest = 2 * (self.length + self.step)
        n = min(self.n, shortest + (self.n - shortest) % self.step)
        count = self.count - (self.n - n) // self.step
        near = self._near_ends(n)
        matrix = Axis(self.taps, n, self.step, self.first, count, self.mode).matrix[:, near]
        gain = float(np.sum(self.taps**2)) / self.step
        gram = matrix.T @ matrix / gain
        identity = np.eye(near.size)
        if np.abs(gram - identity).max() < _GRAM_TOLERANCE:
            return None
        inverse = np.asarray(np.linalg.inv(gram), dtype=np.float64)
        # What has decayed to nothing would be subnormal in float32, which is very slow.
        inverse[np.abs(inverse) < 1e-20] = 0
        return self._near_ends(self.n), inverse

    def rows_solve(self, x: Array) -> Array:
        """Undo, in place, the Gram matrix down the rows of (B, n, C)."""
        if self._gram_inverse is not None:
            near, inverse = self._gram_inverse
            x[:, near] = planes_windows_product(inverse, contiguous(x[:, near]), 1, 1)[:, 0]
        return x

    def columns_solve(self, x: Array) -> Array:
        """Undo, in place, the Gram matrix along the columns of (B, R, n)."""
        if self._gram_inverse is not None:
            near, inverse = self._gram_inverse
            x[:, :, near] = planes_product(contiguous(x[:, :, near]), inverse.T)
        return x


@lru_cache(maxsize=32)
def packet_taps(depth: int, wavelet: Wavelet, gain: float = 1.0) -> NDArray[np.float64]:
    """Return the taps of an axis, shape (2 P, L): the packets of tree 1, then those of tree 2."""
    filters = PacketBank(depth, wavelet).filters
    # Tree 1 + i tree 2 is then the inner product with the packet.
    return gain * np.concatenate([filters.real, -filters.imag])


def place_cells(n: int, length: int, stride: int, pool: int | None = None) -> tuple[int, int]:
    """Return where the first cell starts, and the number of cells, for filters of ``length`` taps.

    Cell k is centred on ``stride * k + (stride - 1) / 2``. With ``pool``, the cells are instead
    those of max pooling with stride 2: windows of ``pool`` cells centred where the cells of twice
    the stride are.
    """
    if pool is None:
        return (stride - length) // 2, (n - 1) // stride + 1
    return (2 * stride - length) // 2 - pool // 2 * stride, (n - 1) // (2 * stride) * 2 + pool


# Few, as an axis may keep megabytes: images of many sizes must not fill the memory.
@lru_cache(maxsize=32)
def axis_for(
    n: int,
    depth: int,
    wavelet: Wavelet,
    stride: int,
    mode: str,
    *,
    gain: float = 1.0,
    pool: int | None = None,
) -> Axis:
    """Return the axis of n samples for a packet bank.

    ``pool`` is that of :func:`place_cells`.
    """
    taps = packet_taps(depth, wavelet, gain)
    first, count = place_cells(n, taps.shape[1], stride, pool)
    return Axis(taps, n, stride, first, count, mode)
