"""Locations of images: files, URLs, members of archives, rows of tables.

Besides paths, these are names of images:

``zip://MEMBER::ARCHIVE``, ``tar://MEMBER::ARCHIVE``
    A member of an archive, in fsspec's notation.
``table://COLUMN/ROW::FILE``
    The bytes in a row of a file of Parquet or Arrow.
``s3://...``, ``https://...``, ``memory://...``
    Anything that fsspec opens, including archives and tables.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from dtwpt.extract.images.errors import UnusableError, one_line

# Suffixes of files that hold many images.
_CONTAINERS = {
    "zip": (".zip",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
    "table": (".parquet", ".arrow", ".feather"),
}
_NAME = re.compile(r"(zip|tar|table)://(.*)::(.*)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Location(NamedTuple):
    """The name of an image, taken apart: ``kind`` is "path", "url", "zip", "tar" or "table"."""

    kind: str
    member: str
    container: str

    @property
    def name(self) -> str:
        """The name of the image."""
        return f"{self.kind}://{self.member}::{self.container}" if self.member else self.container


def located(name: str) -> Location:
    """Return the location of an image: a path if without ``://`` or if such a file exists."""
    if "://" not in name or os.path.lexists(name):
        return Location("path", "", name)
    match = _NAME.fullmatch(name)
    if match is not None:
        return Location(match[1], match[2], match[3])
    return Location("url" if _URL.match(name) else "path", "", name)


def container_kind(name: str) -> str | None:
    """Return the kind of archive or table by a file's name; None if it is neither."""
    lower = name.lower()
    return next((kind for kind, ends in _CONTAINERS.items() if lower.endswith(ends)), None)


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and the path in it.

    Raises
    ------
    UnusableError
        If fsspec, or the package it needs for the URL, is not installed.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UnusableError(
            f"is a URL, which needs a package ({one_line(error)}): "
            'pip install "dtwpt[extract]" and what fsspec asks for'
        ) from None
    return system, path


def size_and_time(name: str) -> tuple[int | None, int | None]:
    """Return size in bytes and modification time in ns of the file that holds an image.

    Raises
    ------
    OSError, UnusableError
        If there is none.
    """
    location = located(name)
    if located(location.container).kind == "path":
        status = os.stat(location.container)
        return status.st_size, status.st_mtime_ns
    system, path = file_system(location.container)
    about = system.info(path)
    time = None
    with contextlib.suppress(NotImplementedError, KeyError, AttributeError, TypeError):
        time = int(system.modified(path).timestamp() * 1_000_000) * 1000
    return about.get("size"), time


@contextlib.contextmanager
def open_file(name: str, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open an image for reading.

    Parameters
    ----------
    name : str
    most_bytes : int, optional
        A member of an archive that unpacks to more is refused.

    Raises
    ------
    UnusableError, OSError, ...
        If there is none, or any error of the packages used.
    """
    location = located(name)
    if location.kind == "path":
        with _open_path(name) as file:
            yield file
    elif location.kind == "url":
        system, path = file_system(name)
        with system.open(path, "rb") as file:
            yield file
    else:
        container = _open_container(location.kind, location.container)
        yield io.BytesIO(container.read(location.member, most_bytes))


def _open_path(name: str) -> BinaryIO:
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        os.scandir(name).close()  # raises the error of an unreadable folder
        raise UnusableError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, on which reading may never end
        raise UnusableError("is not a regular file")
    return open(name, "rb")


def members_of(kind: str, container: str) -> Iterator[str]:
    """Yield the members of an archive or the rows of a table, in order."""
    yield from _open_container(kind, container).members()


# Archives and tables ------------------------------------------------------------------------------


def _open_container(kind: str, name: str) -> Any:
    # Kept open, as listing members takes long; reopened if the file has changed.
    return _opened(kind, name, size_and_time(name))


@lru_cache(maxsize=2)
def _opened(kind: str, name: str, stamp: tuple[int | None, int | None]) -> Any:
    if located(name).kind == "path":
        file: Any = _open_path(name)
    else:
        system, path = file_system(name)
        file = system.open(path, "rb")
    try:
        return {"zip": _Zip, "tar": _Tar, "table": _Table}[kind](file)
    except BaseException:
        file.close()
        raise


class _Container:
    """A file that holds many images. Thread-safe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self._file.close()


class _Zip(_Container):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._archive = zipfile.ZipFile(file)  # which has a lock of its own

    def members(self) -> Iterator[str]:
        return (info.filename for info in self._archive.infolist() if not info.is_dir())

    def read(self, member: str, most_bytes: int | None) -> bytes:
        try:
            info = self._archive.getinfo(member)
        except KeyError:
            raise UnusableError(f"the archive has no member {member!r}") from None
        if most_bytes is not None and info.file_size > most_bytes:
            raise _too_large(info.file_size)
        return self._archive.read(info)


class _Tar(_Container):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._archive = tarfile.open(fileobj=file)  # noqa: SIM115  # kept open
        self._infos = {info.name: info for info in self._archive if info.isreg()}

    def members(self) -> Iterator[str]:
        return iter(self._infos)

    def read(self, member: str, most_bytes: int | None) -> bytes:
        info = self._infos.get(member)
        if info is None:
            raise UnusableError(f"the archive has no member {member!r}")
        if most_bytes is not None and info.size > most_bytes:
            raise _too_large(info.size)
        with self._lock:
            opened = self._archive.extractfile(info)
            content = b"" if opened is None else opened.read()  # never None: a regular file
        if len(content) < info.size:
            raise UnusableError("the archive is truncated")
        return content


def _too_large(size: int) -> UnusableError:
    return UnusableError(f"unpacks to {size / 2**20:.0f} MiB, more than the limit (--max-memory)")


class _Table(_Container):
    """The column of bytes of a Parquet or Arrow file; one row group is kept in memory."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        try:
            import pyarrow
            from pyarrow import ipc, parquet
        except ImportError:
            raise UnusableError(
                'a table needs the package pyarrow: pip install "dtwpt[extract]"'
            ) from None
        read: Callable[[int], Any]
        if file.read(4) == b"PAR1":
            file.seek(0)
            stored: Any = parquet.ParquetFile(file)
            schema = stored.schema_arrow
            sizes = [stored.metadata.row_group(n).num_rows for n in range(stored.num_row_groups)]
            self.column = _image_column(schema)
            read = lambda group: stored.read_row_group(group, [self.column])  # noqa: E731
        else:
            file.seek(0)
            try:
                batches = ipc.open_file(file)
                sizes = [batches.get_batch(n).num_rows for n in range(batches.num_record_batches)]
                read = batches.get_batch
            except pyarrow.ArrowInvalid:  # as Hugging Face writes it
                file.seek(0)
                batches = ipc.open_stream(file)
                everything = batches.read_all()
                sizes = [everything.num_rows]
                read = lambda group: everything  # noqa: E731
            self.column = _image_column(batches.schema)
        self._sizes = sizes
        self._read = lru_cache(maxsize=1)(read)

    def members(self) -> Iterator[str]:
        return (f"{self.column}/{row:09}" for row in range(sum(self._sizes)))

    def read(self, member: str, most_bytes: int | None) -> bytes:
        column, _, number = member.rpartition("/")
        if column != self.column or not number.isdecimal() or int(number) >= sum(self._sizes):
            raise UnusableError(f"the table has no row {member!r}")
        row, group = int(number), 0
        while row >= self._sizes[group]:
            row -= self._sizes[group]
            group += 1
        with self._lock:
            value = self._read(group)[self.column][row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise UnusableError("the row holds no image")
        return bytes(content)


def _image_column(schema: Any) -> str:
    """Return the column that holds images: bytes, or a structure with a field ``bytes``."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            place = kind.get_field_index("bytes")
            return place >= 0 and holds_bytes(kind.field(place).type)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = [field.name for field in schema if holds_bytes(field.type)]
    if "image" in found or len(found) == 1:
        return "image" if "image" in found else str(found[0])
    raise UnusableError(
        f"the table needs one column of bytes, or one that is called 'image'; it has {found}"
    )
