"""The Zarr array of the maps of a large image, which stands under its name once it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TextIO

import numpy as np

import dtwpt
from dtwpt.checks import as_count, as_depth
from dtwpt.extract.atomic import claim, sync
from dtwpt.extract.images.arrays import import_zarr
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.images.limits import Choice
from dtwpt.extract.images.sources import Source, SourceChangedError, open_source
from dtwpt.extract.inputs import check_spared
from dtwpt.extract.progress import Progress, following
from dtwpt.extract.settings import Settings
from dtwpt.extract.store.manifest import StoreWarning
from dtwpt.extract.tiling import Tiling, as_workers

# Bytes of a chunk, about: one map of a tile, or several small ones.
_CHUNK_BYTES = 2**20
# Names of the axes, from the last one.
_AXES = ("channel", "sign", "vertical_packet", "horizontal_packet", "row", "column")
# In the folder of unfinished maps: the tiles that are on the disk, with the CRC-32 of their files.
# It is locked by who writes.
_DONE = "tiles-done"
# What the attributes say of maps, beside their own checksum.
_ATTRIBUTES = ("settings", "source", "size", "stride", "tile", "made_by")
# Of complete maps, by row: those sums.
_SUMS = "checksums"
_SUM = re.compile(r"[0-9a-f]{8}")


def tiles(
    source: Any,
    output: str | os.PathLike[str],
    *,
    operator: str = "cmod",
    depth: int = 2,
    wavelet: str = "qshift_b",
    mode: str = "symmetric",
    colour: str = "luma",
    page: int | None = None,
    level: int = 0,
    channel: int | None = None,
    tile: int = 2048,
    workers: int | None = None,
    overwrite: bool = False,
    check: str = "time",
    progress: Progress = None,
) -> Any:
    """Write the maps of a large image, read and computed tile by tile, into a Zarr array.

    Parameters
    ----------
    source : path or array_like
        What is read in parts: a ``.npy`` file, the folder of a Zarr array (format 2
        or 3) or of an OME-Zarr image, a TIFF in tiles or strips, or any array with a shape, a dtype
        and slices. Shapes,
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
        Padding mode at the borders.
    colour : {"luma", "channels"}
        As for :func:`read_image`; with "channels" there is a first axis for red, green and blue.
    page, level, channel : int, optional
        As for :func:`read_image`. Of OME-Zarr, ``level`` is the number of the dataset, and ``page``
        counts the planes of its other axes.
    tile : int, default: 2048
        Side of a tile, pixels, about: tiles consist of the parts in which the whole image would be
        worked through (of 256 x 2048 pixels, more where filters are long), at least of one.
    workers : int, optional
        Threads, each with a tile. Default: one for each core, up to four.
    overwrite : bool, default: False
        Whether maps that are there may be replaced, and unfinished ones thrown away.
    check : {"time", "hash"}
        Tiles that are there already count if their files have the right size, or with "hash" the
        right contents. Others are computed again.
    progress : callable or bool, optional
        Called with the numbers of tiles done and in all, first with those that were there. True: a
        progress bar, in Jupyter too.

    Returns
    -------
    zarr.Array of float32, shape ([3,] 2, P, P, H', W')
        ``P = 2**depth``, ``H' = ceil(H / P)``, ``W' = ceil(W / P)``: the maps, opened for reading,
        with the attributes ``settings``, ``source``, ``size`` (height and width of the image),
        ``stride`` (pixels between values), ``tile`` (rows and columns of values), ``made_by`` and
        ``checksums`` (CRC-32 of the file of each tile, by row). What cannot be read back as it was
        written is an error of Zarr's, and what is missing is NaN.

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
    settings = Settings(
        *(operator, as_depth(depth), wavelet, mode, colour),
        pool="none",
        page=page,
        level=level,
        channel=channel,
    )
    tile, workers = as_count(tile, "tile"), as_workers(workers)
    if check not in ("time", "hash"):
        raise ValueError(f"unknown check {check!r}; known: time, hash")
    zarr = import_zarr()
    target = _check_output(output)
    partial = partial_path(target)
    if isinstance(source, (str, os.PathLike)):
        check_spared([target, partial], [os.fspath(source)])
    with (
        open_source(source, settings.choice) as opened,
        following(progress, "tile") as show,
    ):
        tiling = Tiling.of(opened, settings, tile)
        attributes = _attributes(tiling, opened)
        _find_again(target)
        if os.path.lexists(target) and _is_done(target, output, attributes, overwrite):
            count = len(_places(tiling))
            if _is_whole(target, partial, tiling, check):
                if show is not None:
                    show(count, count)
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
            # Whoever is just making unfinished maps will see that they are there.
            for rubbish in _left_beside(partial):
                shutil.rmtree(rubbish, ignore_errors=True)
            _fill(tiling, partial, done, workers, check, show)
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
    return True


def _places(tiling: Tiling) -> list[str]:
    return [place for place, _ in tiling.windows]


def _file_of(folder: str, tiling: Tiling, place: str) -> str:
    """Return the file of a tile."""
    prefix = "0/" * (len(tiling.shape) - 2)
    return os.path.join(folder, "c", *f"{prefix}{place}".split("/"))


def _sums_of(target: str, tiling: Tiling) -> dict[str, str]:
    """Return the checksums of complete maps; those of earlier versions have none."""
    sums = (_attributes_of(target) or {}).get(_SUMS)
    places = _places(tiling)
    if not isinstance(sums, list) or len(sums) != len(places):
        return dict.fromkeys(places, "")
    return dict(zip(places, sums, strict=True))


def _sound(folder: str, tiling: Tiling, sums: dict[str, str], check: str) -> dict[str, str]:
    """Return those of the tiles, with their checksums, whose files are there as they should be."""
    sizes = {}
    for place in sums:
        with contextlib.suppress(OSError):
            sizes[place] = os.path.getsize(_file_of(folder, tiling, place))
    size = max(sizes.values(), default=0)  # nothing is compressed: all have the same
    return {
        place: sums[place]
        for place in sizes
        if sizes[place] == size > 0
        and (
            check == "time"
            or not sums[place]
            or _file_sum(_file_of(folder, tiling, place)) == sums[place]
        )
    }


def _file_sum(path: str) -> str:
    number = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            number = zlib.crc32(block, number)
    return f"{number:08x}"


def _is_whole(target: str, partial: str, tiling: Tiling, check: str) -> bool:
    """Whether complete maps have all their tiles; otherwise, make unfinished ones of them."""
    sums = _sums_of(target, tiling)
    sound = _sound(target, tiling, sums, check)
    path = os.path.join(target, _DONE)
    if len(sound) == len(sums):
        # Of a run that was killed in its last moment.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return True
    lacks = f"{target!r} lacks {len(sums) - len(sound)} of {len(sums)} tiles, missing or damaged"
    if os.path.lexists(partial):
        raise FileExistsError(f"{lacks}, and {partial!r} is in the way: remove one of them")
    warnings.warn(f"{lacks}: they are computed again", StoreWarning, stacklevel=3)
    with open(path, "w", encoding="ascii") as done:
        done.writelines(f"{place} {sum_}\n" for place, sum_ in sound.items())
    sync(path)
    os.rename(target, partial)
    sync(os.path.dirname(target))
    return False


def _complete(partial: str, sums: dict[str, str]) -> None:
    """Write the checksums into complete maps."""
    from dtwpt.extract.store.chunks import DurableStore
    from dtwpt.extract.store.reader import with_sum

    zarr = import_zarr()
    array = zarr.open_array(DurableStore(partial), mode="r+")
    ours = {name: array.attrs[name] for name in _ATTRIBUTES}
    array.update_attributes(with_sum({**ours, _SUMS: list(sums.values())}))


def _attributes(tiling: Tiling, source: Source) -> dict[str, Any]:
    settings = tiling.settings.to_dict()
    for name in ("resize", "crop", "pool"):  # which do not apply to whole maps
        settings.pop(name, None)
    for name, usual in Choice()._asdict().items():
        if name != "colour" and settings[name] == usual:  # as in maps of earlier versions
            del settings[name]
    return {
        "settings": settings,
        "source": source.identity,
        "size": list(source.size),
        "stride": 2**tiling.analysis.depth,
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
    if not set(_ATTRIBUTES) <= set(attributes):
        return None
    from dtwpt.extract.store.reader import check_sum

    try:
        check_sum(attributes, (*_ATTRIBUTES, _SUMS))
    except ValueError as error:
        raise ValueError(
            f"{path!r} is damaged: {error}: remove it, or put back zarr.json"
        ) from error
    return attributes


@contextlib.contextmanager
def _lock_partial(partial: str) -> Iterator[TextIO]:
    """Take the lock of unfinished maps, and open their list of tiles."""
    if not os.path.isdir(partial) or (_attributes_of(partial) is None and not _is_ours(partial)):
        raise FileExistsError(f"{partial!r} is in the way and is not an array of maps")
    with _locked(os.path.join(partial, _DONE)) as done:
        yield done


def _is_ours(partial: str) -> bool:
    """Whether a folder without sound metadata has been unfinished maps, as a power cut left it."""
    names = set(os.listdir(partial))
    metadata = os.path.join(partial, "zarr.json")
    empty = os.path.isfile(metadata) and not os.path.getsize(metadata)
    return names <= {"c", "zarr.json", _DONE} and (not names or _DONE in names or empty)


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
    from dtwpt.extract.store.reader import with_sum

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
        compressors=[zarr.codecs.Crc32cCodec()],
        fill_value=float("nan"),  # what is missing is no value
        dimension_names=_AXES[-len(shard) :],
        attributes=with_sum(attributes),
    )
    sync(os.path.join(new, "zarr.json"))
    sync(new)
    try:
        os.rename(new, partial)
        sync(os.path.dirname(partial))
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _busy(os.path.join(partial, _DONE)) from None
        raise


def _beside(path: str) -> str:
    return f"{path}.{secrets.token_hex(8)}.tmp"


def _left_beside(path: str) -> list[str]:
    """Return what has been called :func:`_beside` something."""
    folder, name = os.path.split(path)
    ours = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    return [os.path.join(folder, entry) for entry in os.listdir(folder) if ours.fullmatch(entry)]


def _find_again(target: str) -> None:
    """Give maps their name back that a killed run has moved away for others that are not there."""
    if os.path.lexists(target) or os.path.lexists(partial_path(target)):
        return
    for old in _left_beside(target):
        if _attributes_of(old) is not None:
            os.rename(old, target)
            return


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
        # Nor is it locked where it has been replaced, or put in place, meanwhile.
        if not claim(file.fileno(), path, wait=False):
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
        sync(folder)
    sync(os.path.join(partial, "zarr.json"))
    old = _beside(target)
    if os.path.lexists(target):
        os.rename(target, old)
    os.rename(partial, target)
    with contextlib.suppress(FileNotFoundError):  # the same run again may have been quicker
        os.unlink(os.path.join(target, _DONE))
    sync(os.path.dirname(target))
    for replaced in {old, *_left_beside(target)}:
        shutil.rmtree(replaced, ignore_errors=True)


# The tiles --------------------------------------------------------------------------------------


def _fill(
    tiling: Tiling,
    partial: str,
    done: TextIO,
    workers: int,
    check: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Complete unfinished maps."""
    try:
        sums = _write(tiling, partial, done, workers, check, progress)
        tiling.source.check_unchanged()
        _complete(partial, sums)
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


def _write(
    tiling: Tiling,
    partial: str,
    done: TextIO,
    workers: int,
    check: str,
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Write the tiles that are missing, and return the checksums of all."""
    from dtwpt.extract.store.chunks import remove_partial

    zarr = import_zarr()
    remove_partial(partial)  # what killed processes left, as the lock is ours
    # Looking for shards of zeros takes time, and there are none in pictures.
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_array(partial, mode="r+")
    places = _places(tiling)
    windows = dict(tiling.windows)
    done.seek(0)
    # Empty lines are harmless; a line that was cut off, with the process, has no end.
    lines = (line.split() for line in done if line.endswith("\n"))
    sums = dict(line for line in lines if len(line) == 2 and line[0] in windows)
    sums = {place: sum_ for place, sum_ in sums.items() if _SUM.fullmatch(sum_)}
    sums = _sound(partial, tiling, sums, check)
    waiting = [place for place in windows if place not in sums]
    for place in waiting:
        with contextlib.suppress(FileNotFoundError):  # damaged, perhaps: Zarr would read it first
            os.unlink(_file_of(partial, tiling, place))
    if progress is not None:
        progress(len(sums), len(windows))
    if done.tell():
        done.write("\n")
    settle = _Settle(partial, tiling, done)

    def work(place: str) -> str:
        window = windows[place]
        array[(..., *window.place)] = tiling.maps(window)
        return place

    # One more thread only waits for the disk.
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as disk:
        working: set[Future[str]] = set()
        syncing: set[Future[str]] = set()
        try:
            while waiting or working or syncing:
                while waiting and len(working) < 2 * workers:
                    working.add(pool.submit(work, waiting.pop(0)))
                both: set[Future[Any]] = {*working, *syncing}
                finished, _ = wait(both, return_when=FIRST_COMPLETED)
                for future in working & finished:
                    working.remove(future)
                    syncing.add(disk.submit(settle, future.result()))
                for settled in syncing & finished:
                    syncing.remove(settled)
                    place = settled.result()
                    sums[place] = settle.sums[place]
                    if progress is not None:
                        progress(len(sums), len(windows))
        finally:
            pool.shutdown(cancel_futures=True)
            disk.shutdown(cancel_futures=True)
    return {place: sums[place] for place in places}


class _Settle:
    """Waits until a tile is on the disk, and writes down that it is; in one thread."""

    def __init__(self, partial: str, tiling: Tiling, done: TextIO) -> None:
        self._partial, self._tiling, self._done = partial, tiling, done
        self._synced: set[str] = set()
        self.sums: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        file = _file_of(self._partial, self._tiling, place)
        self.sums[place] = _file_sum(file)
        sync(file)
        folder = os.path.dirname(file)
        sync(folder)
        while folder != self._partial and folder not in self._synced:  # new, as may be those above
            self._synced.add(folder)
            folder = os.path.dirname(folder)
            sync(folder)
        # Only now, and on the disk itself: a power cut never leaves a line without its tile.
        self._done.write(f"{place} {self.sums[place]}\n")
        self._done.flush()
        os.fsync(self._done.fileno())
        return place
