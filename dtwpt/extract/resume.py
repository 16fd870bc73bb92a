"""Images of any number of runs into one store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from dtwpt.checks import as_count
from dtwpt.extract.apart import sparing
from dtwpt.extract.extractor import check_device
from dtwpt.extract.files import is_store_name
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.inputs import Inputs, iterate_images
from dtwpt.extract.labels import Labels, labelling
from dtwpt.extract.manifest import State
from dtwpt.extract.pipeline import TIMEOUT, Outcome, Reading, stream
from dtwpt.extract.progress import Progress, following
from dtwpt.extract.run import check_on_error, check_timeout
from dtwpt.extract.settings import Settings

if TYPE_CHECKING:
    from dtwpt.extract.filling import StoreWriter
    from dtwpt.extract.store import FeatureStore

__all__ = ["CHECKS", "ENGINES", "extract_to_store"]

#: What tells that a file has changed.
CHECKS = ("time", "hash")
#: What computes: this machine, or a cluster of Ray.
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
    """Extract the features of image files into a store on the disk, or go on with it.

    Whatever ends a run, what it has finished is kept, and the same call goes on from there:
    files that are done and unchanged are not read again, those that have changed are done again,
    new ones are added, those no longer given stay (but see ``prune``). What the store holds in the
    end does not depend on how often it was interrupted, nor on workers, engine or the order of the
    paths, bit for bit.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, folders and patterns, as for :func:`find_images`.
    output : path
        The folder of the store, ends in ``.zarr``.
    settings : Settings, optional
        Default: ``Settings()``. Those of a store stay what they are.
    workers : int, optional
        As for :func:`extract`, default: 1. With ``engine="ray"``, the number of actors, each with
        a core or a GPU; default: as many as the cluster has of them.
    device : str, default: "numpy"
        As for :func:`extract`. It stays what it is, too. With ``engine="ray"``, "cuda" stands for
        the GPU that Ray gives to an actor.
    engine : {"local", "ray"}
        What reads and transforms: processes of this machine, or actors of a cluster of Ray, which
        see the images at the same paths. This process alone writes the store.
    address : str, optional
        With ``engine="ray"``, the cluster, as for ``ray.init``: "auto", "host:port", ... Default:
        the one that this process has joined, else the environment variable ``RAY_ADDRESS``, else
        a cluster on this machine that lasts as long as the call.
    on_error : {"skip", "stop"}
        What to do about a file that cannot be used: write down the reason and go on, or raise.
    check : {"time", "hash"}
        What tells that a file has changed since it was done: size and modification time, or its
        contents, for which all files are read again.
    retry_skipped : bool
        Try again what was skipped; without it, only those of these files that have changed.
    prune : bool
        Forget files that are not among the paths any more, and not on the disk either.
    restart : bool
        Begin anew. The old store is deleted once the new one is planned.
    labels : {"folder"}, path or mapping, optional
        As for :func:`extract`. Those of earlier runs stay, but where a file gets another one.
    timeout : float, default: 600
        Seconds that reading one image may take, with more than one worker or with Ray.
    progress : callable or bool, optional
        Called with the numbers of files done and in all, first with those done by earlier runs.
        True: a progress bar, in Jupyter too.

    Returns
    -------
    FeatureStore

    Raises
    ------
    ImageError
        With ``on_error="stop"``, if a file cannot be used.
    StoreBusyError
        If another process writes to the store.
    ValueError
        If the store has other settings, is damaged, of a newer version, or something else; or if
        an image lies in it.
    FileNotFoundError
        If a path does not exist or stands for no image.
    OSError
        If the store cannot be written.
    WorkerError
        If worker processes do not start, no cluster answers at the address, or actors die at the
        same images again and again.
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
    from dtwpt.extract.filling import StoreWriter
    from dtwpt.extract.store import open_store

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
            from dtwpt.extract.ray_engine import stream_on_ray

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
        # The first image by path is the one that decides on the size, or that is raised.
        undecided = writer.size is None and reading.settings.final_size() is None
        return on_error == "stop" or undecided

    with (
        contextlib.closing(writer.waiting()) as tasks,
        contextlib.closing(
            stream(
                tasks,
                reading,
                min(workers, left + 1),
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
    if not is_store_name(output):
        raise ValueError(f"a store must be named *.zarr, got {os.fspath(output)!r}")
    if engine == "ray":
        from dtwpt.extract.ray_engine import check_ray_device, check_reachable

        check_ray_device(device)
        check_reachable(address)
    elif address is not None:
        raise ValueError(f"address is for engine 'ray', got {address!r} with {engine!r}")
    else:
        check_device(device)
