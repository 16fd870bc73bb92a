"""The learned parts of the stem: of colours, and of packets of one group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.colour import LUMA
from dtwpt.nn.groups import Group
from dtwpt.nn.precision import full_dtype
from dtwpt.packets import PacketBank

__all__ = ["COLOURS", "ColourMix", "PacketMixing"]

#: Treatment of the input's channels.
COLOURS = ("luma", "mix", "rank1", "none")


class ColourMix(nn.Module):
    """Mixing of image channels before the transform.

    Parameters
    ----------
    in_channels : int
    colour : {"luma", "mix", "rank1", "none"} or sequence of float
        "luma": one channel, 0.299 red + 0.587 green + 0.114 blue; a single input channel is used
        unchanged. "mix": one channel with learned weights, at first those of luma, or the mean if
        there are not three input channels. Numbers: the same, at first these. "rank1" and "none":
        all channels, each on its own, for :class:`PacketMixing` to combine.

    Raises
    ------
    TypeError, ValueError
        If ``colour`` is invalid, or "luma" with neither three channels nor one.
    """

    weight: nn.Parameter | None

    def __init__(self, in_channels: int, colour: str | Sequence[float]) -> None:
        super().__init__()
        #: Weights of a fixed mix, or initial weights of a learned one.
        self.start = LUMA if in_channels == 3 else (1 / in_channels,) * in_channels
        if not isinstance(colour, str):
            self.start = _as_weights(colour, in_channels)
            colour = "mix"
        if colour not in COLOURS:
            raise ValueError(f"unknown colour {colour!r}; known: {', '.join(COLOURS)}")
        if colour == "luma" and in_channels not in (1, 3):
            raise ValueError(
                f'colour "luma" is for 3 channels (or 1), got {in_channels}: use "mix" or "none"'
            )
        self.in_channels, self.colour = in_channels, colour
        self.out_channels = in_channels if colour in ("rank1", "none") else 1
        self.weight = nn.Parameter(torch.empty(in_channels)) if colour == "mix" else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset learned weights to their initial values."""
        if self.weight is not None:
            self.weight.copy_(torch.tensor(self.start))

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels to transform: (N, in_channels, H, W) to (N, out_channels, H, W)."""
        if self.out_channels == self.in_channels and self.weight is None:
            return x
        # In the precision of the transform: a band-pass would amplify rounding errors.
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
    """Channels that are each a combination of the packets of one group.

    The weights are real and the same for real and imaginary part, so that combinations of analytic
    packets are analytic. A channel of a single packet is that packet times a number: as Gabor-like
    as the packet. Sums of packets are less so, the wider their group.

    Parameters
    ----------
    bank : PacketBank
    groups : sequence of Group
        Sorted by scale. Groups of one shape that follow one another share a parameter.
    in_channels : int
        Channels of the image, each with all packets.
    rank1 : bool, default: False
        Whether a channel combines colours with the same weights for all its packets, ``colour``,
        of shape (out_channels, in_channels). Otherwise it combines all of them freely.

    Attributes
    ----------
    weight : ParameterList
        For each run of groups of one shape and scale: (groups, channels of each, m), m being
        packets of each, times ``in_channels`` unless ``rank1``. At first each channel stands for
        one packet, with random and much smaller shares of its neighbours in frequency.
    colour : Parameter or None
    channels : list of int
        Channels of each scale, from low to high.
    packets : ndarray of int
        The packets group by group, in the expected order of the input: K rows of ``bank.atoms()``.
    """

    colour: nn.Parameter | None

    def __init__(
        self, bank: PacketBank, groups: Sequence[Group], in_channels: int, rank1: bool = False
    ) -> None:
        super().__init__()
        self.groups, self.in_channels = tuple(groups), in_channels
        self.packets = np.array([packet for group in groups for packet in group.packets])
        self.out_channels = sum(group.channels for group in groups)
        scales = range(1 + max(group.scale for group in groups))
        self.channels = [sum(g.channels for g in groups if g.scale == scale) for scale in scales]
        self.rank1 = rank1 and in_channels > 1
        self._runs = [
            list(run)
            for _, run in groupby(self.groups, lambda g: (g.scale, len(g.packets), g.channels))
        ]
        #: Numbers (packets, channels of each) of adjacent groups; used in :attr:`single`.
        self.repeats = [
            (len(list(run)), channels)
            for channels, run in groupby(self.groups, lambda group: group.channels)
        ]
        copies = 1 if self.rank1 else in_channels
        self.weight = _Weights(bank, self._runs, copies)
        self.colour = (
            nn.Parameter(torch.empty(self.out_channels, in_channels)) if self.rank1 else None
        )
        self.reset_parameters()

    @property
    def single(self) -> bool:
        """Whether each channel is a packet of one image channel times a number."""
        return self.in_channels == 1 and len(self.packets) == len(self.groups)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise the weights at random."""
        self.weight.reset_parameters()
        if self.colour is not None:
            nn.init.constant_(self.colour, self.in_channels**-0.5)

    def forward(self, z: Tensor) -> Tensor:
        """Combine (N, in_channels, K, H', W') to (N, out_channels, H', W')."""
        parts, before = [], 0
        with full_dtype(z):
            for weight, run in zip(self._weights(), self._runs, strict=True):
                count, size = len(run), len(run[0].packets)
                # Group by group, all colours of one side by side.
                groups = torch.split(z[:, :, before : before + count * size], size, 2)
                own = torch.cat([_side_by_side(group) for group in groups], 1)
                kernels = weight.to(z.dtype).flatten(0, 1)[:, :, None, None]
                parts.append(functional.conv2d(own, kernels, groups=count))
                before += count * size
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _weights(self) -> Iterator[Tensor]:
        """Yield the weights of each run, (groups, channels of each, in_channels * packets)."""
        before = 0
        for weight in self.weight:
            if self.colour is None:
                yield weight
                continue
            channels = weight.shape[0] * weight.shape[1]
            colour = torch.unflatten(self.colour[before : before + channels], 0, weight.shape[:2])
            yield (colour[..., None] * weight[:, :, None]).flatten(2)
            before += channels

    def matrix(self) -> Tensor:
        """Return all weights, (out_channels, in_channels * K); zero where groups differ."""
        rows, before, total = [], 0, len(self.packets)
        for weight, run in zip(self._weights(), self._runs, strict=True):
            count, _channels, _ = weight.shape
            size = len(run[0].packets)
            by_colour = torch.unflatten(weight, 2, (-1, size))
            # Group by group along a diagonal.
            apart = torch.eye(count, dtype=weight.dtype, device=weight.device)
            block = by_colour[:, :, :, None] * apart[:, None, None, :, None]
            block = block.flatten(3).flatten(0, 1)
            rows.append(functional.pad(block, (before, total - before - count * size)))
            before += count * size
        return torch.cat(rows).flatten(1)

    def factors(self) -> Tensor:
        """Return the weight of each channel where each has one, (out_channels,)."""
        return torch.cat([weight.flatten() for weight in self.weight])

    def spread(self, values: Tensor) -> Tensor:
        """Return the value of each channel's packet, (K,) to (out_channels,), in `single`."""
        parts = torch.split(values, [count for count, _ in self.repeats])
        return torch.cat(
            [
                part[:, None].expand(-1, channels).flatten()
                for part, (_, channels) in zip(parts, self.repeats, strict=True)
            ]
        )

    def penalty(self, factors: Sequence[float] | None = None) -> Tensor:
        """Return the sum over channels of l1 norm / l-infinity norm of the weights, minus 1.

        Norms over the packets; a packet of several colours counts by the root of the sum of its
        squares. Zero if each channel selects one packet.

        Parameters
        ----------
        factors : sequence of float, optional
            One for each scale, from low to high. Default: 1.
        """
        factors = [1.0] * len(self.channels) if factors is None else list(factors)
        if len(factors) != len(self.channels):
            raise ValueError(
                f"factors must have one number for each of {len(self.channels)} scales, "
                f"got {len(factors)}"
            )
        total: Tensor = self.weight[0].new_zeros(())
        for weight, run in zip(self.weight, self._runs, strict=True):
            by_colour = weight.unflatten(2, (-1, len(run[0].packets)))
            size = torch.linalg.vector_norm(by_colour, dim=2)
            largest = size.amax(2)
            # A channel with zero weights selects nothing, and has no gradient.
            blank = largest == 0
            ratio = size.sum(2) / torch.where(blank, 1.0, largest) - 1
            total = total + factors[run[0].scale] * torch.where(blank, 0.0, ratio).sum()
        return total

    def gradient_norms(self) -> Tensor:
        """Return the largest absolute derivative of the weights in each scale, (scales,).

        From the last call of ``backward``; 0 where there was none.
        """
        found: Tensor = self.weight[0].new_zeros(len(self.channels))
        for weight, run in zip(self.weight, self._runs, strict=True):
            if weight.grad is not None:
                scale = run[0].scale
                found[scale] = torch.maximum(found[scale], weight.grad.abs().max())
        return found.detach()

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        shares = ", ".join(
            f"{len(run)} x ({len(run[0].packets)} -> {run[0].channels})" for run in self._runs
        )
        return f"groups: {shares}" + (", rank1" if self.rank1 else "")


class _Weights(nn.ParameterList):
    """Weights of each run of groups. FSDP reinitialises them on their own (meta device)."""

    def __init__(self, bank: PacketBank, runs: Sequence[Sequence[Group]], copies: int) -> None:
        super().__init__(
            nn.Parameter(torch.empty(len(run), run[0].channels, copies * len(run[0].packets)))
            for run in runs
        )
        self._bank, self._runs, self._copies = bank, runs, copies

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for weight, run in zip(self, self._runs, strict=True):
            for values, group in zip(weight, run, strict=True):
                values.copy_(_first_weights(self._bank, group, self._copies))


def _side_by_side(z: Tensor) -> Tensor:
    """Return (N, C, K, H', W') as (N, C K, H', W')."""
    # To flatten an axis of one, exporters have to know that maps have more than one row.
    if z.shape[1] == 1:
        return z[:, 0]
    return z[:, :, 0] if z.shape[2] == 1 else z.flatten(1, 2)


def _as_weights(colour: Any, in_channels: int) -> tuple[float, ...]:
    accepted = f"{', '.join(COLOURS)} or {in_channels} finite numbers"
    try:
        start = tuple(float(weight) for weight in colour)
    except (TypeError, ValueError):
        raise TypeError(f"colour must be {accepted}, got {colour!r}") from None
    if len(start) != in_channels or not np.isfinite(start).all():
        raise ValueError(f"colour must be {accepted}, got {start}")
    return start


def _first_weights(bank: PacketBank, group: Group, copies: int) -> Tensor:
    """Return weights of shape (channels, copies * packets), rows of unit norm."""
    atoms: NDArray[Any] = bank.atoms()[list(group.packets)]
    theta = np.stack([atoms["theta_y"], atoms["theta_x"]], 1)
    distance = np.linalg.norm(theta[:, None] - theta, axis=2) * 2**bank.depth / np.pi
    order = np.arange(group.channels)
    # Each in turn, or a selection spread over the group.
    few = group.channels <= len(atoms)
    chosen = order * len(atoms) // group.channels if few else order % len(atoms)
    distance = np.tile(distance[chosen], copies)
    # The chosen packet dominates, equally for all colours; its neighbours have small random shares.
    own, near = torch.from_numpy(distance == 0), torch.from_numpy(np.exp(-2 * distance**2))
    weight = 0.3 * torch.randn(near.shape, dtype=torch.float64, device="cpu") * near
    # Real parts of opposite sign have different maxima, so channels of one packet start with both
    # signs.
    sign = torch.from_numpy(1.0 - 2.0 * (order // len(atoms) % 2))
    weight = torch.where(own, sign[:, None], weight)
    norm: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / norm
