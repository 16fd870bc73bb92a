"""Pipeline from files to features: decoding in processes, the transform in threads."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import cpu
from dtwpt.extract.extractor import Row, Stamp, image_of, rows_of, stamp_of
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.run.workers import Arrival, Task, Workers
from dtwpt.extract.settings import Settings

#: Seconds that reading one image may take.
TIMEOUT = 600.0

# Bytes of pixels in a batch: few, so that their maps stay in a core's cache; on another device,
# enough to hide the cost of the transfer.
_BATCH = {"numpy": 1 << 19}
_DEVICE_BATCH = 1 << 26
# Bytes that may always be in flight.
_LEAST_BYTES = 1 << 23
# Number of waiting full batches at which another thread starts.
_AHEAD = 2
# Files in flight per process: with more, a slow one holds up the others less.
_FILES = 64


class Reading(NamedTuple):
    """How to read and transform files."""

    settings: Settings
    device: str = "numpy"
    hashes: bool = False  # whether to take the hash of what is read
    timeout: float = TIMEOUT  # of reading one image, in another process


class Outcome(NamedTuple):
    """The result for a file."""

    row: int
    path: str
    result: Row | ImageError
    stamp: Stamp


def always() -> bool:
    """Yield outcomes in the order of the files."""
    return True


def stream(
    tasks: Iterable[Task],
    reading: Reading,
    workers: int,
    *,
    in_order: Callable[[], bool] = always,
    on_idle: Callable[[], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of files.

    Memory is bounded: by the images being transformed, one image per process, and the results that
    wait for an earlier file. Tasks are read as they are needed.

    Parameters
    ----------
    tasks : iterable of Task
    reading : Reading
    workers : int
    in_order : callable
        Whether outcomes must come in the order of the files, so that a slow one holds up the
        others. Once false, it stays false.
    on_idle : callable, optional
        Called about once a second while no outcome arrives.
    """
    if workers == 1:
        yield from _alone(tasks, reading)
    else:
        with Pipeline(reading, workers) as pipeline:
            yield from pipeline.run(iter(tasks), in_order, on_idle)


def _alone(tasks: Iterable[Task], reading: Reading) -> Generator[Outcome, None, None]:
    settings, device, hashes, _ = reading
    for task in tasks:
        stamp = stamp_of(task.path, hashes)
        result: Row | ImageError
        try:
            # The image gets no name, which would keep it in memory while the next one is read.
            with cpu.threads(1):
                (result,) = rows_of(
                    [task.path], image_of(task.path, settings)[None], settings, device
                )
        except ImageError as error:
            result = error
        yield Outcome(*task, result, stamp)


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


class Pipeline:
    """One process transforms, others decode. Close it, or use it in a ``with`` statement."""

    def __init__(self, reading: Reading, workers: int) -> None:
        settings, device, hashes, timeout = reading
        self._settings, self._device = settings, device
        self._batch_bytes = _BATCH.get(device, _DEVICE_BATCH)
        # Up to one thread per core. A device has its own parallelism.
        self._threads = workers if device == "numpy" else 1
        self._most_bytes = max(_LEAST_BYTES, 3 * self._threads * self._batch_bytes)
        self._most_files = _FILES * workers
        self._order: deque[Task] = deque()  # as long as it matters
        self._count = 0  # of files in flight
        self._outcomes: dict[int, Outcome] = {}
        self._open: dict[tuple[int, ...], _Batch] = {}
        self._full: deque[_Batch] = deque()
        self._running: dict[Future[list[Row | ImageError]], _Batch] = {}
        self._done: deque[Future[list[Row | ImageError]]] = deque()  # and not yet collected
        self._bytes = 0
        with contextlib.ExitStack() as stack:
            self._workers = stack.enter_context(Workers(workers - 1, settings, hashes, timeout))
            self._woken, self._wake = Pipe(duplex=False)
            stack.callback(self._woken.close)
            stack.callback(self._wake.close)
            self._pool = ThreadPoolExecutor(self._threads, "dtwpt-transform")
            stack.callback(self._pool.shutdown, cancel_futures=True)
            self._stack = stack.pop_all()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and threads."""
        self._stack.close()

    def run(
        self,
        tasks: Iterator[Task],
        in_order: Callable[[], bool] = always,
        on_idle: Callable[[], None] | None = None,
    ) -> Generator[Outcome, None, None]:
        """Yield the outcomes of files, see :func:`stream`; after its end it may be called again."""
        more = True
        while more or self._count:
            self._keep_order(in_order())
            while more and self._count < self._most_files and self._workers.has_room():
                task = next(tasks, None)
                if task is None:
                    more = False
                    break
                self._count += 1
                if in_order():
                    self._order.append(task)
                self._workers.put(task)
            while (outcome := self._next()) is not None:
                yield outcome
                self._keep_order(in_order())
            if self._count:
                self._step(on_idle)

    def _keep_order(self, keep: bool) -> None:
        if not keep:
            self._order.clear()
        # Only then may a file be postponed until all others are done.
        self._workers.may_put_off = not keep

    def _next(self) -> Outcome | None:
        if self._order:
            outcome = self._outcomes.pop(self._order[0].row, None)
            if outcome is not None:
                self._order.popleft()
        else:
            outcome = self._outcomes.popitem()[1] if self._outcomes else None
        if outcome is not None:
            self._count -= 1
            if isinstance(outcome.result, Row):
                self._bytes -= outcome.result.features.nbytes
        return outcome

    def _step(self, on_idle: Callable[[], None] | None) -> None:
        """Wait for the next event, and handle it."""
        self._start_threads()
        self._workers.try_alone()
        # At the limit of pixels, only the image that everything else waits for is read, if there is
        # one. It is the next one of its process, as each takes them in order.
        room = self._bytes < self._most_bytes
        waitables = self._workers.waitables(room, self._order[0].row if self._order else None)
        ready = []
        if self._open and (not self._running or not room):
            ready = wait([*waitables, self._woken], 0)
            if not ready:
                self._start_small_batches(in_all_threads=not room)
        ready = ready or wait([*waitables, self._woken], 1.0)
        for connection in ready:
            if connection is self._woken:
                self._collect()
            else:
                self._read(connection)
        if not ready:
            self._workers.end_hanging()
            if on_idle is not None:
                on_idle()
        while self._workers.blamed:
            task, error = self._workers.blamed.pop()
            # Not its contents, which may be unreadable.
            self._outcomes[task.row] = Outcome(*task, error, stamp_of(task.path))

    def _read(self, connection: Any) -> None:
        arrival = self._workers.arrival(connection)
        if arrival is None:
            return
        if isinstance(arrival.shape, ImageError):
            self._outcomes[arrival.task.row] = Outcome(*arrival.task, arrival.shape, arrival.stamp)
            return
        batch = self._open.get(arrival.shape)
        if batch is None:
            count = max(1, self._batch_bytes // (4 * math.prod(arrival.shape)))
            batch = _Batch(np.empty((count, *arrival.shape), np.float32))
        slot = batch.images[len(batch.arrivals)]
        if self._workers.take(connection, slot):
            self._open[arrival.shape] = batch
            batch.arrivals.append(arrival)
            self._bytes += slot.nbytes
            if batch.full:
                self._full.append(self._open.pop(arrival.shape))

    def _start_threads(self) -> None:
        while self._full and len(self._running) < self._threads:
            # The first thread uses the core that waiting leaves free; another one takes a core from
            # the processes, so it starts only if these are ahead.
            ahead = len(self._full) >= _AHEAD or self._bytes >= self._most_bytes
            if self._running and not ahead:
                return
            self._start(self._full.popleft())

    def _start_small_batches(self, in_all_threads: bool) -> None:
        """Start batches that are not full, as no images are ready: one batch, or all if needed."""
        threads = self._threads if in_all_threads else 1
        while self._open and len(self._running) < threads:
            fullest = max(self._open, key=lambda shape: self._open[shape].nbytes)
            self._full.append(self._open.pop(fullest))
            self._start_threads()

    def _start(self, batch: _Batch) -> None:
        count = len(batch.arrivals)
        paths = [arrival.task.path for arrival in batch.arrivals]
        future = self._pool.submit(self._transform, paths, batch.images[:count])
        self._running[future] = batch
        future.add_done_callback(self._say_done)

    def _transform(self, paths: list[str], images: NDArray[np.float32]) -> list[Row | ImageError]:
        with cpu.threads(1):  # one core each: the others are taken
            return rows_of(paths, images, self._settings, self._device)

    def _say_done(self, future: Future[list[Row | ImageError]]) -> None:
        self._done.append(future)
        with contextlib.suppress(OSError):  # closed: nothing waits any more
            self._wake.send_bytes(b"x")

    def _collect(self) -> None:
        self._woken.recv_bytes()  # one per finished batch
        future = self._done.popleft()
        batch = self._running.pop(future)
        self._bytes -= batch.nbytes
        for arrival, result in zip(batch.arrivals, future.result(), strict=True):
            self._outcomes[arrival.task.row] = Outcome(*arrival.task, result, arrival.stamp)
            if isinstance(result, Row):
                self._bytes += result.features.nbytes
