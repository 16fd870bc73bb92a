"""The transform, its inverse and the operators as modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dtwpt.checks import as_depth, as_mode, as_pool, as_stride, as_wavelet
from dtwpt.nn.analysis import PacketAnalysis
from dtwpt.nn.buffers import ExactBuffers
from dtwpt.nn.inverse import packet_synthesis, wavelet_text
from dtwpt.nn.modulus import modulus
from dtwpt.nn.selection import Packets, as_packets, describe_packets
from dtwpt.packets import PacketBank
from dtwpt.wavelets import Wavelet

__all__ = ["CMod2d", "DTCWPT2d", "IDTCWPT2d", "RMax2d"]


class DTCWPT2d(nn.Module):
    """:func:`dtwpt.dtcwpt2` as a module, its packets as channels.

    Parameters
    ----------
    depth : int, default: 2
        Number of stages J.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Pixels between coefficients, ``2**depth`` by default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the image goes on beyond its borders.
    packets : {"all", "gabor"} or iterable of int
        All ``2 * 4**depth`` of them; those that are neither low-pass nor touch the last band of
        an axis; or rows of ``PacketBank(depth, wavelet).atoms()``.

    Notes
    -----
    Shape: (N, C, H, W) to complex (N, C * K, ceil(H / stride), ceil(W / stride)), K packets.
    Channel ``c * K + k`` is packet k of input channel c; with all packets,
    ``k = (sign * 2**J + vertical) * 2**J + horizontal``, sign 0 being +1.

    The filters are non-persistent buffers. In half precision, and under autocast, the transform
    is computed in float32; input in half precision gives complex64.

    Raises
    ------
    TypeError, ValueError
        If an argument, or the input's dtype or shape, does not fit.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import DTCWPT2d
    >>> c = DTCWPT2d(depth=2, packets="gabor")(torch.zeros(5, 3, 64, 48))
    >>> c.shape, c.dtype
    (torch.Size([5, 48, 16, 12]), torch.complex64)
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        stride: int | None = None,
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__()
        depth = as_depth(depth)
        self.analysis = PacketAnalysis(depth, wavelet, mode, packets, as_stride(stride, depth))

    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients."""
        real, imaginary = self.analysis(x)
        return torch.complex(real, imaginary).flatten(1, 2)


class IDTCWPT2d(ExactBuffers):
    """:func:`dtwpt.idtcwpt2` as a module, the inverse of :class:`DTCWPT2d`.

    Parameters
    ----------
    depth, wavelet, mode, packets
        Those of :class:`DTCWPT2d`, with its default stride. Packets left out count as zero.

    Notes
    -----
    Shape: complex (N, C * K, H', W') to (N, C, H, W). The size (H, W) may be given; it is
    ``(H' * 2**depth, W' * 2**depth)`` by default.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import DTCWPT2d, IDTCWPT2d
    >>> x = torch.rand(1, 3, 50, 77)
    >>> bool(torch.allclose(IDTCWPT2d()(DTCWPT2d()(x), (50, 77)), x, atol=1e-5))
    True
    """

    place: Tensor | None

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__()
        self.mode = as_mode(mode)
        self.bank = PacketBank(as_depth(depth), as_wavelet(wavelet))
        self._wavelet = wavelet_text(self.bank.wavelet)
        self.packets = as_packets(packets, self.bank)
        whole = self.packets.size == 2 * 4**self.bank.depth
        if whole and (np.diff(self.packets) > 0).all():
            self.register_buffer("place", None)
        else:
            self.register_exact("place", self.packets.astype(np.int64))

    def forward(self, c: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Return the images."""
        count = self.packets.size
        if not isinstance(c, torch.Tensor) or not c.is_complex():
            kind = c.dtype if isinstance(c, torch.Tensor) else type(c).__name__
            raise TypeError(f"c must be a complex tensor, got {kind}")
        if c.ndim != 4 or c.shape[1] % count:
            raise ValueError(f"c must have shape (N, C * {count}, H', W'), got {tuple(c.shape)}")
        step = 2**self.bank.depth
        height, width = (c.shape[2] * step, c.shape[3] * step) if shape is None else shape
        leading, cells = (c.shape[0], c.shape[1] // count), c.shape[2:]
        if self.place is not None:
            everything = c.new_zeros(*leading, 2 * step * step, *cells)
            c = everything.index_copy(2, self.place, c.reshape(*leading, count, *cells))
        c = c.reshape(*leading, 2, step, step, *cells)
        return packet_synthesis(c, height, width, self.bank.depth, self._wavelet, self.mode)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return (
            f"depth={self.bank.depth}, wavelet={self.bank.wavelet.name!r}, mode={self.mode!r}, "
            f"packets={describe_packets(self.packets, self.bank)}"
        )


class CMod2d(nn.Module):
    """:func:`dtwpt.cmod2` as a module: the complex modulus of the packets.

    Parameters
    ----------
    depth, wavelet, mode, packets
        As for :class:`DTCWPT2d`.

    Notes
    -----
    Shape: (N, C, H, W) to (N, C * K, ceil(H / 2**depth), ceil(W / 2**depth)), channels in the order
    of :class:`DTCWPT2d`. Computed in float32 or float64; the output has the dtype of the input
    (float32 for integers).

    Examples
    --------
    >>> import torch, dtwpt
    >>> from dtwpt.nn import CMod2d
    >>> x = torch.rand(5, 3, 64, 48)
    >>> maps = CMod2d(depth=2)(x)
    >>> maps.shape
    torch.Size([5, 96, 16, 12])
    >>> bool(torch.allclose(maps, dtwpt.cmod2(x).flatten(1, 4), atol=1e-5))
    True
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__()
        depth = as_depth(depth)
        self.analysis = PacketAnalysis(depth, wavelet, mode, packets, 2**depth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return _as_input(modulus(*self.analysis(x)).flatten(1, 2), x)


class RMax2d(nn.Module):
    """:func:`dtwpt.rmax2` as a module: max pooling of the real part of the packets.

    Parameters
    ----------
    depth, wavelet, mode, packets
        As for :class:`DTCWPT2d`.
    pool : int, default: 3
        Side of the pooling window, odd; its stride is 2.

    Notes
    -----
    Shape, order and dtype are those of :class:`CMod2d`.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import RMax2d
    >>> RMax2d(depth=3, packets="gabor")(torch.rand(5, 1, 64, 48)).shape
    torch.Size([5, 96, 8, 6])
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
        pool: int = 3,
    ) -> None:
        super().__init__()
        depth, self.pool = as_depth(depth), as_pool(pool)
        self.analysis = PacketAnalysis(depth, wavelet, mode, packets, 2 ** (depth - 1), self.pool)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        real = self.analysis.real(x).flatten(1, 2)
        return _as_input(nn.functional.max_pool2d(real, self.pool, stride=2), x)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return f"pool={self.pool}"


def _as_input(out: Tensor, x: Any) -> Tensor:
    return out.to(x.dtype) if x.is_floating_point() else out
