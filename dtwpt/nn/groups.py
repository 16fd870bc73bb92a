"""Groups of packets that the channels of a first layer may mix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_count, as_int
from dtwpt.nn.selection import Packets, as_packets, octaves
from dtwpt.packets import PacketBank

__all__ = ["Group", "Groups", "as_groups"]

#: Types of the argument ``groups``.
Groups: TypeAlias = "str | Iterable[tuple[Iterable[int], int]]"

_KINDS = ("packet", "sector", "octave")
_ACCEPTED = (
    '"packet", "sector", "octave" or pairs (packets, channels) with rows of PacketBank.atoms()'
)


class Group(NamedTuple):
    """Packets that some channels may mix.

    ``packets`` are rows of ``bank.atoms()``, ``channels`` a number, and ``scale`` counts the
    scales of the layer from low to high frequency.
    """

    packets: tuple[int, ...]
    channels: int
    scale: int


def as_groups(
    groups: Any,
    packets: Packets,
    bank: PacketBank,
    out_channels: int,
    channels_per_scale: Any = None,
) -> list[Group]:
    """Return the groups that an argument describes, from low to high frequency.

    Parameters
    ----------
    groups : {"packet", "sector", "octave"} or iterable of (packets, channels)
        "packet": every packet on its own. "sector": packets of one scale, one sign and one block
        of the frequency plane (low rows and high columns; high and low; high and high). "octave":
        packets of one scale. Pairs are taken in the given order, sorted by scale.
    packets : {"gabor", "all"} or iterable of int
        The packets to group; ignored if ``groups`` are pairs.
    bank : PacketBank
    out_channels : int
    channels_per_scale : iterable of int, optional
        Channels of each scale, from low to high. Default: in proportion to the packets.

    Returns
    -------
    list of Group
        Groups without channels are left out. Within a scale, groups with more channels come first.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, packets repeat, or numbers of channels do not add up.
    """
    if not isinstance(groups, str):
        if channels_per_scale is not None:
            raise ValueError("channels_per_scale: explicit groups have their own numbers")
        return _explicit(groups, bank, out_channels)
    if groups not in _KINDS:
        raise ValueError(f"groups must be {_ACCEPTED}, got {groups!r}")
    chosen = as_packets(packets, bank)
    scales = [chosen[places] for places in octaves(chosen, bank)]
    if channels_per_scale is None:
        shares = _shared_out(out_channels, [scale.size for scale in scales])
    else:
        shares = _per_scale(channels_per_scale, len(scales), out_channels)
    found = []
    for number, (scale, share) in enumerate(zip(scales, shares, strict=True)):
        parts = _divided(groups, scale, bank)
        counts = _shared_out(share, [len(part) for part in parts])
        of_scale = [
            Group(part, count, number) for part, count in zip(parts, counts, strict=True) if count
        ]
        # Groups of one shape stand side by side: they are computed together.
        found += sorted(of_scale, key=lambda group: (-group.channels, len(group.packets)))
    return found


def _divided(kind: str, packets: NDArray[np.intp], bank: PacketBank) -> list[tuple[int, ...]]:
    if kind == "octave":
        return [tuple(packets.tolist())]
    if kind == "packet":
        return [(int(packet),) for packet in packets]
    atoms = bank.atoms()[packets]
    # The scale begins at a power of two.
    first = 2 ** int(np.log2(max(1, atoms["row"].max(), atoms["col"].max())))
    keys = list(
        zip(
            atoms["sign"].tolist(),
            (atoms["row"] >= first).tolist(),
            (atoms["col"] >= first).tolist(),
            strict=True,
        )
    )
    sectors = [
        tuple(int(p) for p, own in zip(packets, keys, strict=True) if own == key)
        for key in dict.fromkeys(keys)
    ]
    return sectors


def _explicit(groups: Any, bank: PacketBank, out_channels: int) -> list[Group]:
    try:
        pairs = [(tuple(packets), channels) for packets, channels in groups]
    except (TypeError, ValueError):
        raise TypeError(f"groups must be {_ACCEPTED}, got {groups!r}") from None
    every = as_packets([p for packets, _ in pairs for p in packets], bank)
    counts = [as_count(channels, "channels of groups") for _, channels in pairs]
    if sum(counts) != out_channels:
        raise ValueError(
            f"groups must have as many channels as the layer has wavelet channels, {out_channels}, "
            f"got {sum(counts)}"
        )
    scale_of = {
        int(every[place]): number
        for number, places in enumerate(octaves(every, bank))
        for place in places
    }
    found = []
    for (packets, _), count in zip(pairs, counts, strict=True):
        if not packets:
            raise ValueError("groups must have packets, got an empty group")
        scale = max(scale_of[int(packet)] for packet in packets)
        found.append(Group(tuple(int(packet) for packet in packets), count, scale))
    return sorted(found, key=lambda group: group.scale)


def _per_scale(given: Any, scales: int, out_channels: int) -> list[int]:
    accepted = f"{scales} integers of at least 0 with the sum {out_channels}"
    try:
        counts = [as_int(count, "channels_per_scale", accepted) for count in given]
    except TypeError:
        raise TypeError(f"channels_per_scale must be {accepted}, got {given!r}") from None
    if len(counts) != scales or min(counts) < 0 or sum(counts) != out_channels:
        raise ValueError(f"channels_per_scale must be {accepted}, got {counts}")
    return counts


def _shared_out(total: int, sizes: Sequence[int]) -> list[int]:
    """Return whole shares of ``total`` in proportion to ``sizes``, remainders spread evenly."""
    upto = np.floor(np.cumsum(sizes) * total / sum(sizes) + 0.5).astype(int)
    return [int(share) for share in np.diff(upto, prepend=0)]
