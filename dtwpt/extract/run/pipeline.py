"""Pipeline from files to features: processes read and transform, this one keeps the order."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from dtwpt.engine import cpu
from dtwpt.extract.extractor import Row, Stamp, features_of, stamp_of
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.memory import keep_freed_memory
from dtwpt.extract.run.batches import Batches
from dtwpt.extract.run.workers import Arrival, Task, Workers
from dtwpt.extract.settings import Settings

#: Seconds that reading one image may take.
TIMEOUT = 600.0

# Bytes of features that may wait for an earlier file.
_MOST_BYTES = 1 << 23
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


def processes_of(workers: int, files: int) -> int:
    """Return how many processes :func:`stream` takes for a number of workers."""
    return 0 if workers == 1 else min(workers, files)


def stream(
    tasks: Iterable[Task],
    reading: Reading,
    processes: int,
    *,
    in_order: Callable[[], bool] = always,
    on_idle: Callable[[], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of files.

    Memory is bounded: by one image per process, the images that wait for a device, and the features
    that wait for an earlier file. Tasks are read as they are needed.

    Parameters
    ----------
    tasks : iterable of Task
    reading : Reading
    processes : int
        That read and, without another device, transform; 0: this one does everything.
    in_order : callable
        Whether outcomes must come in the order of the files, so that a slow one holds up the
        others. Once false, it stays false.
    on_idle : callable, optional
        Called about once a second while no outcome arrives.
    """
    if processes == 0:
        yield from _alone(tasks, reading)
    else:
        with Pipeline(reading, processes) as pipeline:
            yield from pipeline.run(iter(tasks), in_order, on_idle)


def _alone(tasks: Iterable[Task], reading: Reading) -> Generator[Outcome, None, None]:
    settings, device, hashes, _ = reading
    keep_freed_memory()
    for task in tasks:
        stamp = stamp_of(task.path, hashes)
        result: Row | ImageError
        try:
            with cpu.threads(1):
                result = features_of(task.path, settings, device)
        except ImageError as error:
            result = error
        yield Outcome(*task, result, stamp)


class Pipeline:
    """Workers, and the order of their results. Close it, or use it in a ``with`` statement."""

    def __init__(self, reading: Reading, processes: int) -> None:
        settings, device, hashes, timeout = reading
        # Whether the processes transform; else, they read for batches.
        self._transforms = device == "numpy"
        self._most_files = _FILES * processes
        self._order: deque[Task] = deque()  # as long as it matters
        self._count = 0  # of files in flight
        self._outcomes: dict[int, Outcome] = {}
        self._bytes = 0  # of the features of outcomes
        with contextlib.ExitStack() as stack:
            self._workers = stack.enter_context(
                Workers(processes, settings, self._transforms, hashes, timeout)
            )
            self._batches = stack.enter_context(Batches(settings, device))
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
        self._workers.try_alone()
        batches = self._batches
        # At the limit of memory, only the image that everything else waits for is read, if there is
        # one. It is the next one of its process, as each takes them in order.
        room = self._bytes < _MOST_BYTES and batches.has_room
        waitables = self._workers.waitables(room, self._order[0].row if self._order else None)
        waitables.append(batches.finished)
        ready = wait(waitables, 0 if batches.idle else 1.0)
        if not ready and batches.idle:
            batches.start_fullest()
            ready = wait(waitables, 1.0)
        for connection in ready:
            if connection is batches.finished:
                for arrival, result in batches.collect():
                    self._put(arrival, result)
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
        if isinstance(arrival.array, ImageError):
            self._put(arrival, arrival.array)
        elif self._transforms:
            self._put(arrival, Row(arrival.size, arrival.array))
        else:
            self._batches.add(arrival, arrival.array)

    def _put(self, arrival: Arrival, result: Row | ImageError) -> None:
        self._outcomes[arrival.task.row] = Outcome(*arrival.task, result, arrival.stamp)
        if isinstance(result, Row):
            self._bytes += result.features.nbytes
