"""TIFF files: choice of the page, and interpretation of its pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dtwpt.extract.images.arrays import full_scale_of, size_of
from dtwpt.extract.images.errors import UnusableError
from dtwpt.extract.images.limits import Choice, Limits
from dtwpt.extract.images.pictures import (
    BOTTOM_FIRST,
    RIGHT_FIRST,
    TURNED,
    pixels_of,
    turned,
    with_truncated,
)

# Pages searched for the picture if the first one is not it.
_MOST_PAGES = 100
# Maximum compression ratios: none (1), PackBits, LZW and Deflate. Others can encode large blocks of
# one value in a few bytes.
_MOST_RATIO = {1: 1, 32773: 64, 5: 4096, 8: 1040, 32946: 1040}
_ANY_RATIO = 1 << 17
# Compressions read without further packages. The others need imagecodecs.
_BUILT_IN = (1, 8, 32946, 32773, 34925)
_IMAGECODECS = (2, 3, 4, 5, 7, 33003, 33005, 34712, 34887, 50000, 50001, 50002, 52546)
_JPEG = 7
# Maximum side of a JPEG, pixels.
_MOST_JPEG = 65535
_FAX = (2, 3, 4)
# Premultiplied colours: as always, the stored values are used.
_ASSOCIATED = 1
_NAMES = {0: "MINISWHITE", 1: "MINISBLACK", 2: "RGB", 3: "PALETTE", 5: "CMYK", 6: "YCBCR"}
# Photometric types of raw camera files.
_RAW = (32803, 34892)
_GDAL_NODATA = 42113


class _UnsupportedError(UnusableError):
    """A kind of TIFF that only Pillow can read, and only as a whole."""


class TiffLayout(NamedTuple):
    """The interpretation of the pixels of a TIFF page."""

    axes: str
    full_scale: int | None
    photometric: str
    orientation: int
    palette: NDArray[np.uint8] | None = None
    nodata: float | None = None

    @classmethod
    def of(cls, page: Any, file_bytes: int, channel: int | None = None) -> TiffLayout:
        """Return the layout of a page of tifffile, or raise if it cannot be read.

        Parameters
        ----------
        page : tifffile.TiffPage
        file_bytes : int
            Size of the file.
        channel : int, optional
            The requested sample, if the samples are not one image.

        Raises
        ------
        UnusableError
            If it is not an image, its kind is unknown, or the file cannot hold it.
        """
        photometric = _photometric(page)
        axes, shape = page.axes, page.shape
        if page.planarconfig not in (1, 2):
            raise UnusableError(f"TIFF of planar configuration {page.planarconfig} is unknown")
        if 0 in shape or not page.tags:
            raise UnusableError(f"has no pixels, shape {shape}")
        if page.dtype is None:
            raise UnusableError(
                f"TIFF of {page.bitspersample} bits in sample format {page.sampleformat} is unknown"
            )
        channels = {"YX": 1, "YXS": shape[-1], "SYX": shape[0]}.get(axes)
        most = {"RGB": 4, "YCBCR": 4, "CMYK": 5, "PALETTE": 1}.get(photometric, 2)
        if channels is None:
            raise UnusableError(f"TIFF page of shape {shape} ({axes}) is not an image")
        if channels > most and channel is None:
            raise UnusableError(
                f"TIFF page of shape {shape} ({axes}) is not an image, but {channels} channels of "
                f"photometric type {photometric}: choose one (--channel)"
            )
        kind, bits = page.dtype.name, page.bitspersample
        full_scale = 2**bits - 1 if kind in ("bool", "uint8", "uint16") else None
        if full_scale is None:
            full_scale_of(page.dtype)  # here, before it is read
        least = {"RGB": 3, "YCBCR": 3, "CMYK": 4}.get(photometric, 1)
        if channels < least:
            raise UnusableError(f"TIFF of photometric type {photometric} with {channels} samples")
        if photometric == "YCBCR" and page.compression != _JPEG:
            raise _UnsupportedError("TIFF of photometric type YCBCR is read if it is JPEG inside")
        if photometric == "CMYK" and (page.compression == _JPEG or full_scale not in (255, 65535)):
            raise _UnsupportedError("TIFF of photometric type CMYK and this kind is unsupported")
        _check_data(page, file_bytes)
        palette = None
        if photometric == "PALETTE":
            palette, full_scale = _palette(page), 255
        elif photometric == "CMYK":
            full_scale = 255
        tag = page.tags.valueof(274)
        orientation = tag if isinstance(tag, int) and 1 <= tag <= 8 else 1
        return cls(axes, full_scale, photometric, orientation, palette, _nodata(page))

    @property
    def turned(self) -> bool:
        """Whether the rows of the image are stored as columns."""
        return self.orientation in TURNED

    def stored(self, place: tuple[slice, slice], size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the stored rows and columns of a rectangle of the upright image."""
        rows, columns = (
            slice(length - part.stop, length - part.start) if self.orientation in flipped else part
            for part, length, flipped in zip(place, size, (BOTTOM_FIRST, RIGHT_FIRST), strict=True)
        )
        return (columns, rows) if self.turned else (rows, columns)

    def upright(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels, of the page or a rectangle of it, as (H, W) or (H, W, channels).

        Raises
        ------
        UnusableError
            If one of them has no value (GDAL).
        """
        if self.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        if self.nodata is not None and (array == self.nodata).any():
            raise UnusableError(
                f"has pixels without a value (GDAL_NODATA {self.nodata:g}): fill or crop them first"
            )
        if self.palette is not None:
            array = self.palette[array.astype(np.uint16)]
        elif self.photometric == "CMYK":
            array = _rgb_of_cmyk(array)
        elif self.photometric == "MINISWHITE" and self.full_scale is not None:
            array = np.array(array)
            grey = array[..., 0] if array.ndim == 3 else array  # transparency has no white
            grey ^= grey.dtype.type(self.full_scale)
        return turned(array, self.orientation)


def _photometric(page: Any) -> str:
    """Return the name of the photometric type; if missing, guessed as by libtiff."""
    tag = page.tags.get(262)
    if tag is None:
        samples = page.samplesperpixel - len(page.extrasamples)
        return "RGB" if samples >= 3 else "MINISWHITE" if page.compression in _FAX else "MINISBLACK"
    number = int(page.photometric)
    if number in _RAW:
        raise UnusableError("is a raw file of a camera: develop it into TIFF or PNG first")
    name = getattr(page.photometric, "name", str(number))
    if number not in _NAMES:
        raise _UnsupportedError(f"TIFF of photometric type {name} is unsupported")
    return _NAMES[number]


def _check_data(page: Any, file_bytes: int) -> None:
    """Refuse a page whose file is too small for what its header states."""
    offsets, counts = page.dataoffsets, page.databytecounts
    pieces = math.prod(page.chunked)
    if min(len(offsets), len(counts)) < pieces:
        raise UnusableError(
            f"has {min(len(offsets), len(counts))} of the {pieces} pieces it states"
        )
    offsets, counts = offsets[:pieces], counts[:pieces]
    if 0 in counts or 0 in offsets:
        raise UnusableError("lacks pieces: those that are missing have no value")
    if max(map(sum, zip(offsets, counts, strict=True))) > file_bytes:
        raise UnusableError("the file is truncated")
    if page.compression == 1:
        _check_plain(page, pieces, sum(counts))
    # Those of Hamamatsu's slides are one JPEG of any size, which tifffile knows.
    if page.compression == _JPEG and max(page.chunks) > _MOST_JPEG and not page.is_ndpi:
        raise UnusableError(f"JPEG holds no pieces of {page.chunks[0]}x{page.chunks[1]} pixels")
    needed = math.prod(page.shape) * page.bitspersample // 8
    if needed > sum(counts) * _MOST_RATIO.get(page.compression, _ANY_RATIO):
        height, width = page.imagelength, page.imagewidth
        raise UnusableError(f"has too little data for the {height}x{width} pixels it states")


def _check_plain(page: Any, pieces: int, there: int) -> None:
    """Refuse a page that its header states as uncompressed, but not its size or predictor."""
    length, width, *samples = page.chunks
    bits = math.prod((width, *samples)) * page.bitspersample
    most = pieces * min(length, max(page.imagelength, page.tilelength)) * -(-bits // 8)
    if there > most or page.predictor != 1:
        raise UnusableError("is not compressed by its header, but by its data")


def _palette(page: Any) -> NDArray[np.uint8]:
    colours = page.colormap
    if colours is None or colours.shape != (3, 2**page.bitspersample):
        raise UnusableError("TIFF with a palette that is missing or too short")
    # Some writers store only 8 of the 16 bits.
    colours = colours >> 8 if colours.max() > 255 else colours
    return np.ascontiguousarray(colours.T.astype(np.uint8))


def _nodata(page: Any) -> float | None:
    text = page.tags.valueof(_GDAL_NODATA)
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    if page.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(page.dtype.type(value))
    return value


def _rgb_of_cmyk(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB as Pillow does, from the upper 8 bits."""
    inks = array[..., :4]
    if inks.dtype != np.uint8:
        inks = inks >> 8
    image = Image.fromarray(np.ascontiguousarray(inks, np.uint8), "CMYK")
    return np.asarray(image.convert("RGB"))


# Which page ---------------------------------------------------------------------------------------


def picture_of(tiff: Any, choice: Choice) -> Any:
    """Return the requested page of an open tifffile file.

    By default, it is the first one that is neither a reduced image nor a mask, among pages and
    subpages.
    """
    if choice.page is None:
        page = next((page for page in _pages(tiff) if not _is_minor(page)), None)
        if page is None:  # nothing but reduced images: the largest of them
            page = max(_pages(tiff), key=lambda page: page.imagelength * page.imagewidth)
    else:
        try:
            page = tiff.pages.get(choice.page, validate=False)
        except IndexError:
            raise UnusableError(
                f"has no page {choice.page}, only 0 to {len(tiff.pages) - 1}"
            ) from None
    if not choice.level:
        return page
    levels = [page, *sorted(_reduced(tiff, page), key=lambda level: -level.imagewidth)]
    if choice.level >= len(levels):
        raise UnusableError(f"has no level {choice.level}, only 0 to {len(levels) - 1}")
    return levels[choice.level]


def _is_minor(page: Any) -> bool:
    """Whether a page is a reduced image or a mask."""
    return bool(page.is_reduced or page.is_mask)


def _pages(tiff: Any) -> Iterator[Any]:
    """Yield the pages, each followed by its subpages."""
    for number in range(_MOST_PAGES):
        try:
            page = tiff.pages.get(number, validate=False) if number else tiff.pages.first
        except IndexError:
            return
        yield page
        yield from _below(page)


def _below(page: Any) -> Iterator[Any]:
    if page.subifds:
        for number in range(min(len(page.subifds), _MOST_PAGES)):
            yield page.pages.get(number, validate=False)


def _reduced(tiff: Any, picture: Any) -> Iterator[Any]:
    """Yield the reduced images of a page: its subpages, and the pages that follow it."""
    candidates = [*_below(picture)]
    if not candidates and len(picture._index) == 1:
        number = picture.index + 1
        while number < len(tiff.pages) and number <= picture.index + _MOST_PAGES:
            page = tiff.pages.get(number, validate=False)
            if not _is_minor(page) and not tiff.is_svs:
                break
            candidates.append(page)
            number += 1
    shape = picture.imagelength / picture.imagewidth
    for page in candidates:
        # Only of the same view: labels and overview photographs of slides are not.
        if not page.is_mask and abs(page.imagelength / page.imagewidth / shape - 1) < 0.05:
            yield page


# Reading ------------------------------------------------------------------------------------------


def check_codec(page: Any) -> None:
    """Refuse a page whose compression or samples need a package that is not installed."""
    if page.compression not in (*_BUILT_IN, *_IMAGECODECS):
        raise _UnsupportedError(f"TIFF with compression {_compression(page)} is unsupported")
    packed = page.bitspersample not in (1, 8, 16, 32, 64)
    if page.compression in _BUILT_IN and not packed and page.predictor in (1, 2):
        return
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        what = f"{page.bitspersample} bits" if packed else f"compression {_compression(page)}"
        raise _UnsupportedError(
            f'TIFF with {what} needs the package imagecodecs: pip install "dtwpt[codecs]"'
        ) from None


def _compression(page: Any) -> str:
    return str(getattr(page.compression, "name", page.compression))


def read_tiff(file: BinaryIO, choice: Choice, limits: Limits) -> tuple[NDArray[Any], int | None]:
    """Read the picture of a TIFF.

    Parameters
    ----------
    file : binary file
    choice : Choice
    limits : Limits

    Returns
    -------
    pixels : ndarray, shape (H, W) or (H, W, channels)
        Upright.
    full_scale : int or None
        The value that stands for 1; None: that of the dtype.
    """
    import tifffile  # slow to import

    with tifffile.TiffFile(file) as tiff:
        page = picture_of(tiff, choice)
        try:
            layout = TiffLayout.of(page, size_of(file), choice.channel)
            check_codec(page)
        except _UnsupportedError:
            if not _pillow_reads(page):
                raise
            return _by_pillow(file, page, limits), None
        limits.check_pixels(page.imagelength, page.imagewidth)
        limits.check_memory(2 * page.nbytes + 4 * page.imagelength * page.imagewidth)
        return layout.upright(page.asarray(maxworkers=1)), layout.full_scale


def _pillow_reads(page: Any) -> bool:
    """Whether Pillow reads the page without loss."""
    return bool(
        page.bitspersample <= 8
        and page.sampleformat == 1
        and page.planarconfig == 1
        and 262 in page.tags
        and _ASSOCIATED not in page.extrasamples
        and _GDAL_NODATA not in page.tags
        and not page.is_subifd
    )


def _by_pillow(file: BinaryIO, page: Any, limits: Limits) -> NDArray[Any]:
    from PIL.TiffImagePlugin import TiffImageFile

    file.seek(0)
    limits.check_pixels(page.imagelength, page.imagewidth)
    limits.check_memory(size_of(file) + 14 * page.imagelength * page.imagewidth)
    with with_truncated(False), TiffImageFile(io.BytesIO(file.read()), "") as image:
        image.seek(page.index)
        pixels = pixels_of(image)
        # Newer versions of Pillow have rotated it and removed the tag.
        return turned(pixels, image.tag_v2.get(274, 1))
