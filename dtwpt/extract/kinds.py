"""Kinds of image files: by what they begin with, and by suffix."""

from __future__ import annotations

import re

__all__ = ["BEGINNING", "SUFFIXES", "kind_of"]

#: What an image in a folder is recognised by, in lower or upper case.
SUFFIXES = (
    *(".avif", ".bmp", ".dcm", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jxl", ".mpo", ".npy", ".png", ".svs", ".tif", ".tiff", ".webp"),
)

#: Bytes that :func:`kind_of` wants to see.
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
    # By the length of its second header, as two letters say little.
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
    "AVIF": rb"....ftypavi[fs]",
    "HEIF": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "DICOM": rb".{128}DICM",
}
_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in _KINDS.items()}


def kind_of(beginning: bytes) -> str | None:
    """Return the kind of file that begins like this; None if it is no image known here.

    Examples
    --------
    >>> from dtwpt.extract.kinds import kind_of
    >>> kind_of(b"GIF89a..."), kind_of(b"text")
    ('GIF', None)
    """
    for name, pattern in _PATTERNS.items():
        if pattern.match(beginning):
            # The first of the brands of a still picture may be one of both codecs.
            if name == "HEIF" and b"avif" in beginning[:64]:
                return "AVIF"
            return name
    return None
