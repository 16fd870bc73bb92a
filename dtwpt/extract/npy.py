"""Arrays in files, of which rectangles are read: ``.npy``."""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.errors import UnusableError, one_line

__all__ = ["FileArray", "check_shape", "full_scale_of", "open_npy", "size_of"]

_FULL_SCALE = {"bool": 1, "uint8": 255, "uint16": 65535}


def full_scale_of(dtype: np.dtype[Any]) -> int:
    """Return the value that stands for 1; floats are taken as they are."""
    full_scale = 1 if dtype.kind == "f" else _FULL_SCALE.get(dtype.name)
    if full_scale is None:
        raise UnusableError(
            f"dtype {dtype} is not accepted, only bool, uint8, uint16 and floats: "
            "convert it, so that its scale is clear"
        )
    return full_scale


def check_shape(shape: tuple[int, ...], channel: int | None = None) -> None:
    """Refuse the shape of an array that is not an image, nor has one as its channel."""
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
    """An array in a file, of which rectangles are read.

    It is not mapped into memory: a file that another program cuts off meanwhile would end the
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
        # What follows the last axis that is cut lies in one piece.
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
    # Without objects, and without a shape that the file does not hold.
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):  # those of arrays that are numbers
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
