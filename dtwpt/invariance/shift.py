"""Shift between two images, from the phases of wavelet packets: estimate_shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import as_numpy
from dtwpt.packets import PacketBank
from dtwpt.transform import dtcwpt2
from dtwpt.wavelets import AnyWavelet

__all__ = ["estimate_shift"]

_DEPTH = 2
# Side of the smallest image in the pyramid, pixels.
_SMALLEST = 24
# Coefficients nearer to a border see its extension.
_MARGIN = 4
_STEPS = 4
_PEAKS = 8


def estimate_shift(
    a: ArrayLike, b: ArrayLike, *, wavelet: AnyWavelet = "qshift_b"
) -> NDArray[np.float64]:
    r"""Estimate by how much an image is shifted, to a fraction of a pixel.

    Parameters
    ----------
    a, b : array_like, shape (H, W)
        Two images of one size, at least 24 pixels each way. Content that only one of them shows is
        left out.
    wavelet : str or Wavelet, default: "qshift_b"

    Returns
    -------
    ndarray, shape (2,)
        (down, right) in pixels: ``b`` shows the content of ``a`` that much further down and to the
        right.

    Raises
    ------
    ValueError
        If the images are of the wrong shape, or hold NaN or infinity.

    Notes
    -----
    A shift by d turns the phase of a packet by :math:`-\langle \omega, d \rangle`, where
    :math:`\omega` is the gradient of the phase, which is measured on the coefficients. Least
    squares over positions and packets, weighted by the moduli and, against outliers, by what does
    not fit, give d. Phases repeat, so the search starts with whole pixels: among the highest peaks
    of the phase correlation of the windowed images, the one at which the overlapping parts are most
    alike. Packets at zero and at the highest frequency are left out.

    D. J. Fleet and A. D. Jepson, "Computation of Component Image Velocity from Local Phase
    Information", International Journal of Computer Vision 5, 1990, with packets as the filters.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> from dtwpt.invariance import estimate_shift
    >>> scene = gaussian_filter(np.random.default_rng(0).normal(size=(96, 96)), 1)
    >>> estimate_shift(scene[8:72, 8:72], scene[5:69, 12:76]).round(2) + 0.0
    array([ 3., -4.])
    """
    one, two = _as_image(a, "a"), _as_image(b, "b")
    if one.shape != two.shape:
        raise ValueError(f"a and b must be of one size, got {one.shape} and {two.shape}")
    atoms = PacketBank(_DEPTH, wavelet).atoms()
    inner = ~(atoms["boundary"] | atoms["lowpass"])
    shift = _whole_pixels(one, two)
    for scale in (2, 1):
        if min(one.shape) >= scale * _SMALLEST:
            pair = (one, two) if scale == 1 else (_halved(one), _halved(two))
            for _ in range(_STEPS):
                shift = scale * _refined(*pair, shift / scale, inner, wavelet)
    return shift


def _as_image(image: ArrayLike, name: str) -> NDArray[np.float64]:
    x = as_numpy(image, name).astype(np.float64)
    if x.ndim != 2 or min(x.shape) < _SMALLEST:
        raise ValueError(
            f"{name} must have shape (H, W), at least {_SMALLEST} each way, got {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    return x


def _whole_pixels(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the images are most alike, of the peaks of their phase correlation."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in a.shape))
    cross = np.fft.rfft2((b - b.mean()) * window) * np.fft.rfft2((a - a.mean()) * window).conj()
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), np.finfo(float).tiny), a.shape)
    found = []
    for peak in np.argsort(peaks, None)[: -_PEAKS - 1 : -1]:
        place = np.array(np.unravel_index(peak, a.shape))
        move = np.where(place > np.array(a.shape) // 2, place - np.array(a.shape), place)
        here, there = (x - x.mean() for x in (_overlap(a, move), _overlap(b, -move)))
        if here.size < a.size / 4:
            continue
        energy = np.sqrt(np.sum(here**2) * np.sum(there**2))
        found.append((float(np.sum(here * there) / (energy + np.finfo(float).tiny)), *move))
    best = max(found, default=(0.0, 0, 0))
    return np.array(best[1:], np.float64) if best[0] > 0 else np.zeros(2)


def _halved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average blocks of 2 x 2 pixels."""
    rows, columns = (side // 2 * 2 for side in x.shape)
    blocks = x[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2)
    mean: NDArray[np.float64] = blocks.mean((1, 3))
    return mean


def _refined(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    shift: NDArray[np.float64],
    inner: NDArray[np.bool_],
    wavelet: AnyWavelet,
) -> NDArray[np.float64]:
    """Return a better estimate of the shift."""
    # Images that still overlap enough to be transformed.
    most = np.array(a.shape) / 2 - _SMALLEST / 4
    whole = np.clip(np.round(shift), -most.astype(int), most.astype(int)).astype(int)
    here, there = _overlap(a, whole), _overlap(b, -whole)
    first, second = (_coefficients(x, inner, wavelet) for x in (here, there))
    turned = np.angle(second * first.conj())
    slopes = np.stack([_slope(first, second, axis) for axis in (-2, -1)])
    rest = shift - whole
    # The turn beyond that of the present estimate, from -pi to pi.
    left = turned + np.tensordot(rest, slopes, 1)
    left = (left + np.pi) % (2 * np.pi) - np.pi
    weights = np.abs(first) * np.abs(second) / (1 + (left / 0.5) ** 2) ** 2
    w, k, y = (x[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN] for x in (weights, slopes, left))
    w, k, y = w.ravel(), k.reshape(2, -1), y.ravel()
    # Nothing to see in some direction: no change.
    normal: NDArray[Any] = (k * w) @ k.T
    normal = normal + (1e-9 * np.trace(normal) + np.finfo(float).tiny) * np.eye(2)
    step: NDArray[np.float64] = np.linalg.solve(normal, (k * w) @ y)
    return shift - np.clip(step, -2, 2)


def _overlap(x: NDArray[np.float64], move: NDArray[Any]) -> NDArray[np.float64]:
    """Return the overlapping parts when the image moves by whole pixels."""
    rows, columns = (
        slice(max(-m, 0), n - max(m, 0)) for m, n in zip(move.tolist(), x.shape, strict=True)
    )
    return x[rows, columns]


def _coefficients(
    x: NDArray[np.float64], inner: NDArray[np.bool_], wavelet: AnyWavelet
) -> NDArray[np.complex128]:
    c = dtcwpt2(x - x.mean(), _DEPTH, wavelet, stride=1)
    kept: NDArray[Any] = c.reshape(-1, *c.shape[-2:])[inner]
    return kept


def _slope(
    first: NDArray[np.complex128], second: NDArray[np.complex128], axis: int
) -> NDArray[np.float64]:
    """Return the phases' gradient along an axis, radians a pixel, of both images together."""
    turn = np.zeros_like(first)
    side = first.shape[axis]
    for c in (first, second):
        lower, upper = (np.take(c, range(k, side - 1 + k), axis) for k in (0, 1))
        steps = upper * lower.conj()
        before = tuple(slice(0, -1) if n == axis + c.ndim else slice(None) for n in range(c.ndim))
        after = tuple(slice(1, None) if n == axis + c.ndim else slice(None) for n in range(c.ndim))
        turn[before] += steps
        turn[after] += steps
    slope: NDArray[np.float64] = np.angle(turn)
    return slope
