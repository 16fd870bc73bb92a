"""The first layers of the papers' twin networks, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np

from dtwpt.packets import PacketBank

__all__ = ["paper_options"]

_WAVELET = "qshift_a"


def paper_options(depth: int, out_channels: int, in_channels: int) -> dict[str, Any]:
    """Return the options of :class:`WaveletStem` that give the twin of a ResNet or of AlexNet.

    Parameters
    ----------
    depth : int
        2 for the stride of a ResNet, 3 for that of AlexNet.
    out_channels : int
        64.
    in_channels : int
        Colour weights start where the papers' do for 3.

    Raises
    ------
    ValueError
        If the papers have no such layer.

    Notes
    -----
    H. Leterme, K. Polisano, V. Perrier, K. Alahari, "From CNNs to Shift-Invariant Twin Models Based
    on Complex Wavelets", arXiv 2212.00394; details not stated there are from the authors' code and
    stored results (github.com/hubert-leterme/wcnn). Packets are qshift_a's with zero padding.

    A ResNet has 24 wavelet channels, of 16 packets on their own, and 40 ordinary ones. AlexNet has
    32 and 32: 6, 18 and 8 in three scales, mixed within sectors of orientation from the second
    scale on.
    """
    if depth not in (2, 3) or out_channels != 64:
        raise ValueError(
            'design="paper" is for first layers of 64 channels with stride 4 (ResNet) or 8 '
            f"(AlexNet), got {out_channels} channels with stride {2**depth}"
        )
    resnet = depth == 2
    colour: Any = (0.9802, 1.3060, 0.7138) if resnet else (1.0036, 1.1630, 0.8334)
    return {
        "free_channels": 40 if resnet else 32,
        "colour": colour if in_channels == 3 else "mix",
        "groups": _resnet() if resnet else _alexnet(),
        "wavelet": _WAVELET,
        "mode": "zero",
    }


def _resnet() -> list[tuple[list[int], int]]:
    low = [(0, 1), (1, 0), (1, 1)]
    chosen = [((s, *place), 2) for s in (-1, 1) for place in low]
    chosen += [((-1, *place), 1) for place in ((0, 2), (1, 2), (2, 0), (2, 1))]
    chosen += [((-1, 2, 2), 2)]
    chosen += [((1, *place), 1) for place in ((1, 2), (0, 2), (2, 1), (2, 0))]
    chosen += [((1, 2, 2), 2)]
    return [(_rows(2, [packet]), channels) for packet, channels in chosen]


def _alexnet() -> list[tuple[list[int], int]]:
    low, high, wide, top = range(2), range(2, 4), range(4), range(4, 8)
    groups = [(_rows(3, [(s, *place)]), 1) for s in (-1, 1) for place in ((0, 1), (1, 0), (1, 1))]
    for sectors, channels in (
        (((low, high), (high, low), (high, high)), 3),
        (((wide, top), (top, wide)), 2),
    ):
        for s in (-1, 1):
            groups += [
                (_rows(3, ((s, *place) for place in product(*sector))), channels)
                for sector in sectors
            ]
    return groups


def _rows(depth: int, packets: Iterable[tuple[int, int, int]]) -> list[int]:
    """Return rows of ``PacketBank.atoms()`` for packets (sign, row, column)."""
    atoms = PacketBank(depth, _WAVELET).atoms()
    return [
        int(np.flatnonzero((atoms["sign"] == s) & (atoms["row"] == r) & (atoms["col"] == c))[0])
        for s, r, c in packets
    ]
