"""Image files as arrays: :func:`read_image`, kinds of files, resizing and cropping."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dtwpt.colour import LUMA
from dtwpt.extract.images.arrays import check_shape, full_scale_of, open_npy, size_of
from dtwpt.extract.images.errors import UnusableError, naming
from dtwpt.extract.images.limits import Choice, Limits
from dtwpt.extract.images.locations import open_file
from dtwpt.extract.images.pictures import PICTURES, orientation_of, pixels_of, read_picture, turned
from dtwpt.extract.images.tiff import read_tiff

_LUMA = tuple(np.float32(weight) for weight in LUMA)
# Pixels converted at a time: few, so that no second float copy of a large image is made.
_BAND = 1 << 18


def read_image(
    source: Any,
    colour: str = "luma",
    page: int | None = None,
    level: int = 0,
    channel: int | None = None,
    *,
    limits: Limits | None = None,
) -> NDArray[np.float32]:
    """Read an image: PNG, JPEG, TIFF, WebP, BMP, GIF, ``.npy`` and, with codecs, many more.

    Parameters
    ----------
    source : path, bytes, binary file, PIL image or ndarray
        A path, URL (by fsspec), or member of an archive or a table, as :func:`find_images` names
        them; or what such a file holds. A path that ends in ``.npy`` is a NumPy array of shape
        (H, W) or (H, W, 1 | 3 | 4); any other file is recognised by its contents.
    colour : {"luma", "channels"}
        "luma": ``0.299 red + 0.587 green + 0.114 blue`` (ITU-R BT.601) of the stored, gamma-coded
        values, not rounded. "channels": red, green and blue; a grey image three times.
    page : int, optional
        Page of a TIFF, or frame of an animation or of DICOM, from 0. Default: the first one that is
        neither a reduced image nor a mask.
    level : int, default: 0
        Which reduced version of the page in a TIFF; 0 is the page itself.
    channel : int, optional
        Which sample of the pixels, from 0, to read as a grey image. Default: the colours.
    limits : Limits, optional
        Default: ``Limits()``.

    Returns
    -------
    ndarray of float32, shape (H, W), or (3, H, W) with ``colour="channels"``
        uint8, uint16 and bool are scaled to 0..1 by their full scale (255, 65535, 1); floats
        are taken as they are.

    Raises
    ------
    ImageError
        If the file is missing, damaged, empty, of an unknown format, shape or dtype, contains NaN
        or infinity, or goes beyond the limits.
    TypeError, ValueError
        If an argument is of the wrong type or value.

    Notes
    -----
    The image is rotated according to its EXIF orientation. Transparency is ignored: the stored
    colour is used, premultiplied or not. CMYK and palettes become RGB as Pillow does it, without
    colour profiles. Integers without an agreed scale, such as int16, are refused; objects are never
    unpickled. The page "Values of pixels" of the documentation has a table of all kinds.

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
    choice = Choice.of(colour, page, level, channel)
    limits = Limits() if limits is None else limits
    with naming(name_of(source)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters is refused, with a reason
        array, full_scale = _pixels(source, choice, limits)
        return as_planes(array, full_scale or full_scale_of(array.dtype), colour, channel)


def name_of(source: Any) -> str:
    """Return the name of an image for messages.

    Raises
    ------
    TypeError
        If it is of a type that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return str(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"the {len(source)} bytes given"
    if isinstance(source, (np.ndarray, Image.Image)) or hasattr(source, "read"):
        return f"the {type(source).__name__} given"
    raise TypeError(
        "an image must be a path, bytes, a binary file, a PIL image or an array, got "
        f"{type(source).__name__}"
    )


def _pixels(source: Any, choice: Choice, limits: Limits) -> tuple[NDArray[Any], int | None]:
    """Return the pixels, (H, W) or (H, W, channels), and the value that is scaled to 1."""
    if isinstance(source, np.ndarray):
        choice.only_page("an array")
        check_shape(source.shape, choice.channel)
        return source, None
    if isinstance(source, Image.Image):
        choice.only_page("a PIL image")
        orientation = orientation_of(source.info.get("exif"), source.info.get("xmp"))
        return turned(pixels_of(source), orientation), None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "", choice, limits)
    if hasattr(source, "read"):
        return _decode(source, "", choice, limits)
    path = os.fspath(source)
    with open_file(path, limits.max_memory) as file:
        return _decode(file, path, choice, limits)


def _decode(
    file: BinaryIO, name: str, choice: Choice, limits: Limits
) -> tuple[NDArray[Any], int | None]:
    size = size_of(file)
    if size == 0:
        raise UnusableError("the file is empty")
    file.seek(0)
    kind = kind_of(file.read(BEGINNING))
    file.seek(0)
    if name.lower().endswith(".npy") or kind == "NPY":
        choice.only_page("an array")
        stored = open_npy(file, choice.channel)
        full_scale = full_scale_of(stored.dtype)  # before it is read
        floats = 4 * math.prod(stored.shape[:2]) * (3 if choice.colour == "channels" else 1)
        limits.check_memory(math.prod(stored.shape) * stored.dtype.itemsize + floats)
        return stored[:, :], full_scale
    if kind == "TIFF":
        return read_tiff(file, choice, limits)
    if kind == "DICOM":
        from dtwpt.extract.images.pictures import read_dicom

        return read_dicom(file, choice, limits)
    if kind == "CR2":
        raise UnusableError("is a raw file of a camera: develop it into TIFF or PNG first")
    if kind not in (*PICTURES, "JPEG XL"):
        raise UnusableError(
            "not an image of a format that is read, such as PNG, JPEG, TIFF, WebP, BMP and .npy"
        )
    limits.check_memory(size)
    return read_picture(file.read(), kind, choice, limits)


def as_planes(
    array: NDArray[Any], full_scale: int, colour: str, channel: int | None = None
) -> NDArray[np.float32]:
    """Return pixels (H, W) or (H, W, channels) as float32, (H, W) or (3, H, W)."""
    if array.ndim == 2:
        array = array[..., None]
    check_shape(array.shape[:2])
    height, width, channels = array.shape
    if channel is not None:
        if channel >= channels:
            raise UnusableError(f"has no channel {channel}, only 0 to {channels - 1}")
        array = array[..., channel : channel + 1]
    elif channels <= 2:
        array = array[..., :1]

    def plane(values: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # an overflow is found below
            scaled = values.astype(np.float32)
        if full_scale != 1:
            scaled /= np.float32(full_scale)
        return scaled

    grey = array.shape[2] == 1
    planes = 3 if colour == "channels" else 1
    out = np.empty((planes, height, width), np.float32)
    rows = max(1, _BAND // width)
    for start in range(0, height, rows):
        band = array[start : start + rows]
        target = out[:, start : start + rows]
        if grey:
            target[:] = plane(band[..., 0])
        elif colour == "channels":
            for number in range(3):
                target[number] = plane(band[..., number])
        else:
            luma = plane(band[..., 0]) * _LUMA[0]
            for number in (1, 2):
                luma += plane(band[..., number]) * _LUMA[number]
            target[0] = luma
        if not np.isfinite(target).all():
            raise UnusableError("contains NaN, infinity or values beyond float32")
    return out if colour == "channels" else out[0]


# Kinds of files, by their first bytes and by suffix -------------------------------------------


#: Suffixes of images in a folder, in lower or upper case.
SUFFIXES = (
    *(".avif", ".bmp", ".dcm", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jxl", ".mpo", ".npy", ".png", ".svs", ".tif", ".tiff", ".webp"),
)

#: Bytes that :func:`kind_of` needs.
BEGINNING = 132

# How a TIFF, and a BigTIFF, begins.
_TIFF = rb"II\*\0|MM\0\*|II\+\0\x08\0\0\0|MM\0\+\0\x08\0\0"
_KINDS = {
    "NPY": rb"\x93NUMPY",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "CR2": rb"II\*\0\x10\0\0\0CR",
    "TIFF": _TIFF,
    # Checks the length of the second header, as two letters are ambiguous.
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
    "AVIF": rb"....ftypavi[fs]",
    "HEIF": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "DICOM": rb".{128}DICM",
}
_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in _KINDS.items()}


def kind_of(beginning: bytes) -> str | None:
    """Return the kind of file by its first bytes; None if it is not a known image.

    Examples
    --------
    >>> from dtwpt.extract.images.reading import kind_of
    >>> kind_of(b"GIF89a..."), kind_of(b"text")
    ('GIF', None)
    """
    for name, pattern in _PATTERNS.items():
        if pattern.match(beginning):
            # The major brand of a still picture may be common to both codecs.
            if name == "HEIF" and b"avif" in beginning[:64]:
                return "AVIF"
            return name
    return None


# Resizing and cropping
# ------------------------------------------------------------------------------


# Resizing a long, thin image by its shorter side could need more memory than any machine has.
_MOST_PIXELS = 2**28


def resize(image: NDArray[np.float32], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image: bilinear, with antialiasing when it shrinks (Pillow's filter).

    Parameters
    ----------
    image : ndarray of float32, shape (..., H, W)
    size : int or (int, int)
        (height, width), or the length of the shorter side, the other one in proportion.

    Returns
    -------
    ndarray of float32, shape (..., height, width)

    Raises
    ------
    ValueError
        If the result would have more than ``2**28`` pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.extract.images.reading import resize
    >>> resize(np.zeros((3, 20, 41), np.float32), 10).shape
    (3, 10, 21)
    """
    old_height, old_width = image.shape[-2:]
    if isinstance(size, tuple):
        height, width = size
    else:
        short = min(old_height, old_width)
        # Rounded half up, in integers: the same on every machine.
        height, width = (
            max(1, (2 * length * size + short) // (2 * short)) for length in (old_height, old_width)
        )
    if (height, width) == (old_height, old_width):
        return image
    if height * width > _MOST_PIXELS:
        raise ValueError(f"resize would make {height}x{width} pixels, the most is {_MOST_PIXELS}")
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in image.reshape(-1, old_height, old_width)
    ]
    return np.stack(planes).reshape(*image.shape[:-2], height, width)


def centre_crop(image: NDArray[Any], size: int | tuple[int, int]) -> NDArray[Any]:
    """Return the central part of an image; half a pixel up and to the left if it cannot be centred.

    Parameters
    ----------
    image : ndarray, shape (..., H, W)
    size : int or (int, int)
        (height, width), or the side of a square.

    Returns
    -------
    ndarray, shape (..., height, width)
        A view.

    Raises
    ------
    ValueError
        If the image is smaller than that.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.extract.images.reading import centre_crop
    >>> centre_crop(np.arange(12).reshape(3, 4), (1, 2))
    array([[5, 6]])
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    old_height, old_width = image.shape[-2:]
    if height > old_height or width > old_width:
        raise ValueError(
            f"an image of {old_height}x{old_width} is smaller than the crop of {height}x{width}"
        )
    top, left = (old_height - height) // 2, (old_width - width) // 2
    return image[..., top : top + height, left : left + width]
