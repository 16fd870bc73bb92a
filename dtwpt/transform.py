"""The dual-tree complex wavelet packet transform and its inverse, in one and two dimensions."""

from __future__ import annotations

from typing import Any

from dtwpt.arrays import (
    Array,
    as_complex_input,
    as_real_input,
    complex_empty,
    copy,
    linear_map,
    namespace,
    real_and_imaginary,
)
from dtwpt.axis import Axis, axis_for
from dtwpt.checks import as_depth, as_int, as_mode, as_stride, as_wavelet
from dtwpt.plane import plane_for
from dtwpt.wavelets import Wavelet

__all__ = ["dtcwpt", "dtcwpt2", "idtcwpt", "idtcwpt2"]

# One dimension ----------------------------------------------------------------------------------


def dtcwpt(
    x: Array,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    stride: int | None = None,
    mode: str = "symmetric",
) -> Array:
    """Dual-tree complex wavelet packet transform of signals.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., N)
        float32 or float64, kept as they are; uint8 and uint16, scaled to 0..1 in float32; bool
        and other integers, converted to float32. NaN and infinity are passed on, to the
        coefficients that see them; along an axis of at most 2 L samples, L the length of the
        filters, to all of them.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Samples between coefficients: a power of two from 1 (undecimated) to ``2**depth``, the
        default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the signal goes on beyond its ends.

    Returns
    -------
    complex array, shape (..., 2**depth, ceil(N / stride))
        (packet, position), packets in order of frequency; of the kind, precision and device of
        ``x``. Coefficient n is centred on sample ``stride * n + (stride - 1) / 2``, but for the
        packet's own offset (at stride 1, half a sample earlier).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    See Also
    --------
    idtcwpt, dtcwpt2

    Notes
    -----
    In mode "periodic", with N a multiple of ``2**depth`` and the default stride, the transform
    is a Parseval frame: ``sum(abs(c)**2) == sum(x**2)``. Another stride samples the same filters'
    outputs more often, unscaled.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.sin(0.6 * np.pi * np.arange(64))
    >>> c = dtwpt.dtcwpt(x, depth=3, mode="periodic")
    >>> c.shape
    (8, 8)
    >>> int(np.argmax(np.sum(abs(c) ** 2, axis=1)))  # 0.6 pi lies in [4/8, 5/8] pi
    4
    """
    x = as_real_input(x, 1)
    depth, wavelet, mode = as_depth(depth), as_wavelet(wavelet), as_mode(mode)
    axis = axis_for(x.shape[-1], depth, wavelet, as_stride(stride, depth), mode)
    c = linear_map(x.reshape(-1, axis.n), lambda x: _analyse(x, axis), lambda c: _adjoint(c, axis))
    return c.reshape(*x.shape[:-1], *c.shape[1:])


def idtcwpt(
    c: Array,
    shape: int | None = None,
    wavelet: str | Wavelet = "qshift_b",
    mode: str = "symmetric",
) -> Array:
    """Signals from their dual-tree complex wavelet packet coefficients: inverse of :func:`dtcwpt`.

    Parameters
    ----------
    c : complex array or torch.Tensor, shape (..., 2**depth, N')
        Coefficients at the default stride ``2**depth``; the depth follows from the shape.
    shape : int, optional
        Length N of the signal, with ``ceil(N / 2**depth) == N'``. Default: ``N' * 2**depth``.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : str
        Those of the forward transform.

    Returns
    -------
    real array, shape (..., N)
        Exact in every mode, at every length. Of coefficients that belong to no signal, the
        signal whose coefficients come closest (least squares).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=101)
    >>> c = dtwpt.dtcwpt(x, depth=3)
    >>> bool(np.allclose(dtwpt.idtcwpt(c, shape=101), x, rtol=0, atol=1e-12))
    True
    """
    c = as_complex_input(c)
    wavelet, mode = as_wavelet(wavelet), as_mode(mode)
    if c.ndim < 2 or 0 in tuple(c.shape):
        raise ValueError(f"c must have shape (..., 2**depth, N'), got {tuple(c.shape)}")
    depth = _depth_of(c, c.shape[-2:-1], "(..., 2**depth, N')")
    n = _side(shape, c.shape[-1], depth, "shape")
    axis = axis_for(n, depth, wavelet, 2**depth, mode)
    x = linear_map(
        c.reshape(-1, 2**depth, axis.count),
        lambda c: _solve(_adjoint(c, axis), axis),
        lambda x: _analyse(_solve(copy(x), axis), axis),
    )
    return x.reshape(*c.shape[:-2], n)


def _analyse(x: Array, axis: Axis) -> Array:
    """(B, n) to complex (B, P, count)."""
    packets = axis.channels // 2
    trees = axis.signal(x)
    c = complex_empty((x.shape[0], packets, axis.count), x)
    real, imaginary = real_and_imaginary(c)
    real[:] = trees[:, :packets]
    imaginary[:] = trees[:, packets:]
    return c


def _adjoint(c: Array, axis: Axis) -> Array:
    """Complex (B, P, count) to (B, n)."""
    return axis.signal_adjoint(namespace(c).concatenate(real_and_imaginary(c), 1))


def _solve(x: Array, axis: Axis) -> Array:
    """Undo the Gram matrix on (B, n), in place."""
    return axis.rows_solve(x[:, :, None])[:, :, 0]


# Two dimensions ---------------------------------------------------------------------------------


def dtcwpt2(
    x: Array,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    stride: int | None = None,
    mode: str = "symmetric",
) -> Array:
    """Dual-tree complex wavelet packet transform of images.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        float32 or float64, kept as they are; uint8 and uint16, scaled to 0..1 in float32; bool
        and other integers, converted to float32. NaN and infinity are passed on, to the
        coefficients that see them; along an axis of at most 2 L samples, L the length of the
        filters, to all of them.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets an axis.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Pixels between coefficients: a power of two from 1 (undecimated) to ``2**depth``, the
        default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the image goes on beyond its borders.

    Returns
    -------
    complex array, shape (..., 2, 2**depth, 2**depth, ceil(H / stride), ceil(W / stride))
        (sign, vertical packet, horizontal packet, row, column); of the kind, precision and
        device of ``x``. Index 0 of the sign axis is sign +1, frequencies with both components
        positive; index 1 is sign -1. Coefficient n along an axis is centred on pixel
        ``stride * n + (stride - 1) / 2``, but for the atom's own offset (at stride 1, half a
        pixel earlier). :meth:`PacketBank.atoms` describes each atom.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    See Also
    --------
    idtcwpt2, cmod2, rmax2, PacketBank

    Notes
    -----
    In mode "periodic", with H and W multiples of ``2**depth`` and the default stride, the
    transform is a Parseval frame: ``sum(abs(c)**2) == sum(x**2)``. Another stride samples the same
    filters' outputs more often, unscaled. The packets are those of [1]_.

    References
    ----------
    .. [1] I. Bayram and I. W. Selesnick, "On the Dual-Tree Complex Wavelet Packet and M-Band
       Transforms", IEEE Transactions on Signal Processing 56 (2008), 2298-2310.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(3, 64, 96))
    >>> c = dtwpt.dtcwpt2(x, depth=2, mode="periodic")
    >>> c.shape
    (3, 2, 4, 4, 16, 24)
    >>> bool(np.isclose(np.sum(abs(c) ** 2), np.sum(x**2), rtol=1e-12))
    True
    """
    x = as_real_input(x, 2)
    depth, wavelet, mode = as_depth(depth), as_wavelet(wavelet), as_mode(mode)
    height, width = x.shape[-2:]
    plane = plane_for(height, width, depth, wavelet, as_stride(stride, depth), mode)
    c = linear_map(x.reshape(-1, height, width), plane.analyse, plane.adjoint)
    return c.reshape(*x.shape[:-2], *c.shape[1:])


def idtcwpt2(
    c: Array,
    shape: tuple[int, int] | None = None,
    wavelet: str | Wavelet = "qshift_b",
    mode: str = "symmetric",
) -> Array:
    """Images from their dual-tree complex wavelet packet coefficients: inverse of :func:`dtcwpt2`.

    Parameters
    ----------
    c : complex array or torch.Tensor, shape (..., 2, 2**depth, 2**depth, H', W')
        Coefficients at the default stride ``2**depth``; the depth follows from the shape.
    shape : (int, int), optional
        Size (H, W) of the image, with ``ceil(H / 2**depth) == H'`` and likewise for W. Default:
        ``(H' * 2**depth, W' * 2**depth)``.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : str
        Those of the forward transform.

    Returns
    -------
    real array, shape (..., H, W)
        Exact in every mode, at every size. Of coefficients that belong to no image, the image
        whose coefficients come closest (least squares).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(50, 77))
    >>> c = dtwpt.dtcwpt2(x, depth=3)
    >>> bool(np.allclose(dtwpt.idtcwpt2(c, shape=(50, 77)), x, rtol=0, atol=1e-12))
    True
    """
    c = as_complex_input(c)
    wavelet, mode = as_wavelet(wavelet), as_mode(mode)
    layout = "(..., 2, 2**depth, 2**depth, H', W')"
    if c.ndim < 5 or c.shape[-5] != 2 or 0 in tuple(c.shape):
        raise ValueError(f"c must have shape {layout}, got {tuple(c.shape)}")
    depth = _depth_of(c, c.shape[-4:-2], layout)
    if shape is None:
        shape = (c.shape[-2] * 2**depth, c.shape[-1] * 2**depth)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"shape must be a pair (H, W) of integers, got {shape!r}")
    height, width = shape
    height = _side(height, c.shape[-2], depth, "shape[0]")
    width = _side(width, c.shape[-1], depth, "shape[1]")
    plane = plane_for(height, width, depth, wavelet, 2**depth, mode)
    x = linear_map(
        c.reshape(-1, *c.shape[-5:]),
        lambda c: plane.solve(plane.adjoint(c)),
        lambda x: plane.analyse(plane.solve(copy(x))),
    )
    return x.reshape(*c.shape[:-5], height, width)


# Shapes -----------------------------------------------------------------------------------------


def _depth_of(c: Array, packets: tuple[int, ...], layout: str) -> int:
    count = packets[0]
    if count < 2 or count & (count - 1) or any(other != count for other in packets):
        raise ValueError(f"c must have shape {layout}, depth at least 1, got {tuple(c.shape)}")
    return int(count).bit_length() - 1


def _side(length: Any, cells: int, depth: int, name: str) -> int:
    if length is None:
        return int(cells * 2**depth)
    low, high = (cells - 1) * 2**depth + 1, cells * 2**depth
    number = as_int(length, name, f"an integer from {low} to {high}")
    if not low <= number <= high:
        raise ValueError(
            f"{name} must be from {low} to {high} to have {cells} coefficients at depth {depth}, "
            f"got {number}"
        )
    return number
