"""Specification of an analysis: its filters, and where its coefficients sit.

The only place where sizes, positions and the layout of coefficients are computed. Every engine
takes an :class:`Analysis` and the :class:`Axis` objects that it makes for the sides of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine.borders import source_index
from dtwpt.packets import packet_filters, packet_stages
from dtwpt.wavelets import Wavelet

#: Kinds of output of an engine, see :class:`Analysis`.
Kind: TypeAlias = Literal["complex", "parts", "real", "modulus", "rmax"]
#: What maps are pooled to over the cells of a grid; the standard deviation is that of all values.
Statistic: TypeAlias = Literal["mean", "std", "max"]
#: All of them, in the order in which they come.
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


@dataclass(frozen=True)
class Axis:
    """Sizes and positions along one axis of ``n`` samples.

    Cell k of ``count`` sees ``length`` samples of the extended signal, from position
    ``first + k * stride`` on.
    """

    n: int
    first: int
    stride: int
    count: int
    length: int
    mode: str

    @property
    def extended(self) -> int:
        """Samples of the extended signal that the cells see, from position ``first`` on."""
        return (self.count - 1) * self.stride + self.length

    @property
    def index(self) -> NDArray[np.int32]:
        """Source of each of the ``extended`` samples, -1 for a zero. Read-only."""
        return _index(self)

    def window(self, start: int, stop: int) -> tuple[NDArray[np.intp], Axis]:
        """Return the distinct samples that some cells see, and the axis restricted to them.

        The outputs of these cells are identical, bit for bit.
        """
        # Only of these: a header may state any size without data behind it.
        reach = np.arange(start * self.stride, (stop - 1) * self.stride + self.length)
        seen = source_index(self.first + reach, self.n, self.mode)
        samples = np.unique(seen[seen >= 0]).astype(np.intp)
        if samples.size == 0:  # a cell that sees nothing but zeros
            samples = np.zeros(1, np.intp)
        local = np.where(seen < 0, -1, np.searchsorted(samples, seen)).astype(np.int32)
        axis = _Window(samples.size, 0, self.stride, stop - start, self.length, self.mode)
        object.__setattr__(axis, "_seen", local)
        return samples, axis


@dataclass(frozen=True, eq=False)
class _Window(Axis):
    """Some cells of an axis."""

    # Compared by identity: the samples it sees are in none of the fields.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def index(self) -> NDArray[np.int32]:
        seen: NDArray[np.int32] = self.__dict__["_seen"]
        return seen


@dataclass(frozen=True)
class Analysis:
    """A dual-tree packet analysis of signals or images, whatever their size.

    Compilers trace through it, so its fields are numbers and text; arrays are made on first use.

    Along an axis the filters of both trees turn n samples into ``2 P`` numbers a cell, P =
    ``2**depth``: packets in order of frequency, those of tree 1, then those of tree 2. In one
    dimension a coefficient is ``t1 + i t2``. In two, with ``t12`` the output of the vertical
    tree 1 and the horizontal tree 2, it is ``(t11 - t22) + i (t12 + t21)`` for sign +1 and
    ``(t11 + t22) + i (t21 - t12)`` for sign -1.

    The channels are rows of ``PacketBank(depth, wavelet).atoms()`` (in one dimension: packets),
    K of them. Engines return

    - ``"complex"``: coefficients, (..., K, *size), complex;
    - ``"parts"``: real and imaginary parts, (..., 2, K, *size);
    - ``"real"``: real parts, (..., K, *size);
    - ``"modulus"``: (..., K, *size);
    - ``"rmax"``: real parts at ``stride``, max pooled over ``pool`` cells with stride 2.

    Parameters
    ----------
    depth : int
    wavelet : str
        Of :func:`dtwpt.wavelets`, or :attr:`dtwpt.Wavelet.text`.
    stride : int
        Samples between cells.
    mode : str
        Padding mode at the borders.
    ndim : {1, 2}
    pool : int, optional
        Side of the max pooling with stride 2 that follows: cells are those of its windows, which
        are centred where the cells of twice the stride are.
    packets : tuple of int, optional
        Channels in order; None: all.
    """

    depth: int
    wavelet: str
    stride: int
    mode: str
    ndim: int = 2
    pool: int | None = None
    packets: tuple[int, ...] | None = None

    # Filters ------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Packets an axis, P."""
        return int(2**self.depth)

    @property
    def total(self) -> int:
        """Packets in all."""
        return self.count if self.ndim == 1 else 2 * self.count**2

    @property
    def channels(self) -> int:
        """Packets that are kept, K."""
        return self.total if self.packets is None else len(self.packets)

    @property
    def gain(self) -> float:
        """Factor of the filters of each axis that makes the whole a Parseval frame."""
        # In two dimensions four separable orthonormal bases, each used in both signs.
        return 1.0 if self.ndim == 1 else 2**-0.25

    @property
    def length(self) -> int:
        """Taps of a filter, L."""
        return int(self.taps.shape[1])

    @cached_property
    def taps(self) -> NDArray[np.float64]:
        """Filters of an axis, (2 P, L), to be correlated with the signal."""
        filters = packet_filters(self.depth, Wavelet.from_text(self.wavelet))
        # A coefficient is the inner product with the packet t1 + i t2, which conjugates it.
        return self.gain * np.concatenate([filters.real, -filters.imag])

    @cached_property
    def stages(self) -> tuple[NDArray[np.float64], ...]:
        """The same filters as a cascade of ``depth`` stages.

        Stage s has shape (2, 2**s, 2, taps): (tree, parent node, child, taps), children low-pass
        first, taps ``2**s`` samples apart. Node ``k ^ (k >> 1)`` of the last stage is packet k.
        """
        *first, last = packet_stages(self.depth, Wavelet.from_text(self.wavelet))
        return (*first, self.gain * last)

    @cached_property
    def place(self) -> NDArray[np.int32]:
        """Channel of each packet, shape (2, P, P) or (P,); -1 where it is not kept."""
        place = np.full(self.total, -1, np.int32)
        chosen = np.arange(self.total) if self.packets is None else np.array(self.packets, np.intp)
        place[chosen] = np.arange(chosen.size)
        shape = (2, self.count, self.count) if self.ndim == 2 else (self.count,)
        return place.reshape(shape)

    # Sizes --------------------------------------------------------------------------------------

    def size(self, shape: Any) -> tuple[int, ...]:
        """Return the size of the maps of images of a shape; numbers may be torch's symbols."""
        hop = self.stride if self.pool is None else 2 * self.stride
        # Inductor fails at products of sizes in the form (n - 1) // hop + 1 where these are open.
        return tuple((n + hop - 1) // hop for n in shape)

    def size_of(self, axes: tuple[Axis, ...], kind: Kind) -> tuple[int, ...]:
        """Return the size of an output of a kind, for axes of :meth:`axes`."""
        if kind != "rmax":
            return tuple(axis.count for axis in axes)
        return tuple((axis.count - (self.pool or 0)) // 2 + 1 for axis in axes)

    def output(self, kind: Kind, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an engine's output for one image, for maps of a size."""
        parts = (2,) if kind == "parts" else ()
        return (*parts, self.channels, *size)

    def axes(self, shape: tuple[int, ...], size: tuple[int, ...], kind: Kind) -> tuple[Axis, ...]:
        """Return the axes of images of a shape, for an output of a kind and size."""
        counts = size if kind != "rmax" else tuple(self.cells(cells) for cells in size)
        return tuple(
            Axis(n, self.first, self.stride, count, self.length, self.mode)
            for n, count in zip(shape, counts, strict=True)
        )

    @property
    def first(self) -> int:
        """Where the first cell starts.

        Without pooling cell k is centred on ``stride * k + (stride - 1) / 2``.
        """
        if self.pool is None:
            return (self.stride - self.length) // 2
        return (2 * self.stride - self.length) // 2 - self.pool // 2 * self.stride

    def cells(self, size: int) -> int:
        """Return the number of cells whose pooling gives a number of values."""
        return 2 * size - 2 + (self.pool or 0)

    def macs(self, shape: tuple[int, ...], size: tuple[int, ...], real: bool = False) -> int:
        """Return the multiply-adds of the cascade for cells of a size, borders left aside.

        ``real`` parts need half of the second pass.
        """
        taps = [stage.shape[3] for stage in self.stages]
        outputs: list[int] = [
            sum(
                2 ** (stage + 2)
                * length
                * cells
                * self.stride
                // min(2 ** (stage + 1), self.stride)
                for stage, length in enumerate(taps)
            )
            for cells in size
        ]
        if self.ndim == 1:
            return outputs[0]
        return outputs[0] * shape[1] + outputs[1] * 2 * self.count * size[0] // (2 if real else 1)

    @property
    def text(self) -> str:
        """All of it as text, which operators of torch can take; :func:`parse` reads it."""
        packets = "" if self.packets is None else ",".join(str(packet) for packet in self.packets)
        numbers = f"{self.depth} {self.stride} {self.mode} {self.ndim} {self.pool or 0}"
        return f"{numbers};{packets};{self.wavelet}"


@lru_cache(maxsize=64)
def parse(text: str) -> Analysis:
    """Return the analysis that :attr:`Analysis.text` describes, always the same object."""
    numbers, packets, wavelet = text.split(";", maxsplit=2)
    depth, stride, mode, ndim, pool = numbers.split()
    chosen = tuple(int(packet) for packet in packets.split(",")) if packets else None
    return Analysis(int(depth), wavelet, int(stride), mode, int(ndim), int(pool) or None, chosen)


# A small cache, as an index of a long signal takes megabytes.
@lru_cache(maxsize=64)
def _index(axis: Axis) -> NDArray[np.int32]:
    positions = axis.first + np.arange(axis.extended)
    index: NDArray[np.int32] = source_index(positions, axis.n, axis.mode).astype(np.int32)
    index.setflags(write=False)
    return index
