"""Maps of a large image as a Zarr array, which gets its final name once it is complete."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import secrets
import shutil
import struct
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
from dtwpt.extract.memory import keep_freed_memory
from dtwpt.extract.progress import Progress, following
from dtwpt.extract.settings import Settings
from dtwpt.extract.store.manifest import StoreWarning
from dtwpt.extract.tiling import Tiling, as_workers

# Bytes of a chunk, about: one map of a tile, or several small ones.
_CHUNK_BYTES = 2**20
# Names of the axes, from the last one.
_AXES = ("channel", "sign", "vertical_packet", "horizontal_packet", "row", "column")
# In the folder of unfinished maps: the tiles that are on disk, with the CRC-32 of their files. The
# writing process holds a lock on it.
_DONE = "tiles-done"
# Attributes of maps, besides their own checksum.
_ATTRIBUTES = ("settings", "source", "size", "stride", "tile", "made_by")
# The checksums of complete maps, by row.
_SUMS = "tile_checksums"
_SUM_BYTES = 4
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
        An image that can be read in parts: a ``.npy`` file, the folder of a Zarr array (format 2 or
        3) or of an OME-Zarr image, a TIFF in tiles or strips, or any array with a shape, a dtype
        and slices. Shapes, dtypes and colour are as for :func:`read_image`.
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
        Whether to replace existing maps, and to discard unfinished ones.
    check : {"time", "hash"}
        Existing tiles are kept if their files have the right size or, with "hash", the right
        contents. The others are computed again.
    progress : callable or bool, optional
        Called with the numbers of tiles done and in all, first with those that existed. True: a
        progress bar, also in Jupyter.

    Returns
    -------
    zarr.Array of float32, shape ([3,] 2, P, P, H', W')
        ``P = 2**depth``, ``H' = ceil(H / P)``, ``W' = ceil(W / P)``: the maps, opened for reading,
        with the attributes ``settings``, ``source``, ``size`` (height and width of the image),
        ``stride`` (pixels between values), ``tile`` (rows and columns of values), ``made_by`` and
        ``tile_checksums`` (by row, the CRC-32 of the checksums of a tile's chunks). Reading a
        corrupted tile raises an error of Zarr's; a missing one reads as NaN.

    Raises
    ------
    ImageError
        If the image cannot be read, not in parts, or its values are too large for float32; or if it
        changed while it was read.
    FileExistsError
        If a finished or unfinished output exists that has other settings, or was made by another
        version or from another or a changed image.
    OSError
        If the output cannot be written, or another process is writing it.
    TypeError, ValueError
        If an argument is of the wrong type or value, or the image lies inside the output.

    Notes
    -----
    The values are those that :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2` returns for the whole image
    in float32. They are identical to the last bit if the BLAS library rounds the same with one
    thread, as used here, and with several.

    If ``source`` is a path, the same call resumes an interrupted run with the missing tiles; if
    none is missing, it returns the maps. A tile counts as done only once it is on disk. Each tile
    is one shard of the array.

    Memory depends on the number of workers and the tile, not on the size of the image. For images
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
                # Take the lock before anything is removed: another process may be working on it.
                done = stack.enter_context(_lock_partial(partial))
                if not _goes_on(partial, opened, attributes, overwrite):
                    stack.close()
            if not os.path.lexists(partial):
                _create(partial, tiling, attributes)
                done = stack.enter_context(_lock_partial(partial))
            # A process that is creating unfinished maps at this moment will see that they exist.
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
    """Whether the existing output is the requested one; False if it may be replaced."""
    there, shown = _attributes_of(target), os.fspath(output)
    if there is None:
        raise FileExistsError(f"the output {shown!r} exists and is not an array of maps")
    if overwrite:
        return False
    other = [name for name in attributes if there[name] != attributes[name]]
    if other or attributes["source"] is None:  # an image in memory cannot be identified
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
    """Return the tiles whose files are intact, with their checksums."""
    sizes = {}
    for place in sums:
        with contextlib.suppress(OSError):
            sizes[place] = os.path.getsize(_file_of(folder, tiling, place))
    size = max(sizes.values(), default=0)  # nothing is compressed: all have the same size
    whole = [place for place in sizes if sizes[place] == size > 0]
    if check == "hash" and whole:
        array, windows = import_zarr().open_array(folder, mode="r"), dict(tiling.windows)

        def is_intact(place: str) -> bool:
            try:
                # Zarr compares the values with its checksums on reading.
                array[(..., *windows[place].place)]
                return sums[place] in ("", _sum_of(folder, tiling, place))
            except (OSError, ValueError, OverflowError):
                return False

        whole = list(filter(is_intact, whole))
    return {place: sums[place] for place in whole}


def _sum_of(folder: str, tiling: Tiling, place: str) -> str:
    """Return the CRC-32 of the checksums (CRC-32C) that Zarr has put after each chunk of a tile.

    So the values, which Zarr has just read for these, are not read again.
    """
    shard = tiling.tile_shape
    chunks = math.prod(-(-a // b) for a, b in zip(shard, _chunk(shard), strict=True))
    number = 0
    with open(_file_of(folder, tiling, place), "rb") as file:
        # The index of the chunks, offsets and lengths, with a checksum of its own.
        file.seek(-(16 * chunks + _SUM_BYTES), os.SEEK_END)
        for offset, length in struct.iter_unpack("<QQ", file.read(16 * chunks)):
            file.seek(offset + length - _SUM_BYTES)
            number = zlib.crc32(file.read(_SUM_BYTES), number)
    return f"{number:08x}"


def _is_whole(target: str, partial: str, tiling: Tiling, check: str) -> bool:
    """Whether complete maps have all their tiles; if not, mark them as unfinished."""
    sums = _sums_of(target, tiling)
    sound = _sound(target, tiling, sums, check)
    path = os.path.join(target, _DONE)
    if len(sound) == len(sums):
        # From a run that was killed just before its end.
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
    """Write the checksums to the attributes of complete maps."""
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
    """Whether a folder with damaged metadata is unfinished maps left by a power cut."""
    names = set(os.listdir(partial))
    metadata = os.path.join(partial, "zarr.json")
    empty = os.path.isfile(metadata) and not os.path.getsize(metadata)
    return names <= {"c", "zarr.json", _DONE} and (not names or _DONE in names or empty)


def _goes_on(partial: str, source: Source, attributes: dict[str, Any], overwrite: bool) -> bool:
    """Whether unfinished, locked maps can be resumed; remove them if requested."""
    there = _attributes_of(partial)
    if there is None or overwrite:
        # Rename first, so that a half-removed folder is never resumed.
        gone = _beside(partial)
        os.rename(partial, gone)
        shutil.rmtree(gone, ignore_errors=True)
        return False
    if source.identity is None:
        raise FileExistsError(
            f"{partial!r} is unfinished, and an image in memory cannot be compared with the one it "
            "was made from: remove it (in Python: overwrite=True)"
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
    new = _beside(partial)  # so that it gets its name only with complete metadata
    zarr.create_array(
        new,
        shape=tiling.shape,
        chunks=_chunk(shard),
        shards=shard,
        dtype="float32",
        # Half the bits of a modulus are noise: lz4 and zstd save a sixth, also for photographs, and
        # take a third of the time of the transform or more.
        compressors=[zarr.codecs.Crc32cCodec()],
        fill_value=float("nan"),  # missing values read as NaN
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
    """Return the paths that :func:`_beside` has made for a target."""
    folder, name = os.path.split(path)
    ours = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    return [os.path.join(folder, entry) for entry in os.listdir(folder) if ours.fullmatch(entry)]


def _find_again(target: str) -> None:
    """Rename maps back that a killed run moved away before their replacement was in place."""
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
    """Open a list for reading and appending, locked against other processes (where locks exist).

    The system releases the lock however the process ends.
    """
    with open(path, "a+", encoding="ascii") as file:
        # The lock is void if the file was replaced or moved into place meanwhile.
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
    with contextlib.suppress(FileNotFoundError):  # a second run may have been faster
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
    """Compute the missing tiles of unfinished maps."""
    try:
        sums = _write(tiling, partial, done, workers, check, progress)
        tiling.source.check_unchanged()
        _complete(partial, sums)
    except SourceChangedError:
        shutil.rmtree(partial, ignore_errors=True)  # else the tiles would be of two images
        raise
    except ImageError:
        _discard_if_empty(partial)
        raise
    except OSError as error:  # such as a full disk; Zarr's error does not name the path
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
    remove_partial(partial)  # left by killed processes, as we hold the lock
    # Searching for all-zero shards takes time, and pictures have none.
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_array(partial, mode="r+")
    places = _places(tiling)
    windows = dict(tiling.windows)
    done.seek(0)
    # Empty lines are harmless; a line cut off when the process was killed has no newline.
    lines = (line.split() for line in done if line.endswith("\n"))
    sums = dict(line for line in lines if len(line) == 2 and line[0] in windows)
    sums = {place: sum_ for place, sum_ in sums.items() if _SUM.fullmatch(sum_)}
    sums = _sound(partial, tiling, sums, check)
    waiting = [place for place in windows if place not in sums]
    for place in waiting:
        with contextlib.suppress(FileNotFoundError):  # perhaps damaged, and Zarr reads first
            os.unlink(_file_of(partial, tiling, place))
    if progress is not None:
        progress(len(sums), len(windows))
    if done.tell():
        done.write("\n")
    settle = _Settle(partial, tiling, done)
    keep_freed_memory()

    def work(place: str) -> str:
        window = windows[place]
        array[(..., *window.place)] = tiling.maps(window)
        return place

    # One more thread, which only waits for the disk.
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
    """Records tiles as done once they are on disk; runs in one thread."""

    def __init__(self, partial: str, tiling: Tiling, done: TextIO) -> None:
        self._partial, self._tiling, self._done = partial, tiling, done
        self._synced: set[str] = set()
        self.sums: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        file = _file_of(self._partial, self._tiling, place)
        self.sums[place] = _sum_of(self._partial, self._tiling, place)
        sync(file)
        folder = os.path.dirname(file)
        sync(folder)
        while folder != self._partial and folder not in self._synced:  # may be new
            self._synced.add(folder)
            folder = os.path.dirname(folder)
            sync(folder)
        # Only after the tile itself is on disk: a power cut never leaves a line without its tile.
        self._done.write(f"{place} {self.sums[place]}\n")
        self._done.flush()
        os.fsync(self._done.fileno())
        return place
