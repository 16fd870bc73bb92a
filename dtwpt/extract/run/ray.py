"""The engine on Ray Data: actors read and transform, this process hands out and writes."""

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
from dtwpt.extract.run.decoders import Task, WorkerError
from dtwpt.extract.run.pipeline import Outcome, Pipeline, Reading, stream
from dtwpt.extract.store.manifest import State
from dtwpt.extract.table import versions

if TYPE_CHECKING:
    import pyarrow

    from dtwpt.extract.store.writer import StoreWriter

try:
    with warnings.catch_warnings():
        # Ray Data sets deprecated options of its own while it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ray
        import ray.data
except ImportError as error:
    raise ImportError('engine "ray" needs Ray: pip install "dtwpt[ray]"') from error

# Images that go to an actor at a time: few, so that little is lost with it; in a job of millions
# more, as Ray keeps a record of each batch.
_BATCH = 64
_MOST_BATCHES = 20_000
# Batches for each actor, at least: so that all of them finish at about the same time.
_BATCHES_PER_ACTOR = 8
# Ray has a batch done again, for ever, when its actor dies: how often it is begun, and how many
# batches may be given up after that before the whole job is.
_TRIES = 3
_MOST_GIVEN_UP = 50
# Actors that may die while they start, one after the other.
_FALSE_STARTS = 10
# Seconds until something answers at the address of a cluster, and until this process has joined it.
_ANSWER_SECONDS, _JOIN_SECONDS = 10.0, 120.0
_MOST_PORT = 2**16 - 1
# Loggers that write to the terminal what goes to Ray's own log files anyway.
_LOGGERS = ("ray", "ray.data")


class _Failure(NamedTuple):
    """What ends the whole job: it would be the same with every other image."""

    node: str
    message: str


class _GivenUp(NamedTuple):
    """What comes of a batch at which actors have died, again and again."""


class _Tries:
    """Counts how often each batch is begun. An actor by itself, as it has to outlive others."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, batch: int) -> int:
        """Return how often a batch has been begun, this time included."""
        self._begun[batch] += 1
        return self._begun[batch]


def check_ray_device(device: str) -> None:
    """Raise unless actors may be asked to transform there.

    Raises
    ------
    ValueError
        If it is unknown, or a certain GPU.
    ImportError
        If it needs torch, which is not installed.
    """
    if device.startswith("cuda:"):
        raise ValueError(f"device {device!r}: Ray chooses the GPU of each worker, use 'cuda'")
    # This machine need not have a GPU.
    check_device("cpu" if device == "cuda" else device)


def check_reachable(address: str | None) -> None:
    """Raise unless something listens at the address of a cluster: Ray itself tries for minutes.

    Raises
    ------
    WorkerError
        If nothing does.
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
            f"no cluster of Ray answers at {where!r} ({reason}): does it run, and is that the port "
            "of its head, 6379 by default?"
        ) from error


def stream_on_ray(
    writer: StoreWriter,
    left: int,
    reading: Reading,
    workers: int | None = None,
    address: str | None = None,
) -> Generator[Outcome, None, None]:
    """Yield what comes of the files that a store waits for, in any order.

    Each outcome has to be added to the store before the next one is asked for.

    Parameters
    ----------
    writer : StoreWriter
    left : int
        The number of files that wait.
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
            # Actors died at these. Alone, only the one to blame is given up.
            yield from _round(writer, reading, actors, 1)
            writer.flush()
            _check_complete(writer)


def _decide_size(writer: StoreWriter, reading: Reading) -> None:
    """Have the first image decide on the size of all, as rows come in any order."""
    with (
        contextlib.closing(writer.waiting()) as tasks,
        contextlib.closing(
            stream(tasks, reading._replace(device="numpy", hashes=False), 2)
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
        f"workers of Ray died {_TRIES} times at {first}{others}, most likely for want of memory; "
        "all other images are done: use fewer workers, or take these files away"
    )


# The cluster ------------------------------------------------------------------------------------


class _Actors(NamedTuple):
    """How many, and what each of them asks for."""

    number: int
    cpus: int
    gpus: int

    @classmethod
    def of_cluster(cls, device: str, workers: int | None) -> _Actors:
        """Return what there is room for now, unless the number is given."""
        if device != "cuda":
            return cls(workers or max(1, int(ray.cluster_resources().get("CPU", 1))), 1, 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
        if not nodes:
            raise ValueError("device 'cuda': the cluster of Ray has no GPU")
        # A GPU takes as many cores for reading as it can have everywhere.
        cpus = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes)
        return cls(workers or sum(int(node["GPU"]) for node in nodes), max(1, cpus), 1)


@contextlib.contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """Join a cluster, or begin one on this machine, for as long as it is needed."""
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
    # Called by the main thread, ray.init takes over the handler of SIGTERM. The processes that it
    # starts end with the thread that has started them, so that one stays until all is over.
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
            if keeper.idle:  # else it is still trying, and nothing stops it
                keeper.call(ray.shutdown)
                keeper.leave()


class _TakesTooLongError(Exception):
    """A call did not return in time."""


class _Keeper:
    """A thread that makes calls, and for which nobody has to wait in the end."""

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
        """Return what a call returns; a signal breaks off the waiting alone."""
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
    """Have a cluster listen to this machine alone, and there to whoever knows a secret.

    Ray's own default is all interfaces, and to run what anybody sends. What the environment says is
    left alone.
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
    """Have Ray look at the environment for its token once more."""
    inside: Any = ray._raylet
    if hasattr(inside, "AuthenticationTokenLoader"):  # older versions have no tokens
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


def _join(options: dict[str, Any]) -> None:
    try:
        with warnings.catch_warnings():
            # On what a coming version of Ray does about GPUs, and the like.
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
    """Keep Ray from the terminal: what it has to say of errors is raised, too."""
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
    """Send out all that waits, and yield what comes back; batches that are given up do not."""
    counter: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries)
    tries = counter.remote()
    given_up = 0
    with contextlib.closing(writer.waiting()) as tasks, _options():
        # Into Ray's memory at once, which may be on the disk: the list may be long.
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
                        "batches, most likely for want of memory: use fewer workers"
                    )
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise WorkerError(f"Ray gave up: {_short(error)}") from error


@contextlib.contextmanager
def _options() -> Iterator[None]:
    """Set Ray Data's options for the datasets that are made meanwhile."""
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
        # Where a file system is not mounted, all would be skipped.
        raise WorkerError(
            f"{outcome.path} is there, but a worker does not see it: all machines need the same "
            "files at the same paths"
        )
    return outcome


class _Worker:
    """What an actor does: all that one process does on one machine, but write."""

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
        # Readers are processes, here too: a file that crashes one does not end the actor.
        return Pipeline(self._reading, self._cpus + 1)


def _listed(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in names.items())
