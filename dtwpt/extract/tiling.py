"""Maps of an image that is larger than memory, computed tile by tile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_count, as_depth
from dtwpt.engine import cpu
from dtwpt.engine.spec import Analysis, Kind, parse
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.images.sources import Source, open_source
from dtwpt.extract.settings import Settings
from dtwpt.transform import as_analysis

# Side of RMax's pooling window, as for features.
_POOL = 3
# Maximum number of threads by default: each takes the memory of a tile.
_MOST_WORKERS = 4


class Window(NamedTuple):
    """A rectangle of the maps, ``place`` its rows and columns."""

    place: tuple[slice, slice]


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
    page: int | None = None,
    level: int = 0,
    channel: int | None = None,
    tile: int = 2048,
    workers: int | None = None,
) -> Iterator[Tile]:
    """Yield the maps of a large image tile by tile, row after row.

    Each tile is read together with the surrounding pixels that its filters cover. The maps are
    those that :func:`dtwpt.cmod2` and :func:`dtwpt.rmax2` return for the whole image in float32.

    Parameters
    ----------
    source, operator, depth, wavelet, mode, colour, page, level, channel, tile, workers
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
    The strongest response of each filter, for an image that need not fit into memory:

    >>> import numpy as np
    >>> from dtwpt.extract import iter_tiles
    >>> image = np.random.default_rng(0).integers(0, 256, (300, 5000), dtype=np.uint8)
    >>> peaks = [tile.maps.max(axis=(-2, -1)) for tile in iter_tiles(image)]
    >>> len(peaks), np.max(peaks, axis=0).shape
    (3, (2, 4, 4))
    """
    settings = Settings(
        *(operator, as_depth(depth), wavelet, mode, colour),
        pool="none",
        page=page,
        level=level,
        channel=channel,
    )
    tile, workers = as_count(tile, "tile"), as_workers(workers)
    return _iterate(source, settings, tile, workers)


def _iterate(source: Any, settings: Settings, tile: int, workers: int) -> Iterator[Tile]:
    pending: deque[tuple[Window, Future[NDArray[np.float32]]]] = deque()
    with open_source(source, settings.choice) as opened, ThreadPoolExecutor(workers) as pool:
        tiling = Tiling.of(opened, settings, tile)
        try:
            for _, window in tiling.windows:
                pending.append((window, pool.submit(tiling.maps, window)))
                if len(pending) > workers:
                    done, maps = pending.popleft()
                    yield Tile(done.place, maps.result())
            while pending:
                done, maps = pending.popleft()
                yield Tile(done.place, maps.result())
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Tiling:
    """The division of an image into tiles, and the maps of each."""

    source: Source
    settings: Settings
    analysis: Analysis
    size: tuple[int, int]
    side: int

    @classmethod
    def of(cls, source: Source, settings: Settings, tile: int) -> Tiling:
        """Return the tiling of an image for tiles of about ``tile`` pixels a side."""
        pool = _POOL if settings.operator == "rmax" else None
        analysis = as_analysis(settings.depth, settings.wavelet, settings.mode, pool=pool)
        side = max(1, tile // 2**analysis.depth)
        height, width = analysis.size(source.size)
        return cls(source, settings, parse(analysis.text), (height, width), side)

    @property
    def windows(self) -> Iterator[tuple[str, Window]]:
        """The windows, row after row, with their places in the grid: ``"row/column"``."""
        (height, width), side = self.size, self.side
        for i, top in enumerate(range(0, height, side)):
            down = slice(top, min(top + side, height))
            for j, left in enumerate(range(0, width, side)):
                yield f"{i}/{j}", Window((down, slice(left, min(left + side, width))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the maps of the whole image, ([3,] 2, P, P, H', W')."""
        return self._shape(*self.size)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of the maps of a tile; at the right and lower edge, they may be smaller."""
        return self._shape(*(min(self.side, length) for length in self.size))

    @property
    def _kind(self) -> Kind:
        return "rmax" if self.settings.operator == "rmax" else "modulus"

    def _shape(self, rows: int, columns: int) -> tuple[int, ...]:
        packets = self.analysis.count
        colours = (3,) if self.settings.colour == "channels" else ()
        return (*colours, 2, packets, packets, rows, columns)

    def maps(self, window: Window) -> NDArray[np.float32]:
        """Return the maps of a window.

        Raises
        ------
        ImageError
            If it cannot be read, or its values are too large.
        """
        size = self.analysis.size(self.source.size)
        axes = self.analysis.axes(self.source.size, size, self._kind)
        (rows, down), (columns, across) = (
            axis.window(*self._cells(place)) for axis, place in zip(axes, window.place, strict=True)
        )
        pixels = self.source.read(rows, columns, self.settings.colour)
        planes = np.ascontiguousarray(pixels.reshape(-1, rows.size, columns.size))
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            maps = cpu.analyse(planes, self.analysis, (down, across), self._kind, threads=1)
        maps = maps.reshape(self._shape(*maps.shape[-2:]))
        # Integers are scaled to 0..1 and cannot overflow.
        if self.source.dtype.kind == "f" and not np.isfinite(maps).all():
            raise ImageError(
                self.source.name,
                f"values up to {np.abs(pixels).max():.3g} are too large for float32",
            )
        return maps

    def _cells(self, place: slice) -> tuple[int, int]:
        if self._kind == "modulus":
            return place.start, place.stop
        return 2 * place.start, 2 * place.start + self.analysis.cells(place.stop - place.start)


def as_workers(workers: int | None) -> int:
    """Return the number of threads; None: one for each core, up to four."""
    if workers is not None:
        return as_count(workers, "workers")
    available = getattr(os, "sched_getaffinity", None)
    cores = len(available(0)) if available is not None else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
