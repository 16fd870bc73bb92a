"""The dual-tree complex wavelet packet transform and its inverse, in one and two dimensions."""

from __future__ import annotations

import operator
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
from dtwpt.checks import as_depth, as_mode, as_stride, as_wavelet
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
    leading = tuple(x.shape[:-1])

    def forward(x: Array) -> Array:
        return _signal_forward(x.reshape(-1, axis.n), axis).reshape(*leading, -1, axis.count)

    def adjoint(c: Array) -> Array:
        return _signal_adjoint(c.reshape(-1, axis.channels // 2, axis.count), axis).reshape(
            *leading, axis.n
        )

    return linear_map(x, forward, adjoint)


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
    leading = tuple(c.shape[:-2])

    def backward(c: Array) -> Array:
        x = _signal_adjoint(c.reshape(-1, 2**depth, axis.count), axis)
        return axis.rows_solve(x[:, :, None]).reshape(*leading, n)

    def backward_adjoint(x: Array) -> Array:
        solved = axis.rows_solve(copy(x.reshape(-1, n))[:, :, None])[:, :, 0]
        return _signal_forward(solved, axis).reshape(*leading, 2**depth, axis.count)

    return linear_map(c, backward, backward_adjoint)


def _signal_forward(x: Array, axis: Axis) -> Array:
    packets = axis.channels // 2
    trees = axis.signal(x)
    c = complex_empty((x.shape[0], packets, axis.count), x)
    real, imaginary = real_and_imaginary(c)
    real[:] = trees[:, :packets]
    imaginary[:] = trees[:, packets:]
    return c


def _signal_adjoint(c: Array, axis: Axis) -> Array:
    return axis.signal_adjoint(namespace(c).concatenate(real_and_imaginary(c), 1))


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
    leading = tuple(x.shape[:-2])

    def forward(x: Array) -> Array:
        c = plane.analyse(x.reshape(-1, height, width))
        return c.reshape(*leading, *c.shape[1:])

    def adjoint(c: Array) -> Array:
        flat = c.reshape(-1, *c.shape[len(leading) :])
        return plane.adjoint(flat).reshape(*leading, height, width)

    return linear_map(x, forward, adjoint)


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
    try:
        height, width = shape
    except (TypeError, ValueError):
        raise TypeError(f"shape must be a pair (H, W) of integers, got {shape!r}") from None
    height = _side(height, c.shape[-2], depth, "shape[0]")
    width = _side(width, c.shape[-1], depth, "shape[1]")
    plane = plane_for(height, width, depth, wavelet, 2**depth, mode)
    leading, trailing = tuple(c.shape[:-5]), tuple(c.shape[-5:])

    def backward(c: Array) -> Array:
        x = plane.solve(plane.adjoint(c.reshape(-1, *trailing)))
        return x.reshape(*leading, height, width)

    def backward_adjoint(x: Array) -> Array:
        solved = plane.solve(copy(x.reshape(-1, height, width)))
        return plane.analyse(solved).reshape(*leading, *trailing)

    return linear_map(c, backward, backward_adjoint)


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
    try:
        number = operator.index(length)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {length!r}") from None
    if not low <= number <= high:
        raise ValueError(
            f"{name} must be from {low} to {high} to have {cells} coefficients at depth {depth}, "
            f"got {number}"
        )
    return number
