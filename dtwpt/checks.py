"""Checks of arguments that several public functions share."""

from __future__ import annotations

import operator
from typing import Any

from dtwpt.engine.borders import MODES
from dtwpt.text import shown
from dtwpt.typing import Mode
from dtwpt.wavelets import KNOWN, Wavelet

__all__ = [
    "as_count",
    "as_depth",
    "as_int",
    "as_mode",
    "as_pair",
    "as_pool",
    "as_stride",
    "as_wavelet",
    "wavelet_text",
]

#: Each further depth takes four times the memory for its filters: 0.2 GB at this one.
DEEPEST = 10


def as_int(value: Any, name: str, accepted: str) -> int:
    """Return ``value`` as an int; an error says that ``name`` must be ``accepted``."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be {accepted}, got {shown(value)}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {accepted}, got {shown(value)}") from None


def as_count(value: Any, name: str) -> int:
    """Return ``value`` as an int of at least 1."""
    accepted = "an integer of at least 1"
    number = as_int(value, name, accepted)
    if number < 1:
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def as_pair(value: Any, name: str, least: int = 1) -> tuple[int, int]:
    """Return ``value``, one integer or a pair (rows, columns), as a pair of at least ``least``."""
    accepted = f"an integer of at least {least} or a pair of such integers"
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be {accepted}, got {shown(value)}")
    rows, columns = (as_int(number, name, accepted) for number in pair)
    if min(rows, columns) < least:
        raise ValueError(f"{name} must be {accepted}, got {shown(value)}")
    return rows, columns


def as_depth(depth: Any) -> int:
    """Return ``depth`` as an int from 1 to ``DEEPEST``."""
    accepted = f"an integer from 1 to {DEEPEST}"
    number = as_int(depth, "depth", accepted)
    if number < 1:
        raise ValueError(f"depth must be {accepted}, got {number}")
    if number > DEEPEST:
        raise ValueError(
            f"depth must be {accepted}, got {number}: it would need 2**{number} filters of some "
            f"13 * 2**{number} taps, and images of 2 * 4**{number} maps"
        )
    return number


def as_wavelet(wavelet: Any) -> Wavelet:
    """Return the :class:`Wavelet` given as an object or by name."""
    return wavelet if isinstance(wavelet, Wavelet) else Wavelet.from_text(wavelet_text(wavelet))


def wavelet_text(wavelet: Any) -> str:
    """Return the text of a wavelet given as an object or by name."""
    if isinstance(wavelet, Wavelet):
        return wavelet.text
    if isinstance(wavelet, str) and wavelet in KNOWN:
        return wavelet
    return Wavelet(wavelet).text  # which raises the error


def as_stride(stride: Any, depth: int) -> int:
    """Return ``stride`` as a power of two up to ``2**depth``, which is the default."""
    if stride is None:
        return int(2**depth)
    accepted = f"a power of two from 1 to 2**depth = {2**depth}"
    number = as_int(stride, "stride", accepted)
    if number < 1 or number > 2**depth or number & (number - 1):
        raise ValueError(f"stride must be {accepted}, got {number}")
    return number


def as_mode(mode: Any) -> Mode:
    """Return ``mode`` if it names a padding mode."""
    if not isinstance(mode, str):
        raise TypeError(f"mode must be a string, got {type(mode).__name__}")
    if mode not in MODES:
        raise ValueError(f"unknown mode {shown(mode)}; known modes: {', '.join(MODES)}")
    known: Mode = mode
    return known


def as_pool(pool: Any) -> int:
    """Return ``pool`` as an odd int of at least 1."""
    accepted = "an odd integer of at least 1"
    number = as_int(pool, "pool", accepted)
    if number < 1 or number % 2 == 0:
        raise ValueError(f"pool must be {accepted}, got {number}")
    return number
