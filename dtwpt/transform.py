"""The dual-tree complex wavelet packet transform, its inverse and its operators.

Checks of arguments and shapes; the engine does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, as_complex_input, as_image_input, as_real_input
from dtwpt.checks import as_depth, as_int, as_mode, as_pool, as_stride, wavelet_text
from dtwpt.engine import dispatch
from dtwpt.engine.spec import Analysis, Kind
from dtwpt.text import shown
from dtwpt.typing import ChannelAxis, ComplexArray, Mode, RealArray
from dtwpt.wavelets import AnyWavelet

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["cmod", "cmod2", "dtcwpt", "dtcwpt2", "idtcwpt", "idtcwpt2", "rmax", "rmax2"]

# One dimension ----------------------------------------------------------------------------------


@overload
def dtcwpt(
    x: NDArray[Any],
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
) -> ComplexArray: ...
@overload
def dtcwpt(
    x: Tensor,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
) -> Tensor: ...
@overload
def dtcwpt(
    x: ArrayLike,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
) -> ComplexArray: ...
def dtcwpt(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    stride: int | None = None,
    mode: Mode = "symmetric",
) -> Any:
    """Dual-tree complex wavelet packet transform of signals.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., N)
        float32 or float64, kept as they are; uint8 and uint16, scaled to 0..1 in float32; bool
        and other integers, converted to float32. NaN and infinity propagate to the coefficients
        that see them; along an axis of at most 2 L samples, L the length of the filters, to all of
        them.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Samples between coefficients: a power of two from 1 (undecimated) to ``2**depth``, the
        default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the ends.

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
    depth = as_depth(depth)
    stride = as_stride(stride, depth)
    return _analyse(x, as_analysis(depth, wavelet, mode, stride, ndim=1), "complex")


@overload
def idtcwpt(
    c: NDArray[Any], shape: int | None = ..., wavelet: AnyWavelet = ..., mode: Mode = ...
) -> RealArray: ...
@overload
def idtcwpt(
    c: Tensor, shape: int | None = ..., wavelet: AnyWavelet = ..., mode: Mode = ...
) -> Tensor: ...
def idtcwpt(
    c: Any,
    shape: int | None = None,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
) -> Any:
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
        Exact in every mode, at every length. For coefficients that are not those of any signal, the
        signal with the closest coefficients (least squares).

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
    if c.ndim < 2 or 0 in tuple(c.shape):
        raise ValueError(f"c must have shape (..., 2**depth, N'), got {tuple(c.shape)}")
    depth = _depth_of(c, c.shape[-2:-1], "(..., 2**depth, N')")
    n = side(shape, c.shape[-1], depth, "shape")
    return dispatch.synthesise(c, as_analysis(depth, wavelet, mode, ndim=1), (n,))


@overload
def cmod(
    x: NDArray[Any], depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ...
) -> RealArray: ...
@overload
def cmod(x: Tensor, depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ...) -> Tensor: ...
@overload
def cmod(
    x: ArrayLike, depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ...
) -> RealArray: ...
def cmod(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
) -> Any:
    """Modulus of the complex packet coefficients of signals, the operator CMod.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., N)
        As for :func:`dtcwpt`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the ends.

    Returns
    -------
    real array, shape (..., 2**depth, ceil(N / 2**depth))
        ``abs(dtcwpt(x, depth, wavelet, mode=mode))``, computed without the complex array; the
        derivative at a zero coefficient is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "On the Shift Invariance of Max
       Pooling Feature Maps in Convolutional Neural Networks", arXiv 2209.11740.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(3, 48))
    >>> maps = dtwpt.cmod(x)
    >>> maps.shape
    (3, 4, 12)
    >>> bool(np.allclose(maps, abs(dtwpt.dtcwpt(x))))
    True
    """
    analysis = as_analysis(depth, wavelet, mode, ndim=1)
    return _analyse(as_real_input(x, 1), analysis, "modulus")


@overload
def rmax(
    x: NDArray[Any], depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ..., pool: int = ...
) -> RealArray: ...
@overload
def rmax(
    x: Tensor, depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ..., pool: int = ...
) -> Tensor: ...
@overload
def rmax(
    x: ArrayLike, depth: int = ..., wavelet: AnyWavelet = ..., mode: Mode = ..., pool: int = ...
) -> RealArray: ...
def rmax(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
    pool: int = 3,
) -> Any:
    """Max pooling of the real part of the packet coefficients of signals, the operator RMax.

    The real part at stride ``m = 2**(depth - 1)``, as a strided convolution layer computes it,
    goes through ``pool`` wide max pooling with stride 2. The pooling windows are centred on
    the samples of :func:`cmod`; those at the border see the extended signal.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., N)
        As for :func:`dtcwpt`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the ends.
    pool : int, default: 3
        Side ``2 q + 1`` of the pooling window, odd.

    Returns
    -------
    real array, shape (..., 2**depth, ceil(N / 2**depth))

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "On the Shift Invariance of Max
       Pooling Feature Maps in Convolutional Neural Networks", arXiv 2209.11740.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(3, 48))
    >>> dtwpt.rmax(x).shape
    (3, 4, 12)
    """
    analysis = as_analysis(depth, wavelet, mode, ndim=1, pool=as_pool(pool))
    return _analyse(as_real_input(x, 1), analysis, "rmax")


# Two dimensions ---------------------------------------------------------------------------------


@overload
def dtcwpt2(
    x: NDArray[Any],
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> ComplexArray: ...
@overload
def dtcwpt2(
    x: Tensor,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> Tensor: ...
@overload
def dtcwpt2(
    x: ArrayLike,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    stride: int | None = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> ComplexArray: ...
def dtcwpt2(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    stride: int | None = None,
    mode: Mode = "symmetric",
    *,
    channel_axis: ChannelAxis = "ask",
) -> Any:
    """Dual-tree complex wavelet packet transform of images.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        float32 or float64, kept as they are; uint8 and uint16, scaled to 0..1 in float32; bool
        and other integers, converted to float32. NaN and infinity propagate to the coefficients
        that see them; along an axis of at most 2 L samples, L the length of the filters, to all of
        them.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets per axis.
    wavelet : str or Wavelet, default: "qshift_b"
    stride : int, optional
        Pixels between coefficients: a power of two from 1 (undecimated) to ``2**depth``, the
        default.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    channel_axis : int, None or "ask", default: "ask"
        The axis of channels, as in scikit-image; it is moved to before rows and columns. None:
        there is none. "ask": there is none either, but arrays (..., H, W, 3 or 4) with H and W
        above 4, which look like colour images, are refused.

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
    >>> photograph = np.zeros((64, 96, 3))
    >>> dtwpt.dtcwpt2(photograph, channel_axis=-1).shape
    (3, 2, 4, 4, 16, 24)
    """
    x = as_image_input(x, channel_axis)
    depth = as_depth(depth)
    stride = as_stride(stride, depth)
    return _analyse(x, as_analysis(depth, wavelet, mode, stride), "complex")


@overload
def idtcwpt2(
    c: NDArray[Any],
    shape: tuple[int, ...] | None = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
) -> RealArray: ...
@overload
def idtcwpt2(
    c: Tensor, shape: tuple[int, ...] | None = ..., wavelet: AnyWavelet = ..., mode: Mode = ...
) -> Tensor: ...
def idtcwpt2(
    c: Any,
    shape: tuple[int, ...] | None = None,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
) -> Any:
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
        Exact in every mode, at every size. For coefficients that are not those of any image, the
        image with the closest coefficients (least squares).

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
    layout = "(..., 2, 2**depth, 2**depth, H', W')"
    if c.ndim < 5 or c.shape[-5] != 2 or 0 in tuple(c.shape):
        raise ValueError(f"c must have shape {layout}, got {tuple(c.shape)}")
    depth = _depth_of(c, c.shape[-4:-2], layout)
    if shape is None:
        shape = (c.shape[-2] * 2**depth, c.shape[-1] * 2**depth)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"shape must be a pair (H, W) of integers, got {shown(shape)}")
    height, width = shape
    height = side(height, c.shape[-2], depth, "shape[0]")
    width = side(width, c.shape[-1], depth, "shape[1]")
    c = c.reshape(*c.shape[:-5], 2 * 4**depth, *c.shape[-2:])
    return dispatch.synthesise(c, as_analysis(depth, wavelet, mode), (height, width))


@overload
def cmod2(
    x: NDArray[Any],
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> RealArray: ...
@overload
def cmod2(
    x: Tensor,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> Tensor: ...
@overload
def cmod2(
    x: ArrayLike,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> RealArray: ...
def cmod2(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
    *,
    channel_axis: ChannelAxis = "ask",
) -> Any:
    """Modulus of the complex packet coefficients of images, the operator CMod.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtcwpt2`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets per axis.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    channel_axis : int, None or "ask", default: "ask"
        As for :func:`dtcwpt2`.

    Returns
    -------
    real array, shape (..., 2, 2**depth, 2**depth, ceil(H / 2**depth), ceil(W / 2**depth))
        ``abs(dtcwpt2(x, depth, wavelet, mode=mode))``, computed without the complex array; the
        derivative at a zero coefficient is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "On the Shift Invariance of Max
       Pooling Feature Maps in Convolutional Neural Networks", arXiv 2209.11740.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(3, 32, 48))
    >>> maps = dtwpt.cmod2(x)
    >>> maps.shape
    (3, 2, 4, 4, 8, 12)
    >>> bool(np.allclose(maps, abs(dtwpt.dtcwpt2(x))))
    True
    """
    analysis = as_analysis(depth, wavelet, mode)
    return _analyse(as_image_input(x, channel_axis), analysis, "modulus")


@overload
def rmax2(
    x: NDArray[Any],
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    pool: int = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> RealArray: ...
@overload
def rmax2(
    x: Tensor,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    pool: int = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> Tensor: ...
@overload
def rmax2(
    x: ArrayLike,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    mode: Mode = ...,
    pool: int = ...,
    *,
    channel_axis: ChannelAxis = ...,
) -> RealArray: ...
def rmax2(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    mode: Mode = "symmetric",
    pool: int = 3,
    *,
    channel_axis: ChannelAxis = "ask",
) -> Any:
    """Max pooling of the real part of the packet coefficients of images, the operator RMax.

    The real part at stride ``m = 2**(depth - 1)``, as a strided convolution layer computes it,
    goes through ``pool x pool`` max pooling with stride 2. The pooling windows are centred on
    the samples of :func:`cmod2`; those at the border see the extended image.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtcwpt2`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets per axis.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    pool : int, default: 3
        Side ``2 q + 1`` of the pooling window, odd.
    channel_axis : int, None or "ask", default: "ask"
        As for :func:`dtcwpt2`.

    Returns
    -------
    real array, shape (..., 2, 2**depth, 2**depth, ceil(H / 2**depth), ceil(W / 2**depth))

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "On the Shift Invariance of Max
       Pooling Feature Maps in Convolutional Neural Networks", arXiv 2209.11740.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> x = np.random.default_rng(0).normal(size=(3, 32, 48))
    >>> dtwpt.rmax2(x).shape
    (3, 2, 4, 4, 8, 12)
    """
    analysis = as_analysis(depth, wavelet, mode, pool=as_pool(pool))
    return _analyse(as_image_input(x, channel_axis), analysis, "rmax")


# Analyses ---------------------------------------------------------------------------------------


def as_analysis(
    depth: Any,
    wavelet: Any,
    mode: Any,
    stride: int | None = None,
    *,
    ndim: int = 2,
    pool: int | None = None,
    packets: tuple[int, ...] | None = None,
) -> Analysis:
    """Check the arguments and return their analysis.

    The stride is ``2**depth`` by default or, with ``pool``, half of that.
    """
    depth = as_depth(depth)
    if pool is not None:
        stride = 2 ** (depth - 1)
    stride = 2**depth if stride is None else stride
    return Analysis(depth, wavelet_text(wavelet), stride, as_mode(mode), ndim, pool, packets)


def _analyse(x: Array, analysis: Analysis, kind: Kind) -> Array:
    """Analyse to arrays with one axis for each index of a packet."""
    out = dispatch.analyse(x, analysis, kind)
    if analysis.ndim == 1:
        return out
    packets = (2, analysis.count, analysis.count)
    return out.reshape(*x.shape[:-2], *packets, *out.shape[-2:])


# Shapes -----------------------------------------------------------------------------------------


def _depth_of(c: Array, packets: tuple[int, ...], layout: str) -> int:
    count = packets[0]
    if count < 2 or count & (count - 1) or any(other != count for other in packets):
        raise ValueError(f"c must have shape {layout}, depth at least 1, got {tuple(c.shape)}")
    return int(count).bit_length() - 1


def side(length: Any, cells: int, depth: int, name: str) -> int:
    """Return a checked ``length`` for a number of coefficients; None: the longest."""
    step: int = 2**depth
    if length is None:
        return cells * step
    low, high = (cells - 1) * step + 1, cells * step
    number: int = length
    if type(length) is not int:  # an int may be a symbol of a compiler's, and stay one
        number = as_int(length, name, f"an integer from {low} to {high}")
    if not low <= number <= high:
        raise ValueError(
            f"{name} must be from {low} to {high} to have {cells} coefficients at depth {depth}, "
            f"got {number}"
        )
    return number
