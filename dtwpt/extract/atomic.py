"""Atomic writing and locking of files."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.dtwpt-[0-9a-f]{16}\.tmp")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if :func:`replacing` could not write ``path``, without changing it."""
    target = os.path.realpath(path)
    shown = os.fspath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"the output {shown!r} is a folder")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"the output {shown!r} is not a regular file")  # such as /dev/null
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder of the output does not exist: {folder!r}")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write the output {shown!r}: it is read-only")
    # Only a trial is reliable: there are read-only disks, access lists, root.
    probe = temporary_beside(target)
    try:
        with open(probe, "xb"):
            pass
    except OSError as error:
        raise type(error)(f"cannot write the output {shown!r}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that replaces ``path`` once it is completely on disk.

    After any exception, ``path`` is unchanged.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    check_writable(path)
    target = os.path.realpath(path)  # follow a link to its target
    remove_abandoned(os.path.dirname(target))
    while True:
        try:
            with whole(temporary_beside(target), target) as file:
                if not claim(file.fileno(), file.name):
                    raise _TakenAwayError
                yield file
            return
        except _TakenAwayError:
            continue


class _TakenAwayError(Exception):
    """Another process has removed a file as abandoned before it was locked."""


@contextlib.contextmanager
def whole(temporary: str, target: str) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``target`` once it is completely on disk.

    After any exception, ``target`` is unchanged.
    """
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(target, temporary)
            if os.name != "nt":  # where an open file cannot be moved
                os.replace(temporary, target)
        if os.name == "nt":
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync(os.path.dirname(target))


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file, or the list of a folder's entries, is on disk."""
    if os.name == "nt" and os.path.isdir(path):  # which opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_beside(target: str) -> str:
    """Return a temporary name in the same folder, as renaming is atomic only on one disk."""
    return os.path.join(os.path.dirname(target), f".dtwpt-{secrets.token_hex(8)}.tmp")


@contextlib.contextmanager
def new_folder(target: str, mode: int = 0o777) -> Iterator[str]:
    """Make a folder beside a target, which counts as abandoned once its process is gone."""
    while True:
        path = temporary_beside(target)
        os.mkdir(path, mode)
        if os.name == "nt":  # has no such thing as an open folder
            yield path
            return
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if claim(handle, path):
                yield path
                return
        finally:
            os.close(handle)


def remove_abandoned(folder: str) -> None:
    """Remove temporary files and folders of killed processes, which no longer hold a lock."""
    for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if claim(handle, path, wait=False):
                    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            finally:
                os.close(handle)


def claim(number: int, path: str, wait: bool = True) -> bool:
    """Lock an open file until it is closed; False if it is locked already, renamed or removed.

    Raises
    ------
    OSError
        Without ``wait``, on a file system without locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where a file in use cannot be removed
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        if not wait:
            raise
        return True
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(number), os.stat(path))
    return False
