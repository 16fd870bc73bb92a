"""The packet transform in operations that torch can trace, compile and export.

The functions of the library work piece by piece, with loops in Python. Here the same taps, cells,
borders and combinations go through two convolutions, of symbolic size if need be.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dtwpt.arrays import as_real_input, permute
from dtwpt.axis import packet_taps, place_cells
from dtwpt.engine.borders import source_index
from dtwpt.checks import as_depth, as_mode, as_wavelet
from dtwpt.nn.buffers import ExactBuffers
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.selection import as_packets, describe_packets
from dtwpt.packets import PLANE_GAIN, PacketBank
from dtwpt.plane import combine
from dtwpt.wavelets import Wavelet

__all__ = ["PacketAnalysis"]

# Kinds of devices on which convolutions are fastest and exact. Elsewhere they may round their
# factors (TF32 on GPUs); matrix products do not, unless they are asked to.
_CONVOLVING = ("cpu",)
# Cells that one matrix product computes.
_CELLS = 8


class PacketAnalysis(ExactBuffers):
    """Real and imaginary part of chosen packets of images.

    Parameters
    ----------
    depth, wavelet, mode
        As for :func:`dtwpt.dtcwpt2`.
    packets : {"all", "gabor"} or iterable of int
        Rows of ``PacketBank(depth, wavelet).atoms()``, K of them.
    stride : int
        Pixels between coefficients.
    pool : int, optional
        Side of the window of a max pooling with stride 2 that is to follow: the cells are those
        that its windows need.
    """

    vertical: Tensor
    horizontal: Tensor
    place: Tensor | None

    def __init__(
        self,
        depth: int,
        wavelet: str | Wavelet,
        mode: str,
        packets: Any,
        stride: int,
        pool: int | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.mode = as_depth(depth), as_mode(mode)
        self.stride, self.pool = stride, pool
        self.bank = PacketBank(self.depth, as_wavelet(wavelet))
        self.packets = as_packets(packets, self.bank)
        atoms = self.bank.atoms()[self.packets]
        # Only the rows and columns of packets that are asked for are computed.
        rows, row = np.unique(atoms["row"], return_inverse=True)
        columns, column = np.unique(atoms["col"], return_inverse=True)
        count = rows.size * columns.size
        place = np.where(atoms["sign"] > 0, 0, count) + row * columns.size + column
        self._shape = rows.size, columns.size
        if np.array_equal(place, np.arange(2 * count)):
            self.register_buffer("place", None)
        else:
            self.register_exact("place", place.astype(np.int64))
        for name, chosen, gain in (("vertical", rows, PLANE_GAIN), ("horizontal", columns, 1.0)):
            taps = packet_taps(self.depth, self.bank.wavelet, gain)
            by_tree = taps.reshape(2, 2**self.depth, -1)[:, chosen]
            self.register_exact(name, np.ascontiguousarray(by_tree).reshape(-1, taps.shape[1]))
        self._place = place

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part, each of shape (N, C, K, H', W'), of x (N, C, H, W).

        In float32 or float64, that of the module's filters, whatever autocast says. ``size`` is
        that of the maps in the end (after pooling): ceil(H / stride) and so on by default.
        """
        with full_dtype(x):
            x = self._checked(x)
            trees = _by_tree(self._trees(x, self._counts(x, size)))
            plus, minus = combine(trees, 0), combine(trees, 1)
            return self._choose(plus[0], minus[0], x), self._choose(plus[1], minus[1], x)

    def real(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return the real part alone, at half the cost."""
        with full_dtype(x):
            return self._real(self._checked(x), self._counts(x, size))

    def trees(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return what packets are combined from, (N, C, T, H', W').

        :meth:`combination` says how. Who combines packets further can do both at once.
        """
        with full_dtype(x):
            x = self._checked(x)
            trees = self._trees(x, self._counts(x, size))
            return trees.reshape(*x.shape[:2], 4 * math.prod(self._shape), *trees.shape[-2:])

    def combination(self) -> NDArray[np.float64]:
        """Return the matrix from :meth:`trees` to real and imaginary part, (2, K, T)."""
        rows, columns = self._shape
        count = 4 * rows * columns
        unit = np.eye(count).reshape(1, 2, columns, 2, rows, count)
        trees = _by_tree(unit[..., None])
        parts = [combine(trees, sign) for sign in range(2)]
        return np.stack(
            [
                np.concatenate([parts[0][part], parts[1][part]]).reshape(-1, count)[self._place]
                for part in range(2)
            ]
        )

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return (
            f"depth={self.depth}, wavelet={self.bank.wavelet.name!r}, mode={self.mode!r}, "
            f"stride={self.stride}, packets={describe_packets(self.packets, self.bank)}"
        )

    def check_dtype(self, x: Tensor) -> None:
        """Raise a TypeError if x is of another precision than the module, half precision aside."""
        dtype = self.vertical.dtype
        if x.dtype not in (torch.float16, torch.bfloat16, dtype):
            raise TypeError(
                f"x is {x.dtype} and the module {dtype}: convert one of them, "
                f"module.to({x.dtype}) or x.to({dtype})"
            )

    def macs(self, height: int, width: int, size: tuple[int, int], real: bool = False) -> int:
        """Return the multiply-accumulates of the filters on one channel of an image."""
        down, across = self.cells(size)
        rows, columns = 2 * self._shape[0], 2 * self._shape[1]
        second = rows * columns // 2 if real else rows * columns
        return self.vertical.shape[1] * across * (height * columns + second * down)

    def cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the cells down and across that maps of a size need."""
        if self.pool is None:
            return size
        return 2 * size[0] - 2 + self.pool, 2 * size[1] - 2 + self.pool

    def _checked(self, x: Tensor) -> Tensor:
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if x.ndim != 4:
            raise ValueError(f"x must have shape (N, C, H, W), got {tuple(x.shape)}")
        if 0 in x.shape[2:]:
            raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}")
        if not x.is_floating_point():
            x = as_real_input(x, 2)
        self.check_dtype(x)
        return x.to(self.vertical.dtype)

    def _counts(self, x: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        if size is not None:
            return self.cells(size)
        length = self.vertical.shape[1]
        down, across = (place_cells(n, length, self.stride, self.pool)[1] for n in x.shape[2:])
        return down, across

    def _trees(self, x: Tensor, counts: tuple[int, int]) -> Tensor:
        """(N, C, H, W) to (N C, horizontal tree, its packets, vertical tree, its, H', W')."""
        halfway = self._across(x, counts[1])
        rows, columns = self._shape
        out = self._down(halfway.flatten(0, 1), self.vertical, counts[0])
        return out.reshape(halfway.shape[0], 2, columns, 2, rows, *out.shape[-2:])

    def _real(self, x: Tensor, counts: tuple[int, int]) -> Tensor:
        halfway = self._across(x, counts[1])
        rows, columns = self._shape
        # Two of the four outputs are enough.
        aa, bb = (
            self._down(part.flatten(0, 1), taps, counts[0])
            .reshape(halfway.shape[0], columns, rows, *counts)
            .transpose(1, 2)
            for part, taps in zip(halfway.chunk(2, 1), self.vertical.chunk(2), strict=True)
        )
        return self._choose(aa - bb, aa + bb, x)

    def _choose(self, plus: Tensor, minus: Tensor, x: Tensor) -> Tensor:
        """Return the packets asked for, (N, C, K, H', W'), of those of both signs."""
        both = torch.stack((plus, minus), 1)
        both = both.reshape(*x.shape[:2], 2 * math.prod(self._shape), *plus.shape[-2:])
        return both if self.place is None else both.index_select(2, self.place)

    def _across(self, x: Tensor, count: int) -> Tensor:
        """Analyse along the columns: (N, C, H, W) to (N C, 2 columns, H, W')."""
        x = x.flatten(0, 1)
        taps = self.horizontal
        if x.device.type in _CONVOLVING:
            extended = self._extended(x, 2, count)[:, None]
            return functional.conv2d(extended, taps[:, None, None], stride=(1, self.stride))
        windows, blocks = self._windows(x, 2, taps, count)
        out = windows @ blocks.flatten(0, 1).t()
        out = out.reshape(*out.shape[:-1], *blocks.shape[:2]).permute(0, 3, 1, 2, 4)
        return out.flatten(-2)[..., :count]

    def _down(self, x: Tensor, taps: Tensor, count: int) -> Tensor:
        """Analyse down the rows: (B, H, W') to (B, taps, H', W')."""
        if x.device.type in _CONVOLVING:
            extended = self._extended(x, 1, count)[:, None]
            return functional.conv2d(extended, taps[:, None, :, None], stride=(self.stride, 1))
        windows, blocks = self._windows(x, 1, taps, count)
        out = blocks.flatten(0, 1) @ windows.transpose(-1, -2)
        out = out.reshape(*out.shape[:2], *blocks.shape[:2], -1).transpose(1, 2)
        return out.flatten(2, 3)[:, :, :count]

    def _extended(self, x: Tensor, axis: int, count: int) -> Tensor:
        """Return what so many cells of an axis see."""
        n, length = x.shape[axis], self.vertical.shape[1]
        first, _ = place_cells(n, length, self.stride, self.pool)
        positions = torch.arange((count - 1) * self.stride + length, device=x.device) + first
        index = source_index(positions, n, self.mode)
        if self.mode != "zero":
            return x.index_select(axis, index)
        inside = (index >= 0)[:, None] if axis == 1 else index >= 0
        return torch.where(inside, x.index_select(axis, index.clamp(min=0)), 0.0)

    def _windows(self, x: Tensor, axis: int, taps: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Cut an axis into windows that hold some cells each; return also their matrix.

        Windows of several cells overlap little, so little is copied.
        """
        extended = self._extended(x, axis, ((count - 1) // _CELLS + 1) * _CELLS)
        span = (_CELLS - 1) * self.stride + taps.shape[1]
        # Written out row after row at one stride more than the width, each row moves on by one
        # stride.
        padded = functional.pad(taps, (0, span + self.stride - taps.shape[1]))
        moving = padded[:, None].expand(-1, _CELLS, -1).flatten(1)[:, : _CELLS * span]
        windows = extended.unfold(axis, span, _CELLS * self.stride)
        return windows, moving.reshape(-1, _CELLS, span)


def _by_tree(trees: Any) -> tuple[Any, Any, Any, Any]:
    """Return aa, ab, ba, bb (vertical tree, horizontal tree), (B, rows, columns, H', W')."""
    aa, ab, ba, bb = (trees[:, across, :, down] for down in range(2) for across in range(2))
    swap = (0, 2, 1, 3, 4)
    return permute(aa, swap), permute(ab, swap), permute(ba, swap), permute(bb, swap)
