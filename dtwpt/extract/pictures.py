"""Pictures that Pillow decodes: PNG, JPEG, WebP, BMP, GIF, JPEG 2000, AVIF, HEIC."""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from dtwpt.extract.errors import UnusableError
from dtwpt.extract.limits import Choice, Limits
from dtwpt.extract.orientation import orientation_of, turned
from dtwpt.extract.png import PlainPng, plain_png

__all__ = ["PICTURES", "pixels_of", "read_picture", "with_truncated"]

# The module and the class that read a kind: no others are tried, as some of Pillow's formats start
# programs or are videos.
PICTURES = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "JPEG 2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
}
_CODECS = {
    "AVIF": "Pillow 11.3 or later",
    "HEIF": 'the package pillow-heif (pip install "dtwpt[codecs]")',
    "JPEG XL": 'the package imagecodecs (pip install "dtwpt[codecs]")',
}
# Bytes of a pixel in Pillow's memory, and in the array that is made of it.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_PLAIN = {"1": 1, "L": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I": 4, "F": 4, "LA": 2, "RGBA": 4}
# Samples of 16 bits whose upper 8 Pillow keeps, and what has it take the lower 8 for them.
_LOWER = {"RGB": "RGB;16L", "RGBA": "RGBA;16L"}


def read_picture(
    content: bytes, kind: str, choice: Choice, limits: Limits
) -> tuple[NDArray[Any], int | None]:
    """Decode a picture.

    Parameters
    ----------
    content : bytes
        The file.
    kind : str
        As :func:`~dtwpt.extract.kinds.kind_of` names it.
    choice : Choice
    limits : Limits

    Returns
    -------
    pixels : ndarray, shape (H, W) or (H, W, channels)
        Upright, all samples.
    full_scale : int or None
        The value that stands for 1; None: that of the dtype.

    Raises
    ------
    UnusableError, OSError, ...
        Whatever a decoder thinks of.
    """
    if choice.level:
        raise UnusableError(f"{kind} has no level {choice.level}, only 0")
    if kind == "JPEG XL":
        return _read_jpeg_xl(content, choice, limits)
    plain = plain_png(content, limits.truncated) if kind == "PNG" else None
    with with_truncated(limits.truncated):
        image = _open(content if plain is None else plain.data, kind, choice)
        try:
            _check_size(image, limits, len(content))
            if plain is not None and plain.depth == 16 and (choice.page or 0) == 0:
                array = _deep(image, plain, choice)
            else:
                array = pixels_of(image)
            exif, xmp = image.info.get("exif"), image.info.get("xmp")
        finally:
            image.close()
    if plain is not None:
        exif, xmp = plain.exif, plain.xmp
    return turned(array, orientation_of(exif, xmp)), None


def _open(content: bytes, kind: str, choice: Choice) -> Any:
    module, name = PICTURES[kind]
    if kind == "JPEG" and choice.page:  # several in one file
        name = "jpeg_factory"
    try:
        opener = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        codec = _CODECS.get(kind, "a Pillow that has it")
        raise UnusableError(f"{kind} needs {codec}, or convert it to PNG") from None
    # Not by a path or an open file, which would be mapped into memory.
    image = opener(io.BytesIO(content), "")
    if choice.page:
        count = getattr(image, "n_frames", 1)
        if choice.page >= count:
            raise UnusableError(f"has no page {choice.page}, only 0 to {count - 1}")
        image.seek(choice.page)
    return image


def _check_size(image: Any, limits: Limits, file_bytes: int) -> None:
    width, height = image.size
    limits.check_pixels(height, width)
    kept = _PLAIN.get(image.mode, 3)
    held = _STORED.get(image.mode, 4) + (0 if image.mode in _PLAIN else 4)
    # Pillow's pixels and the array, which is put together of parts; then the array and the floats.
    limits.check_memory(file_bytes + height * width * max(held + 2 * kept, kept + 4))


def pixels_of(image: Any) -> NDArray[Any]:
    """Return the pixels of a picture of Pillow's, (H, W) or (H, W, channels)."""
    mode = image.mode
    if mode == "I" and image.format == "PNG":  # of 16 bits, by Pillow before 11.3
        return np.asarray(image).astype(np.uint16)
    if mode in ("1", "L", "F", "I", "LA", "RGB", "RGBA") or mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")))


def _deep(image: Any, plain: PlainPng, choice: Choice) -> NDArray[Any]:
    """Return all 16 bits of the samples of a PNG."""
    if plain.channels == 2:  # the bytes of both samples, high ones first
        pairs = np.asarray(image).view(">u2")
        return pairs.astype(np.uint16)
    if plain.channels == 1:
        return pixels_of(image)
    again = _open(plain.data, "PNG", choice)
    again.tile = [(*tile[:3], _LOWER[image.mode]) for tile in again.tile]
    array = np.asarray(image).astype(np.uint16)
    array <<= 8
    array |= np.asarray(again)
    return array


def _read_jpeg_xl(
    content: bytes, choice: Choice, limits: Limits
) -> tuple[NDArray[Any], int | None]:
    try:
        from imagecodecs import JPEGXL, jpegxl_decode
    except ImportError:
        available = False
    else:
        available = JPEGXL.available
    if not available:
        raise UnusableError(f"JPEG XL needs {_CODECS['JPEG XL']}")
    choice.only_page("JPEG XL")
    height, width = _size_of_jpeg_xl(content)
    limits.check_pixels(height, width)
    # The codec works in floats, of up to four samples.
    limits.check_memory(len(content) + 32 * height * width)
    return np.asarray(jpegxl_decode(content, index=0)), None


def _size_of_jpeg_xl(content: bytes) -> tuple[int, int]:
    """Return height and width as the codestream states them (ISO/IEC 18181-1, SizeHeader)."""
    start = content.find(b"\xff\x0a")  # in a container, after the name of its box
    bits = int.from_bytes(content[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if not ratio:
        return height, side(small)
    over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height, height * over // under


# Pillow's setting ---------------------------------------------------------------------------------


class _Truncated:
    """Pillow's setting for images that break off, which holds for the whole process."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._users = 0
        self._before = False

    @contextlib.contextmanager
    def set_to(self, truncated: bool) -> Iterator[None]:
        """Have it set meanwhile. Threads that need the other value wait."""
        with self._turn:
            while self._users and truncated != ImageFile.LOAD_TRUNCATED_IMAGES:
                self._turn.wait()
            if not self._users:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = truncated
            self._users += 1
        try:
            yield
        finally:
            with self._turn:
                self._users -= 1
                if not self._users:
                    ImageFile.LOAD_TRUNCATED_IMAGES = self._before
                    self._turn.notify_all()


#: Set Pillow to decode what breaks off, or to refuse it, in a ``with`` statement.
with_truncated = _Truncated().set_to
