"""The learned parts of the stem: of colours, and of packets of one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.colour import LUMA
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.selection import octaves
from dtwpt.packets import PacketBank

__all__ = ["COLOURS", "ColourMix", "PacketMixing"]

#: What becomes of the input's channels.
COLOURS = ("luma", "mix", "none")


class ColourMix(nn.Module):
    """Channels of an image to those that are transformed.

    Parameters
    ----------
    in_channels : int
    colour : {"luma", "mix", "none"}
        "luma": one channel, 0.299 red + 0.587 green + 0.114 blue; one input channel is taken as it
        is. "mix": one channel with learned weights, at first those of luma, or the mean if
        there are not three input channels. "none": all channels, each on its own.

    Raises
    ------
    ValueError
        If ``colour`` is unknown, or "luma" of neither three channels nor one.
    """

    weight: nn.Parameter | None

    def __init__(self, in_channels: int, colour: str) -> None:
        super().__init__()
        if colour not in COLOURS:
            raise ValueError(f"unknown colour {colour!r}; known: {', '.join(COLOURS)}")
        if colour == "luma" and in_channels not in (1, 3):
            raise ValueError(
                f'colour "luma" is for 3 channels (or 1), got {in_channels}: use "mix" or "none"'
            )
        self.in_channels, self.colour = in_channels, colour
        self.out_channels = in_channels if colour == "none" else 1
        #: Weights of a fixed mix, and those that a learned one begins with.
        self.start = LUMA if in_channels == 3 else (1 / in_channels,) * in_channels
        self.weight = nn.Parameter(torch.empty(in_channels)) if colour == "mix" else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set learned weights to those of luma, or of the mean."""
        if self.weight is not None:
            self.weight.copy_(torch.tensor(self.start))

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels to transform: (N, in_channels, H, W) to (N, out_channels, H, W)."""
        if self.out_channels == self.in_channels and self.weight is None:
            return x
        # In the precision of the transform: what is rounded here, a band-pass would amplify.
        exact = torch.promote_types(x.dtype, torch.float32)
        weight: Any = self.start
        if self.weight is not None:
            exact = torch.promote_types(exact, self.weight.dtype)
            weight = self.weight.to(exact).unbind()
        x = x.to(exact)
        out: Tensor = x[:, :1] * weight[0]
        for channel in range(1, self.in_channels):
            out = out + x[:, channel : channel + 1] * weight[channel]
        return out

    def matrix(self) -> Tensor:
        """Return the weights as a matrix, (out_channels, in_channels)."""
        if self.weight is not None:
            return self.weight[None]
        return torch.eye(self.in_channels) if self.out_channels > 1 else torch.tensor([self.start])

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        learned = ", learned" if self.colour == "mix" else ""
        return f"{self.in_channels}, {self.out_channels}, colour={self.colour!r}{learned}"


class PacketMixing(nn.Module):
    """Channels that are each a combination of the packets of one scale.

    The weights are real and the same for real and imaginary part, so that what they make of
    analytic packets is analytic. Combinations do not reach over scales: a sum of packets of
    neighbouring frequencies is still a Gabor-like filter.

    Parameters
    ----------
    bank : PacketBank
    packets : ndarray of int
        Rows of ``bank.atoms()``, K of them.
    in_channels : int
        Channels of the image, each with all K packets; combined freely.
    out_channels : int
        Shared out over the scales (octaves of frequency) in proportion to their packets.

    Attributes
    ----------
    weight : ParameterList
        For each scale, from low to high: (out, in_channels * packets). At first each channel
        stands for one packet, with random and much smaller shares of its neighbours in frequency.
    channels : list of int
        Channels of each scale.
    packets : ndarray of int
        The packets scale by scale, as they are to be given.
    """

    def __init__(
        self, bank: PacketBank, packets: NDArray[np.intp], in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        scales = octaves(packets, bank)
        self.packets = packets[np.concatenate(scales)]
        self.sizes = [scale.size for scale in scales]
        self.channels = _shared_out(out_channels, np.array(self.sizes))
        self.in_channels, self.count, self.out_channels = in_channels, packets.size, out_channels
        atoms = bank.atoms()
        self._atoms = [atoms[packets[scale]] for scale in scales]
        self._cell = np.pi / 2**bank.depth
        self.weight = nn.ParameterList(
            nn.Parameter(torch.empty(channels, in_channels * size))
            for size, channels in zip(self.sizes, self.channels, strict=True)
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for weight, atoms in zip(self.weight, self._atoms, strict=True):
            weight.copy_(_first_weights(atoms, len(weight), self.in_channels, self._cell))

    def forward(self, z: Tensor) -> Tensor:
        """Combine (N, in_channels, K, H', W') to (N, out_channels, H', W')."""
        weight = self.matrix().to(z.dtype)
        with full_dtype(z):
            return functional.conv2d(z.flatten(1, 2), weight[:, :, None, None])

    def matrix(self) -> Tensor:
        """Return all weights, (out_channels, in_channels * K); zero where scales differ."""
        rows, before = [], 0
        for weight, size in zip(self.weight, self.sizes, strict=True):
            by_colour = weight.unflatten(1, (self.in_channels, size))
            rows.append(functional.pad(by_colour, (before, self.count - before - size)))
            before += size
        return torch.cat(rows).flatten(1)

    def penalty(self) -> Tensor:
        """Return the sum over channels of l1 norm / l-infinity norm of the weights, minus 1.

        Zero if each channel selects one packet.
        """
        total: Tensor = self.weight[0].new_zeros(())
        for weight in self.weight:
            size = weight.abs()
            largest = size.amax(1)
            # A channel without weights selects nothing, and has no direction to go.
            blank = largest == 0
            ratio = size.sum(1) / torch.where(blank, 1.0, largest) - 1
            total = total + torch.where(blank, 0.0, ratio).sum()
        return total

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        shares = ", ".join(
            f"{self.in_channels * size} -> {channels}"
            for size, channels in zip(self.sizes, self.channels, strict=True)
        )
        return f"scales: {shares}"


def _shared_out(total: int, sizes: NDArray[Any]) -> list[int]:
    """Return whole shares of ``total`` in proportion to ``sizes``, the largest remainders first."""
    exact = total * sizes / sizes.sum()
    shares = np.floor(exact).astype(int)
    most = np.argsort(shares - exact, kind="stable")[: total - shares.sum()]
    shares[most] += 1
    return [int(share) for share in shares]


def _first_weights(atoms: np.ndarray, channels: int, in_channels: int, cell: float) -> Tensor:
    """Return weights of shape (channels, in_channels * packets), rows of unit norm."""
    theta = np.stack([atoms["theta_y"], atoms["theta_x"]], 1)
    distance = np.linalg.norm(theta[:, None] - theta, axis=2) / cell
    chosen = np.arange(channels)
    # All of them in turn, or some of them, spread over the plane.
    chosen = chosen % len(atoms) if channels > len(atoms) else chosen * len(atoms) // channels
    distance = np.tile(distance[chosen], in_channels)
    # The chosen packet prevails, of all colours alike; its neighbours have small random shares.
    own, near = torch.from_numpy(distance == 0), torch.from_numpy(np.exp(-2 * distance**2))
    weight = 0.3 * torch.randn(near.shape, dtype=torch.float64, device="cpu") * near
    weight[own] = 1.0
    norm: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / norm
