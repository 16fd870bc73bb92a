"""Which part of a file to read, and limits of size: :class:`Choice` and :class:`Limits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dtwpt.checks import as_count, as_int
from dtwpt.colour import COLOURS
from dtwpt.extract.images.errors import UnusableError


@dataclass(frozen=True)
class Limits:
    """Limits of pixels and memory for reading one image. Pillow's own limits are not used.

    Parameters
    ----------
    max_pixels : int, default: 178,956,970
        Maximum number of pixels of an image. For arrays in ``.npy``, only the limit of memory
        holds.
    max_memory : int, default: 1.5 GiB
        Maximum number of bytes that reading one image may need, estimated from its header.
    truncated : bool, default: False
        Whether to accept truncated images, such as a JPEG without its end: missing pixels are grey
        or black.

    Raises
    ------
    TypeError, ValueError
        If one is of the wrong type or value.

    Examples
    --------
    >>> from dtwpt.extract import Limits
    >>> Limits(max_pixels=10**9).max_memory
    1610612736
    """

    max_pixels: int = 178_956_970
    max_memory: int = 3 << 29
    truncated: bool = False

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_memory"):
            object.__setattr__(self, name, as_count(getattr(self, name), name))
        if not isinstance(self.truncated, bool):
            raise TypeError(f"truncated must be True or False, got {self.truncated!r}")

    def check_pixels(self, height: int, width: int) -> None:
        """Refuse an image with too many pixels."""
        if height * width > self.max_pixels:
            raise UnusableError(
                f"{height}x{width} pixels are more than the limit of {self.max_pixels} against "
                "decompression bombs: raise max_pixels (--max-pixels) if the file can be trusted"
            )

    def check_memory(self, needed: int) -> None:
        """Refuse an image that would need too much memory."""
        if needed > self.max_memory:
            raise UnusableError(
                f"reading it needs about {needed / 2**20:.0f} MiB, more than the limit of "
                f"{self.max_memory / 2**20:.0f} MiB for one image: raise max_memory (--max-memory)"
            )


class Choice(NamedTuple):
    """Which part of a file is the image, and how its colours are read.

    ``page`` counts the pages or frames of a file from 0, ``level`` the reduced versions of it,
    ``channel`` the samples of its pixels; None selects the picture itself and its colours.
    """

    colour: str = "luma"
    page: int | None = None
    level: int = 0
    channel: int | None = None

    @classmethod
    def of(
        cls, colour: str = "luma", page: Any = None, level: Any = 0, channel: Any = None
    ) -> Choice:
        """Return a choice, checked.

        Raises
        ------
        TypeError, ValueError
            If one is of the wrong type or value.
        """
        if colour not in COLOURS:
            raise ValueError(f"unknown colour {colour!r}; known: {', '.join(COLOURS)}")
        numbers = {"page": page, "level": level, "channel": channel}
        for name, value in numbers.items():
            if value is None and name != "level":
                continue
            numbers[name] = as_int(value, name, "an integer of at least 0")
            if numbers[name] < 0:
                raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
        return cls(colour, **numbers)

    def only_page(self, what: str) -> None:
        """Refuse a page other than the first one, or a level, for a format without them."""
        if self.page or self.level:
            raise UnusableError(f"{what} has no page {self.page or 0} of level {self.level}")
