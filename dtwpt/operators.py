"""The operators over packets: complex modulus (CMod) and max-pooled real part (RMax)."""

from __future__ import annotations

from collections.abc import Iterable

from dtwpt.arrays import (
    Allocate,
    Array,
    as_real_input,
    empty,
    full_precision,
    is_tensor,
    linear_map,
    namespace,
)
from dtwpt.checks import as_depth, as_mode, as_pool, as_wavelet
from dtwpt.plane import Piece, Plane, combine, plane_for
from dtwpt.scratch import Scratch
from dtwpt.transform import dtcwpt2
from dtwpt.wavelets import Wavelet

__all__ = ["cmod2", "cmod2_in", "fill_modulus", "fill_rmax", "rmax2", "rmax2_in"]


def cmod2(
    x: Array,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    mode: str = "symmetric",
) -> Array:
    """Modulus of the complex packet coefficients of images, the operator CMod.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtcwpt2`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets an axis.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the image goes on beyond its borders.

    Returns
    -------
    real array, shape (..., 2, 2**depth, 2**depth, ceil(H / 2**depth), ceil(W / 2**depth))
        ``abs(dtcwpt2(x, depth, wavelet, mode=mode))``, computed without the complex array unless
        torch has to differentiate it; the derivative at a zero coefficient is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value.

    Notes
    -----
    The modulus is the root of a sum of squares, which must neither overflow nor vanish: in
    float32, coefficients between about 1e-15 and 1e18 are accurate.

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
    return cmod2_in(Scratch(), empty, x, depth, wavelet, mode)


def cmod2_in(
    scratch: Scratch,
    allocate: Allocate,
    x: Array,
    depth: int,
    wavelet: str | Wavelet,
    mode: str,
) -> Array:
    """Compute :func:`cmod2` in memory of an earlier call; ``allocate`` gives that of the result."""
    x = as_real_input(x, 2)
    depth, wavelet, mode = as_depth(depth), as_wavelet(wavelet), as_mode(mode)
    if _differentiated(x):
        return dtcwpt2(x, depth, wavelet, mode=mode).abs()
    height, width = x.shape[-2:]
    plane = plane_for(height, width, depth, wavelet, 2**depth, mode)
    images = x.reshape(-1, height, width)
    out = allocate((images.shape[0], 2, plane.packets, plane.packets, *plane.size), x)
    with full_precision(x):
        fill_modulus(out, plane, plane.pieces(images), scratch)
    return out.reshape(*x.shape[:-2], *out.shape[1:])


def rmax2(
    x: Array,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    mode: str = "symmetric",
    pool: int = 3,
) -> Array:
    """Max pooling of the real part of the packet coefficients of images, the operator RMax.

    The real part at stride ``m = 2**(depth - 1)``, as a strided convolution layer computes it,
    goes through ``pool x pool`` max pooling with stride 2. The pooling windows are centred on
    the samples of :func:`cmod2`; those at the border see the extended image.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtcwpt2`.
    depth : int, default: 2
        Number of stages J; there are ``2**depth`` packets an axis.
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        How the image goes on beyond its borders.
    pool : int, default: 3
        Side ``2 q + 1`` of the pooling window, odd.

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
    return rmax2_in(Scratch(), empty, x, depth, wavelet, mode, pool)


def rmax2_in(
    scratch: Scratch,
    allocate: Allocate,
    x: Array,
    depth: int,
    wavelet: str | Wavelet,
    mode: str,
    pool: int = 3,
) -> Array:
    """Compute :func:`rmax2` in memory of an earlier call; ``allocate`` gives that of the result."""
    x = as_real_input(x, 2)
    depth, wavelet, mode = as_depth(depth), as_wavelet(wavelet), as_mode(mode)
    pool = as_pool(pool)
    height, width = x.shape[-2:]
    plane = plane_for(height, width, depth, wavelet, 2 ** (depth - 1), mode, pool=pool)
    images = x.reshape(-1, height, width)
    if _differentiated(x):
        out = _differentiable_rmax(images, plane, pool)
    else:
        size = tuple((count - pool) // 2 + 1 for count in plane.size)
        out = allocate((images.shape[0], 2, plane.packets, plane.packets, *size), x)
        with full_precision(x):
            fill_rmax(out, plane, plane.pieces(images, pool, hop=2), pool, scratch)
    return out.reshape(*x.shape[:-2], *out.shape[1:])


def _differentiated(x: Array) -> bool:
    return is_tensor(x) and x.requires_grad and namespace(x).is_grad_enabled()


def fill_modulus(out: Array, plane: Plane, pieces: Iterable[Piece], scratch: Scratch) -> None:
    """Write the modulus of pieces of a plane into (B, 2, P, P, H', W'), at their places."""
    for piece in pieces:
        planes, rows, columns = piece.place
        trees = plane.trees(piece, scratch)
        shape = tuple(trees[0].shape)
        real, imaginary = (scratch.named(name)(shape, out) for name in ("real", "imaginary"))
        for sign in range(2):
            combine(trees, sign, real, imaginary)
            out[planes, sign, :, :, rows, columns] = _modulus_in_place(real, imaginary)


def _modulus_in_place(real: Array, imaginary: Array) -> Array:
    # Products and sums apart, never fused: the same rounding wherever a value stands.
    xp = namespace(real)
    xp.multiply(real, real, out=real)
    xp.multiply(imaginary, imaginary, out=imaginary)
    xp.add(real, imaginary, out=real)
    return xp.sqrt(real, out=real)


def fill_rmax(
    out: Array, plane: Plane, pieces: Iterable[Piece], pool: int, scratch: Scratch
) -> None:
    """Write RMax of pieces of a plane, cut with a hop of 2, into (B, 2, P, P, H', W')."""
    for piece in pieces:
        planes, rows, columns = piece.place
        for sign, real in enumerate(plane.real_parts(piece, scratch)):
            out[planes, sign, :, :, rows, columns] = _max_pool(real, pool, scratch)


def _max_pool(x: Array, pool: int, scratch: Scratch) -> Array:
    """Maximum over pool x pool windows of the last two axes, stride 2, no padding."""
    last = x.shape[-1] - pool + 1
    views = [x[..., shift : shift + last : 2] for shift in range(pool)]
    x = _maximum(views, scratch.named("across"))
    last = x.shape[-2] - pool + 1
    views = [x[..., shift : shift + last : 2, :] for shift in range(pool)]
    return _maximum(views, scratch.named("down"))


def _maximum(arrays: list[Array], allocate: Allocate) -> Array:
    first, *others = arrays
    out = allocate(tuple(first.shape), first)
    out[...] = first
    xp = namespace(out)
    for other in others:
        xp.maximum(out, other, out=out)
    return out


def _differentiable_rmax(x: Array, plane: Plane, pool: int) -> Array:
    torch = namespace(x)

    def forward(x: Array) -> Array:
        out = empty((x.shape[0], 2, plane.packets, plane.packets, *plane.size), x)
        scratch = Scratch()
        for piece in plane.pieces(x):
            planes, rows, columns = piece.place
            for sign, real in enumerate(plane.real_parts(piece, scratch)):
                out[planes, sign, :, :, rows, columns] = real
        return out

    def adjoint(real: Array) -> Array:
        return plane.adjoint(torch.complex(real, torch.zeros_like(real)))

    real = linear_map(x, forward, adjoint)
    pooled = torch.nn.functional.max_pool2d(real.flatten(1, 3), pool, stride=2)
    return pooled.reshape(*real.shape[:4], *pooled.shape[-2:])
