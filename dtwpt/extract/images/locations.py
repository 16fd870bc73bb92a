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
import email.utils
import errno
import hashlib
import http.client
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

from dtwpt.extract.images.errors import ImageError, UnusableError, has_password, one_line

# Suffixes of files that hold many images.
_CONTAINERS = {
    "zip": (".zip",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
    "table": (".parquet", ".arrow", ".feather"),
}
_NAME = re.compile(r"(zip|tar|table)://(.*)::(.*)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

# What errors of aiohttp and its like say, by their names.
_REASONS = {
    "gaierror": "there is no such host",
    "ClientConnectorCertificateError": "the server's certificate is not one that is trusted",
    "TooManyRedirects": "too many redirects",
    "TimeoutError": "the server does not answer in time",
    "ClientPayloadError": "the transfer broke off",
    "ServerDisconnectedError": "the server closed the connection",
}
# Bytes of an object that is fetched in one piece, which is of one version of it.
_WHOLE = 1 << 26
# Seconds until a server lets one connect, and between two parts of an answer.
_CONNECT_SECONDS, _STALL_SECONDS = 30.0, 60.0


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


def is_http(url: str) -> bool:
    """Whether a URL is of the web, where "?" begins parameters and there are no folders."""
    return url.lower().startswith(("http:", "https:"))


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and the path in it.

    Raises
    ------
    UnusableError
        If fsspec, or the package it needs for the URL, is not installed; or the URL has a password.
    """
    if has_password(url):
        raise UnusableError(
            "has a password in it, which every output would show: set it in the configuration of "
            "fsspec or in the environment"
        )
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url, **_waiting(url))
    except (ImportError, ValueError) as error:
        raise UnusableError(
            f"is a URL, which needs a package ({one_line(error)}): "
            'pip install "dtwpt[extract]" and what fsspec asks for'
        ) from None
    return system, path


def _waiting(url: str) -> dict[str, Any]:
    """Return how long to wait for a server, unless the user's configuration says so."""
    import fsspec

    configured = fsspec.config.conf.get(url.partition(":")[0].lower(), {}).get("client_kwargs", {})
    if not is_http(url) or "timeout" in configured:
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(None, sock_connect=_CONNECT_SECONDS, sock_read=_STALL_SECONDS)
    return {"client_kwargs": {**configured, "timeout": timeout}}


@contextlib.contextmanager
def fetching(otherwise: bool = True) -> Iterator[None]:
    """Turn what goes wrong with a server into its reason, without the URL.

    Parameters
    ----------
    otherwise : bool
        Whether errors that are not known to be a server's are its, too.
    """
    try:
        yield
    except (UnusableError, ImageError, MemoryError):
        raise
    except Exception as error:  # of any package
        reason = _reason_of(error)
        if reason is None and not otherwise:
            raise
        raise UnusableError(f"cannot be fetched: {reason or one_line(error)}") from error


def _reason_of(error: BaseException) -> str | None:
    """Return what a server did; None if the error does not say. Those of fsspec name the URL."""
    chain: list[Any] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    for kind, reason in _REASONS.items():
        if kind in kinds:
            return reason
    for link in chain:
        status = getattr(link, "status", None)
        if isinstance(status, int):
            return f"the server answers {status} {http.client.responses.get(status, '')}".rstrip()
    numbers = [link.errno for link in chain if isinstance(link, OSError) and link.errno]
    if "FileNotFoundError" in kinds and not numbers:
        numbers = [errno.ENOENT]
    return os.strerror(numbers[-1]) if numbers else None


def size_and_time(name: str) -> tuple[int | None, int | None]:
    """Return size in bytes and modification time in ns of the file that holds an image.

    Where a server gives no time, but a tag that changes with the contents, that as a number.

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
    with fetching():
        about = system.info(path)
    time = None
    with contextlib.suppress(NotImplementedError, KeyError, AttributeError, TypeError):
        time = int(system.modified(path).timestamp() * 1_000_000) * 1000
    if time is None and about.get("ETag"):
        time = int.from_bytes(hashlib.sha256(about["ETag"].encode()).digest()[:7], "big")
    elif time is None and about.get("Last-Modified"):
        with contextlib.suppress(ValueError):
            date = email.utils.parsedate_to_datetime(about["Last-Modified"])
            time = int(date.timestamp()) * 10**9
    return about.get("size"), time


@contextlib.contextmanager
def open_file(name: str, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open an image for reading.

    Parameters
    ----------
    name : str
    most_bytes : int, optional
        A member of an archive that unpacks to more is refused, and so is what comes to more from a
        server that does not say how much it is.

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
        with _open_url(name, most_bytes) as file:
            yield file
    else:
        with fetching(otherwise=False):
            container = _open_container(location.kind, location.container)
            content = container.read(location.member, most_bytes)
        yield io.BytesIO(content)


def _open_path(name: str) -> BinaryIO:
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        os.scandir(name).close()  # raises the error of an unreadable folder
        raise UnusableError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, on which reading may never end
        raise UnusableError("is not a regular file")
    return open(name, "rb")


@contextlib.contextmanager
def _open_url(url: str, most_bytes: int | None) -> Iterator[BinaryIO]:
    with fetching():
        file, check_unchanged = _object(url, most_bytes)
    with file:
        yield file
    check_unchanged()


def _object(url: str, most_bytes: int | None = None) -> tuple[BinaryIO, Callable[[], None]]:
    """Open an object; small ones are fetched at once, as they are at that moment.

    Returns
    -------
    file : binary file
        That can be sought in.
    check_unchanged : callable
        Raises an UnusableError if it is another one by now.
    """
    system, path = file_system(url)
    about = system.info(path)
    size = about.get("size")
    if size is not None and size > _WHOLE:

        def check_unchanged() -> None:
            with fetching():
                if system.info(path) != about:
                    raise UnusableError("changed while it was read")

        return system.open(path, "rb"), check_unchanged
    if size is not None:
        content = system.cat_file(path)
    else:  # a stream, of which the server does not say how long it is
        most = _WHOLE if most_bytes is None else most_bytes
        parts = []
        with system.open(path, "rb") as stream:
            while most >= 0 and (part := stream.read(1 << 20)):
                parts.append(part)
                most -= len(part)
        if most < 0:
            raise UnusableError("the server does not say how large it is: download it first")
        content = b"".join(parts)
    return io.BytesIO(content), lambda: None


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
        with fetching():
            file, _ = _object(name)
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
            path = value.get("path") if isinstance(value, dict) else None
            but = (
                f" but the path {path!r}: store the files' bytes, or give the files" if path else ""
            )
            raise UnusableError(f"the row holds no image{but}")
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
