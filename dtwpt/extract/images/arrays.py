"""Arrays read by rectangles: ``.npy``, Zarr and OME-Zarr."""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.images.errors import UnusableError, one_line
from dtwpt.extract.images.limits import Choice

_FULL_SCALE = {"bool": 1, "uint8": 255, "uint16": 65535}


def full_scale_of(dtype: np.dtype[Any]) -> int:
    """Return the value that is scaled to 1; floats are not scaled."""
    full_scale = 1 if dtype.kind == "f" else _FULL_SCALE.get(dtype.name)
    if full_scale is None:
        raise UnusableError(
            f"dtype {dtype} is not accepted, only bool, uint8, uint16 and floats: "
            "convert it, so that its scale is clear"
        )
    return full_scale


def check_shape(shape: tuple[int, ...], channel: int | None = None) -> None:
    """Refuse a shape that is neither an image nor a stack of channels."""
    if len(shape) != 2 and not (len(shape) == 3 and (shape[2] in (1, 3, 4) or channel is not None)):
        raise UnusableError(f"shape {shape} is neither (H, W) nor (H, W, 1 | 3 | 4)")
    if 0 in shape:
        raise UnusableError(f"has no pixels, shape {shape}")


def size_of(file: BinaryIO) -> int:
    """Return the number of bytes of an open file."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


class FileArray:
    """An array in a file, read by rectangles.

    It is not memory-mapped: a file that another program truncates meanwhile would crash the
    process. Not thread-safe.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
    """

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        fortran: bool = False,
    ) -> None:
        if dtype.hasobject:
            raise ValueError("it holds objects")
        if offset + math.prod(shape) * dtype.itemsize > size_of(file):
            raise ValueError("it is truncated")
        self.shape, self.dtype = shape, dtype
        self._file, self._offset, self._fortran = file, offset, fortran

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        shape = self.shape
        given = (*index, *(slice(None),) * (len(shape) - len(index)))
        bounds = [part.indices(side)[:2] for part, side in zip(given, shape, strict=True)]
        if self._fortran:
            shape, bounds = shape[::-1], bounds[::-1]
        out = np.empty([stop - start for start, stop in bounds], self.dtype)
        # Everything after the last sliced axis is contiguous.
        cut = [axis for axis, side in enumerate(out.shape) if side < shape[axis]]
        last = cut[-1] if cut else 0
        steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        first = bounds[last][0] * steps[last]
        for place in np.ndindex(out.shape[:last]):
            at = first + sum(
                (start + number) * step
                for (start, _), number, step in zip(bounds, place, steps, strict=False)
            )
            self._fill(out[place], self._offset + at * self.dtype.itemsize)
        return out.T if self._fortran else out

    def _fill(self, out: NDArray[Any], start: int) -> None:
        view = out.view(np.uint8).reshape(-1).data
        self._file.seek(start)
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise UnusableError("the file is truncated")
            view = view[count:]


def open_npy(file: BinaryIO, channel: int | None = None) -> FileArray:
    """Return the array of an open .npy file, (H, W) or (H, W, 1 | 3 | 4)."""
    # Refuses objects, and shapes larger than the file.
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):  # those of numeric arrays
            raise ValueError(f"format {version}")
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(file)
        array = FileArray(file, file.tell(), shape, dtype, fortran=fortran)
    except ValueError as error:
        raise UnusableError(f"not a plain .npy array: {one_line(error)}") from None
    check_shape(array.shape, channel)
    return array


# Zarr --------------------------------------------------------------------------------------------


def import_zarr() -> Any:
    """Return the package zarr, which an extra installs."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            'large images need zarr (Python 3.11 or later): pip install "dtwpt[extract]"'
        ) from error
    return zarr


def open_zarr(path: str, choice: Choice) -> Any:
    """Return a Zarr array, or the chosen plane of an OME-Zarr image.

    Parameters
    ----------
    path : str
        A folder.
    choice : Choice
        Of an OME-Zarr image, ``level`` is the number of the dataset, and ``page`` counts the planes
        along all axes except rows, columns and channels.

    Raises
    ------
    UnusableError
        If it is neither, or there is no such plane.
    """
    zarr = import_zarr()
    try:
        found: Any = zarr.open(path, mode="r")
    except (FileNotFoundError, ValueError, KeyError):
        raise UnusableError("is a folder, but not a Zarr array") from None
    if hasattr(found, "shape"):
        choice.only_page("a Zarr array")
        return found
    attributes = dict(found.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        raise UnusableError("is a Zarr group, but no OME-Zarr image: name an array in it")
    datasets = scales[0]["datasets"]
    if choice.level >= len(datasets):
        raise UnusableError(f"has no level {choice.level}, only 0 to {len(datasets) - 1}")
    array = found[datasets[choice.level]["path"]]
    # Before version 0.3 there were five axes without names.
    axes = [
        axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", "tczyx")
    ]
    return _Plane(array, axes, choice)


class _Plane:
    """A plane of an array with more axes, with the channels last if they are colours.

    Attributes
    ----------
    shape, dtype, chunks
        As of an array (H, W) or (H, W, 3).
    """

    def __init__(self, array: Any, axes: list[str], choice: Choice) -> None:
        if axes[-2:] != ["y", "x"] or len(axes) != array.ndim:
            raise UnusableError(f"axes {' '.join(axes)} of shape {array.shape} are not read")
        sides = dict(zip(axes, array.shape, strict=True))
        others = [axis for axis in axes[:-2] if axis != "c"]
        count = int(np.prod([sides[axis] for axis in others]))
        if (choice.page or 0) >= count:
            raise UnusableError(f"has no page {choice.page}, only 0 to {count - 1}")
        place = np.unravel_index(choice.page or 0, [sides[axis] for axis in others])
        index: dict[str, Any] = dict(zip(others, map(int, place), strict=True))
        channels = sides.get("c", 1)
        if channels not in (1, 3) and choice.channel is None:
            raise UnusableError(f"has {channels} channels: choose one (--channel)")
        if "c" in sides:
            index["c"] = slice(None)
        self._array = array
        self._index = tuple(index[axis] for axis in axes[:-2])
        self.dtype = array.dtype
        self.shape = (*array.shape[-2:], channels)
        self.chunks = (*array.chunks[-2:], channels)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        block = np.asarray(self._array[(*self._index, *index[:2])])
        return block[..., None] if block.ndim == 2 else np.moveaxis(block, 0, -1)
