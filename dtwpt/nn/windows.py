"""Number of windows of a pooling, with the rounding of its ``ceil_mode``."""

from __future__ import annotations

import torch

__all__ = ["reach_beyond", "window_count"]


def window_count(n: int, window: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Return the output length of a pooling for n samples.

    Numbers may be symbolic sizes of torch.
    """
    reach = n + 2 * padding - window
    if not ceil_mode:
        return reach // stride + 1
    # A last window must begin within the input or the padding before it.
    count: int = torch.sym_min(  # type: ignore[no-untyped-call]
        (reach + stride - 1) // stride + 1, (n + padding + stride - 1) // stride
    )
    return count


def reach_beyond(n: int, window: int, stride: int, padding: int) -> int:
    """Return the positions beyond the padding that the last window needs in ``ceil_mode``."""
    count = window_count(n, window, stride, padding, True)
    missing: int = torch.sym_max(  # type: ignore[no-untyped-call]
        (count - 1) * stride + window - n - 2 * padding, 0
    )
    return missing
