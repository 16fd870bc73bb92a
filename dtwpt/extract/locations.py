"""Where images lie: files, URLs, members of archives, rows of tables."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from dtwpt.extract.errors import UnusableError

__all__ = ["open_file"]


@contextlib.contextmanager
def open_file(name: str) -> Iterator[BinaryIO]:
    """Open an image for reading.

    Raises
    ------
    UnusableError, OSError
        If there is none.
    """
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        os.scandir(name).close()  # raises where a folder may not be read, as is said of it then
        raise UnusableError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, on which reading may never end
        raise UnusableError("is not a regular file")
    with open(name, "rb") as file:
        yield file
