"""Feature extraction into a table (:func:`extract`) or a store (:func:`extract_to_store`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dtwpt.checks import as_count
from dtwpt.extract.extractor import Row, another_size, check_device
from dtwpt.extract.files import check_local, is_store_name
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.inputs import Inputs, find_images, iterate_images, sparing, with_keys
from dtwpt.extract.labels import Labels, labelling
from dtwpt.extract.progress import Progress, following
from dtwpt.extract.run.pipeline import TIMEOUT, Outcome, Reading, processes_of, stream
from dtwpt.extract.run.workers import Task
from dtwpt.extract.settings import Settings
from dtwpt.extract.store.manifest import State
from dtwpt.extract.table import FeatureTable, Skipped

if TYPE_CHECKING:
    from dtwpt.extract.store.reader import FeatureStore
    from dtwpt.extract.store.writer import StoreWriter


#: How a run treats an unusable file.
ON_ERROR = ("stop", "skip")


def extract(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    workers: int = 1,
    device: str = "numpy",
    on_error: str = "stop",
    labels: Labels | None = None,
    timeout: float = TIMEOUT,
    progress: Progress = None,
    on_skip: Callable[[Skipped], None] | None = None,
) -> FeatureTable:
    """Extract the features of image files into a table in memory.

    Images stream through: what stays in memory is the table. Each image is transformed on its
    own and with one thread, so its features are the same to the last bit whatever the other
    images and the number of workers. For more images than fit into memory, or for jobs that
    have to survive an interruption, see :func:`extract_to_store`.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, folders and patterns, as for :func:`find_images`.
    settings : Settings, optional
        Default: ``Settings()``.
    workers : int, default: 1
        Processes that read and transform, one image at a time each; with a device of torch, they
        read, and this one transforms. 1: this one does everything. A file that crashes its process
        three times, or takes longer than ``timeout``, counts as unusable.
    device : str, default: "numpy"
        "numpy", or a device of torch such as "cuda" or "cpu" for the transform; torch agrees
        with NumPy to 1e-5 of the largest feature, not to the last bit.
    on_error : {"stop", "skip"}
        How to treat an unusable file: raise, or leave it out and list it in ``skipped``.
    labels : {"folder"}, path or mapping, optional
        Source of the labels: "folder", the name of the folder that an image is in; the path of a
        .csv file with the columns ``file`` (from the folder of that file, or from a folder that is
        given) and ``label``; or a mapping from files to labels.
    timeout : float, default: 600
        Seconds that reading one image may take, with more than one worker.
    progress : callable or bool, optional
        Called with the numbers of files done and in all, first with none done. True: a progress
        bar, also in Jupyter.
    on_skip : callable, optional
        Called with each :class:`Skipped` immediately, so also if the run fails later.

    Returns
    -------
    FeatureTable
        One row per image, in the order of :func:`find_images`.

    Raises
    ------
    ImageError
        If a file cannot be used: unreadable, smaller than the crop, its maps coarser than the
        pooling grid, with ``pool="none"`` of another size than the first one. With
        ``on_error="skip"``, only if there is none left; the error is the first one.
    FileNotFoundError
        If a path does not exist or stands for no image.
    WorkerError
        If worker processes do not start.
    TypeError, ValueError
        If an argument is of the wrong type or value.
    ImportError
        If the device needs torch, which is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.extract import Settings, extract
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(os.path.join(folder, "a.npy"), np.random.default_rng(0).random((40, 50)))
    ...     table = extract(folder, Settings(depth=1, crop=32))
    >>> table.features.shape, table.feature_names[0]
    ((1, 8), 'cmod_pos_v0_h0_1.111rad_45.0deg')
    """
    settings = Settings() if settings is None else settings
    workers = as_count(workers, "workers")
    check_on_error(on_error)
    check_device(device)
    check_timeout(timeout)
    paths = Inputs.of(paths)
    label = labelling(labels, paths)
    files = find_images(paths)
    outcomes = stream(
        (Task(row, file) for row, file in enumerate(files)),
        Reading(settings, device, timeout=timeout),
        processes_of(workers, len(files)),
    )
    # Closed at once if an exception leaves the loop, so that no process outlives the call.
    with contextlib.closing(outcomes), following(progress) as show:
        table = _collect(files, outcomes, settings, on_error, show, on_skip)
    if label is not None:
        table = replace(table, labels=[label(key) for key, _ in with_keys(table.files)])
    return table


def check_on_error(on_error: str) -> None:
    """Raise a ValueError unless it is a known way to treat unusable files."""
    if on_error not in ON_ERROR:
        raise ValueError(f"unknown on_error {on_error!r}; known: {', '.join(ON_ERROR)}")


def check_timeout(timeout: float) -> None:
    """Raise a ValueError unless it is a number of seconds."""
    if not timeout > 0:  # NaN neither
        raise ValueError(f"timeout must be seconds, more than 0, got {timeout!r}")


def _collect(
    files: list[str],
    outcomes: Iterator[Outcome],
    settings: Settings,
    on_error: str,
    progress: Callable[[int, int], None] | None,
    on_skip: Callable[[Skipped], None] | None,
) -> FeatureTable:
    table = np.empty((0, 0), np.float32)
    size = (0, 0)
    kept: list[str] = []
    skipped: list[Skipped] = []
    first_error: ImageError | None = None
    if progress is not None:
        progress(0, len(files))
    for done, outcome in enumerate(outcomes, 1):
        file, result = outcome.path, outcome.result
        if isinstance(result, Row):
            if not kept:
                table = np.empty((len(files), result.features.size), np.float32)
                size = result.size
            if settings.pool == "none" and result.size != size:
                result = another_size(file, result.size, kept[0], size)
            else:
                table[len(kept)] = result.features
                kept.append(file)
        if isinstance(result, ImageError):
            first_error = first_error or result
            skipped.append(Skipped(file, result.reason))
            if on_skip is not None:
                on_skip(skipped[-1])
            if on_error == "stop":
                raise result
        if progress is not None:
            progress(done, len(files))
    if not kept and first_error is not None:
        raise first_error
    return FeatureTable(table[: len(kept)], settings.names(size), kept, settings, skipped)


# Into a store ------------------------------------------------------------------------------------


#: How to detect a changed file.
CHECKS = ("time", "hash")
#: Where to compute: on this machine, or on a Ray cluster.
ENGINES = ("local", "ray")


def extract_to_store(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    device: str = "numpy",
    engine: str = "local",
    address: str | None = None,
    on_error: str = "skip",
    check: str = "time",
    retry_skipped: bool = False,
    prune: bool = False,
    restart: bool = False,
    labels: Labels | None = None,
    timeout: float = TIMEOUT,
    progress: Progress = None,
) -> FeatureStore:
    """Extract the features of image files into a store on disk, or resume one.

    Runs are resumable: after any interruption, finished work is kept and the same call resumes.
    Finished files that are unchanged are not read again, changed ones are recomputed, new ones are
    added, and those no longer given stay (but see ``prune``). The final store is identical, bit for
    bit, however often the run was interrupted and whatever the workers, the engine and the order of
    the paths.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, folders and patterns, as for :func:`find_images`.
    output : path
        The folder of the store, ends in ``.zarr``.
    settings : Settings, optional
        Default: ``Settings()``. Those of an existing store cannot change.
    workers : int, optional
        As for :func:`extract`, default: 1. With ``engine="ray"``, the number of actors, each with a
        core or a GPU; default: one for each that the cluster has.
    device : str, default: "numpy"
        As for :func:`extract`; fixed for a store. With ``engine="ray"``, "cuda" is the GPU that Ray
        assigns to an actor.
    engine : {"local", "ray"}
        Where to read and transform: processes on this machine, or actors of a Ray cluster, which
        must see the images at the same paths. Only this process writes the store.
    address : str, optional
        With ``engine="ray"``, the cluster, as for ``ray.init``: "auto", "host:port", ... Default:
        the one that this process has joined, else the environment variable ``RAY_ADDRESS``, else a
        temporary cluster on this machine.
    on_error : {"skip", "stop"}
        How to treat an unusable file: record the reason and continue, or raise.
    check : {"time", "hash"}
        How to detect a file that changed since it was done: by size and modification time, or by
        its contents, for which all files are read again.
    retry_skipped : bool
        Retry all skipped files. Otherwise, only those that have changed.
    prune : bool
        Forget files that are no longer among the paths and no longer exist.
    restart : bool
        Discard the existing store and start over. It is deleted once the new one is planned.
    labels : {"folder"}, path or mapping, optional
        As for :func:`extract`. Labels of earlier runs stay unless a file gets a new one.
    timeout : float, default: 600
        Seconds that reading one image may take, with more than one worker or with Ray.
    progress : callable or bool, optional
        Called with the numbers of files done and in all, first with those done by earlier runs.
        True: a progress bar, also in Jupyter.

    Returns
    -------
    FeatureStore

    Raises
    ------
    ImageError
        With ``on_error="stop"``, if a file cannot be used.
    StoreBusyError
        If another process is writing to the store.
    ValueError
        If the store has other settings, is damaged, of a newer version, or not a store; or if an
        image lies in it.
    FileNotFoundError
        If a path does not exist or stands for no image.
    OSError
        If the store cannot be written.
    WorkerError
        If worker processes do not start, no cluster answers at the address, or actors repeatedly
        die at the same images.
    ImportError
        If zarr or, for its engine, Ray is not installed, or the device needs torch.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.extract import Settings, extract_to_store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.npy", "b.npy"):
    ...         np.save(os.path.join(folder, name), np.eye(32))
    ...     store = extract_to_store(folder, os.path.join(folder, "features.zarr"))
    ...     store.features.shape, store.features[0].shape, np.asarray(store.features).dtype
    ((2, 32), (32,), dtype('float32'))
    """
    from dtwpt.extract.store.reader import open_store
    from dtwpt.extract.store.writer import StoreWriter

    settings = Settings() if settings is None else settings
    workers = workers if workers is None else as_count(workers, "workers")
    _check(output, device, engine, address, on_error, check)
    check_timeout(timeout)
    paths = Inputs.of(paths)
    label = labelling(labels, paths)
    with (
        StoreWriter(output, settings, device=device, restart=restart) as writer,
        following(progress) as show,
    ):
        files = sparing([os.fspath(output)], iterate_images(paths))
        writer.plan(files, check=check, retry_skipped=retry_skipped, prune=prune, label=label)
        counts = writer.counts()
        total = sum(counts.values())
        left = counts[State.WAITING]
        if show is not None:
            show(total - left, total)
        reading = Reading(settings, device, check == "hash", timeout)
        if engine == "ray":
            from dtwpt.extract.run.ray import stream_on_ray

            outcomes = stream_on_ray(writer, left, reading, workers, address)
        else:
            outcomes = _stream_here(writer, left, reading, workers or 1, on_error)
        with contextlib.closing(outcomes):
            for done, outcome in enumerate(outcomes, total - left + 1):
                if on_error == "stop" and isinstance(outcome.result, ImageError):
                    raise outcome.result
                result = writer.add(outcome.row, outcome.result, outcome.stamp)
                if on_error == "stop" and isinstance(result, ImageError):
                    raise result
                if show is not None:
                    show(done, total)
    return open_store(output)


def _stream_here(
    writer: StoreWriter, left: int, reading: Reading, workers: int, on_error: str
) -> Generator[Outcome, None, None]:
    def in_order() -> bool:
        # The first image by path sets the size, or its error is raised.
        undecided = writer.size is None and reading.settings.final_size() is None
        return on_error == "stop" or undecided

    with (
        contextlib.closing(writer.waiting()) as tasks,
        contextlib.closing(
            stream(
                tasks,
                reading,
                processes_of(workers, left),
                in_order=in_order,
                on_idle=writer.commit_if_due,
            )
        ) as outcomes,
    ):
        yield from outcomes


def _check(
    output: str | os.PathLike[str],
    device: str,
    engine: str,
    address: str | None,
    on_error: str,
    check: str,
) -> None:
    check_on_error(on_error)
    for name, value, known in (("check", check, CHECKS), ("engine", engine, ENGINES)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    check_local(output)
    if not is_store_name(output):
        raise ValueError(f"a store must be named *.zarr, got {os.fspath(output)!r}")
    if engine == "ray":
        from dtwpt.extract.run.ray import check_ray_device, check_reachable

        check_ray_device(device)
        check_reachable(address)
    elif address is not None:
        raise ValueError(f"address is for engine 'ray', got {address!r} with {engine!r}")
    else:
        check_device(device)
