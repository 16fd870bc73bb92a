"""Image files as arrays."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dtwpt.colour import COLOURS, LUMA

__all__ = [
    "TIFF_MAGIC",
    "FileArray",
    "ImageError",
    "TiffLayout",
    "as_planes",
    "check_shape",
    "full_scale_of",
    "naming",
    "open_npy",
    "read_image",
]

# Nothing else is tried: some of Pillow's other formats start programs or are videos.
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")

#: How a TIFF begins.
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_LUMA = tuple(np.float32(weight) for weight in LUMA)
_FULL_SCALE = {"bool": 1, "uint8": 255, "uint16": 65535}

# The readers' remarks on odd metadata, which would otherwise reach the terminal where the program
# has not set up logging.
for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class ImageError(ValueError):
    """An image file that cannot be used.

    Attributes
    ----------
    path : str
    reason : str
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be sent between processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _UnusableError(Exception):
    """The reason why a file cannot be used; the file is named further up."""


def read_image(path: str | os.PathLike[str], colour: str = "luma") -> NDArray[np.float32]:
    """Read an image file: PNG, JPEG, TIFF, WebP, BMP or .npy.

    Parameters
    ----------
    path : path
        A name that ends in ``.npy`` is a NumPy array of shape (H, W) or (H, W, 1 | 3 | 4);
        anything else is recognised by its contents.
    colour : {"luma", "channels"}
        "luma": ``0.299 red + 0.587 green + 0.114 blue`` (ITU-R BT.601) of the stored, gamma-coded
        values, not rounded. "channels": red, green and blue; a grey image three times.

    Returns
    -------
    ndarray of float32, shape (H, W), or (3, H, W) with ``colour="channels"``
        uint8, uint16 and bool are scaled to 0..1 by their full scale (255, 65535, 1); floats
        are taken as they are.

    Raises
    ------
    ImageError
        If the file is missing, damaged, empty, of an unknown format, shape or dtype, contains NaN
        or infinity, or has more pixels than Pillow's limit against decompression bombs.
    ValueError
        If ``colour`` is unknown.

    Notes
    -----
    The image is turned as its EXIF orientation says. Transparency is ignored, as Pillow's
    ``convert("RGB")``, OpenCV and torchvision do: the colour stored under it counts. CMYK and
    palettes become RGB as Pillow does it, without colour profiles. Of several pages or
    frames, the first one is read. Of colour PNG and CMYK TIFF with 16 bits, Pillow offers the
    upper 8; of other TIFF, all are read. Integers that have no scale everybody agrees on, such
    as int64, are refused; objects are never unpickled.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from dtwpt.extract import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "red.png")
    ...     Image.new("RGB", (3, 2), (255, 0, 0)).save(path)
    ...     read_image(path), read_image(path, "channels").shape
    (array([[0.299, 0.299, 0.299],
           [0.299, 0.299, 0.299]], dtype=float32), (3, 2, 3))
    """
    if colour not in COLOURS:
        raise ValueError(f"unknown colour {colour!r}; known: {', '.join(COLOURS)}")
    path = os.fspath(path)
    with naming(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is refused below, with a reason
            array, full_scale = _decode(path)
        return as_planes(array, full_scale, colour)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into an :class:`ImageError` that names it."""
    try:
        yield
    except ImageError:
        raise
    except _UnusableError as error:
        raise ImageError(path, str(error)) from None
    except MemoryError:
        raise ImageError(path, "not enough memory to read it") from None
    except OSError as error:
        # What has no number of the operating system comes from a decoder.
        reason = error.strerror or f"cannot be decoded: {_one_line(error)}"
        raise ImageError(path, reason) from error
    except Exception as error:  # of a decoder given a damaged file, which may raise anything
        raise ImageError(path, f"cannot be decoded: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _decode(path: str) -> tuple[NDArray[Any], int]:
    """Return the pixels, (H, W) or (H, W, channels), and the value that stands for 1."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise _UnusableError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, on which reading may never end
        raise _UnusableError("is not a regular file")
    if status.st_size == 0:
        raise _UnusableError("the file is empty")
    if path.lower().endswith(".npy"):
        with open(path, "rb", buffering=0) as file:
            stored = open_npy(file)
            # Whether it is accepted, before it is read.
            scale = full_scale_of(stored.dtype)
            return stored[:, :], scale
    array, full_scale = _read_picture(path)
    return array, full_scale or full_scale_of(array.dtype)


def full_scale_of(dtype: np.dtype[Any]) -> int:
    """Return the value that stands for 1; floats are taken as they are."""
    full_scale = 1 if dtype.kind == "f" else _FULL_SCALE.get(dtype.name)
    if full_scale is None:
        raise _UnusableError(
            f"dtype {dtype} is not accepted, only bool, uint8, uint16 and floats: "
            "convert it, so that its scale is clear"
        )
    return full_scale


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
        if offset + math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
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
                raise _UnusableError("the file is truncated")
            view = view[count:]


def open_npy(file: BinaryIO) -> FileArray:
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
        raise _UnusableError(f"not a plain .npy array: {_one_line(error)}") from None
    check_shape(array.shape)
    return array


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse the shape of an array that is not an image."""
    if len(shape) != 2 and not (len(shape) == 3 and shape[2] in (1, 3, 4)):
        raise _UnusableError(f"shape {shape} is neither (H, W) nor (H, W, 1 | 3 | 4)")
    if 0 in shape:
        raise _UnusableError(f"has no pixels, shape {shape}")


def _read_picture(path: str) -> tuple[NDArray[Any], int | None]:
    with open(path, "rb") as file:
        is_tiff = file.read(4) in TIFF_MAGIC
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if not (is_tiff and _pillow_misreads(image)):
                return _pixels(ImageOps.exif_transpose(image)), None
    except UnidentifiedImageError:
        if not is_tiff:
            raise _UnusableError("not an image (PNG, JPEG, TIFF, WebP, BMP or .npy)") from None
    except Image.DecompressionBombError:
        raise _too_large() from None
    return _read_tiff(path)


def _too_large() -> _UnusableError:
    # Pillow warns from its limit on and refuses from twice that.
    return _UnusableError(
        f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, the limit against decompression "
        "bombs (PIL.Image.MAX_IMAGE_PIXELS); as .npy it can be any size"
    )


def _pixels(image: Any) -> NDArray[Any]:
    mode = image.mode
    if mode in ("1", "L", "F") or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "I":
        pixels = np.asarray(image)
        # Pillow before 11.3 opens PNG of 16 bits like this.
        return pixels.astype(np.uint16) if image.format == "PNG" else pixels
    if mode in ("La", "LA"):
        return np.asarray(image.convert("LA"))
    if mode == "RGBa":
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _pillow_misreads(image: Any) -> bool:
    """Whether Pillow would lose something of a TIFF of more than 8 bits.

    It takes white for black in grey ones of white zero, does not rescale 12 bits, cuts colour
    down to 8 bits and mixes up its planes where they are stored apart. It swaps the bytes of
    big-endian floats that are compressed.
    """
    bits = image.tag_v2.get(258, (1,))
    if image.mode == "F":
        return bool(image.tag_v2.prefix == b"MM")
    if max(bits) <= 8 or image.mode == "I":
        return False
    photometric, planes_apart = image.tag_v2.get(262), image.tag_v2.get(284) == 2
    if image.mode.startswith("I;16"):
        return bool(photometric == 0 or bits != (16,))
    return bool(planes_apart or photometric != 5)  # CMYK: nobody else makes RGB of it


def _read_tiff(path: str) -> tuple[NDArray[Any], int | None]:
    """Read the first page of a TIFF of a kind that Pillow does not know, such as 16-bit colour."""
    import tifffile  # rarely needed and slow to import

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and page.imagelength * page.imagewidth > 2 * limit:
            raise _too_large()
        layout = TiffLayout.of(page, path)
        array = page.asarray(maxworkers=1)
    return layout.upright(array), layout.full_scale


class TiffLayout(NamedTuple):
    """How the pixels of a TIFF page are to be understood."""

    axes: str
    full_scale: int | None
    white_zero: bool
    orientation: int

    @classmethod
    def of(cls, page: Any, path: str) -> TiffLayout:
        """Return the layout of a tifffile page that can be read."""
        ends = [sum(part) for part in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > os.path.getsize(path):
            raise _UnusableError("the file is truncated")
        photometric = page.photometric.name
        if photometric not in ("MINISBLACK", "MINISWHITE", "RGB"):
            raise _UnusableError(
                f"TIFF of photometric type {photometric} and this depth is unsupported"
            )
        axes, shape = page.axes, page.shape
        if 0 in shape:
            raise _UnusableError(f"has no pixels, shape {shape}")
        channels = {"YX": 1, "YXS": shape[-1], "SYX": shape[0]}.get(axes)
        if channels is None or channels > 4:
            raise _UnusableError(f"TIFF page of shape {shape} ({axes}) is not an image")
        kind = page.dtype.name
        full_scale = 2**page.bitspersample - 1 if kind in ("bool", "uint8", "uint16") else None
        tag = page.tags.get("Orientation")
        return cls(
            axes,
            full_scale,
            full_scale is not None and photometric == "MINISWHITE",
            1 if tag is None else int(tag.value),
        )

    @property
    def turned(self) -> bool:
        """Whether the rows of the image are stored as columns."""
        return self.orientation in (5, 6, 7, 8)

    def stored(self, place: tuple[slice, slice], size: tuple[int, int]) -> tuple[slice, slice]:
        """Return where a rectangle of the upright image, of some size, is stored."""
        rows, columns = (
            slice(length - part.stop, length - part.start) if self.orientation in flipped else part
            for part, length, flipped in zip(
                place, size, (_BOTTOM_FIRST, _RIGHT_FIRST), strict=True
            )
        )
        return (columns, rows) if self.turned else (rows, columns)

    def upright(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels, of the page or a rectangle of it, as (H, W) or (H, W, channels)."""
        if self.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        if self.white_zero:
            array = self.full_scale - array
        return _turned(array, self.orientation)


# Orientations, of EXIF and TIFF, of images to be mirrored, once their rows are rows.
_BOTTOM_FIRST, _RIGHT_FIRST = (3, 4, 7, 8), (2, 3, 6, 7)


def _turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo one of the eight orientations of EXIF and TIFF."""
    if orientation in (5, 6, 7, 8):  # rows are columns
        array = np.swapaxes(array, 0, 1)
    if orientation in _BOTTOM_FIRST:
        array = array[::-1]
    if orientation in _RIGHT_FIRST:
        array = array[:, ::-1]
    return array


def as_planes(array: NDArray[Any], full_scale: int, colour: str) -> NDArray[np.float32]:
    """Return pixels (H, W) or (H, W, channels) as float32, (H, W) or (3, H, W)."""
    check_shape(array.shape[:2])

    def plane(channel: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # an overflow is found below
            values = channel.astype(np.float32)
        if full_scale != 1:
            values /= np.float32(full_scale)
        return values

    out: NDArray[np.float32]
    if array.ndim == 2 or array.shape[2] in (1, 2):
        out = plane(array if array.ndim == 2 else array[..., 0])
        if colour == "channels":
            out = np.repeat(out[None], 3, axis=0)
    elif colour == "channels":
        out = np.stack([plane(array[..., channel]) for channel in range(3)])
    else:
        # Channel by channel, so that a large image is never there in float three times.
        out = plane(array[..., 0]) * _LUMA[0]
        for channel in (1, 2):
            out += plane(array[..., channel]) * _LUMA[channel]
    if not np.isfinite(out).all():
        raise _UnusableError("contains NaN, infinity or values beyond float32")
    return out
