"""Processes that read images and may transform them, each with a pipe: one may die or hang."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import cpu
from dtwpt.extract.extractor import Stamp, features_of, image_of, stamp_of
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.memory import keep_freed_memory
from dtwpt.extract.settings import Settings

# Paths queued in a process, so that it never runs out of work.
_AHEAD = 4
# Consecutive processes that may end during start-up.
_FALSE_STARTS = 3
# Processes that may die at one file: more than one, as the system may kill them for another reason.
_TRIES = 3
# Seconds that this process may be too busy to check the others. A longer gap means that all were
# suspended, by Ctrl-Z or with the machine; it does not count as reading time.
_MOST_BUSY = 5.0
# Size to which a pipe is enlarged where the system allows it: an image then takes fewer steps.
_PIPE_BYTES = 1 << 20


class WorkerError(ChildProcessError):
    """Worker processes did not start."""


class Task(NamedTuple):
    """A file to read, known to the caller by a number."""

    row: int
    path: str


class Arrival(NamedTuple):
    """The reply of a process about a file: its features or image as ``array``, or the error."""

    task: Task
    stamp: Stamp
    size: tuple[int, int]
    array: NDArray[np.float32] | ImageError


class Workers:
    """A pool of processes that read images. Close it, or use it in a ``with`` statement.

    Each process replies in the order of its tasks, and holds one array until it is received, so
    none pile up.

    Parameters
    ----------
    count : int
        Processes.
    settings : Settings
    transform : bool
        Whether the arrays are features, computed by the processes, or images.
    hashes : bool
        Whether to take the hash of what is read.
    timeout : float
        Seconds after which a process that has not replied about a file is ended.
    """

    def __init__(
        self, count: int, settings: Settings, transform: bool, hashes: bool, timeout: float
    ) -> None:
        # Spawned, not forked: a fork would copy locks held by BLAS threads.
        self._context = multiprocessing.get_context("spawn")
        self._watched, self._held = self._context.Pipe(duplex=False)
        self._arguments = (settings, transform, hashes, self._watched)
        self._timeout = timeout
        self._looked = time.monotonic()
        self._false_starts = 0
        self._deaths: dict[int, int] = {}  # by file: processes that died at it
        self._put_off: deque[Task] = deque()
        #: Whether to postpone a file at which two processes have died until all others are done.
        self.may_put_off = False
        #: Files at which a process died or hung, for the caller to collect.
        self.blamed: list[tuple[Task, ImageError]] = []
        self._workers: list[_Worker] = []
        try:
            for _ in range(count):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes immediately, even in the middle of an image."""
        self._held.close()
        for worker in self._workers:
            worker.close()
        self._watched.close()

    def _start(self) -> _Worker:
        with _interrupts_held_back():
            return _Worker(self._context, self._arguments)

    def has_room(self) -> bool:
        """Whether another task can be accepted."""
        if self._deaths and any(
            self.may_put_off and self._deaths.get(worker.queue[0].row, 0) == _TRIES - 1
            for worker in self._workers
            if worker.queue
        ):
            return False  # a postponed one is tried alone
        return any(len(worker.queue) < _AHEAD for worker in self._workers)

    def put(self, task: Task) -> None:
        """Give a task to the process that has the fewest tasks."""
        min(self._workers, key=lambda worker: len(worker.queue)).put(task)

    def try_alone(self) -> None:
        """Try a postponed file, if nothing else is left to do."""
        if self._put_off and not any(worker.queue for worker in self._workers):
            self._workers[0].put(self._put_off.popleft())

    def waitables(self, all_of_them: bool, row: int | None) -> list[Connection]:
        """Return the connections to wait for: all, or that of the process with a given task."""
        now = time.monotonic()
        pause, self._looked = now - self._looked, now
        if pause > _MOST_BUSY:
            for worker in self._workers:
                worker.since += pause
        return [
            worker.results
            for worker in self._workers
            if worker.queue and (all_of_them or any(task.row == row for task in worker.queue))
        ]

    def arrival(self, connection: Connection) -> Arrival | None:
        """Return the reply on a connection.

        None if there is no reply: a process has started or died, see :attr:`blamed`.

        Raises
        ------
        WorkerError
            If processes repeatedly end during start-up.
        """
        worker = self._of(connection)
        try:
            said = connection.recv()
            if said is None:
                self._is_ready(worker)
                return None
            stamp, size, shape = said
            array: NDArray[np.float32] | ImageError
            if isinstance(shape, str):
                array = ImageError(worker.queue[0].path, shape)
            else:
                array = _receive(connection, shape)
        except (EOFError, OSError):
            self._died(worker)
            return None
        worker.since = time.monotonic()
        return Arrival(worker.queue.popleft(), stamp, size, array)

    def end_hanging(self) -> None:
        """End the processes that hang; see :attr:`blamed`."""
        for worker in list(self._workers):
            late = worker.queue and time.monotonic() - worker.since > self._timeout
            if late and worker.ready and not worker.results.poll():
                self._blame(worker, f"reading it took more than {self._timeout:g} s")
                self._replace(worker)

    def _of(self, connection: Connection) -> _Worker:
        return next(worker for worker in self._workers if worker.results is connection)

    def _is_ready(self, worker: _Worker) -> None:
        worker.since = time.monotonic()
        worker.ready = True
        self._false_starts = 0

    def _died(self, worker: _Worker) -> None:
        """Start another process; blame the file being read once its tries are used up."""
        worker.process.join()
        how = _how(worker.process)
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS and (worker.process.exitcode or 0) < 0:
                raise WorkerError(
                    f"worker processes were killed before they had started ({how}): use fewer "
                    "workers, or see what kills them"
                )
            if self._false_starts >= _FALSE_STARTS:
                raise WorkerError(
                    f"worker processes ended before they had started ({how}): does "
                    f"{sys.executable!r} still import dtwpt.extract?"
                )
        elif worker.queue:
            row = worker.queue[0].row
            self._deaths[row] = deaths = self._deaths.get(row, 0) + 1
            if deaths == _TRIES:
                del self._deaths[row]
                self._blame(worker, f"the decoder crashed {_TRIES} times ({how})")
            elif deaths == _TRIES - 1 and self.may_put_off:
                self._put_off.append(worker.queue.popleft())
        self._replace(worker)

    def _blame(self, worker: _Worker, reason: str) -> None:
        task = worker.queue.popleft()
        self.blamed.append((task, ImageError(task.path, reason)))

    def _replace(self, worker: _Worker) -> None:
        worker.close()
        fresh = self._start()
        for task in worker.queue:
            fresh.put(task)
        self._workers[self._workers.index(worker)] = fresh


class _Worker:
    """One process, and the tasks that it has got, the oldest first."""

    def __init__(
        self,
        context: multiprocessing.context.SpawnContext,
        arguments: tuple[Settings, bool, bool, Connection],
    ) -> None:
        self.queue: deque[Task] = deque()
        self.ready = False
        self.since = time.monotonic()
        tasks, self._tasks = context.Pipe(duplex=False)
        self.results, results = context.Pipe(duplex=False)
        _enlarge(results)
        self.process = context.Process(
            target=_serve, args=(tasks, results, *arguments), daemon=True
        )
        try:
            start_apart(self.process)
        finally:
            tasks.close()
            results.close()

    def put(self, task: Task) -> None:
        if not self.queue:
            self.since = time.monotonic()
        self.queue.append(task)
        with contextlib.suppress(OSError):  # dead, which is noticed later
            self._tasks.send(task.path)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self._tasks.close()
        self.results.close()


def _how(process: multiprocessing.process.BaseProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, most likely for lack of memory" if name == "SIGKILL" else name


# In a process of its own -------------------------------------------------------------------------


def _serve(
    tasks: Connection,
    results: Connection,
    settings: Settings,
    transform: bool,
    hashes: bool,
    watched: Connection,
) -> None:
    threading.Thread(target=_leave_with_parent, args=(watched,), daemon=True).start()
    keep_freed_memory()
    results.send(None)
    while True:
        try:
            path = tasks.recv()
        except EOFError:
            return
        stamp = stamp_of(path, hashes)  # before reading, to notice changes meanwhile
        try:
            size, array = _read(path, settings, transform)
        except ImageError as error:
            results.send((stamp, (0, 0), error.reason))
        else:
            results.send((stamp, size, array.shape))
            _send(results, array)
            del array


def _read(
    path: str, settings: Settings, transform: bool
) -> tuple[tuple[int, int], NDArray[np.float32]]:
    if transform:
        with cpu.threads(1):  # one core each
            return features_of(path, settings)
    image = image_of(path, settings)
    return (image.shape[-2], image.shape[-1]), image


def _leave_with_parent(watched: Connection) -> None:
    """End this process once the run is over or its parent process is gone."""
    wait([watched])
    os._exit(0)


# Arrays through a pipe: straight from one into another --------------------------------------------


def _enlarge(connection: Connection) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(connection.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _send(connection: Connection, array: NDArray[np.float32]) -> None:
    view = memoryview(array.data).cast("B")
    if os.name == "nt":
        connection.send_bytes(view)
        return
    while view:
        view = view[os.write(connection.fileno(), view) :]


def _receive(connection: Connection, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.empty(shape, np.float32)
    view = memoryview(array.data).cast("B")
    if os.name == "nt":
        connection.recv_bytes_into(view)
        return array
    while view:
        count = os.readv(connection.fileno(), [view])
        if count == 0:
            raise EOFError
        view = view[count:]
    return array


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block Ctrl-C for a moment, and permanently in processes started meanwhile.

    A terminal sends it to every process; only the parent should act on it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Start of a process ------------------------------------------------------------------------------


_SAFE_PATH = "PYTHONSAFEPATH"
_one_at_a_time = threading.Lock()


def start_apart(process: BaseProcess) -> None:
    """Start a process of the method "spawn" that does not need the main module.

    By default, such a process runs the caller's script again, which fails if that has no guard or
    came through a pipe; and until it has the caller's ``sys.path``, it imports modules from the
    working folder, where a file such as ``types.py`` hides Python's own (from Python 3.11 on it
    does not).

    Parameters
    ----------
    process : BaseProcess
        Not started yet.
    """
    with _one_at_a_time:
        original = spawn.get_preparation_data
        before = os.environ.get(_SAFE_PATH)

        def without_main(name: str) -> dict[str, Any]:
            data = original(name)
            if name == process.name:  # other threads may start processes as well
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
            return data

        try:
            spawn.get_preparation_data = without_main
            os.environ[_SAFE_PATH] = "1"
            process.start()
        finally:
            spawn.get_preparation_data = original
            if before is None:
                del os.environ[_SAFE_PATH]
            else:
                os.environ[_SAFE_PATH] = before
