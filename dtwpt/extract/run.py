"""Images of one run into one table in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from dtwpt.checks import as_count
from dtwpt.extract.decoding import Task
from dtwpt.extract.extractor import Row, another_size, check_device
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.inputs import Inputs, find_images, with_keys
from dtwpt.extract.labels import Labels, labelling
from dtwpt.extract.pipeline import TIMEOUT, Outcome, Reading, stream
from dtwpt.extract.progress import Progress, following
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable, Skipped

__all__ = ["ON_ERROR", "check_on_error", "check_timeout", "extract"]

#: What a run does about a file that it cannot use.
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
        Processes. 1: this one does everything. With more, this one transforms, in as many
        threads, and the others read the images. A file that ends its process three times, or keeps
        it busy for longer than ``timeout``, is one that cannot be used.
    device : str, default: "numpy"
        "numpy", or a device of torch such as "cuda" or "cpu" for the transform; torch agrees
        with NumPy to 1e-5 of the largest feature, not to the last bit.
    on_error : {"stop", "skip"}
        What to do about a file that cannot be used: raise, or leave it out and list it in
        ``skipped``.
    labels : {"folder"}, path or mapping, optional
        What becomes the column of labels: the name of the folder that an image is in; the path of
        a .csv file with the columns ``file`` (from the folder of that file, or from a folder that
        is given) and ``label``; or a mapping from files to labels.
    timeout : float, default: 600
        Seconds that reading one image may take, with more than one worker.
    progress : callable or bool, optional
        Called with the numbers of files done and in all, first with none done. True: a progress
        bar, in Jupyter too.
    on_skip : callable, optional
        Called with every :class:`Skipped` at once, also when the run does not get to its end.

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
        min(workers, len(files) + 1),
    )
    # Closed at once where an exception leaves the loop: no process outlives the call.
    with contextlib.closing(outcomes), following(progress) as show:
        table = _collect(files, outcomes, settings, on_error, show, on_skip)
    if label is not None:
        table = replace(table, labels=[label(key) for key, _ in with_keys(table.files)])
    return table


def check_on_error(on_error: str) -> None:
    """Raise a ValueError if there is no such way to deal with files that cannot be used."""
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
