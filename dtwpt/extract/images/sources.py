"""Large images read by rectangles: .npy, Zarr arrays, TIFF, any array."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.images.arrays import (
    FileArray,
    check_shape,
    full_scale_of,
    import_zarr,
    open_npy,
    open_zarr,
)
from dtwpt.extract.images.errors import ImageError, naming
from dtwpt.extract.images.limits import Choice
from dtwpt.extract.images.reading import BEGINNING, as_planes, kind_of
from dtwpt.extract.images.tiff import TiffLayout, check_codec, picture_of

# Maximum bytes of a chunk, as a chunk is always decoded whole.
_MOST_CHUNK_BYTES = 2**29
# Bands of rows kept: those needed by tiles that are being read and, with periodic padding, a narrow
# one from the opposite side.
_BANDS = 3


class SourceChangedError(ImageError):
    """A file has changed while it was read."""


class Source:
    """An image that is read by rectangles.

    Parameters
    ----------
    array : array_like
        Anything with a shape, a dtype and slices, (H, W) or (H, W, 1 | 3 | 4).
    name : str
        For messages.
    layout : TiffLayout, optional
        How a TIFF stores it.
    identity : dict, optional
        Identifies the file and its state, to detect another or a changed file.
    channel : int, optional
        The sample that is read as a grey image.

    Attributes
    ----------
    size : (int, int)
        Height and width.
    """

    def __init__(
        self,
        array: Any,
        name: str,
        layout: TiffLayout | None = None,
        identity: dict[str, Any] | None = None,
        channel: int | None = None,
    ) -> None:
        self.name = name
        self.channel = channel
        self.identity = identity
        self.dtype = np.dtype(array.dtype)
        self._layout = layout
        self._full_scale = (layout and layout.full_scale) or full_scale_of(self.dtype)
        if np.ma.isMaskedArray(array):
            raise ImageError(name, "is masked: fill the masked pixels first")
        if layout is None:
            check_shape(tuple(array.shape), channel)
        # Position of the row axis in the stored array; columns follow it.
        self._before = (slice(None),) if layout is not None and layout.axes == "SYX" else ()
        height, width = array.shape[len(self._before) :][:2]
        self.size = (height, width)
        if layout is not None and layout.turned:
            self.size = (width, height)
        self._array = array
        self._rows = _Bands(array, len(self._before)) if _wide_chunks(array) else None
        self._lock = threading.Lock()

    def check_unchanged(self) -> None:
        """Raise a :class:`SourceChangedError` if the file has changed since it was opened."""
        if self.identity is None:
            return
        try:
            now = _identity(self.identity["path"])
        except OSError:
            now = {}
        if now != self.identity:
            raise SourceChangedError(self.name, "changed while it was read")

    def read(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], colour: str
    ) -> NDArray[np.float32]:
        """Return the pixels of given rows and columns, as ``read_image`` would.

        Parameters
        ----------
        rows, columns : ndarray of int
            Ascending.
        colour : {"luma", "channels"}

        Returns
        -------
        ndarray of float32, shape (rows, columns), or (3, rows, columns)

        Raises
        ------
        ImageError
            If they cannot be read, or contain NaN or infinity.
        """
        # An array of unknown kind may not be thread-safe.
        with naming(self.name), self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = [
                [self._block(down, right) for right in _runs(columns)] for down in _runs(rows)
            ]
        with naming(self.name):
            pixels = blocks[0][0]
            if len(blocks) > 1 or len(blocks[0]) > 1:
                pixels = np.concatenate([np.concatenate(row, axis=1) for row in blocks])
            return as_planes(pixels, self._full_scale, colour, self.channel)

    def _block(self, rows: slice, columns: slice) -> NDArray[Any]:
        place = (rows, columns)
        if self._layout is not None:
            place = self._layout.stored(place, self.size)
        if self._rows is not None:
            block = self._rows.read(*place)
        else:
            block = self._array[(*self._before, *place)]
            if not isinstance(self._array, FileArray):
                block = np.array(block)
            _forget_pages(self._array)
        return block if self._layout is None else self._layout.upright(block)


class _Bands:
    """A cache of full rows of an array with wide chunks, for the tiles side by side in them."""

    def __init__(self, array: Any, rows_axis: int) -> None:
        self._array = array
        self._before = (slice(None),) * rows_axis
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        key = (rows.start, rows.stop)
        if key not in self._kept:
            while len(self._kept) >= _BANDS:
                self._kept.popitem(last=False)
            self._kept[key] = np.asarray(self._array[(*self._before, rows)])
        self._kept.move_to_end(key)
        band = self._kept[key]
        return band[(*self._before, slice(None), columns)].copy()


def _wide_chunks(array: Any) -> bool:
    """Whether the chunks are as wide as the array, such as the strips of a TIFF."""
    if isinstance(array, np.ndarray):
        return False
    chunks, shape = getattr(array, "chunks", None), array.shape
    if not isinstance(chunks, tuple) or not all(isinstance(side, int) for side in chunks):
        return False
    columns = -1 if len(shape) == 2 or len(chunks) != len(shape) or shape[-1] > 4 else -2
    return bool(chunks[columns] >= shape[columns])


def _forget_pages(array: Any) -> None:
    """Release the pages of a memory map from resident memory; they stay in the system's cache.

    Otherwise, everything read so far would count as memory of this process.
    """
    if not isinstance(array, np.memmap) or array.mode not in ("r", "r+"):  # "c": pages of its own
        return
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def _runs(index: NDArray[np.intp]) -> list[slice]:
    """Return the slices that make up an ascending index."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(index, breaks)]


# Opening ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_source(source: Any, choice: Choice | None = None) -> Iterator[Source]:
    """Open a large image.

    Parameters
    ----------
    source : path or array_like
        A .npy file, the folder of a Zarr array or of an OME-Zarr image, a TIFF, or an array with a
        shape, a dtype and slices.
    choice : Choice, optional
        Which part of it.

    Raises
    ------
    ImageError
        If it cannot be read, or not in parts.
    TypeError
        If it is neither a path nor an array.
    """
    choice = Choice() if choice is None else choice
    if not isinstance(source, (str, os.PathLike)):
        if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
            raise TypeError(f"source must be a path or an array, got {type(source).__name__}")
        name = f"the {type(source).__name__} given"
        with naming(name):
            choice.only_page("an array")
            opened = Source(source, name, channel=choice.channel)
        yield opened
        return
    path = os.fspath(source)
    if not path.lower().endswith(".npy"):
        import_zarr()  # imported here, so that its absence is not reported as a damaged file
    with contextlib.ExitStack() as stack:
        with naming(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = _open(path, choice, stack)
        yield opened


def _open(path: str, choice: Choice, stack: contextlib.ExitStack) -> Source:
    identity = _identity(path)
    if os.path.isdir(path):
        return Source(open_zarr(path, choice), path, identity=identity, channel=choice.channel)
    # Not memory-mapped, see FileArray.
    file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed in the end
    stack.callback(file.close)
    beginning = file.read(BEGINNING)
    file.seek(0)
    if not beginning:
        raise ImageError(path, "the file is empty")
    if path.lower().endswith(".npy"):
        choice.only_page("an array")
        return Source(
            open_npy(file, choice.channel), path, identity=identity, channel=choice.channel
        )
    if kind_of(beginning) != "TIFF":
        raise ImageError(path, "only .npy, Zarr arrays and TIFF can be read in parts")
    import tifffile

    tiff = stack.enter_context(tifffile.TiffFile(path))
    page: Any = picture_of(tiff, choice)
    layout = TiffLayout.of(page, os.path.getsize(path), choice.channel)
    check_codec(page)
    if page.is_memmappable:
        dtype = page.dtype.newbyteorder(tiff.byteorder)
        array = FileArray(file, page.dataoffsets[0], page.shape, dtype)
        return Source(array, path, layout, identity, choice.channel)
    chunk_bytes = math.prod(page.chunks) * page.dtype.itemsize
    if chunk_bytes > _MOST_CHUNK_BYTES:
        raise ImageError(
            path,
            f"compressed in pieces of {chunk_bytes // 2**20} MiB, which can only be decoded whole: "
            "store it in tiles",
        )
    store = page.aszarr()
    stack.callback(store.close)
    array = import_zarr().open_array(store, mode="r")
    return Source(array, path, layout, identity, choice.channel)


def _identity(path: str) -> dict[str, Any]:
    """Return an identity of a file, or of the files of a folder, that shows changes."""
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    changes = [os.stat(file) for file in files]
    return {
        "path": os.path.abspath(path),
        "bytes": sum(status.st_size for status in changes),
        "modified_ns": max((status.st_mtime_ns for status in changes), default=0),
    }
