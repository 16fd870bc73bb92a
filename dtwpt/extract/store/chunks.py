"""Zarr on a local disk, with atomic and durable writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import zarr
    from filelock import FileLock, Timeout
    from zarr.abc.store import (
        ByteRequest,
        OffsetByteRequest,
        RangeByteRequest,
        SuffixByteRequest,
    )
    from zarr.codecs import ZstdCodec
    from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
    from zarr.storage import LocalStore
except ImportError as error:
    raise ImportError(
        "feature stores need Python 3.11 or later, zarr 3.1 or later and filelock: "
        'pip install "dtwpt[extract]"'
    ) from error

from dtwpt.extract.atomic import sync, whole

__all__ = [
    "DurableStore",
    "FileLock",
    "SteadyStore",
    "Timeout",
    "ZstdCodec",
    "is_partial_header",
    "remove_partial",
    "zarr",
]

_PARTIAL = ".partial"
# Suffixes of temporary files: ours, and the one that Zarr uses for new files.
_HEADER = re.compile(r"zarr\.(json\.)?[0-9a-f]{16,32}\.partial")


def is_partial_header(name: str) -> bool:
    """Whether a name is that of a temporary file of zarr.json, left by a killed process."""
    return _HEADER.fullmatch(name) is not None


def remove_partial(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed processes."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(_PARTIAL):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))


class DurableStore(LocalStore):
    """A folder whose files are replaced atomically and durably.

    Zarr's own store replaces files atomically too, but lets the system decide when they reach the
    disk. After a power cut, a manifest could then list rows that do not exist.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Replace a file."""
        self._check_writable()
        await asyncio.to_thread(_write, self.root / key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Replace a file."""
        self._check_writable()
        _write(self.root / key, value)


def _write(path: Path, value: Buffer) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
            sync(folder)
    with whole(f"{path}.{secrets.token_hex(8)}{_PARTIAL}", str(path)) as file:
        file.write(value.as_buffer_like())


class SteadyStore(LocalStore):
    """A folder to read from while another process replaces its files.

    Zarr reads a shard in several steps: its index, then chunks. Within :meth:`steady`, all steps
    see the same file, even if it is replaced between them.
    """

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=True)
        self._opened: dict[str, int | None] = {}
        self._lock = threading.Lock()
        self._turn = threading.RLock()

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Keep files open from their first use on. Not thread-safe."""
        with self._turn:
            try:
                yield
            finally:
                for handle in self._opened.values():
                    if handle is not None:
                        os.close(handle)
                self._opened.clear()

    def with_read_only(self, read_only: bool = False) -> SteadyStore:
        """Return this object, which is always read-only."""
        if not read_only:
            raise ValueError("this store is read-only")
        return self

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file or part of it."""
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file or part of it."""
        prototype = prototype or default_buffer_prototype()
        handle = self._handle(key)
        if handle is None:
            return None
        length = os.fstat(handle).st_size
        start, stop = 0, length
        if isinstance(byte_range, RangeByteRequest):
            start, stop = byte_range.start, byte_range.end
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, length - byte_range.suffix)
        return prototype.buffer.from_bytes(_read(handle, start, min(stop, length) - start))

    def _handle(self, key: str) -> int | None:
        with self._lock:
            if key not in self._opened:
                try:
                    self._opened[key] = os.open(self.root / key, os.O_RDONLY | _BINARY)
                except (FileNotFoundError, NotADirectoryError):
                    self._opened[key] = None
            return self._opened[key]


_BINARY: Any = getattr(os, "O_BINARY", 0)
_seeking = threading.Lock()


def _read(handle: int, start: int, length: int) -> bytes:
    parts = []
    while length > 0:
        if hasattr(os, "pread"):
            part = os.pread(handle, length, start)
        else:  # Windows
            with _seeking:
                os.lseek(handle, start, os.SEEK_SET)
                part = os.read(handle, length)
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts)
