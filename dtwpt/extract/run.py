"""The run: images through the transform, one at a time, in order, over processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dtwpt.checks import as_count
from dtwpt.extract.inputs import find_images
from dtwpt.extract.output import FeatureTable, Skipped
from dtwpt.extract.reading import ImageError, read_image
from dtwpt.extract.settings import Settings
from dtwpt.extract.sizing import centre_crop, resize
from dtwpt.features import packet_features

__all__ = ["ON_ERROR", "WorkerError", "extract", "features_of"]

#: What a run does about a file that it cannot use.
ON_ERROR = ("stop", "skip")

# Files that a worker is sent at a time, at most: enough to hide the cost of sending.
_FILES_PER_TASK = 16


class WorkerError(ChildProcessError):
    """A worker process died."""


class _Row(NamedTuple):
    size: tuple[int, int]
    features: NDArray[np.float32]


def extract(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    workers: int = 1,
    on_error: str = "stop",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureTable:
    """Extract the features of image files.

    Images stream through: what stays in memory is the table. Each image is transformed on its
    own and with one thread, so its features are the same to the last bit whatever the other
    images and the number of workers.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, folders and patterns, as for :func:`find_images`.
    settings : Settings, optional
        Default: ``Settings()``.
    workers : int, default: 1
        Processes. 1: this one. With more, a script has to be importable: what it runs stands
        under ``if __name__ == "__main__":``.
    on_error : {"stop", "skip"}
        What to do about a file that cannot be used: raise, or leave it out and list it in
        ``skipped``.
    progress : callable, optional
        Called with the numbers of files done and in all, first with none done.

    Returns
    -------
    FeatureTable
        One row an image, in the order of :func:`find_images`.

    Raises
    ------
    ImageError
        If a file cannot be used: unreadable, smaller than the crop, its maps coarser than the
        pooling grid, with ``pool="none"`` of another size than the first one. With
        ``on_error="skip"``, only if there is none left; the error is the first one.
    FileNotFoundError
        If a path does not exist or stands for no image.
    WorkerError
        If a worker process died.
    TypeError, ValueError
        If an argument is of the wrong type or value.

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
    if on_error not in ON_ERROR:
        raise ValueError(f"unknown on_error {on_error!r}; known: {', '.join(ON_ERROR)}")
    files = find_images(paths)
    rows = _serial(files, settings) if workers == 1 else _parallel(files, settings, workers)
    # Closed at once where an exception leaves the loop: no process outlives the call.
    with contextlib.closing(rows):
        return _collect(files, rows, settings, on_error, progress)


def features_of(file: str, settings: Settings) -> _Row:
    """Return the final size of one image and its features, shape (F,).

    Raises
    ------
    ImageError
        If the file cannot be used.
    """
    image = read_image(file, settings.colour)
    try:
        if settings.resize is not None:
            image = resize(image, settings.resize)
        if settings.crop is not None:
            image = centre_crop(image, settings.crop)
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            features = packet_features(
                image,
                settings.depth,
                settings.wavelet,
                settings.operator,
                settings.pool,
                settings.mode,
            )
    except ValueError as error:
        raise ImageError(file, str(error)) from None
    except MemoryError:
        height, width = image.shape[-2:]
        raise ImageError(file, f"not enough memory for {height}x{width} pixels") from None
    if not np.isfinite(features).all():
        raise ImageError(file, f"values up to {np.abs(image).max():.3g} are too large for float32")
    height, width = image.shape[-2:]
    return _Row((height, width), features.reshape(-1))


def _collect(
    files: list[str],
    rows: Iterator[_Row | ImageError],
    settings: Settings,
    on_error: str,
    progress: Callable[[int, int], None] | None,
) -> FeatureTable:
    table = np.empty((0, 0), np.float32)
    size = (0, 0)
    kept: list[str] = []
    skipped: list[Skipped] = []
    first_error: ImageError | None = None
    if progress is not None:
        progress(0, len(files))
    for done, (file, row) in enumerate(zip(files, rows, strict=True), 1):
        error = row if isinstance(row, ImageError) else None
        if isinstance(row, _Row):
            if not kept:
                table = np.empty((len(files), row.features.size), np.float32)
                size = row.size
            if settings.pool == "none" and row.size != size:
                error = _another_size(file, row.size, kept[0], size)
            else:
                table[len(kept)] = row.features
                kept.append(file)
        if error is not None:
            if on_error == "stop":
                raise error
            first_error = first_error or error
            skipped.append(Skipped(file, error.reason))
        if progress is not None:
            progress(done, len(files))
    if not kept and first_error is not None:
        raise first_error
    return FeatureTable(table[: len(kept)], settings.names(size), kept, settings, skipped)


def _another_size(
    file: str, size: tuple[int, int], first: str, first_size: tuple[int, int]
) -> ImageError:
    return ImageError(
        file,
        f"{size[0]}x{size[1]} pixels, but {first} has {first_size[0]}x{first_size[1]}: with pool "
        "none all images need one size, use resize or crop",
    )


def _attempt(file: str, settings: Settings) -> _Row | ImageError:
    try:
        return features_of(file, settings)
    except ImageError as error:
        return error


# One process ------------------------------------------------------------------------------------


def _serial(files: list[str], settings: Settings) -> Generator[_Row | ImageError, None, None]:
    # One thread here too: how a product is cut over threads shows in its last bits.
    with threadpool_limits(1, user_api="blas"):
        for file in files:
            yield _attempt(file, settings)


# Several processes ------------------------------------------------------------------------------


def _parallel(
    files: list[str], settings: Settings, workers: int
) -> Generator[_Row | ImageError, None, None]:
    workers = min(workers, len(files))
    count = max(1, min(_FILES_PER_TASK, len(files) // (4 * workers)))
    tasks = [files[start : start + count] for start in range(0, len(files), count)]
    # Started afresh, not forked: a fork copies locks that the threads of BLAS hold.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (watched,))
    pending: deque[Future[list[_Row | ImageError]]] = deque()
    try:
        for task in tasks:
            # Enough to keep the workers busy, and no more, as results take memory.
            if len(pending) >= 2 * workers:
                yield from pending.popleft().result()
            with _interrupts_held_back():
                pending.append(pool.submit(_work, task, settings))
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process died, most likely killed for want of memory; try fewer workers or "
            "smaller images"
        ) from None
    finally:
        held.close()  # the workers leave at once, even in the middle of an image
        pool.shutdown(cancel_futures=True)
        watched.close()


def _work(files: list[str], settings: Settings) -> list[_Row | ImageError]:
    return [_attempt(file, settings) for file in files]


def _start_worker(watched: Connection) -> None:
    threadpool_limits(1, user_api="blas")
    threading.Thread(target=_leave_with_parent, args=(watched,), daemon=True).start()


def _leave_with_parent(watched: Connection) -> None:
    """End this process once the run is over or its process gone, however it went."""
    wait([watched])
    os._exit(0)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold back Ctrl-C for a moment, and from processes started meanwhile for good.

    A terminal sends it to every process; it is for the parent alone to act on.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
