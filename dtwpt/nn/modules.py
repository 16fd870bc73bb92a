"""The transform, its inverse and the operators as modules."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dtwpt.arrays import as_real_input
from dtwpt.checks import as_pool, as_stride
from dtwpt.engine import dispatch
from dtwpt.engine.spec import Analysis, Kind
from dtwpt.nn.selection import Packets, as_packets, describe_packets
from dtwpt.nn.symbolic import leaf
from dtwpt.packets import PacketBank
from dtwpt.transform import as_analysis, side
from dtwpt.wavelets import Wavelet

__all__ = ["CMod1d", "CMod2d", "DTCWPT1d", "DTCWPT2d", "IDTCWPT1d", "IDTCWPT2d", "RMax1d", "RMax2d"]


class PacketModule(nn.Module):
    """Base of modules of one analysis. It holds no tensor, so its filters cannot be changed.

    Attributes
    ----------
    analysis : Analysis
    bank : PacketBank
    packets : ndarray of int
        Rows of ``bank.atoms()`` (in one dimension: packets), in the order of the channels.
    """

    def __init__(
        self,
        ndim: int,
        depth: int,
        wavelet: str | Wavelet,
        mode: str,
        packets: Packets,
        stride: int | None = None,
        pool: int | None = None,
    ) -> None:
        super().__init__()
        self.bank = PacketBank(depth, wavelet)
        self.packets = as_packets(packets, self.bank, ndim)
        everything = np.arange(self.bank.filters.shape[0] if ndim == 1 else 2 * 4**self.bank.depth)
        kept = None if np.array_equal(self.packets, everything) else tuple(self.packets.tolist())
        self.analysis: Analysis = as_analysis(
            depth, wavelet, mode, as_stride(stride, depth), ndim=ndim, pool=pool, packets=kept
        )

    def analyse(self, x: Tensor, kind: Kind) -> Tensor:
        """Return the output of a kind, with the packets of each channel as consecutive channels."""
        ndim = self.analysis.ndim
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if x.ndim not in (ndim + 1, ndim + 2):
            shape = "(N, C, H, W) or (C, H, W)" if ndim == 2 else "(N, C, L) or (C, L)"
            raise ValueError(f"x must have shape {shape}, got {tuple(x.shape)}")
        if 0 in x.shape[-ndim:]:
            raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}")
        if not x.is_floating_point():
            x = as_real_input(x, ndim)
        out: Tensor = dispatch.analyse(x, self.analysis, kind)
        return out.flatten(-ndim - 2, -ndim - 1)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        stride = "" if self.analysis.pool else f"stride={self.analysis.stride}, "
        pool = f", pool={self.analysis.pool}" if self.analysis.pool else ""
        return (
            f"depth={self.bank.depth}, wavelet={self.bank.wavelet.name!r}, "
            f"mode={self.analysis.mode!r}, {stride}"
            f"packets={describe_packets(self.packets, self.bank, self.analysis.ndim)}{pool}"
        )


class DTCWPT2d(PacketModule):
    """:func:`dtwpt.dtcwpt2` as a module, its packets as channels.

    Parameters
    ----------
    depth : int, default: 2
        Number of stages J.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Pixels between coefficients, ``2**depth`` by default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    packets : {"all", "gabor"} or iterable of int
        All ``2 * 4**depth`` of them; those that are neither low-pass nor touch the last band of
        an axis; or rows of ``PacketBank(depth, wavelet).atoms()``.

    Notes
    -----
    Shape: (N, C, H, W) or (C, H, W) to complex (N, C * K, ceil(H / stride), ceil(W / stride)), K
    packets.
    Channel ``c * K + k`` is packet k of input channel c; with all packets,
    ``k = (sign * 2**J + vertical) * 2**J + horizontal``, sign 0 being +1.

    The module holds no tensor: a state dict has no entry, and ``module.to(...)`` changes nothing.
    The transform is computed in the precision of the input, also under autocast; input in half
    precision is computed in float32 (on a GPU with products of reduced precision) and gives
    complex64.

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
        super().__init__(2, depth, wavelet, mode, packets, stride)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients."""
        return self.analyse(x, "complex")


class IDTCWPT2d(PacketModule):
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

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__(2, depth, wavelet, mode, packets)

    @leaf
    def forward(self, c: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Return the images."""
        return _synthesise(self, c, shape)


class CMod2d(PacketModule):
    """:func:`dtwpt.cmod2` as a module: the complex modulus of the packets.

    Parameters
    ----------
    depth, wavelet, mode, packets
        As for :class:`DTCWPT2d`.

    Notes
    -----
    Shape: (N, C, H, W) or (C, H, W) to (N, C * K, ceil(H / 2**depth), ceil(W / 2**depth)),
    channels in the order of :class:`DTCWPT2d`. The output has the dtype of the input (float32 for
    integers).

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
        super().__init__(2, depth, wavelet, mode, packets)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return self.analyse(x, "modulus")


class RMax2d(PacketModule):
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
        super().__init__(2, depth, wavelet, mode, packets, pool=as_pool(pool))

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return self.analyse(x, "rmax")


class DTCWPT1d(PacketModule):
    """:func:`dtwpt.dtcwpt` as a module, its packets as channels.

    Parameters
    ----------
    depth, wavelet, stride, mode
        As for :func:`dtwpt.dtcwpt`.
    packets : {"all", "gabor"} or iterable of int
        All ``2**depth`` of them; all but the first and the last one; or those of given numbers.

    Notes
    -----
    Shape: (N, C, L) or (C, L) to complex (N, C * K, ceil(L / stride)), K packets.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import DTCWPT1d
    >>> DTCWPT1d(depth=3)(torch.zeros(5, 2, 100)).shape
    torch.Size([5, 16, 13])
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        stride: int | None = None,
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__(1, depth, wavelet, mode, packets, stride)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients."""
        return self.analyse(x, "complex")


class IDTCWPT1d(PacketModule):
    """:func:`dtwpt.idtcwpt` as a module: the inverse of :class:`DTCWPT1d`.

    Parameters
    ----------
    depth, wavelet, mode, packets
        Those of the transform; packets that were left out count as zero.

    Notes
    -----
    Shape: complex (N, C * K, L') or (C * K, L') to (N, C, L). The length L may be given; it is
    ``L' * 2**depth`` by default.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import DTCWPT1d, IDTCWPT1d
    >>> x = torch.rand(1, 3, 77)
    >>> bool(torch.allclose(IDTCWPT1d()(DTCWPT1d()(x), 77), x, atol=1e-5))
    True
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__(1, depth, wavelet, mode, packets)

    @leaf
    def forward(self, c: Tensor, length: int | None = None) -> Tensor:
        """Return the signals."""
        return _synthesise(self, c, None if length is None else (length,))


class CMod1d(PacketModule):
    """:func:`dtwpt.cmod` as a module: the complex modulus of the packets.

    Parameters
    ----------
    depth, wavelet, mode, packets
        As for :class:`DTCWPT1d`.

    Notes
    -----
    Shape: (N, C, L) or (C, L) to (N, C * K, ceil(L / 2**depth)). The output has the dtype of the
    input (float32 for integers).

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import CMod1d
    >>> CMod1d(depth=4, packets="gabor")(torch.rand(5, 1, 160)).shape
    torch.Size([5, 14, 10])
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
    ) -> None:
        super().__init__(1, depth, wavelet, mode, packets)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return self.analyse(x, "modulus")


class RMax1d(PacketModule):
    """:func:`dtwpt.rmax` as a module: max pooling of the real part of the packets.

    Parameters
    ----------
    depth, wavelet, mode, packets
        As for :class:`DTCWPT1d`.
    pool : int, default: 3
        Length of the pooling window, odd; its stride is 2.

    Notes
    -----
    Shape and dtype are those of :class:`CMod1d`.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import RMax1d
    >>> RMax1d(depth=4, packets="gabor")(torch.rand(5, 1, 160)).shape
    torch.Size([5, 14, 10])
    """

    def __init__(
        self,
        depth: int = 2,
        wavelet: str | Wavelet = "qshift_b",
        mode: str = "symmetric",
        packets: Packets = "all",
        pool: int = 3,
    ) -> None:
        super().__init__(1, depth, wavelet, mode, packets, pool=as_pool(pool))

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return self.analyse(x, "rmax")


def _synthesise(module: PacketModule, c: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    count, ndim = module.packets.size, module.analysis.ndim
    if not isinstance(c, torch.Tensor) or not c.is_complex():
        kind = c.dtype if isinstance(c, torch.Tensor) else type(c).__name__
        raise TypeError(f"c must be a complex tensor, got {kind}")
    if c.ndim not in (ndim + 1, ndim + 2) or c.shape[-ndim - 1] % count:
        sides = "H', W'" if ndim == 2 else "L'"
        raise ValueError(f"c must have shape (N, C * {count}, {sides}), got {tuple(c.shape)}")
    if shape is None:
        shape = tuple(cells * 2**module.bank.depth for cells in c.shape[-ndim:])
    elif not torch.compiler.is_compiling():  # with dynamic shapes there is none to compare
        for n, cells in zip(shape, c.shape[-ndim:], strict=True):
            side(n, cells, module.bank.depth, "shape" if ndim == 2 else "length")
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        shape = tuple(map(int, shape))  # a trace holds for one size, and has it as tensors
    x: Tensor = dispatch.synthesise(
        torch.unflatten(c, -ndim - 1, (-1, count)), module.analysis, shape
    )
    return x
