"""Kernels of any first layer: their characteristics, and their analytic extension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from dtwpt.arrays import as_numpy, dtype_name, is_tensor
from dtwpt.invariance.layer import as_stride
from dtwpt.packets import OCCUPIED, PacketBank

__all__ = [
    "CHARACTERISTICS",
    "DC_MOST",
    "LIKENESS_LEAST",
    "ONE_SIDED_LEAST",
    "analytic_kernels",
    "as_kernels",
    "characterize",
    "frequencies",
    "half_plane",
]

#: Columns of :func:`characterize`.
CHARACTERISTICS = np.dtype(
    [
        ("theta_y", np.float64),
        ("theta_x", np.float64),
        ("frequency", np.float64),
        ("orientation", np.float64),
        ("bandwidth", np.float64),
        ("gabor_likeness", np.float64),
        ("dc_share", np.float64),
        ("analyticity", np.float64),
        ("gabor", np.bool_),
    ]
)

#: A filter is Gabor-like if at least this share of its energy lies in one square window of side
#: pi / m, its squared response to a constant is at most this share of that to the wave it answers
#: most, and at least this share of its energy (of a real kernel's extension all) faces theta.
LIKENESS_LEAST, DC_MOST, ONE_SIDED_LEAST = 0.6, 0.1, 0.9

# Points of the frequency grid along an axis for small kernels.
_GRID = 256


def as_kernels(kernels: Any, colour: Any = None) -> NDArray[Any]:
    """Return kernels as float64 or complex128 of shape (n, h, w), with "full" (n, in, h, w).

    Parameters
    ----------
    kernels : array_like or torch.Tensor, shape (out, in, h, w), (n, h, w) or (h, w)
        Several input channels are reduced to one.
    colour : array_like of float, shape (in,), or "full", optional
        Weights of the input channels: the colour along which images vary. Default: the mean over
        channels, the response to a grey image, up to a factor. "full": the channels are kept apart;
        complex kernels of several channels are then refused.

    Raises
    ------
    TypeError, ValueError
        If the shape or the dtype does not fit, a value is not finite, or a kernel is zero, also
        where its channels cancel to rounding.
    """
    digits = float(np.finfo(np.float64).eps)
    if is_tensor(kernels) and dtype_name(kernels) == "bfloat16":
        digits = 2.0**-7
    array = as_numpy(kernels, "kernels")
    if array.dtype.kind not in "fciub":
        raise TypeError(f"kernels must be real or complex numbers, got {array.dtype}")
    if array.dtype.kind in "fc":
        digits = max(digits, float(np.finfo(array.dtype).eps))
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if array.ndim == 2:
        array = array[None]
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(f"kernels must have shape (out, in, h, w) or (n, h, w), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("kernels must be finite, got NaN or infinity")
    array, terms = _reduced(array, colour)
    # Where channels cancel, only rounding errors remain.
    largest = np.abs(array).max(tuple(range(1, array.ndim)))
    blank = np.flatnonzero(largest <= 4 * digits * terms)
    if blank.size:
        raise ValueError(f"kernels of zero norm have no frequency: {blank.tolist()}")
    return array


def _reduced(array: NDArray[Any], colour: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Reduce channels as ``colour`` says; return the largest summand of each kernel, too."""
    terms = np.abs(array).max(tuple(range(1, array.ndim)))
    if isinstance(colour, str):
        if colour != "full" or (array.ndim == 4 and np.iscomplexobj(array)):
            raise ValueError(f'colour must be weights, or "full" for real kernels, got {colour!r}')
        return (array[:, None] if array.ndim == 3 else array), terms
    if array.ndim == 3:
        if colour is not None:
            raise ValueError("colour is for kernels of shape (out, in, h, w)")
        return array, terms
    channels = array.shape[1]
    weights = np.full(channels, 1 / channels) if colour is None else np.asarray(colour, float)
    if weights.shape != (channels,) or not np.isfinite(weights).all():
        raise ValueError(f"colour must be {channels} finite weights, got {colour!r}")
    terms = np.abs(array * weights[:, None, None]).max((1, 2, 3))
    return np.tensordot(array, weights, (1, 0)), terms


def characterize(kernels: Any, stride: float | None = None, colour: Any = None) -> np.ndarray:
    r"""Compute frequency, orientation, bandwidth and Gabor-likeness of convolution kernels.

    Parameters
    ----------
    kernels : PacketBank, array_like or torch.Tensor
        A packet bank (its atoms), or kernels of shape (out, in, h, w), (n, h, w) or (h, w), real or
        complex, as they lie in the image: ``torch.nn.Conv2d.weight``, say.
    stride : float, optional
        Subsampling m after the kernel; it sets the window of Gabor-likeness. Default: 2, and
        ``2**(depth - 1)`` for a bank.
    colour : array_like of float, shape (in,), or "full", optional
        Weights of the input channels; their mean by default. "full": energies are summed over the
        channels.

    Returns
    -------
    structured ndarray, shape (n,)
        With columns

        - ``theta_y``, ``theta_x``: characteristic frequency, rad/pixel: the centre of energy within
          the window below. Of real kernels the one with ``theta_y >= 0``;
        - ``frequency``: its distance from zero, rad/pixel;
        - ``orientation``: its direction in degrees, in [0, 180), from the x axis towards the y
          axis, which points down;
        - ``bandwidth``: occupied bandwidth, rad/pixel: side of the smallest square about theta that
          holds 99 % of the analytic kernel's energy;
        - ``gabor_likeness``: largest share of the analytic kernel's energy in a square window of
          side :math:`\pi/m` of the frequency plane;
        - ``dc_share``: squared response to a constant image over that of the best image of the
          kernel's size;
        - ``analyticity``: share of energy at frequencies that face theta; 1 for real kernels, which
          are extended so that it is;
        - ``gabor``: Gabor-like, that is ``gabor_likeness`` of at least 0.6, ``analyticity`` of at
          least 0.9, and a squared response to a constant of at most a tenth of that to the wave
          which the kernel answers most. Of packets, these are all but the low-pass one and those
          at :math:`\pi`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a kernel is zero.

    References
    ----------
    .. [1] H. Leterme et al., arXiv 2209.11740 (sections on Gabor-like kernels).

    Examples
    --------
    >>> from skimage.filters import gabor_kernel
    >>> from dtwpt.invariance import characterize
    >>> row = characterize(gabor_kernel(0.2, theta=0.5).real)[0]
    >>> print(f"{row['frequency']:.2f} rad/pixel, {row['orientation']:.0f} degrees")
    1.26 rad/pixel, 29 degrees
    """
    if isinstance(kernels, PacketBank):
        if colour is not None:
            raise ValueError("colour is for kernels of shape (out, in, h, w)")
        count, each = 2 * 4**kernels.depth, _atoms(kernels)
        stride = 2 ** (kernels.depth - 1) if stride is None else stride
    else:
        array = as_kernels(kernels, colour)
        count, each = len(array), iter(array)
    m = as_stride(2 if stride is None else stride)
    table = np.empty(count, CHARACTERISTICS)
    for index, kernel in enumerate(each):
        table[index] = _characteristics(kernel, m)
    return table


def analytic_kernels(kernels: Any, colour: Any = None) -> NDArray[np.complex128]:
    r"""Extend real kernels to analytic ones, :math:`W = V + i H(V)`.

    H is the Hilbert transform across the half-plane of frequencies that the kernel's
    characteristic frequency lies in.

    Parameters
    ----------
    kernels : array_like or torch.Tensor, shape (out, in, h, w), (n, h, w) or (h, w)
        Real kernels V. Complex ones are returned as they are.
    colour : array_like of float, shape (in,), or "full", optional
        Weights of the input channels; their mean by default. "full": one half-plane for all
        channels of a kernel.

    Returns
    -------
    ndarray of complex128, shape (n, 4 h, 4 w), with "full" (n, in, 4 h, 4 w)
        The real part is V, at rows and columns ``(3 h) // 2`` and ``(3 w) // 2`` on; the imaginary
        part reaches further, as Hilbert transforms do. Of complex kernels: (n, h, w).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a kernel is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import analytic_kernels
    >>> wave = np.cos(1.2 * np.arange(9)) * np.hanning(9) * np.hanning(9)[:, None]
    >>> analytic_kernels(wave).shape
    (1, 36, 36)
    """
    array = as_kernels(kernels, colour)
    if np.iscomplexobj(array):
        return array
    height, width = array.shape[-2:]
    top, left = 3 * height // 2, 3 * width // 2
    padded = np.zeros((*array.shape[:-2], 4 * height, 4 * width))
    padded[..., top : top + height, left : left + width] = array
    omega_y, omega_x = frequencies(4 * height)[:, None], frequencies(4 * width)[None, :]
    extended = np.empty(padded.shape, np.complex128)
    for index, kernel in enumerate(padded):
        half = half_plane(*_direction(_energy(kernel), 2), omega_y, omega_x)
        extended[index] = np.fft.ifft2(2 * half * np.fft.fft2(kernel))
    return extended


def _atoms(bank: PacketBank) -> Iterator[NDArray[np.complex128]]:
    for row in bank.atoms():
        yield bank.atom(int(row["sign"]), int(row["row"]), int(row["col"]))


def frequencies(n: int) -> NDArray[np.float64]:
    """Return the n frequencies of a discrete Fourier transform, rad/pixel."""
    return np.asarray(2 * np.pi * np.fft.fftfreq(n), dtype=np.float64)


def _energy(kernel: NDArray[Any]) -> NDArray[np.float64]:
    """Energy spectrum, summed over channels, on a grid fine enough to tell frequencies apart."""
    size = max(_GRID, 2 ** int(np.ceil(np.log2(2 * max(kernel.shape[-2:])))))
    energy = np.asarray(np.abs(np.fft.fft2(kernel, (size, size))) ** 2, dtype=np.float64)
    return energy if energy.ndim == 2 else energy.sum(0)


def half_plane(
    theta_y: float, theta_x: float, omega_y: NDArray[Any], omega_x: NDArray[Any]
) -> NDArray[np.float64]:
    """Return 1 where frequencies face theta, 0 opposite, 1/2 on the line and where both are one."""
    facing = (np.sign(theta_y * omega_y + theta_x * omega_x) + 1) / 2
    # On an even grid the outermost frequency stands for both its signs.
    opposite = facing[-np.arange(facing.shape[0])][:, -np.arange(facing.shape[1])]
    return np.asarray((facing + 1 - opposite) / 2)


def _window(energy: NDArray[np.float64], m: float) -> tuple[float, float, float]:
    """Centre and share of the square of side pi / m that holds the most energy."""
    size = len(energy)
    side = max(1, round(size / (2 * m)))
    smoothed = uniform_filter(energy, side, mode="wrap")
    at_y, at_x = np.unravel_index(smoothed.argmax(), smoothed.shape)
    share = smoothed[at_y, at_x] * side**2 / energy.sum()
    # The mean over an even number of points stands half a point before.
    half = 0.5 if side % 2 == 0 else 0.0
    step = 2 * np.pi / size
    return (at_y - half) * step, (at_x - half) * step, min(float(share), 1.0)


def _direction(energy: NDArray[np.float64], m: float) -> tuple[float, float]:
    """Frequency, wrapped to [-pi, pi), around which most of the energy lies."""
    centre_y, centre_x, _ = _window(energy, m)
    return _wrapped(centre_y), _wrapped(centre_x)


def _wrapped(angle: Any) -> Any:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _characteristics(kernel: NDArray[Any], m: float) -> tuple[float, ...]:
    energy = _energy(kernel)
    omega = frequencies(len(energy))
    real = not np.iscomplexobj(kernel)
    whole = energy
    if real:
        theta_y, theta_x = _direction(whole, m)
        for _ in range(3):  # a better direction gives a better half-plane
            energy = whole * half_plane(theta_y, theta_x, omega[:, None], omega[None, :])
            theta_y, theta_x, share = _centre_of_energy(energy, omega, m)
        if (theta_y, theta_x) < (0, 0):
            theta_y, theta_x = -theta_y, -theta_x
            energy = whole - energy
    else:
        theta_y, theta_x, share = _centre_of_energy(whole, omega, m)
    constant = np.square(np.abs(kernel.sum((-2, -1)))).sum()
    dc_share = float(constant / (kernel.shape[-2] * kernel.shape[-1]))
    dc_share /= float(np.sum(np.abs(kernel) ** 2))
    to_constant = float(whole[0, 0] / whole.max())
    analyticity = 1.0
    if not real:
        facing = half_plane(theta_y, theta_x, omega[:, None], omega[None, :])
        analyticity = float(np.sum(energy * facing) / energy.sum())
    return (
        theta_y,
        theta_x,
        float(np.hypot(theta_y, theta_x)),
        float(np.degrees(np.arctan2(theta_y, theta_x)) % 180),
        _occupied_bandwidth(energy, omega, theta_y, theta_x),
        share,
        dc_share,
        analyticity,
        share >= LIKENESS_LEAST and to_constant <= DC_MOST and analyticity >= ONE_SIDED_LEAST,
    )


def _occupied_bandwidth(
    energy: NDArray[np.float64], omega: NDArray[np.float64], theta_y: float, theta_x: float
) -> float:
    # Energy of squares about theta: sums of rows and columns in the order of their distance.
    away = [np.abs(_wrapped(omega - theta)) for theta in (theta_y, theta_x)]
    order_y, order_x = (np.argsort(each) for each in away)
    within = np.cumsum(np.cumsum(energy[np.ix_(order_y, order_x)], axis=0), axis=1)
    halves = np.sort(np.concatenate(away))
    rows, columns = (np.searchsorted(np.sort(each), halves, "right") for each in away)
    held = np.where(np.minimum(rows, columns) > 0, within[rows - 1, columns - 1], 0)
    return float(2 * halves[np.searchsorted(held, OCCUPIED * within[-1, -1])])


def _centre_of_energy(
    energy: NDArray[np.float64], omega: NDArray[np.float64], m: float
) -> tuple[float, float, float]:
    """Frequency about which the best window's energy is balanced, and the window's share."""
    centre_y, centre_x, share = _window(energy, m)
    for _ in range(10):  # move the window to its centre of energy, until they agree
        away_y, away_x = _wrapped(omega - centre_y), _wrapped(omega - centre_x)
        near_y, near_x = (np.abs(away) <= np.pi / (2 * m) for away in (away_y, away_x))
        part = energy[np.ix_(near_y, near_x)]
        centre_y += part.sum(1) @ away_y[near_y] / part.sum()
        centre_x += part.sum(0) @ away_x[near_x] / part.sum()
    return float(_wrapped(centre_y)), float(_wrapped(centre_x)), share
