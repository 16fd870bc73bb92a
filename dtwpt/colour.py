"""From colours to brightness: one rule for files, arrays and tensors."""

from __future__ import annotations

__all__ = ["LUMA"]

#: Weights of red, green and blue in luma, ITU-R BT.601, on stored (gamma-coded) values.
LUMA = (0.299, 0.587, 0.114)
