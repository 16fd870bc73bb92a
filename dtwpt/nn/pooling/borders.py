"""Maps padded beyond their borders, in every mode of the library."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dtwpt.engine.borders import source_index

__all__ = ["padded"]

# torch's own padding modes, and the additional pixels that each needs.
_OF_TORCH = {"reflect": ("reflect", 1), "periodic": ("circular", 0)}


def padded(x: Tensor, before: tuple[int, int], after: tuple[int, int], mode: str) -> Tensor:
    """Return maps with rows and columns added before and after.

    Parameters
    ----------
    x : Tensor, shape (..., H, W)
    before, after : (int, int)
        Rows and columns to add. They may be more than the maps have.
    mode : str
        One of ``dtwpt.engine.borders.MODES``.

    Returns
    -------
    Tensor, shape (..., H', W')
    """
    sides = (before[1], after[1], before[0], after[0])
    if not any(sides):
        return x
    if mode == "zero":
        return functional.pad(x, sides)
    if mode == "replicate":
        return functional.pad(x, sides, mode="replicate")
    if mode in _OF_TORCH:
        name, more = _OF_TORCH[mode]
        reach = max(*before, *after) + more
        if all(side >= reach for side in x.shape[-2:]):
            return functional.pad(x, sides, mode=name)
    if mode == "symmetric" and all(side >= max(*before, *after) for side in x.shape[-2:]):
        for axis, first, last in ((-2, before[0], after[0]), (-1, before[1], after[1])):
            side = x.shape[axis]
            head, tail = x.narrow(axis, 0, first), x.narrow(axis, side - last, last)
            x = torch.cat([head.flip(axis), x, tail.flip(axis)], axis)
        return x
    for axis, first, last in ((-2, before[0], after[0]), (-1, before[1], after[1])):
        side = x.shape[axis]
        positions = torch.arange(-first, side + last, device=x.device)
        x = x.index_select(axis, source_index(positions, side, mode))
    return x
