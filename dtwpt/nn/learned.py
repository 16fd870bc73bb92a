"""Packet filters that are learned and stay orthonormal: LearnedFilters."""

from __future__ import annotations

from math import atan2, cos, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.engine import reference, torch_autograd
from dtwpt.engine.spec import Analysis, Kind
from dtwpt.nn.precision import full_dtype
from dtwpt.packets import PacketBank

__all__ = ["LearnedFilters"]


class LearnedFilters(nn.Module):
    r"""Filters of a packet bank as functions of angles.

    An orthonormal pair of 2M taps is a cascade of M rotations with delays between them ([1]_), so
    for any angles each tree is an orthonormal basis and the transform is inverted by its adjoint.
    Every stage has its own angles, for tree a; tree b is the time reverse. The last angle fixes
    their sum at :math:`\pi/4`, so that a high-pass has zero mean.

    Parameters
    ----------
    bank : PacketBank
        Of a q-shift wavelet, the starting point of learning.

    Attributes
    ----------
    turns : Parameter, shape (depth, M - 1)
        Learned angles minus those of the wavelet, initially 0: weight decay leads back to it.

    Raises
    ------
    ValueError
        If tree b of the wavelet is not the time reverse of tree a.

    Notes
    -----
    Packets stay orthonormal, and those with zero mean keep it; they need not stay analytic or
    Gabor-like.

    References
    ----------
    .. [1] P. P. Vaidyanathan, P.-Q. Hoang, "Lattice structures for optimal design and robust
       implementation of two-channel perfect-reconstruction QMF banks", IEEE Transactions on
       Acoustics, Speech and Signal Processing 36 (1988), 81-94.

    Examples
    --------
    >>> from dtwpt import PacketBank
    >>> from dtwpt.nn import LearnedFilters
    >>> filters = LearnedFilters(PacketBank(2, "qshift_a"))
    >>> filters.turns.shape, filters().shape
    (torch.Size([2, 4]), torch.Size([8, 30]))
    """

    def __init__(self, bank: PacketBank) -> None:
        super().__init__()
        low = bank.wavelet.low
        if not np.array_equal(low[1], low[0, ::-1]):
            raise ValueError(
                "filters are learned from a wavelet whose tree b is the time reverse of tree a, "
                f"got {bank.wavelet.name!r}"
            )
        self._bank = bank
        # Plain numbers: no buffer that could be averaged, cast or left uninitialised.
        self._start, self._factors = _angles(low[0]), _factors(bank)
        self.turns = nn.Parameter(torch.empty(bank.depth, len(self._start) - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the filters to those of the wavelet."""
        nn.init.zeros_(self.turns)

    def forward(self) -> Tensor:
        """Return the packets of tree 1, then of tree 2, (2 P, L), in at least float32."""
        turns = self.turns.to(torch.promote_types(self.turns.dtype, torch.float32))
        start = turns.new_tensor(self._start)
        angles = torch.cat([start[:-1] + turns, start[-1] - turns.sum(1, keepdim=True)], 1)
        with full_dtype(turns):
            trees = _first_stage(*_pair(angles[0]))
            for stage in range(1, self._bank.depth):
                trees = _next_stage(trees, stage, *_pair(angles[stage]))
        trees = trees[:, torch.from_numpy(_path(self._bank.depth)).to(trees.device)]
        return (trees * torch.from_numpy(self._factors).to(trees)).flatten(0, 1)

    def analyse(self, x: Tensor, analysis: Analysis, size: tuple[int, ...], kind: Kind) -> Tensor:
        """Analyse (..., H, W) with the present filters, as ``analysis`` does with its own.

        Parameters
        ----------
        x : Tensor, shape (..., H, W)
        analysis : Analysis
            Of the same depth.
        size : (int, int)
        kind : {"parts", "real", "modulus"}
        """
        images = x.reshape(-1, *x.shape[-2:])
        images = images.to(torch.promote_types(x.dtype, torch.float32))
        taps = analysis.gain * self().to(images.dtype)
        axes = analysis.axes(tuple(x.shape[-2:]), size, kind)
        wanted: Kind = "parts" if kind == "modulus" else kind
        with full_dtype(images):
            out: Tensor = reference.analyse(images, analysis, axes, wanted, taps)
        if kind == "modulus":
            out = torch_autograd.modulus(out[:, 0], out[:, 1])
        out = out.reshape(*x.shape[:-2], *out.shape[1:])
        return out if kind == "parts" else out.to(x.dtype)

    def macs(self, analysis: Analysis, shape: tuple[int, int], size: tuple[int, int]) -> int:
        """Return the multiply-accumulates for one image of a shape, for maps of a size."""
        filters = 2 * analysis.count
        return filters * analysis.length * size[1] * (shape[0] + filters * size[0])

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        depth, learned = self.turns.shape
        return f"depth={depth}, {learned} angles a stage"


def _angles(low: NDArray[np.float64]) -> list[float]:
    """Return the angles of an orthonormal low-pass, the first rotation first."""
    high = -low[::-1] * np.resize([1.0, -1.0], low.size)
    found = []
    while low.size > 2:
        # The rotation that leaves the low-pass without its last two taps.
        last = np.hypot(low[-2:], high[-2:]).argmax() - 2
        angle = atan2(low[last], high[last])
        rotated = cos(angle) * low - sin(angle) * high
        low, high = rotated[:-2], (sin(angle) * low + cos(angle) * high)[2:]
        found.append(angle)
    found.append(atan2(low[1], low[0]))
    return found[::-1]


def _pair(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low-pass and the high-pass for given angles."""
    cosine, sine = angles.cos(), angles.sin()
    low, high = torch.stack([cosine[0], sine[0]]), torch.stack([-sine[0], cosine[0]])
    for c, s in zip(cosine[1:], sine[1:], strict=True):
        kept, delayed = functional.pad(low, (0, 2)), functional.pad(high, (2, 0))
        low, high = c * kept + s * delayed, c * delayed - s * kept
    return low, -high


def _first_stage(low: Tensor, high: Tensor) -> Tensor:
    """Return the first filters of both trees, (2, 2, taps + 2)."""
    one = functional.pad(low, (0, 2)), functional.pad(high, (2, 0))
    two = functional.pad(low, (1, 1)), -functional.pad(high, (1, 1))
    return torch.stack([torch.stack(one), torch.stack(two)])


def _next_stage(filters: Tensor, stage: int, low: Tensor, high: Tensor) -> Tensor:
    """Return the filters of the next stage, (2, 2 nodes, L), from those of one, (2, nodes, L)."""
    pair = torch.stack([low, high])
    both = torch.stack([pair, pair.flip(1)])
    # As in the fixed cascade: the trees swap below the first high-pass, and have the same filters
    # below a later one.
    nodes = np.arange(2**stage)
    swapped, alike = nodes >> (stage - 1) == 1, nodes % 2 ** (stage - 1) != 0
    own = np.stack([swapped & ~alike, ~swapped & ~alike]).astype(int)
    taps = both[torch.from_numpy(own).to(low.device)]
    reach = 2**stage * (low.numel() - 1)
    shifted = torch.stack(
        [functional.pad(filters, (k, reach - k)) for k in range(0, reach + 1, 2**stage)]
    )
    products = taps.movedim(3, 0)[..., None] * shifted[:, :, :, None]
    return products.sum(0).flatten(1, 2)


def _path(depth: int) -> NDArray[np.intp]:
    """Return the node of each packet, in order of frequency."""
    packets = np.arange(2**depth, dtype=np.intp)
    path: NDArray[np.intp] = packets ^ (packets >> 1)
    return path


def _factors(bank: PacketBank) -> NDArray[np.float64]:
    """Return the factors, (2, P, 1), from the outputs of the cascade to the packets."""
    low, high = (torch.from_numpy(taps[0].copy()) for taps in (bank.wavelet.low, bank.wavelet.high))
    trees = _first_stage(low, high)
    for stage in range(1, bank.depth):
        trees = _next_stage(trees, stage, low, high)
    packets = trees.numpy()[:, _path(bank.depth)]
    products = np.stack([packets[0] * bank.filters.real, -packets[1] * bank.filters.imag])
    # Both trees together have unit norm.
    factors: NDArray[np.float64] = 0.5**0.5 * np.sign(products.sum(2))[..., None]
    return factors
