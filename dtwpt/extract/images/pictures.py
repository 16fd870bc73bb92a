"""Pictures that Pillow decodes (PNG, JPEG, WebP, BMP, GIF, JPEG 2000, AVIF, HEIC), and DICOM."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from dtwpt.extract.images.errors import UnusableError
from dtwpt.extract.images.limits import Choice, Limits

# Module and class that read each kind. No others are tried, as some of Pillow's formats start
# external programs or are videos.
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
# Bytes of a pixel in Pillow's memory, and in the resulting array.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_PLAIN = {"1": 1, "L": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I": 4, "F": 4, "LA": 2, "RGBA": 4}
# Samples of 16 bits of which Pillow keeps the upper 8, and the mode that makes it keep the lower 8.
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
        As :func:`~dtwpt.extract.images.reading.kind_of` names it.
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
        Any error of a decoder.
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
        codec = _CODECS.get(kind, "a Pillow that supports it")
        raise UnusableError(f"{kind} needs {codec}, or convert it to PNG") from None
    # Not by path or open file, which Pillow might memory-map.
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
    # Pillow's pixels and the array, which is assembled from parts; then the array and the floats.
    limits.check_memory(file_bytes + height * width * max(held + 2 * kept, kept + 4))


def pixels_of(image: Any) -> NDArray[Any]:
    """Return the pixels of a Pillow image, (H, W) or (H, W, channels)."""
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
    start = content.find(b"\xff\x0a")  # in a container, after the name of the box
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
    """Pillow's process-wide setting for truncated images."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._users = 0
        self._before = False

    @contextlib.contextmanager
    def set_to(self, truncated: bool) -> Iterator[None]:
        """Set it within a ``with`` statement. Threads that need the other value wait."""
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


#: Makes Pillow decode or refuse truncated images within a ``with`` statement.
with_truncated = _Truncated().set_to


# Pixels of PNG -----------------------------------------------------------------------------------


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Besides the critical ones, those of animations: Pillow finds frames by them.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GREY_ALPHA, _RGBA = 4, 6
# About the highest compression ratio of Deflate, for a run of zeros.
_MOST_RATIO = 1040
# At most so many bytes of metadata are unpacked to find an orientation.
_MOST_METADATA = 1 << 20


class PlainPng(NamedTuple):
    """The chunks of a PNG that determine its pixels, and its metadata.

    Attributes
    ----------
    data : bytes
        A PNG. Grey with alpha of 16 bits is RGBA of 8 bits: each pixel has the same four bytes,
        the high and low ones of both in turn, which the format filters in the same way.
    depth : int
        Bits of a sample.
    channels : int
        Samples of a pixel as stored: 2 for grey with alpha.
    exif, xmp : bytes
        Metadata, empty where there are none.
    """

    data: bytes
    depth: int
    channels: int
    exif: bytes
    xmp: bytes


def plain_png(content: bytes, truncated: bool) -> PlainPng:
    """Parse a PNG.

    Parameters
    ----------
    content : bytes
        The file.
    truncated : bool
        Whether it may hold less data than its header states.

    Raises
    ------
    UnusableError
        If its data cannot hold the pixels that its header states.
    """
    kept = [_SIGNATURE]
    exif = xmp = header = b""
    compressed = 0
    place = len(_SIGNATURE)
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        stop = place + 12 + length
        chunk, body = content[place:stop], content[place + 8 : stop - 4]
        if stop > len(content):  # truncated or invalid: left to the decoder to report
            kept.append(content[place:])
            compressed += len(content) - place
            break
        if name == b"IHDR" and not header:
            header, chunk = body, _header_chunk(chunk)
        elif name == b"eXIf":
            exif = exif or body
        elif name in (b"iTXt", b"zTXt", b"tEXt"):
            found = _text_of(name, body)
            xmp = xmp or found if found.startswith(b"<") else xmp
            exif = exif or found if found.startswith(b"Exif") else exif
        if name[:1].isupper() or name in _ANIMATION:
            kept.append(chunk)
            compressed += length if name == b"IDAT" else 0
        place = stop
        if name == b"IEND":
            break
    depth = channels = 0
    if len(header) == 13:
        width, height, depth, colour = struct.unpack_from(">IIBB", header)
        channels = _CHANNELS.get(colour, 0)
        needed = height * width * depth * channels // 8
        if needed > _MOST_RATIO * (compressed + 1) and not truncated:
            raise UnusableError(f"has too little data for the {height}x{width} pixels it states")
    return PlainPng(b"".join(kept), depth, channels, exif, xmp)


def _header_chunk(chunk: bytes) -> bytes:
    """Return the header, changed to 8-bit RGBA if it is that of 16-bit grey with alpha."""
    sound = struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]
    if chunk[16:18] != bytes((16, _GREY_ALPHA)) or not sound:
        return chunk
    changed = chunk[4:16] + bytes((8, _RGBA)) + chunk[18:-4]
    return chunk[:4] + changed + struct.pack(">I", zlib.crc32(changed))


def _text_of(name: bytes, body: bytes) -> bytes:
    """Return the XMP or EXIF in a text chunk; empty if it holds neither."""
    key, _, rest = body.partition(b"\0")
    if key not in (b"XML:com.adobe.xmp", b"Raw profile type exif"):
        return b""
    packed = name == b"zTXt" or (name == b"iTXt" and rest[:1] == b"\1")
    if name == b"zTXt":
        rest = rest[1:]
    elif name == b"iTXt":
        rest = rest[2:].split(b"\0", 2)[-1]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MOST_METADATA)
        except zlib.error:
            return b""
    if key.startswith(b"XML"):
        at = rest.find(b"<")
        return rest[at:_MOST_METADATA] if at >= 0 else b""
    # "\nexif\n   <length>\n" and hexadecimal digits, in lines.
    try:
        return bytes.fromhex(b"".join(rest[:_MOST_METADATA].split()[2:]).decode("ascii"))
    except ValueError:
        return b""


# Orientation -------------------------------------------------------------------------------------


# Orientations whose rows are stored as columns, and those that are also mirrored.
TURNED, BOTTOM_FIRST, RIGHT_FIRST = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)

_TAG = 0x112
# Types of EXIF that hold small numbers: byte, short, long.
_TYPES = {1: "B", 3: "H", 4: "I"}
_XMP = re.compile(rb"tiff:Orientation(?:=\"|=\'|>)\s*([1-8])")


def orientation_of(exif: bytes | None, xmp: bytes | str | None = None) -> int:
    """Return the orientation, 1 to 8, in metadata; 1 if they state none.

    Only that tag is read; other faults of the metadata do not matter.
    """
    found = _in_exif(exif or b"")
    if found is None and xmp:
        text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
        match = _XMP.search(text)
        found = int(match[1]) if match else None
    return found or 1


def _in_exif(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _TAG and kind in _TYPES:
                (value,) = struct.unpack_from(f"{order}{_TYPES[kind]}", exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # cut off
        pass
    return None


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo one of the eight orientations of pixels (H, W) or (H, W, channels); returns a view."""
    if orientation in TURNED:
        array = array.swapaxes(0, 1)
    if orientation in BOTTOM_FIRST:
        array = array[::-1]
    if orientation in RIGHT_FIRST:
        array = array[:, ::-1]
    return array


# DICOM -------------------------------------------------------------------------------------------


def read_dicom(file: BinaryIO, choice: Choice, limits: Limits) -> tuple[NDArray[Any], int | None]:
    """Read the image of a DICOM file.

    Grey values that the file rescales to physical units, such as Hounsfield units, and signed ones
    are floats in those units. Others are scaled by the bits that are stored of them. Windows for
    display are not applied.

    Returns
    -------
    pixels : ndarray, shape (H, W) or (H, W, 3)
    full_scale : int or None
        The value that stands for 1; None: that of the dtype.

    Raises
    ------
    UnusableError
        If pydicom is missing, or the file holds no supported image.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_rescale
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise UnusableError(
            'DICOM needs the package pydicom: pip install "dtwpt[codecs]"'
        ) from None
    data: Any = pydicom.dcmread(file)
    if "PixelData" not in data:
        raise UnusableError("is a DICOM file without an image")
    height, width, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
    if choice.level or (choice.page or 0) >= frames:
        raise UnusableError(f"has no page {choice.page or 0} of level {choice.level}")
    limits.check_pixels(height, width)
    limits.check_memory(len(data.PixelData) + height * width * (4 * int(data.SamplesPerPixel) + 4))
    array = pixel_array(data, index=choice.page or 0)
    kind = data.PhotometricInterpretation
    bits = int(data.BitsStored)
    if array.ndim == 3:
        if array.shape[2] != 3 or bits != 8:
            raise UnusableError(f"DICOM of {kind}, {bits} bits and shape {array.shape}")
        return array, 255  # pydicom has made RGB of it
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnusableError(f"DICOM of photometric interpretation {kind} is unsupported")
    if "ModalityLUTSequence" in data:
        raise UnusableError("DICOM with a modality lookup table is unsupported")
    scaled = (data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)) != (1, 0)
    if scaled or data.PixelRepresentation:
        return np.asarray(apply_rescale(array, data), np.float32), None
    if bits > 16:
        raise UnusableError(f"DICOM of {bits} bits is unsupported")
    full_scale = 2**bits - 1
    if int(array.max()) > full_scale:
        raise UnusableError(f"holds values beyond the {bits} bits it states")
    return (full_scale - array if kind == "MONOCHROME1" else array), full_scale
