"""The Ray engine: actors read and transform; this process distributes files and writes."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import pickle
import queue
import secrets
import socket
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.extractor import Row, check_device
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.run.pipeline import Outcome, Pipeline, Reading, stream
from dtwpt.extract.run.workers import Task, WorkerError
from dtwpt.extract.store.manifest import State
from dtwpt.extract.table import versions

if TYPE_CHECKING:
    import pyarrow

    from dtwpt.extract.store.writer import StoreWriter

try:
    with warnings.catch_warnings():
        # Ray Data sets its own deprecated options when imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ray
        import ray.data
except ImportError as error:
    raise ImportError('engine "ray" needs Ray: pip install "dtwpt[ray]"') from error

# Images per batch: few, so that little is lost if an actor dies; more in a job of millions, as Ray
# keeps a record of each batch.
_BATCH = 64
_MOST_BATCHES = 20_000
# Minimum batches per actor, so that all finish at about the same time.
_BATCHES_PER_ACTOR = 8
# Ray retries a batch indefinitely when its actor dies. These limit the tries of a batch, and the
# number of batches given up before the job fails.
_TRIES = 3
_MOST_GIVEN_UP = 50
# Consecutive actors that may die while they start.
_FALSE_STARTS = 10
# Timeouts in seconds: for an answer at the address of a cluster, and for joining it.
_ANSWER_SECONDS, _JOIN_SECONDS = 10.0, 120.0
_MOST_PORT = 2**16 - 1
# Loggers that repeat Ray's log files on the terminal.
_LOGGERS = ("ray", "ray.data")


class _Failure(NamedTuple):
    """An error that ends the whole job, as every other image would raise it too."""

    node: str
    message: str


class _GivenUp(NamedTuple):
    """The outcome of a batch at which actors repeatedly died."""


class _Tries:
    """Counts the tries of each batch, in an actor of its own that outlives the others."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, batch: int) -> int:
        """Return the number of tries of a batch, including this one."""
        self._begun[batch] += 1
        return self._begun[batch]


def check_ray_device(device: str) -> None:
    """Raise unless actors can use the device.

    Raises
    ------
    ValueError
        If it is unknown, or names one particular GPU.
    ImportError
        If it needs torch, which is not installed.
    """
    if device.startswith("cuda:"):
        raise ValueError(f"device {device!r}: Ray chooses the GPU of each worker, use 'cuda'")
    # This machine need not have a GPU.
    check_device("cpu" if device == "cuda" else device)


def check_reachable(address: str | None) -> None:
    """Raise unless a cluster's address answers; Ray itself would try for minutes.

    Raises
    ------
    WorkerError
        If nothing answers.
    ValueError
        If it is no address.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized() or where in ("local", "auto"):
        return
    host, _, port = where.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal() or int(port) > _MOST_PORT:
        raise ValueError(f"address must be auto, local or host:port of a cluster, got {where!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        reason = error.strerror or error
        raise WorkerError(
            f"no Ray cluster answers at {where!r} ({reason}): is it running, and is that the port "
            "of its head, 6379 by default?"
        ) from error


def stream_on_ray(
    writer: StoreWriter,
    left: int,
    reading: Reading,
    workers: int | None = None,
    address: str | None = None,
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of a store's waiting files, in any order.

    Each outcome must be added to the store before the next one is requested.

    Parameters
    ----------
    writer : StoreWriter
    left : int
        The number of waiting files.
    reading : Reading
    workers : int, optional
        Actors. Default: one for each core, or GPU, of the cluster.
    address : str, optional
        As for ``ray.init``.
    """
    if not left:
        return
    with _quiet(), _cluster(address, workers):
        if writer.size is None and reading.settings.final_size() is None:
            _decide_size(writer, reading)
        actors = _Actors.of_cluster(reading.device, workers)
        batch = min(_BATCH, left // (_BATCHES_PER_ACTOR * actors.number))
        yield from _round(writer, reading, actors, max(1, batch, left // _MOST_BATCHES))
        writer.flush()
        if writer.counts()[State.WAITING]:
            # Actors died at these files. Retried one at a time, only the faulty one is given up.
            yield from _round(writer, reading, actors, 1)
            writer.flush()
            _check_complete(writer)


def _decide_size(writer: StoreWriter, reading: Reading) -> None:
    """Let the first image set the size of all, as rows come in any order."""
    with (
        contextlib.closing(writer.waiting()) as tasks,
        contextlib.closing(
            stream(tasks, reading._replace(device="numpy", hashes=False), 1)
        ) as outcomes,
    ):
        for outcome in outcomes:
            if isinstance(outcome.result, Row):
                writer.decide_size(outcome.result.size)
                return


def _check_complete(writer: StoreWriter) -> None:
    count = writer.counts()[State.WAITING]
    if not count:
        return
    with contextlib.closing(writer.waiting()) as tasks:
        first = next(tasks).path
    others = f" and {count - 1} more" if count > 1 else ""
    raise WorkerError(
        f"workers of Ray died {_TRIES} times at {first}{others}, most likely for lack of memory; "
        "all other images are done: use fewer workers, or remove these files"
    )


# The cluster ------------------------------------------------------------------------------------


class _Actors(NamedTuple):
    """The number of actors, and the resources of each."""

    number: int
    cpus: int
    gpus: int

    @classmethod
    def of_cluster(cls, device: str, workers: int | None) -> _Actors:
        """Return as many as fit now, unless the number is given."""
        if device != "cuda":
            return cls(workers or max(1, int(ray.cluster_resources().get("CPU", 1))), 1, 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
        if not nodes:
            raise ValueError("device 'cuda': the cluster of Ray has no GPU")
        # Each GPU gets as many cores for reading as are available on every node.
        cpus = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes)
        return cls(workers or sum(int(node["GPU"]) for node in nodes), max(1, cpus), 1)


@contextlib.contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """Join a cluster, or start a temporary one on this machine."""
    if ray.is_initialized():
        if address is not None:
            raise ValueError(f"address {address!r}: this process has joined a cluster already")
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    ours = address in (None, "local") and (address or not os.environ.get("RAY_ADDRESS"))
    if ours:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": workers}
    else:
        options |= {"address": address}
    # In the main thread, ray.init would replace the handler of SIGTERM. Its processes end with the
    # thread that started them, so that thread lives until the end.
    keeper = _Keeper()
    with _for_us_alone() if ours else contextlib.nullcontext():
        try:
            keeper.call(_join, options, seconds=None if ours else _JOIN_SECONDS)
            yield
        except _TakesTooLongError:
            raise WorkerError(
                f"the cluster of Ray {_where(options)!r} did not let this process join in "
                f"{_JOIN_SECONDS:g} s: is that the port of its head, 6379 by default?"
            ) from None
        finally:
            if keeper.idle:  # else it is still trying, and cannot be stopped
                keeper.call(ray.shutdown)
                keeper.leave()


class _TakesTooLongError(Exception):
    """A call timed out."""


class _Keeper:
    """A daemon thread that makes calls."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self.idle = True
        threading.Thread(target=self._work, name="dtwpt-ray", daemon=True).start()

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            future, function = task
            try:
                result = function()
            except BaseException as error:
                self.idle = True
                future.set_exception(error)
            else:
                self.idle = True
                future.set_result(result)

    def call(self, function: Callable[..., Any], *args: Any, seconds: float | None = None) -> Any:
        """Return the result of a call; a signal interrupts only the waiting."""
        future: Future[Any] = Future()
        self.idle = False
        self._calls.put((future, functools.partial(function, *args)))
        done, _ = wait([future], seconds)
        if not done:
            raise _TakesTooLongError
        return future.result()

    def leave(self) -> None:
        """End the thread."""
        self._calls.put(None)


@contextlib.contextmanager
def _for_us_alone() -> Iterator[None]:
    """Restrict a cluster to this machine and to clients with a secret token.

    By default, Ray listens on all interfaces and runs what anybody sends. Settings in the
    environment are kept.
    """
    names = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if not any(os.environ.get(f"RAY_AUTH_{name}") for name in ("MODE", "TOKEN", "TOKEN_PATH")):
        names |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    names = {name: value for name, value in names.items() if name not in os.environ}
    constants = ray._private.ray_constants  # which has read the environment already
    listens = constants.ENABLE_RAY_CLUSTER
    os.environ.update(names)
    if "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in names:
        constants.ENABLE_RAY_CLUSTER = False
    try:
        _read_environment()
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        constants.ENABLE_RAY_CLUSTER = listens
        _read_environment()


def _read_environment() -> None:
    """Make Ray read its token from the environment again."""
    inside: Any = ray._raylet
    if hasattr(inside, "AuthenticationTokenLoader"):  # older versions have no tokens
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


def _join(options: dict[str, Any]) -> None:
    try:
        with warnings.catch_warnings():
            # Such as about GPUs in a future version of Ray.
            warnings.simplefilter("ignore")
            ray.init(**options)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        told = "".join(traceback.format_exception(error))
        hint = "; it asks for a token, see RAY_AUTH_TOKEN" if "AuthToken" in told else ""
        raise WorkerError(
            f"cannot join the cluster of Ray {_where(options)!r}: {_short(error)}{hint}"
        ) from error


def _where(options: dict[str, Any]) -> str:
    return str(options["address"] or os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's log off the terminal; errors are raised as well."""
    handlers: list[tuple[Any, int]] = []
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        handlers += [
            (handler, handler.level)
            for handler in logger.handlers
            if isinstance(handler, logging.StreamHandler)
        ]
    levels = [(logging.getLogger("ray"), logging.getLogger("ray").level)]
    try:
        for item, _ in (*handlers, *levels):
            item.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for item, level in (*handlers, *levels):
            item.setLevel(level)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# Out and back -----------------------------------------------------------------------------------


def _round(
    writer: StoreWriter, reading: Reading, actors: _Actors, batch: int
) -> Generator[Outcome, None, None]:
    """Send out all waiting files, and yield the outcomes; batches that are given up have none."""
    counter: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries)
    tries = counter.remote()
    given_up = 0
    with contextlib.closing(writer.waiting()) as tasks, _options():
        # Moved to Ray's object store at once, which may spill to disk: the list may be long.
        batches = [ray.put(some) for some in iter(lambda: list(islice(tasks, batch)), [])]
        # Not ray.data.range: its tasks would wait for the cores that the actors keep.
        dataset = ray.data.from_items(
            [{"batch": number} for number in range(len(batches))], override_num_blocks=len(batches)
        ).map_batches(
            _Worker,
            fn_constructor_args=(reading, actors.cpus, versions(reading.device), batches, tries),
            batch_size=1,  # one of ours
            compute=ray.data.ActorPoolStrategy(size=min(actors.number, len(batches))),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
        )
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for pickled in table["outcome"]:
                outcome = pickle.loads(pickled.as_py())
                if not isinstance(outcome, _GivenUp):
                    yield _checked(outcome)
                    continue
                given_up += 1
                if given_up > _MOST_GIVEN_UP:
                    raise WorkerError(
                        f"workers of Ray die all the time, {_TRIES} times at each of {given_up} "
                        "batches, most likely for lack of memory: use fewer workers"
                    )
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise WorkerError(f"Ray gave up: {_short(error)}") from error


@contextlib.contextmanager
def _options() -> Iterator[None]:
    """Set Ray Data's options for the datasets made within."""
    options = ray.data.DataContext.get_current()
    ours = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_consecutive_actor_init_deaths": _FALSE_STARTS,
    }
    before = {name: getattr(options, name) for name in ours if hasattr(options, name)}
    for name in before:
        setattr(options, name, ours[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(options, name, value)


def _checked(outcome: Outcome | _Failure) -> Outcome:
    if isinstance(outcome, _Failure):
        raise WorkerError(f"a worker on {outcome.node} failed: {outcome.message}")
    result = outcome.result
    missing = isinstance(result, ImageError) and result.reason == os.strerror(errno.ENOENT)
    if missing and os.path.exists(outcome.path):
        # If a file system is not mounted, all files would be skipped.
        raise WorkerError(
            f"{outcome.path} exists, but a worker does not see it: all machines need the same "
            "files at the same paths"
        )
    return outcome


class _Worker:
    """An actor: reads and transforms, but does not write."""

    def __init__(
        self, reading: Reading, cpus: int, made_by: dict[str, str], batches: list[Any], tries: Any
    ) -> None:
        self._reading, self._cpus, self._made_by = reading, cpus, made_by
        self._batches, self._tries = batches, tries
        self._pipeline: Pipeline | None = None

    def __call__(self, numbers: dict[str, NDArray[np.int64]]) -> pyarrow.Table:
        import pyarrow

        outcomes: list[Outcome | _Failure | _GivenUp] = []
        for number in numbers["batch"]:
            if ray.get(self._tries.begin.remote(int(number))) > _TRIES:
                outcomes.append(_GivenUp())
            else:
                outcomes += self._outcomes(ray.get(self._batches[number]))
        return pyarrow.table({"outcome": [pickle.dumps(outcome) for outcome in outcomes]})

    def _outcomes(self, tasks: list[Task]) -> list[Outcome] | list[_Failure]:
        try:
            if self._pipeline is None:
                self._pipeline = self._start()
            return list(self._pipeline.run(iter(tasks), in_order=lambda: False))
        except Exception as error:
            return [_Failure(socket.gethostname(), f"{type(error).__name__}: {_short(error)}")]

    def _start(self) -> Pipeline:
        here = versions(self._reading.device)
        if here != self._made_by:
            raise RuntimeError(f"it has {_listed(here)}, the store {_listed(self._made_by)}")
        check_device(self._reading.device)
        # Processes of their own here too: a file that crashes one does not end the actor.
        return Pipeline(self._reading, self._cpus)


def _listed(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in names.items())
