"""Maps of an image that is larger than memory, computed tile by tile."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dtwpt.checks import as_count, as_wavelet
from dtwpt.extract.reading import ImageError
from dtwpt.extract.settings import Settings
from dtwpt.extract.sources import Source, open_source
from dtwpt.operators import fill_modulus, fill_rmax
from dtwpt.plane import Plane, Window, plane_for
from dtwpt.scratch import Scratch

__all__ = ["Tile", "Tiling", "as_workers", "iter_tiles"]

# Side of the pooling window of RMax, as for features.
_POOL = 3
# Threads by default, at most: each takes the memory of a tile.
_MOST_WORKERS = 4


class Tile(NamedTuple):
    """The maps of a part of an image.

    Attributes
    ----------
    place : (slice, slice)
        Rows and columns, of the maps of the whole image.
    maps : ndarray of float32, shape ([3,] 2, P, P, rows, columns)
    """

    place: tuple[slice, slice]
    maps: NDArray[np.float32]


def iter_tiles(
    source: Any,
    *,
    operator: str = "cmod",
    depth: int = 2,
    wavelet: str = "qshift_b",
    mode: str = "symmetric",
    colour: str = "luma",
    tile: int = 2048,
    workers: int | None = None,
) -> Iterator[Tile]:
    """Yield the maps of a large image tile by tile, row after row.

    Each tile is read with the pixels around it that its filters see. The maps are those that
    :func:`dtwpt.cmod2` and :func:`dtwpt.rmax2` have for the whole image in float32.

    Parameters
    ----------
    source, operator, depth, wavelet, mode, colour, tile, workers
        As for :func:`dtwpt.extract.tiles`.

    Yields
    ------
    Tile
        ``maps`` and their ``place`` in the maps of the whole image.

    Raises
    ------
    ImageError
        If the image cannot be read, or its values are too large for float32.
    TypeError, ValueError
        If an argument is of the wrong type or value.

    Examples
    --------
    The strongest response of each filter, of an image that needs not fit into memory:

    >>> import numpy as np
    >>> from dtwpt.extract import iter_tiles
    >>> image = np.random.default_rng(0).integers(0, 256, (300, 5000), dtype=np.uint8)
    >>> peaks = [tile.maps.max(axis=(-2, -1)) for tile in iter_tiles(image)]
    >>> len(peaks), np.max(peaks, axis=0).shape
    (3, (2, 4, 4))
    """
    settings = maps_settings(operator, depth, wavelet, mode, colour)
    tile, workers = as_count(tile, "tile"), as_workers(workers)
    return _iterate(source, settings, tile, workers)


def _iterate(source: Any, settings: Settings, tile: int, workers: int) -> Iterator[Tile]:
    pending: deque[tuple[Window, Future[NDArray[np.float32]]]] = deque()
    with open_source(source) as opened, threads(workers) as pool:
        tiling = Tiling.of(opened, settings, tile)
        try:
            for window in (window for row in tiling.windows for window in row):
                pending.append((window, pool.submit(tiling.maps, window)))
                if len(pending) > workers:
                    done, maps = pending.popleft()
                    yield Tile(done.place, maps.result())
            while pending:
                done, maps = pending.popleft()
                yield Tile(done.place, maps.result())
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Run tiles in threads, each of them with a BLAS of one thread.

    Tiles beside one another make better use of the cores than one product cut over them.
    """
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        yield pool


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles, and what is made of each."""

    source: Source
    settings: Settings
    plane: Plane
    windows: list[list[Window]]

    @classmethod
    def of(cls, source: Source, settings: Settings, tile: int) -> Tiling:
        """Return the tiling of an image for tiles of about so many pixels a side."""
        wavelet, mode = as_wavelet(settings.wavelet), settings.mode
        if settings.operator == "cmod":
            plane = plane_for(*source.size, settings.depth, wavelet, 2**settings.depth, mode)
            windows = plane.windows(tile)
        else:
            stride = 2 ** (settings.depth - 1)
            plane = plane_for(*source.size, settings.depth, wavelet, stride, mode, pool=_POOL)
            windows = plane.windows(tile, _POOL, hop=2)
        return cls(source, settings, plane, windows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the maps of the whole image, ([3,] 2, P, P, H', W')."""
        rows, columns = self.windows[-1][-1].place
        return self._shape(rows.stop, columns.stop)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of the maps of a tile; at the right and lower edge, they may be smaller."""
        return self._shape(*self.windows[0][0].size)

    def _shape(self, rows: int, columns: int) -> tuple[int, ...]:
        packets = self.plane.packets
        colours = (3,) if self.settings.colour == "channels" else ()
        return (*colours, 2, packets, packets, rows, columns)

    def maps(self, window: Window) -> NDArray[np.float32]:
        """Return the maps of a window.

        Raises
        ------
        ImageError
            If it cannot be read, or its values are too large.
        """
        rows, columns = window.rows.samples, window.columns.samples
        pixels = self.source.read(rows, columns, self.settings.colour)
        planes = pixels.reshape(-1, rows.size, columns.size)
        maps = np.empty(self._shape(*window.size), np.float32)
        out = maps.reshape(-1, *maps.shape[-5:])
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            if self.settings.operator == "cmod":
                fill_modulus(out, self.plane, window.pieces(planes), Scratch())
            else:
                fill_rmax(out, self.plane, window.pieces(planes), _POOL, Scratch())
        # Integers are scaled to 0..1, which nothing can make overflow.
        if self.source.dtype.kind == "f" and not np.isfinite(maps).all():
            raise ImageError(
                self.source.name,
                f"values up to {np.abs(pixels).max():.3g} are too large for float32",
            )
        return maps


def maps_settings(operator: str, depth: int, wavelet: str, mode: str, colour: str) -> Settings:
    """Return the settings of whole maps, checked."""
    return Settings(
        operator=operator, depth=depth, wavelet=wavelet, mode=mode, colour=colour, pool="none"
    )


def as_workers(workers: int | None) -> int:
    """Return the number of threads; None: one for each core, up to four."""
    if workers is not None:
        return as_count(workers, "workers")
    available = getattr(os, "sched_getaffinity", None)
    cores = len(available(0)) if available is not None else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
