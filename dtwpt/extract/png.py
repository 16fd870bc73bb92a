"""PNG files without all that pixels do not depend on."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from dtwpt.extract.errors import UnusableError

__all__ = ["PlainPng", "plain_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Besides the critical ones, those of animations: Pillow finds the frames by them.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GREY_ALPHA, _RGBA = 4, 6
# Deflate packs a run of zeros at most about so well.
_MOST_RATIO = 1040
# Of the metadata that may state an orientation, no more is unpacked.
_MOST_METADATA = 1 << 20


class PlainPng(NamedTuple):
    """The chunks that pixels depend on, and what else matters.

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
    """Take a PNG apart.

    Parameters
    ----------
    content : bytes
        The file.
    truncated : bool
        Whether it may hold less than its header says.

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
        if stop > len(content):  # cut off, or nonsense: let the decoder say so
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
    """Return the header, of RGBA of 8 bits if it is that of grey with alpha of 16 bits."""
    sound = struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]
    if chunk[16:18] != bytes((16, _GREY_ALPHA)) or not sound:
        return chunk
    changed = chunk[4:16] + bytes((8, _RGBA)) + chunk[18:-4]
    return chunk[:4] + changed + struct.pack(">I", zlib.crc32(changed))


def _text_of(name: bytes, body: bytes) -> bytes:
    """Return the XMP or EXIF that a chunk of text holds; empty if it holds neither."""
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
