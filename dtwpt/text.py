"""Formatting of values in messages."""

from __future__ import annotations

from typing import Any

# Longest value that a message shows, characters; of a longer one it shows the type.
_LONGEST = 80


def shown(value: Any) -> str:
    """Describe a given value for a message: one short line, never an array."""
    shape = getattr(value, "shape", None)
    if shape is not None and shape != ():
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    if len(text) <= _LONGEST and text.isprintable():
        return text
    try:
        return f"{type(value).__name__} of length {len(value)}"
    except TypeError:
        return f"an object of type {type(value).__name__}"
