"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["check_writable", "replacing"]


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if :func:`replacing` could not write ``path``, which stays as it is."""
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
    # Only trying tells: there are read-only disks, access lists, root.
    probe = _temporary(folder)
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
    """Open a binary file that takes the place of ``path`` once it is completely on the disk.

    After any exception, ``path`` is what it was before.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    check_writable(path)
    target = os.path.realpath(path)  # through a link to the file it means
    temporary = _temporary(os.path.dirname(target))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _temporary(folder: str) -> str:
    # In the same folder, hence on the same disk, without which there is no atomic replacement.
    return os.path.join(folder, f".dtwpt-{secrets.token_hex(8)}.tmp")
