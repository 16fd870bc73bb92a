"""Poolings that are stable under shifts, published cures side by side."""

from dtwpt.nn.pooling.blur import BlurPool2d
from dtwpt.nn.pooling.polyphase import PolyphasePool2d

__all__ = ["BlurPool2d", "PolyphasePool2d"]
