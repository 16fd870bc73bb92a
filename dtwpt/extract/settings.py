"""Settings of the features: :class:`Settings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dtwpt.checks import as_int, as_mode
from dtwpt.extract.images.limits import Choice, Limits
from dtwpt.features import OPERATORS, Pooling, as_depths, packet_feature_names
from dtwpt.wavelets import Wavelet


@dataclass(frozen=True)
class Settings:
    """The settings that determine the features of an image.

    Parameters
    ----------
    operator : {"cmod", "rmax"}
    depth : int or sequence of int, default: 2
        Several: the features of each depth, from one decoding of the image.
    wavelet : str, default: "qshift_b"
        The name of a built-in wavelet.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    colour : {"luma", "channels"}
        As for :func:`dtwpt.extract.read_image`; with "channels" there are three times as many
        features, those of red, green and blue.
    resize : int or (int, int), optional
        (height, width), or the length of the shorter side, the other one in proportion.
    crop : int or (int, int), optional
        The middle (height, width), or a square, cut out after resizing.
    pool : {"mean", "std", "max", "none"}, int, (int, int) or sequence
        As for :func:`dtwpt.features.packet_features`.
    page, level, channel : int, optional
        Which part of a file is the image, as for :func:`dtwpt.extract.read_image`.
    limits : Limits
        Limits for reading an image. They decide which images are refused and do not change
        features, so settings that differ only in them are equal, and they are not stored.

    Raises
    ------
    TypeError, ValueError
        If one is of the wrong type or value.

    Examples
    --------
    >>> from dtwpt.extract import Settings
    >>> settings = Settings(depth=3, crop=(64, 48))
    >>> Settings.from_dict(settings.to_dict()) == settings
    True
    >>> len(settings.names((64, 48)))
    128
    """

    operator: str = "cmod"
    depth: int | tuple[int, ...] = 2
    wavelet: str = "qshift_b"
    mode: str = "symmetric"
    colour: str = "luma"
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    pool: str | int | tuple[Any, ...] = "mean"
    page: int | None = None
    level: int = 0
    channel: int | None = None
    limits: Limits = field(default=Limits(), compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise ValueError(
                f"unknown operator {self.operator!r}; known operators: {', '.join(OPERATORS)}"
            )
        depths = as_depths(self.depth)
        object.__setattr__(self, "depth", depths if len(depths) > 1 else depths[0])
        if not isinstance(self.wavelet, str):
            raise TypeError(f"wavelet must be a name, got {self.wavelet!r}")
        Wavelet(self.wavelet)
        as_mode(self.mode)
        choice = Choice.of(self.colour, self.page, self.level, self.channel)
        for name, value in choice._asdict().items():
            object.__setattr__(self, name, value)
        if not isinstance(self.limits, Limits):
            raise TypeError(f"limits must be Limits, got {type(self.limits).__name__}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _size(value, name))
        object.__setattr__(self, "pool", Pooling.of(self.pool).plain)

    def names(self, size: tuple[int, int]) -> list[str]:
        """Return the names of the features of an image whose final size is ``size``."""
        of_bank: Any = (self.depth, self.wavelet, self.operator, self.pool)
        names = packet_feature_names(size, *of_bank)
        if self.colour == "luma":
            return names
        return [f"{channel}_{name}" for channel in ("red", "green", "blue") for name in names]

    def count(self, size: tuple[int, int]) -> int:
        """Return the number of features, without making their names."""
        if self.pool != "none":
            return len(self.names(size))
        count = 0
        for depth in as_depths(self.depth):
            step = 1 << depth
            places = -(-size[0] // step) * -(-size[1] // step)
            count += len(replace(self, depth=depth).names((1, 1))) * places  # for maps of one value
        return count

    @property
    def choice(self) -> Choice:
        """Which part of a file is the image."""
        return Choice(self.colour, self.page, self.level, self.channel)

    def final_size(self) -> tuple[int, int] | None:
        """Return a size whose names hold for every image; None if names depend on the image.

        Only whole maps, with ``pool="none"``, are named by position.
        """
        if self.crop is not None:
            return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)
        if isinstance(self.resize, tuple):
            return self.resize
        return None if self.pool == "none" else (1, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, without the limits, in JSON-compatible types."""
        return {name: _listed(getattr(self, name)) for name in _names()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings from which :meth:`to_dict` made a dict.

        Raises
        ------
        TypeError, ValueError
            If one is unknown, or of the wrong type or value.
        """
        unknown = set(values) - set(_names())
        if unknown:
            raise ValueError(
                f"unknown setting {', '.join(sorted(unknown))}; made by a newer dtwpt?"
            )
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**arguments)


def _names() -> list[str]:
    return [field.name for field in fields(Settings) if field.compare]


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def _size(value: Any, name: str) -> int | tuple[int, int]:
    accepted = "an integer of at least 1 or a pair of such integers"
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    numbers = tuple(as_int(number, name, accepted) for number in numbers)
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else int(numbers[0])
