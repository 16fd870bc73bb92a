"""First layers of a network: wavelet packets beside ordinary convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dtwpt.checks import as_count, as_depth, as_int
from dtwpt.engine import torch_autograd
from dtwpt.engine.spec import Kind
from dtwpt.nn.adaptive import blurred_max_pool
from dtwpt.nn.groups import Groups, as_groups
from dtwpt.nn.learned import LearnedFilters
from dtwpt.nn.mixing import ColourMix, PacketMixing
from dtwpt.nn.norm import EnergyNorm2d
from dtwpt.nn.selection import Packets, describe_packets
from dtwpt.nn.symbolic import leaf
from dtwpt.nn.windows import window_count
from dtwpt.packets import PacketBank
from dtwpt.transform import as_analysis
from dtwpt.wavelets import Wavelet

__all__ = ["WaveletStem"]

# Maximum depth: beyond it, filters are longer than most images, and the matrix of packets is huge.
_DEEPEST = 5
_OPERATORS = ("cmod", "rmax")
# Side of the max pooling of the real part.
_POOL = 3
_NORMS = ("energy", "batch", "none")


class WaveletStem(nn.Module):
    r"""The first layers of a convolutional network, in part fixed and stable under shifts.

    In place of convolution, normalisation, ReLU and max pooling: ``out_channels - free_channels``
    wavelet channels, then ``free_channels`` ordinary ones. A wavelet channel is a dual-tree complex
    wavelet packet, or a learned combination of a group of them; with "cmod" it goes through
    stride ``2**depth``, modulus, :class:`EnergyNorm2d` and ReLU, with "rmax" its real part
    through stride ``2**(depth - 1)``, batch normalisation, ReLU and max pooling. These are the
    twin layers of [1]_.

    Parameters
    ----------
    in_channels : int, default: 3
    out_channels : int, default: 64
        Total number of channels.
    depth : int, default: 2
        Stages J of the transform; the stem has stride ``2**depth``.
    operator : {"cmod", "rmax"}
        Complex modulus, or max pooling of the real part.
    free_channels : int, default: 40
        From 0 (a wholly fixed filter bank) to ``out_channels - 1``.
    packets : {"gabor", "all"} or iterable of int
        Packets to use, as for :class:`DTCWPT2d`; ignored if ``groups`` are explicit.
    colour : {"luma", "mix", "rank1", "none"} or sequence of float
        Input of the packets: luma; one channel with learned weights, initially those of luma, or
        the numbers given; all channels, combined after the packets: with "rank1" by each wavelet
        channel with colour weights of its own, with "none" freely together with the packets.
    groups : {"packet", "sector", "octave"} or iterable of (packets, channels)
        Packets that a wavelet channel may combine. "packet": none, each channel is one packet
        times a learned number, so as Gabor-like as the packet. "sector": those of one scale, sign
        and block of orientations. "octave": those of one scale. Or groups of rows of
        ``bank.atoms()``, with the number of channels made of each.
    channels_per_scale : iterable of int, optional
        Wavelet channels of each octave of frequency, from low to high. Default: in proportion to
        the packets.
    norm : {"energy", "batch", "none"} or callable
        "energy": :class:`EnergyNorm2d` of moduli, batch normalisation of real parts and of
        ordinary channels. "batch": batch normalisation of all. "none": a learned bias of each
        channel. A callable gives the module for a number of channels.
    blur : int or "adaptive", optional
        Blur of the pooling: taps of a binomial filter, 1 to 7, or filters predicted from the maps
        (DDAC, [2]_). With "rmax" wavelet channels are blurred too; a modulus has no pooling.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : str, default: "symmetric"
        Padding mode at the borders.
    kernel_size : int, optional
        Side of the ordinary kernels, of stride ``2**(depth - 1)``. Default: 7, from depth 3 on 11.
    padding : int, optional
        Of the ordinary convolutions; default: ``kernel_size // 2``.
    pool_kernel : int, default: 3
        Side of the pooling window of the ordinary channels; the stride is 2.
    pool_padding : int, default: 1
    ceil_mode : bool, default: False
        As in ``MaxPool2d``.
    sync : bool, default: False
        As in :class:`EnergyNorm2d`.
    learn_filters : bool, default: False
        Learn the packets' filters as well, from those of ``wavelet`` on: they stay orthonormal
        (:class:`LearnedFilters`), but need not stay Gabor-like. Computed by plain
        convolutions, which is slower.

    Attributes
    ----------
    colour_mix : ColourMix
    analysis : Analysis
        The transform and the selection of packets.
    filters : LearnedFilters or None
        With ``learn_filters``.
    bank : PacketBank
    packets : ndarray of int
        Rows of ``bank.atoms()``, in the order of ``mixing.groups``.
    mixing : PacketMixing
    norm : Module or None
    bias : Parameter or None, shape (wavelet channels,)
        With ``norm="none"``.
    free : Sequential or None
        Convolution, normalisation and ReLU of the ordinary channels.
    pool : Module

    Notes
    -----
    Shape: (N, in_channels, H, W) to (N, out_channels, H', W'), or both without N. H' and W' are
    those of the ordinary convolution and pooling: ``ceil(H / 2**depth)`` unless the padding
    differs. H and W are at least ``2**depth``.

    The transform is computed in float32, or float64 in a float64 module, under autocast as well.
    A state dict holds what was learned and the statistics, no filter.

    Where each channel is one packet, the packets' moduli are computed once, and a channel is its
    packet's modulus times a number plus another. An :class:`EnergyNorm2d` then only provides these
    numbers and is not called, so hooks on it do not run.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "From CNNs to Shift-Invariant Twin
       Models Based on Complex Wavelets", arXiv 2212.00394.
    .. [2] X. Zou, F. Xiao, Z. Yu, Y. J. Lee, "Delving Deeper into Anti-aliasing in ConvNets", BMVC
       2020.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import WaveletStem
    >>> stem = WaveletStem(operator="cmod", free_channels=40)
    >>> stem(torch.rand(2, 3, 224, 224)).shape
    torch.Size([2, 64, 56, 56])
    >>> stem.resulting_kernel().shape
    torch.Size([64, 3, 42, 42])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        depth: int = 2,
        operator: str = "cmod",
        free_channels: int = 40,
        packets: Packets = "gabor",
        colour: str | Sequence[float] = "luma",
        *,
        groups: Groups = "packet",
        channels_per_scale: Iterable[int] | None = None,
        norm: str | Callable[[int], nn.Module] = "energy",
        blur: int | str | None = None,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        kernel_size: int | None = None,
        padding: int | None = None,
        pool_kernel: int = 3,
        pool_padding: int = 1,
        ceil_mode: bool = False,
        sync: bool = False,
        learn_filters: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = as_count(in_channels, "in_channels")
        self.out_channels = as_count(out_channels, "out_channels")
        self.depth = as_depth(depth)
        if self.depth > _DEEPEST:
            raise ValueError(f"depth of a stem must be at most {_DEEPEST}, got {depth}")
        if operator not in _OPERATORS:
            raise ValueError(f"unknown operator {operator!r}; known: {', '.join(_OPERATORS)}")
        if not callable(norm) and norm not in _NORMS:
            raise ValueError(f"unknown norm {norm!r}; known: {', '.join(_NORMS)}, or a callable")
        accepted = f"an integer from 0 to out_channels - 1 = {out_channels - 1}"
        free_channels = as_int(free_channels, "free_channels", accepted)
        if not 0 <= free_channels < out_channels:
            raise ValueError(f"free_channels must be {accepted}, got {free_channels}")
        self.operator, self.free_channels = operator, free_channels
        #: Of the convolutions, before pooling.
        self.stride = stride = int(2 ** (self.depth - 1))
        if kernel_size is None:
            kernel_size = 7 if self.depth <= 2 else 11
        self.kernel_size = as_count(kernel_size, "kernel_size")
        self.padding = self.kernel_size // 2 if padding is None else _between(padding, "padding")
        self.pool_kernel = as_count(pool_kernel, "pool_kernel")
        self.pool_padding = _between(pool_padding, "pool_padding", self.pool_kernel // 2)
        for name, value in (("ceil_mode", ceil_mode), ("learn_filters", learn_filters)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        self.ceil_mode = ceil_mode

        channels = out_channels - free_channels
        self.colour_mix = ColourMix(in_channels, colour)
        self.bank = PacketBank(self.depth, wavelet)
        self.mixing = PacketMixing(
            self.bank,
            as_groups(groups, packets, self.bank, channels, channels_per_scale),
            self.colour_mix.out_channels,
            self.colour_mix.colour == "rank1",
        )
        self.packets = self.mixing.packets
        real = operator == "rmax"
        self.analysis = as_analysis(
            self.depth,
            wavelet,
            mode,
            pool=_POOL if real else None,
            packets=tuple(self.packets.tolist()),
        )
        self.filters = LearnedFilters(self.bank) if learn_filters else None
        plain = norm == "none"
        ordinary = norm if callable(norm) else nn.BatchNorm2d
        first = partial(EnergyNorm2d, sync=sync) if norm == "energy" and not real else ordinary
        self.norm: nn.Module | None = None if plain else first(channels)
        self.bias = nn.Parameter(torch.empty(channels)) if plain else None
        self.reset_parameters()
        self.free: nn.Sequential | None = None
        if free_channels:
            conv = nn.Conv2d(
                in_channels, free_channels, kernel_size, stride, self.padding, bias=plain
            )
            # As in torchvision's networks.
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            middle = () if plain else (ordinary(free_channels),)
            self.free = nn.Sequential(conv, *middle, nn.ReLU(inplace=True))
        #: Whether wavelet channels go through the pooling of the ordinary ones.
        self._pooled_alike = real and blur is not None
        if self._pooled_alike and pool_kernel > _POOL + 2 * pool_padding:
            raise ValueError(
                f"pool_kernel must be at most {_POOL + 2 * pool_padding} with "
                f"pool_padding={pool_padding} and blur, got {pool_kernel}"
            )
        pooled = out_channels if self._pooled_alike else free_channels
        self.pool = blurred_max_pool(pooled, pool_kernel, pool_padding, ceil_mode, blur)

    def reset_parameters(self) -> None:
        """Set the biases of ``norm="none"`` to zero; its modules have methods of their own."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the channels."""
        self._check(x)
        if x.ndim == 3:
            return self.forward(x[None])[0]
        free = None if self.free is None else self.free(x)
        if self._pooled_alike:
            maps = self._real_maps(x)
            joined: Tensor = self.pool(
                maps.to(x.dtype) if free is None else torch.cat([maps.to(free.dtype), free], 1)
            )
            return joined
        if free is None:
            parts = self._wavelet_parts(x, self.output_size(x.shape[2], x.shape[3]))
            alone = parts[0]
            if len(parts) > 1:
                alone = torch.cat(parts, 1)
            elif alone.requires_grad:
                alone = (
                    alone.clone()
                )  # ReLU saves its output, which a later layer may change in place
            return alone.to(x.dtype)
        free = self.pool(free)
        parts = self._wavelet_parts(x, (free.shape[2], free.shape[3]))
        return torch.cat([*(part.to(free.dtype) for part in parts), free], 1)

    def _wavelet_parts(self, x: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return the wavelet channels, in order, of a size (H', W'); in the transform's dtype."""
        if self.operator == "rmax":
            cells = tuple(self.analysis.cells(n) for n in size)
            return [nn.functional.max_pool2d(self._normed_real(x, cells), _POOL, stride=2)]
        seen = self.colour_mix(x)
        if self.mixing.single and (self.norm is None or type(self.norm) is EnergyNorm2d):
            return self._scaled_moduli(seen, size)
        parts = self._analyse(seen, size, "parts").transpose(1, 2)
        # Real weights, the same for both parts.
        both = self.mixing(parts.flatten(0, 1)).unflatten(0, (-1, 2))
        maps = torch_autograd.modulus(both[:, 0], both[:, 1])
        # Other norms accept only the dtype of the module.
        return [self._normed(maps if type(self.norm) is EnergyNorm2d else maps.to(x.dtype)).relu()]

    def _scaled_moduli(self, seen: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return moduli of single packets times one number for each channel, plus another.

        The modulus of w c is |w| times that of c, so one modulus per packet is enough.
        """
        maps = self._analyse(seen, size, "modulus")[:, 0]
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        scale = self.mixing.factors().to(maps.dtype).abs()
        shift: Tensor | None = self.bias
        if isinstance(self.norm, EnergyNorm2d):
            squares = scale.square()
            gain, shift = self.norm.scale_and_shift(
                maps, lambda energy: self.mixing.spread(energy) * squares.to(energy.dtype)
            )
            scale = scale * gain
        offset = torch.zeros_like(scale) if shift is None else shift.to(maps.dtype)
        parts, packet, channel = [], 0, 0
        for packets, copies in self.mixing.repeats:
            chosen = slice(channel, channel + packets * copies)
            own = maps[:, packet : packet + packets]
            shape: tuple[int, ...] = (-1, 1, 1)
            if copies > 1:
                own, shape = own[:, :, None], (packets, copies, 1, 1)
            scaled = torch.addcmul(offset[chosen].reshape(shape), own, scale[chosen].reshape(shape))
            parts.append(scaled.relu_() if copies == 1 else scaled.relu_().flatten(1, 2))
            packet, channel = packet + packets, chosen.stop
        return parts

    def _analyse(self, x: Tensor, size: tuple[int, ...], kind: Kind) -> Tensor:
        if self.filters is None:
            return torch_autograd.analyse(x, self.analysis, size, kind)
        return self.filters.analyse(x, self.analysis, size, kind)

    def _normed(self, maps: Tensor) -> Tensor:
        if self.norm is not None:
            normed: Tensor = self.norm(maps)
            return normed
        return maps if self.bias is None else maps + self.bias.to(maps.dtype)[:, None, None]

    def _normed_real(self, x: Tensor, cells: tuple[int, ...]) -> Tensor:
        real = self._analyse(self.colour_mix(x), cells, "real")
        return self._normed(self.mixing(real).to(x.dtype)).relu()

    def _real_maps(self, x: Tensor) -> Tensor:
        """Return the real parts at the positions of the ordinary convolution."""
        # Position of the first one among the cells of the analysis.
        first = _POOL // 2 - self.pool_kernel // 2 + self.pool_padding
        cells = tuple(self._convolved(n) + first for n in x.shape[2:])
        return self._normed_real(x, cells)[:, :, first:, first:]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size (H', W') of the channels for an image of (height, width)."""
        down, across = (
            window_count(self._convolved(n), self.pool_kernel, 2, self.pool_padding, self.ceil_mode)
            for n in (height, width)
        )
        return down, across

    def penalty(self, factors: Sequence[float] | None = None) -> Tensor:
        r"""Return the regulariser that makes each wavelet channel select few packets.

        Sum over the wavelet channels of
        :math:`\lambda_s (\|w_c\|_1 / \|w_c\|_\infty - 1)`, s being the scale of channel c and
        :math:`w_c` its weights of the packets (the root of the sum of squares of a packet's weights
        where it has one for each colour); 0 if each channel has one packet. To be added to the
        loss.

        Parameters
        ----------
        factors : sequence of float, optional
            :math:`\lambda_s` of each scale, from low to high frequency. Default: 1.

        Raises
        ------
        ValueError
            If there is not one factor for each scale.
        """
        return self.mixing.penalty(factors)

    def gradient_norms(self) -> Tensor:
        """Return the largest absolute derivative of the loss by the mixing weights of each scale.

        To be read after ``backward`` of a loss without :meth:`penalty`: factors of the penalty
        should be small beside these.

        Returns
        -------
        Tensor, shape (scales,)
            From low to high frequency; 0 where no derivative is known.
        """
        return self.mixing.gradient_norms()

    def resulting_kernel(self) -> Tensor:
        """Return the equivalent convolution kernel of each channel, before modulus or pooling.

        Returns
        -------
        Tensor, complex, shape (out_channels, in_channels, L, L)
            As ``torch.nn.functional.conv2d`` would take it. With "rmax" the layer uses the real
            part. Ordinary kernels are real, at their position relative to the wavelet ones; L is
            the length of the packets, more if the ordinary kernels reach beyond.
        """
        weight = self.mixing.matrix()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))  # complex ones, too
        weight = weight.reshape(self.mixing.out_channels, self.colour_mix.out_channels, -1)
        kernels = self._packet_kernels().to(weight.device, weight.dtype.to_complex())
        colours = self.colour_mix.matrix().to(weight)
        by_colour = torch.einsum("ock,ci->oik", weight, colours).to(kernels.dtype)
        wavelet = torch.einsum("oik,kyx->oiyx", by_colour, kernels)
        if self.free is None:
            return wavelet
        free = self.free.get_parameter("0.weight").to(wavelet.dtype)
        length = wavelet.shape[-1]
        start = (2**self.depth - length) // 2
        stride = self.stride
        free_start = (self.pool_kernel // 2 - self.pool_padding) * stride - self.padding
        first = min(start, free_start)
        last = max(start + length, free_start + self.kernel_size)
        return torch.cat(
            [
                nn.functional.pad(kernel, (begin - first, last - begin - kernel.shape[-1]) * 2)
                for kernel, begin in (
                    (wavelet, start),
                    (free, free_start),
                )
            ]
        )

    def _packet_kernels(self) -> Tensor:
        """Return the kernels of the packets, complex, (K, L, L)."""
        taps = torch.from_numpy(self.analysis.taps)
        if self.filters is not None:
            taps = self.analysis.gain * self.filters()
        filters = torch.complex(*taps.chunk(2))
        atoms = self.bank.atoms()[self.packets]
        rows, columns = (filters[torch.from_numpy(atoms[name].copy())] for name in ("row", "col"))
        mirrored = torch.from_numpy(atoms["sign"] < 0)[:, None].to(filters.device)
        columns = torch.where(mirrored, columns.conj(), columns)
        return rows[:, :, None] * columns[:, None]

    def macs(self, size: tuple[int, int]) -> int:
        """Return the multiply-accumulates of all filters and mixings on an image (H, W)."""
        height, width = size
        out = self.output_size(height, width)
        real = self.operator == "rmax"
        down, across = (self.analysis.cells(n) for n in out) if real else out
        if self.filters is None:
            total: int = self.analysis.macs(size, (down, across), real)
        else:
            total = self.filters.macs(self.analysis, size, (down, across))
        total *= self.colour_mix.out_channels
        if self.colour_mix.weight is not None:
            total += self.in_channels * height * width
        learned = sum(weight.numel() for weight in self.mixing.weight)
        total += learned * down * across * (1 if real or self.mixing.single else 2)
        if self.free is not None:
            down, across = self._convolved(height), self._convolved(width)
            total += self.free.get_parameter("0.weight").numel() * down * across
        return total

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return (
            f"{self.in_channels}, {self.out_channels}, depth={self.depth}, "
            f"operator={self.operator!r}, free_channels={self.free_channels}, "
            f"packets={describe_packets(self.packets, self.bank)}"
        )

    def _convolved(self, n: int) -> int:
        """Output length of the ordinary convolution for n samples."""
        return (n + 2 * self.padding - self.kernel_size) // self.stride + 1

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x must be a tensor of floating-point numbers, got {kind}")
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            channels = self.in_channels
            raise ValueError(
                f"x must have shape (N, {channels}, H, W) or ({channels}, H, W), "
                f"got {tuple(x.shape)}"
            )
        # No condition on a symbolic size, which would specialise a compiled or exported graph.
        if not torch.compiler.is_compiling() and min(x.shape[-2:]) < 2**self.depth:
            raise ValueError(
                f"x must be at least as large as the stride of the stem, {2**self.depth} pixels, "
                f"got {tuple(x.shape[-2:])}"
            )
        if not torch.compiler.is_compiling() and min(self.output_size(*x.shape[-2:])) < 1:
            raise ValueError(
                f"x must be larger than {tuple(x.shape[-2:])} pixels for a kernel of "
                f"{self.kernel_size} with padding {self.padding} and pooling over "
                f"{self.pool_kernel} with padding {self.pool_padding}"
            )
        dtype = self.mixing.weight[0].dtype
        if x.dtype not in (torch.float16, torch.bfloat16, dtype):
            raise TypeError(
                f"x is {x.dtype} and the module {dtype}: convert one of them, "
                f"module.to({x.dtype}) or x.to({dtype})"
            )


def _between(value: Any, name: str, most: int | None = None) -> int:
    accepted = "an integer of at least 0" if most is None else f"an integer from 0 to {most}"
    number = as_int(value, name, accepted)
    if number < 0 or (most is not None and number > most):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number
