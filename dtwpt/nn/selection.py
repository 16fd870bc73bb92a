"""Selection of packets: :func:`select_packets` and scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_int
from dtwpt.packets import PacketBank

__all__ = ["Packets", "as_packets", "describe_packets", "octaves"]

#: Types of the argument ``packets``.
Packets: TypeAlias = "str | Iterable[int]"


def as_packets(packets: Any, bank: PacketBank, ndim: int = 2) -> NDArray[np.intp]:
    """Return the rows of ``bank.atoms()``, in one dimension the packets, that ``packets`` selects.

    Parameters
    ----------
    packets : {"all", "gabor"} or iterable of int
        "gabor": neither the low-pass one nor those of the last band of an axis.
    bank : PacketBank
    ndim : {1, 2}

    Raises
    ------
    TypeError, ValueError
        If it is of another type, empty, out of range or has a packet twice.
    """
    count = 2**bank.depth
    total = count if ndim == 1 else 2 * count**2
    if isinstance(packets, str):
        if packets == "all":
            return np.arange(total)
        if packets != "gabor":
            raise ValueError(f'packets must be "all", "gabor" or indices, got {packets!r}')
        if ndim == 1:
            chosen = np.arange(1, count - 1)
        else:
            atoms = bank.atoms()
            chosen = np.flatnonzero(~(atoms["boundary"] | atoms["lowpass"]))
        if chosen.size == 0:
            raise ValueError(f'packets: there are no "gabor" packets at depth {bank.depth}')
        return chosen
    accepted = f'"all", "gabor" or integers from 0 to {total - 1}'
    try:
        values = list(packets)
    except TypeError:
        raise TypeError(f"packets must be {accepted}, got {packets!r}") from None
    index = np.array([as_int(value, "packets", accepted) for value in values], dtype=np.intp)
    if index.size == 0:
        raise ValueError(f"packets must be {accepted}, got none")
    if index.min() < 0 or index.max() >= total:
        raise ValueError(f"packets must be {accepted}, got {values}")
    if np.unique(index).size < index.size:
        raise ValueError(f"packets must not repeat, got {values}")
    return index


def describe_packets(packets: NDArray[np.intp], bank: PacketBank, ndim: int = 2) -> str:
    """Return a short description of a selection."""
    total = as_packets("all", bank, ndim).size
    if packets.size == total:
        return f"all {total}"
    if bank.depth > 1 and np.array_equal(np.sort(packets), as_packets("gabor", bank, ndim)):
        return f"gabor ({packets.size} of {total})"
    return f"{packets.size} of {total}"


def octaves(packets: NDArray[np.intp], bank: PacketBank) -> list[NDArray[np.intp]]:
    """Return the indices into ``packets`` of each scale, from low to high.

    A scale is an octave of the larger of the two indices (vertical, horizontal): 1; 2 and 3; 4 to
    7; and so on. The low-pass packet is a scale of its own.
    """
    atoms = bank.atoms()[packets]
    larger = np.maximum(atoms["row"], atoms["col"])
    scale = np.where(larger == 0, -1, np.floor(np.log2(np.maximum(larger, 1)))).astype(int)
    return [np.flatnonzero(scale == value) for value in np.unique(scale)]
