"""The learned parts of the stem: of colours, and of packets of one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.colour import LUMA
from dtwpt.nn.buffers import ExactBuffers
from dtwpt.nn.selection import octaves
from dtwpt.packets import PacketBank

__all__ = ["COLOURS", "ColourMix", "PacketMixing"]

#: What becomes of the input's channels.
COLOURS = ("luma", "mix", "none")


class ColourMix(ExactBuffers):
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

    weight: Tensor | None

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
        self._start = np.array(LUMA if in_channels == 3 else [1 / in_channels] * in_channels)
        if colour == "luma" and in_channels == 3:
            self.register_exact("weight", self._start)
        elif colour == "mix":
            self.weight = nn.Parameter(torch.empty(in_channels))
            self.reset_parameters()
        else:
            self.weight = None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set learned weights to those of luma, or of the mean."""
        if isinstance(self.weight, nn.Parameter):
            self.weight.copy_(torch.from_numpy(self._start))

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels to transform: (N, in_channels, H, W) to (N, out_channels, H, W)."""
        if self.weight is None:
            return x
        # In the precision of the transform: what is rounded here, a band-pass would amplify.
        exact = torch.promote_types(torch.promote_types(x.dtype, torch.float32), self.weight.dtype)
        weight = self.weight.to(exact)
        x = x.to(exact)
        out = x[:, :1] * weight[0]
        for channel in range(1, self.in_channels):
            out = torch.addcmul(out, x[:, channel : channel + 1], weight[channel])
        return out

    def matrix(self) -> Tensor:
        """Return the weights as a matrix, (out_channels, in_channels)."""
        if self.weight is None:
            return torch.eye(self.in_channels)
        return self.weight[None]

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        learned = ", learned" if self.colour == "mix" else ""
        return f"{self.in_channels}, {self.out_channels}, colour={self.colour!r}{learned}"


class PacketMixing(ExactBuffers):
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
    """

    places: Tensor

    def __init__(
        self, bank: PacketBank, packets: NDArray[np.intp], in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.scales = octaves(packets, bank)
        sizes = np.array([scale.size for scale in self.scales])
        self.channels = _shared_out(out_channels, sizes)
        self.in_channels, self.count, self.out_channels = in_channels, packets.size, out_channels
        self._atoms = bank.atoms()[packets]
        self._cell = np.pi / 2**bank.depth
        self.weight = nn.ParameterList(
            nn.Parameter(torch.empty(channels, in_channels * scale.size))
            for scale, channels in zip(self.scales, self.channels, strict=True)
        )
        self.reset_parameters()
        # Where the inputs stand in the scales one after another.
        offset = np.arange(in_channels)[:, None] * packets.size
        order = np.concatenate([(offset + scale).ravel() for scale in self.scales])
        self.register_exact("places", np.argsort(order).astype(np.int64))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for weight, scale in zip(self.weight, self.scales, strict=True):
            weight.copy_(
                _first_weights(self._atoms[scale], len(weight), self.in_channels, self._cell)
            )

    def forward(self, z: Tensor) -> Tensor:
        """Combine (N, in_channels, K, H', W') to (N, out_channels, H', W')."""
        weight = self.matrix().to(z.dtype)
        return functional.conv2d(z.flatten(1, 2), weight[:, :, None, None])

    def matrix(self) -> Tensor:
        """Return all weights, (out_channels, in_channels * K); zero where scales differ."""
        parts, before = [], 0
        total = self.in_channels * self.count
        for weight in self.weight:
            width = weight.shape[1]
            parts.append(functional.pad(weight, (before, total - before - width)))
            before += width
        return torch.cat(parts).index_select(1, self.places)

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
            f"{self.in_channels * scale.size} -> {channels}"
            for scale, channels in zip(self.scales, self.channels, strict=True)
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
