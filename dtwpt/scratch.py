"""Memory that is used again for one array after the other."""

from __future__ import annotations

import math

from dtwpt.arrays import Allocate, Array, empty, is_tensor

__all__ = ["Scratch"]

# Numbers in an array that is kept, at most.
_MOST_NUMBERS = 2**22


class Scratch:
    """Memory for the arrays in between, which are written anew for each piece of the work.

    The system hands out memory a page at a time, at the first touch: arrays of a megabyte that
    are new each time take longer to get than to fill. Large ones are not kept; not for two
    threads at a time.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def named(self, name: str) -> Allocate:
        """Return what allocates arrays that overwrite the last one of that name."""

        def allocate(shape: tuple[int, ...], like: Array) -> Array:
            size = math.prod(shape)
            if size > _MOST_NUMBERS:
                return empty(shape, like)
            kept = self._arrays.get(name)
            if kept is None or kept.shape[0] < size or not _alike(kept, like):
                kept = self._arrays[name] = empty((size,), like)
            return kept[:size].reshape(shape)

        return allocate


def _alike(a: Array, b: Array) -> bool:
    if is_tensor(a) or is_tensor(b):
        return is_tensor(a) and is_tensor(b) and (a.dtype, a.device) == (b.dtype, b.device)
    return bool(a.dtype == b.dtype)
