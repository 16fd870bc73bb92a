"""Orientation of a picture, as EXIF, XMP and TIFF state it."""

from __future__ import annotations

import re
import struct
from typing import Any

from numpy.typing import NDArray

__all__ = ["BOTTOM_FIRST", "RIGHT_FIRST", "TURNED", "orientation_of", "turned"]

# Orientations of images whose rows are stored as columns, and of those to be mirrored after that.
TURNED, BOTTOM_FIRST, RIGHT_FIRST = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)

_TAG = 0x112
# Types of EXIF that hold small numbers: byte, short, long.
_TYPES = {1: "B", 3: "H", 4: "I"}
_XMP = re.compile(rb"tiff:Orientation(?:=\"|=\'|>)\s*([1-8])")


def orientation_of(exif: bytes | None, xmp: bytes | str | None = None) -> int:
    """Return the orientation, 1 to 8, that metadata state; 1 where they state none.

    Nothing but that tag is read: whatever else is wrong with the metadata plays no part.
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
    """Undo one of the eight orientations: of pixels (H, W) or (H, W, channels), a view."""
    if orientation in TURNED:
        array = array.swapaxes(0, 1)
    if orientation in BOTTOM_FIRST:
        array = array[::-1]
    if orientation in RIGHT_FIRST:
        array = array[:, ::-1]
    return array
