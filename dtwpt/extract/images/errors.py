"""Errors of image files: :class:`ImageError`, and conversion of other errors to it."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

# Silences the readers' warnings about odd metadata, which would otherwise reach the terminal if the
# program has not set up logging.
for _name in ("PIL", "tifffile", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_PASSWORD = re.compile(r"(://[^/?#\s]*?:)[^/?#\s]*@")
# Parameters of URLs that give access for a while.
_SECRET = re.compile(
    r"([?&][^=&\s]*(?:credential|key|passw|secret|sig|token)[^=&\s]*=)[^&:'\"\s]+", re.IGNORECASE
)


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
        return f"{without_secrets(self.path)}: {self.reason}"


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
    """Return the message of an error, in one line and without secrets."""
    return without_secrets(" ".join(str(error).split())) or type(error).__name__


def has_password(url: str) -> bool:
    """Whether there is one in a URL."""
    return _PASSWORD.search(url) is not None


def without_secrets(text: str) -> str:
    """Return a text without the passwords and signatures of the URLs in it.

    Examples
    --------
    >>> from dtwpt.extract.images.errors import without_secrets
    >>> without_secrets("https://host/a.png?X-Amz-Signature=0123&page=2: the server answers 403")
    'https://host/a.png?X-Amz-Signature=***&page=2: the server answers 403'
    """
    if "://" not in text:
        return text
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))
