"""The Zarr array of the maps of a large image, which stands under its name once it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TextIO

import numpy as np

import dtwpt
from dtwpt.checks import as_count
from dtwpt.extract.apart import check_spared
from dtwpt.extract.reading import ImageError
from dtwpt.extract.sources import Source, SourceChangedError, import_zarr, open_source
from dtwpt.extract.tiling import Tiling, as_workers, maps_settings

__all__ = ["partial_path", "tiles"]

# Bytes of a chunk, about: one map of a tile, or several small ones.
_CHUNK_BYTES = 2**20
# Names of the axes, from the last one.
_AXES = ("channel", "sign", "vertical_packet", "horizontal_packet", "row", "column")
# In the folder of unfinished maps: the tiles that are on the disk. It is locked by who writes.
_DONE = "tiles-done"


def tiles(
    source: Any,
    output: str | os.PathLike[str],
    *,
    operator: str = "cmod",
    depth: int = 2,
    wavelet: str = "qshift_b",
    mode: str = "symmetric",
    colour: str = "luma",
    tile: int = 2048,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Write the maps of a large image, read and computed tile by tile, into a Zarr array.

    Parameters
    ----------
    source : path or array_like
        What is read in parts: a ``.npy`` file (memory-mapped), the folder of a Zarr array (format 2
        or 3), a TIFF in tiles or strips, or any array with a shape, a dtype and slices. Shapes,
        dtypes and colour are as for :func:`read_image`.
    output : path
        The folder of a Zarr array (format 3) to write. Until it is complete it is called
        ``output + ".partial"``.
    operator : {"cmod", "rmax"}
        :func:`dtwpt.cmod2`, or :func:`dtwpt.rmax2` with its default window.
    depth : int, default: 2
    wavelet : str, default: "qshift_b"
        The name of a built-in wavelet.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the image goes on beyond its borders.
    colour : {"luma", "channels"}
        As for :func:`read_image`; with "channels" there is a first axis for red, green and blue.
    tile : int, default: 2048
        Side of a tile, pixels, about: tiles consist of the parts in which the whole image would be
        worked through (of 256 x 2048 pixels, more where filters are long), at least of one.
    workers : int, optional
        Threads, each with a tile. Default: one for each core, up to four.
    overwrite : bool, default: False
        Whether maps that are there may be replaced, and unfinished ones thrown away.
    progress : callable, optional
        Called with the numbers of tiles done and in all, first with those that were there.

    Returns
    -------
    zarr.Array of float32, shape ([3,] 2, P, P, H', W')
        ``P = 2**depth``, ``H' = ceil(H / P)``, ``W' = ceil(W / P)``: the maps, opened for reading,
        with the attributes ``settings``, ``source``, ``size`` (height and width of the image),
        ``stride`` (pixels between values), ``tile`` (rows and columns of values) and ``made_by``.

    Raises
    ------
    ImageError
        If the image cannot be read, not in parts, or its values are too large for float32; or if
        it has changed while it was read.
    FileExistsError
        If there is an output already, or an unfinished one, of other settings, another version or
        another or a changed image.
    OSError
        If the output cannot be written, or another process writes it.
    TypeError, ValueError
        If an argument is of the wrong type or value, or the image is in the output.

    Notes
    -----
    The values are those that :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2` returns for the whole image
    in float32: the same products of the same numbers, bit for bit, as far as the BLAS library
    rounds alike with one thread, which it has here, and with several.

    After an interruption the same call goes on with the tiles that are missing, if ``source`` is a
    path; when all are there, it returns them. Each tile is on the disk before it counts as done. A
    tile is one shard of the array.

    Memory is bounded by the workers and the tile, whatever the size of the image; only of images
    stored in strips, up to three bands of rows as high as a tile are kept as well.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.extract import tiles
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = os.path.join(folder, "image.npy")
    ...     np.save(image, rng.integers(0, 256, (1000, 3000), dtype=np.uint8))
    ...     maps = tiles(image, os.path.join(folder, "maps.zarr"), tile=512)
    ...     maps.shape, maps[0, 1, 2, 100:102, 300:303].shape
    ((2, 4, 4, 250, 750), (2, 3))
    """
    settings = maps_settings(operator, depth, wavelet, mode, colour)
    tile, workers = as_count(tile, "tile"), as_workers(workers)
    zarr = import_zarr()
    target = _check_output(output)
    partial = partial_path(target)
    if isinstance(source, (str, os.PathLike)):
        check_spared([target, partial], [os.fspath(source)])
    with open_source(source) as opened:
        tiling = Tiling.of(opened, settings, tile)
        attributes = _attributes(tiling, opened)
        if os.path.lexists(target) and _is_done(target, output, attributes, overwrite):
            if progress is not None:
                count = sum(map(len, tiling.windows))
                progress(count, count)
            return zarr.open_array(target, mode="r")
        with contextlib.ExitStack() as stack:
            if os.path.lexists(partial):
                # Whoever is at work on it has the lock: before anything is removed.
                done = stack.enter_context(_lock_partial(partial))
                if not _goes_on(partial, opened, attributes, overwrite):
                    stack.close()
            if not os.path.lexists(partial):
                _create(partial, tiling, attributes)
                done = stack.enter_context(_lock_partial(partial))
            try:
                _write(tiling, partial, done, workers, progress)
                opened.check_unchanged()
            except SourceChangedError:
                shutil.rmtree(partial, ignore_errors=True)  # tiles of two images
                raise
            except ImageError:
                _discard_if_empty(partial)
                raise
            except OSError as error:  # such as a full disk, of which Zarr does not say where
                if error.errno is None or error.filename is not None:
                    raise
                raise type(error)(error.errno, error.strerror, partial) from error
            if os.name == "nt":  # where a folder with an open file cannot be moved
                done.close()
            _put_in_place(partial, target)
    return zarr.open_array(target, mode="r")


def partial_path(output: str | os.PathLike[str]) -> str:
    """Return what an output is called until it is complete."""
    return os.path.realpath(output) + ".partial"


# The output -------------------------------------------------------------------------------------


def _check_output(output: str | os.PathLike[str]) -> str:
    """Return the real path of an output whose folder is there."""
    target, shown = os.path.realpath(output), os.fspath(output)
    if not shown:
        raise FileNotFoundError("the output needs a name")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder of the output does not exist: {folder!r}")
    return target


def _is_done(
    target: str, output: str | os.PathLike[str], attributes: dict[str, Any], overwrite: bool
) -> bool:
    """Whether the output that is there is what is asked for; False if it may be replaced."""
    there, shown = _attributes_of(target), os.fspath(output)
    if there is None:
        raise FileExistsError(f"the output {shown!r} exists and is not an array of maps")
    if overwrite:
        return False
    other = [name for name in attributes if there[name] != attributes[name]]
    if other or attributes["source"] is None:  # of an image in memory nobody knows
        differs = f" with another {', '.join(other)}" if other else ""
        raise FileExistsError(
            f"the output {shown!r} exists{differs}: remove it or choose another name (in Python: "
            "overwrite=True)"
        )
    # Of a run that was killed in its last moment.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(target, _DONE))
    return True


def _attributes(tiling: Tiling, source: Source) -> dict[str, Any]:
    settings = tiling.settings.to_dict()
    for name in ("resize", "crop", "pool"):  # which do not apply to whole maps
        settings.pop(name, None)
    return {
        "settings": settings,
        "source": source.identity,
        "size": list(source.size),
        "stride": 2**tiling.settings.depth,
        "tile": list(tiling.tile_shape[-2:]),
        "made_by": {"dtwpt": dtwpt.__version__, "numpy": np.__version__},
    }


def _attributes_of(path: str) -> dict[str, Any] | None:
    """Return the attributes of an array of maps; None if it is not one."""
    zarr = import_zarr()
    try:
        attributes = dict(zarr.open_array(path, mode="r").attrs)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = {"settings", "source", "size", "stride", "tile", "made_by"} <= set(attributes)
    return attributes if ours else None


@contextlib.contextmanager
def _lock_partial(partial: str) -> Iterator[TextIO]:
    """Take the lock of unfinished maps, and open their list of tiles."""
    if not os.path.isdir(partial) or (_attributes_of(partial) is None and os.listdir(partial)):
        raise FileExistsError(f"{partial!r} is in the way and is not an array of maps")
    with _locked(os.path.join(partial, _DONE)) as done:
        yield done


def _goes_on(partial: str, source: Source, attributes: dict[str, Any], overwrite: bool) -> bool:
    """Whether unfinished maps, which are locked, can be gone on with; remove them if wished."""
    there = _attributes_of(partial)
    if there is None or overwrite:
        # Out of the way first: what is half removed is never taken for something to go on with.
        gone = _beside(partial)
        os.rename(partial, gone)
        shutil.rmtree(gone, ignore_errors=True)
        return False
    if source.identity is None:
        raise FileExistsError(
            f"{partial!r} is unfinished; of an image in memory it cannot be told whether it is the "
            "same one: remove it (in Python: overwrite=True)"
        )
    else:
        other = [name for name in attributes if there[name] != attributes[name]]
        if other:
            raise FileExistsError(
                f"{partial!r} is unfinished and was begun with another {', '.join(other)}: repeat "
                "that call, or remove it (in Python: overwrite=True)"
            )
    return True


def _create(partial: str, tiling: Tiling, attributes: dict[str, Any]) -> None:
    zarr = import_zarr()
    shard = tiling.tile_shape
    new = _beside(partial)  # so that it has its name only with all that says what it is
    zarr.create_array(
        new,
        shape=tiling.shape,
        chunks=_chunk(shard),
        shards=shard,
        dtype="float32",
        # Half the bits of a modulus are noise: lz4 and zstd take away a sixth, of photographs too,
        # and need a third of the time of the transform or more.
        compressors=None,
        fill_value=0,
        dimension_names=_AXES[-len(shard) :],
        attributes=attributes,
    )
    try:
        os.rename(new, partial)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _busy(os.path.join(partial, _DONE)) from None
        raise


def _beside(path: str) -> str:
    return f"{path}.{secrets.token_hex(8)}.tmp"


def _chunk(shard: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a chunk: one map of a tile, or neighbouring packets if that is little."""
    chunk = [1] * (len(shard) - 2) + list(shard[-2:])
    size = 4 * shard[-1] * shard[-2]
    for axis in (-3, -4):
        while chunk[axis] < shard[axis] and 2 * size <= _CHUNK_BYTES:  # powers of two, both
            chunk[axis] *= 2
            size *= 2
    return tuple(chunk)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[TextIO]:
    """Open a list to be read and added to, which no other process has open (where there are locks).

    The system takes a lock back however a process ends.
    """
    with open(path, "a+", encoding="ascii") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            pass
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(path) from None
            try:
                same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:  # replaced, or put in place, while this one was about to take it
                raise _busy(path)
        yield file


def _busy(path: str) -> OSError:
    return OSError(f"another process is writing {os.path.dirname(path)!r}")


def _discard_if_empty(partial: str) -> None:
    if not os.path.getsize(os.path.join(partial, _DONE)):
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: str, target: str) -> None:
    """Give complete maps their name."""
    for folder, _, _ in os.walk(partial):
        _sync(folder)
    _sync(os.path.join(partial, "zarr.json"))
    old = _beside(target)
    if os.path.lexists(target):
        os.rename(target, old)
    os.rename(partial, target)
    with contextlib.suppress(FileNotFoundError):  # the same run again may have been quicker
        os.unlink(os.path.join(target, _DONE))
    _sync(os.path.dirname(target))
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: str) -> None:
    """Wait until a file, or the list of a folder, is on the disk."""
    if os.name == "nt" and os.path.isdir(path):  # has no such thing
        return
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# The tiles --------------------------------------------------------------------------------------


def _write(
    tiling: Tiling,
    partial: str,
    done: TextIO,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    zarr = import_zarr()
    # Looking for shards of zeros takes time, and there are none in pictures.
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_array(partial, mode="r+")
    done.seek(0)
    # Empty lines are harmless; a line that was cut off, with the process, has no end.
    there = {line.rstrip("\n") for line in done if line.endswith("\n")}
    windows = {
        f"{i}/{j}": window for i, row in enumerate(tiling.windows) for j, window in enumerate(row)
    }
    waiting = [place for place in windows if place not in there]
    count = len(windows) - len(waiting)
    if progress is not None:
        progress(count, len(windows))
    if done.tell():
        done.write("\n")

    def work(place: str) -> str:
        window = windows[place]
        array[(..., *window.place)] = tiling.maps(window)
        return place

    def sync(place: str) -> str:
        prefix = "0/" * (len(tiling.shape) - 2)
        _sync(os.path.join(partial, "c", *f"{prefix}{place}".split("/")))
        return place

    # One more thread only waits for the disk.
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as disk:
        working: set[Future[str]] = set()
        syncing: set[Future[str]] = set()
        try:
            while waiting or working or syncing:
                while waiting and len(working) < 2 * workers:
                    working.add(pool.submit(work, waiting.pop(0)))
                finished, _ = wait(working | syncing, return_when=FIRST_COMPLETED)
                for future in finished & working:
                    working.remove(future)
                    syncing.add(disk.submit(sync, future.result()))
                for future in finished & syncing:
                    syncing.remove(future)
                    done.write(f"{future.result()}\n")
                    done.flush()
                    count += 1
                    if progress is not None:
                        progress(count, len(windows))
        finally:
            pool.shutdown(cancel_futures=True)
            disk.shutdown(cancel_futures=True)
