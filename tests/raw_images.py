"""TIFF and PNG files written from their definitions, so that each stored value is known."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_TYPES = {2: "s", 3: "H", 4: "I"}


def packed(array: NDArray[Any], bits: int) -> bytes:
    """Return rows of samples, the first bit the highest one, each row filled up to a byte."""
    if array.dtype.kind != "u" or bits % 8 == 0:
        return array.tobytes()
    rows = array.reshape(len(array), -1).astype(np.uint32)
    places = np.arange(bits - 1, -1, -1, dtype=np.uint32)
    flags = (rows[..., None] >> places & 1).astype(np.uint8)
    return np.packbits(flags.reshape(len(rows), -1), axis=1).tobytes()


def tiff(
    array: NDArray[Any],
    bits: int,
    photometric: int | None,
    *,
    alpha: int | None = None,
    more: dict[int, tuple[int, Any]] | None = None,
    order: Literal["<", ">"] = "<",
    deflate: bool = False,
) -> bytes:
    """Return a TIFF of one strip: of unsigned, signed or float samples, by the array's dtype."""
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    data = packed(array.astype(array.dtype.newbyteorder(order)), bits)
    data = zlib.compress(data) if deflate else data
    tags: dict[int, tuple[int, Any]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * samples),
        259: (3, [8 if deflate else 1]),
        273: (4, [8]),
        277: (3, [samples]),
        278: (4, [height]),
        279: (4, [len(data)]),
        339: (3, [{"u": 1, "i": 2, "f": 3}[array.dtype.kind]] * samples),
        **(more or {}),
    }
    if photometric is not None:
        tags[262] = (3, [photometric])
    if alpha is not None:
        tags[338] = (3, [alpha])
    data += b"\0" * (len(data) % 2)
    directory, values = b"", b""
    start = 8 + len(data)
    after = start + 2 + 12 * len(tags) + 4
    for code in sorted(tags):
        kind, content = tags[code]
        count = len(content)
        text = content if kind == 2 else struct.pack(f"{order}{count}{_TYPES[kind]}", *content)
        if len(text) > 4:
            place = after + len(values)
            values += text + b"\0" * (len(text) % 2)
            text = struct.pack(f"{order}I", place)
        directory += struct.pack(f"{order}HHI", code, kind, count) + text.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    count_ = struct.pack(f"{order}H", len(tags))
    return head + data + count_ + directory + bytes(4) + values


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(rows: bytes, height: int, step: int) -> bytes:
    """Filter rows of bytes by each of the five filters in turn; ``step`` bytes are a pixel."""
    if not rows:
        return b""
    lines = np.frombuffer(rows, np.uint8).reshape(height, -1).astype(int)
    out = b""
    for y, line in enumerate(lines):
        above = lines[y - 1] if y else np.zeros_like(line)
        left, corner = (
            np.concatenate([np.zeros(step, int), a])[: line.size] for a in (line, above)
        )
        guess = left + above - corner
        far = np.abs(np.stack([guess - left, guess - above, guess - corner]))
        paeth = np.choose(far.argmin(axis=0), [left, above, corner])
        by = [0 * line, left, above, (left + above) // 2, paeth][y % 5]
        out += bytes([y % 5]) + ((line - by) % 256).astype(np.uint8).tobytes()
    return out


def png(
    array: NDArray[Any],
    bits: int,
    colour: int,
    *,
    palette: bytes = b"",
    interlaced: bool = False,
    before: bytes = b"",
) -> bytes:
    """Return a PNG; ``before`` are chunks to put before the pixels."""
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    step = max(1, bits * samples // 8)
    parts = [array]
    if interlaced:
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        starts += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        parts = [array[y::dy, x::dx] for y, x, dy, dx in starts]
    data = b"".join(
        _filtered(packed(part.astype(part.dtype.newbyteorder(">")), bits), len(part), step)
        for part in parts
        if part.size
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    colours = chunk(b"PLTE", palette) if palette else b""
    end = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + colours + end
