"""Batches of images of one size, transformed on a device while processes read the next ones."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Pipe

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import cpu
from dtwpt.extract.extractor import Row, rows_of
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.run.workers import Arrival
from dtwpt.extract.settings import Settings

# Bytes of pixels in a batch: enough to hide the cost of the transfer.
_BYTES = 1 << 26


@dataclass
class _Batch:
    """A batch of images of one size, filled as they arrive."""

    images: NDArray[np.float32]
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.arrivals) == len(self.images)

    @property
    def nbytes(self) -> int:
        return self.images[: len(self.arrivals)].nbytes


class Batches:
    """One thread that has a device transform batches. Close it, or use it in a ``with`` statement.

    Parameters
    ----------
    settings : Settings
    device : str
        As torch names it.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings, self._device = settings, device
        self._open: dict[tuple[int, ...], _Batch] = {}
        self._full: deque[_Batch] = deque()
        # One, or none.
        self._running: deque[tuple[Future[list[Row | ImageError]], _Batch]] = deque()
        #: Bytes of the images that wait or are being transformed.
        self.nbytes = 0
        #: Receives a message when a batch is finished, for :meth:`collect`.
        self.finished, self._finish = Pipe(duplex=False)
        self._pool = ThreadPoolExecutor(1, "dtwpt-transform")

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the batch that is being transformed, and end the thread."""
        self._pool.shutdown(cancel_futures=True)
        self.finished.close()
        self._finish.close()

    @property
    def has_room(self) -> bool:
        """Whether another image is wanted: up to three full batches may wait."""
        return self.nbytes < 3 * _BYTES

    @property
    def idle(self) -> bool:
        """Whether images wait, but no batch is full and none is being transformed."""
        return not self._running and bool(self._open)

    def add(self, arrival: Arrival, image: NDArray[np.float32]) -> None:
        """Put an image into a batch, and start it if it is full and the device is free."""
        batch = self._open.get(image.shape)
        if batch is None:
            count = max(1, _BYTES // (4 * math.prod(image.shape)))
            batch = self._open[image.shape] = _Batch(np.empty((count, *image.shape), np.float32))
        batch.images[len(batch.arrivals)] = image
        # Without the image, which the batch has now.
        batch.arrivals.append(arrival._replace(array=np.empty(0, np.float32)))
        self.nbytes += image.nbytes
        if batch.full:
            self._full.append(self._open.pop(image.shape))
            self._start()

    def start_fullest(self) -> None:
        """Start the batch that has most images, as no more images are ready."""
        fullest = max(self._open, key=lambda shape: self._open[shape].nbytes)
        self._full.append(self._open.pop(fullest))
        self._start()

    def collect(self) -> Iterator[tuple[Arrival, Row | ImageError]]:
        """Yield the results of a finished batch; the next full one is started before."""
        self.finished.recv_bytes()
        future, batch = self._running.popleft()
        self._start()
        self.nbytes -= batch.nbytes
        yield from zip(batch.arrivals, future.result(), strict=True)

    def _start(self) -> None:
        if self._running or not self._full:
            return
        batch = self._full.popleft()
        future = self._pool.submit(self._transform, batch)
        self._running.append((future, batch))
        future.add_done_callback(self._say_finished)

    def _transform(self, batch: _Batch) -> list[Row | ImageError]:
        paths = [arrival.task.path for arrival in batch.arrivals]
        with cpu.threads(1):  # if the device is "cpu": the other cores are taken
            return rows_of(paths, batch.images[: len(paths)], self._settings, self._device)

    def _say_finished(self, _: Future[list[Row | ImageError]]) -> None:
        with contextlib.suppress(OSError):  # closed: nothing waits any more
            self._finish.send_bytes(b"x")
