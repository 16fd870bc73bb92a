"""Polyphase components of maps: which to keep, how to take one, how to put it back.

Phase k of maps x at stride s are ``x[:, :, i::s, j::s]`` with ``k = s * i + j``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["SELECTIONS", "Select", "as_select", "phases", "put_phase", "selected", "take_phase"]

#: What selects a phase: a name, or a function from phases (N, s * s, C, h, w) to scores (N, s * s).
Select: TypeAlias = "str | Callable[[Tensor], Tensor]"

#: Names of norms that select a phase; "min": the phase of the smallest norm.
SELECTIONS = ("l1", "l2", "linf", "l1min", "l2min")


def as_select(select: Any) -> Select:
    """Return ``select`` if it names a norm or is a function."""
    if callable(select) or (isinstance(select, str) and select in SELECTIONS):
        chosen: Select = select
        return chosen
    raise ValueError(f"select must be one of {', '.join(SELECTIONS)} or a function, got {select!r}")


def phases(x: Tensor, stride: int) -> Tensor:
    """Return the phases of maps, shape (N, s * s, C, H / s, W / s)."""
    n, channels, height, width = x.shape
    split = x.reshape(n, channels, height // stride, stride, width // stride, stride)
    return split.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)


def selected(x: Tensor, stride: int, select: Select) -> Tensor:
    """Return which phase of each image is selected, int64 of shape (N,).

    Norms are over all channels and positions of one image, in float32, or float64 of float64 maps.
    """
    full = x.to(torch.promote_types(x.dtype, torch.float32))
    if not isinstance(select, str):
        return select(phases(full, stride)).argmax(1)
    n, _, height, width = x.shape
    sizes = (n, height // stride, stride, width // stride, stride)
    # Over channels first: what is split into phases is then one map.
    if select == "linf":
        scores = full.abs().amax(1).reshape(sizes).amax((1, 3))
    else:
        powers = full.abs() if select.startswith("l1") else full.square()
        scores = powers.sum(1).reshape(sizes).sum((1, 3))
    if select.endswith("min"):
        scores = -scores
    return scores.flatten(1).argmax(1)


def take_phase(x: Tensor, phase: Tensor, stride: int) -> Tensor:
    """Return one phase of each image, or a weighted sum of its phases.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    phase : Tensor
        Which phase, int64 of shape (N,), or weights of all, floating-point of shape (N, s * s).
    stride : int

    Returns
    -------
    Tensor, shape (N, C, H / s, W / s)
    """
    n, channels, height, width = x.shape
    split = x.reshape(n, channels, height // stride, stride, width // stride, stride)
    if phase.is_floating_point():
        weights = phase.to(x.dtype).reshape(n, 1, 1, stride, 1, stride)
        return (split * weights).sum((3, 5))
    row, column = (
        part.reshape(n, 1, 1, 1, 1, 1)
        for part in (torch.div(phase, stride, rounding_mode="floor"), phase % stride)
    )
    rows = split.gather(3, row.expand(-1, channels, height // stride, 1, width // stride, stride))
    index = column.expand(-1, channels, height // stride, 1, width // stride, 1)
    return rows.gather(5, index)[:, :, :, 0, :, 0]


def put_phase(x: Tensor, phase: Tensor, stride: int) -> Tensor:
    """Return maps that have ``x`` at one phase and zeros elsewhere, or ``x`` times its weight.

    The adjoint of :func:`take_phase`, of which ``phase`` and ``stride`` are.
    """
    n, channels, height, width = x.shape
    if phase.is_floating_point():
        weights = phase.to(x.dtype)
    else:
        numbers = torch.arange(stride**2, device=x.device)
        weights = (phase[:, None] == numbers).to(x.dtype)
    spread = x[:, :, :, None, :, None] * weights.reshape(n, 1, 1, stride, 1, stride)
    return spread.reshape(n, channels, height * stride, width * stride)
