"""Errors of image files: :class:`ImageError`, and conversion of other errors to it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

# Silences the readers' warnings about odd metadata, which would otherwise reach the terminal if the
# program has not set up logging.
for _name in ("PIL", "tifffile", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class ImageError(ValueError):
    """An image file that cannot be used.

    Attributes
    ----------
    path : str
    reason : str
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be sent between processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnusableError(Exception):
    """The reason why a file cannot be used; a caller adds the file's name."""


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn any error while a file is read into an :class:`ImageError` that names it."""
    try:
        yield
    except ImageError:
        raise
    except UnusableError as error:
        raise ImageError(path, str(error)) from None
    except MemoryError:
        raise ImageError(path, "not enough memory to read it") from None
    except OSError as error:
        # An error without errno comes from a decoder.
        reason = error.strerror or f"cannot be decoded: {one_line(error)}"
        raise ImageError(path, reason) from error
    except Exception as error:  # of a decoder given a damaged file, which may raise anything
        raise ImageError(path, f"cannot be decoded: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the message of an error, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
