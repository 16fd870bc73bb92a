r"""Wavelets of a given length whose packets change least when the image moves.

An orthonormal low-pass of L taps is a chain of L/2 rotations ([1]_); any angles give one, exact to
rounding. That they add up to :math:`\pi/4` makes the gain at :math:`\pi` zero. The other L/2 - 1
are chosen by the predicted change of CMod, which is small only if the two trees are half a sample
apart and the bands are narrow.

References
----------
.. [1] P. P. Vaidyanathan and P.-Q. Hoang, "Lattice structures for optimal design and robust
   implementation of two-channel perfect-reconstruction QMF banks", IEEE Transactions on Acoustics,
   Speech, and Signal Processing 36 (1988), 81-94.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import qmc

from dtwpt.checks import as_count, as_wavelet
from dtwpt.invariance.closed_form import cmod_shift_closed_form
from dtwpt.invariance.spectrum import as_spectrum
from dtwpt.packets import PacketBank
from dtwpt.wavelets import Wavelet, q_shift_pair

__all__ = ["lattice_angles", "lattice_taps", "optimise_wavelet", "shift_change"]

# Normal points for the moduli at two places, and the shift: a pixel to the right.
_POINTS = 2**9
# Spread of the random starting angles of further searches, radians.
_SPREAD = 0.1


def lattice_taps(angles: ArrayLike) -> NDArray[np.float64]:
    """Return the orthonormal low-pass of 2 n taps that n rotation angles make.

    Parameters
    ----------
    angles : array_like of float, shape (n,)
        Radians.

    Returns
    -------
    ndarray, shape (2 n,)

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance.design_wavelet import lattice_taps
    >>> lattice_taps([np.pi / 4]).round(4).tolist()
    [0.7071, 0.7071]
    """
    low, high = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for number, angle in enumerate(np.asarray(angles, dtype=np.float64)):
        if number:
            low, high = np.pad(low, (0, 2)), np.pad(high, (2, 0))
        cos, sin = np.cos(angle), np.sin(angle)
        low, high = cos * low + sin * high, cos * high - sin * low
    return low


def lattice_angles(low: ArrayLike) -> NDArray[np.float64]:
    """Return the angles of an orthonormal low-pass, the inverse of :func:`lattice_taps`.

    Parameters
    ----------
    low : array_like of float, shape (2 n,)

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> from dtwpt.invariance.design_wavelet import lattice_angles, lattice_taps
    >>> low = dtwpt.Wavelet("qshift_b").low[0]
    >>> bool(np.abs(lattice_taps(lattice_angles(low)) - low).max() < 1e-15)
    True
    """
    taps = np.asarray(low, dtype=np.float64)
    high = taps[::-1].copy()
    high[::2] *= -1
    angles = []
    while taps.size > 2:
        # Turned back, the low-pass ends, and the high-pass begins, with two zeros.
        last = -1 if np.hypot(taps[-1], high[-1]) > np.hypot(taps[-2], high[-2]) else -2
        angle = np.arctan2(taps[last], high[last])
        cos, sin = np.cos(angle), np.sin(angle)
        taps, high = (cos * taps - sin * high)[:-2], (sin * taps + cos * high)[2:]
        angles.append(angle)
    angles.append(np.arctan2(taps[1], taps[0]))
    return np.array(angles[::-1])


def shift_change(wavelet: str | Wavelet, depth: int, spectrum: Any = "pink") -> float:
    """Predict how much CMod changes for a pixel to the right, in the mean over oriented packets.

    Faster than :func:`predict`, and smooth in the taps.

    Parameters
    ----------
    wavelet : str or Wavelet
    depth : int
    spectrum
        As for :func:`predict`; its kinds are averaged, and it is made alike for opposite
        orientations.

    Returns
    -------
    float
        Mean relative squared error, over all but the low-pass and the packets at pi.

    Examples
    --------
    >>> from dtwpt.invariance.design_wavelet import shift_change
    >>> bool(shift_change("qshift_b", 2) < shift_change("qshift_a", 2))
    True
    """
    return _change(as_wavelet(wavelet), depth, _symmetric(spectrum), _points())


def optimise_wavelet(
    length: int,
    spectrum: Any = "pink",
    depths: tuple[int, ...] = (2, 3),
    *,
    start: str | Wavelet = "qshift_b",
    trials: int = 1,
) -> Wavelet:
    """Return the q-shift wavelet of a length whose packets change least under a shift.

    Parameters
    ----------
    length : int
        Number of taps, even and at least 6.
    spectrum
        Of the images, as for ``shift_change``.
    depths : tuple of int, default: (2, 3)
        Depths of the packets. The mean of the logarithms of their changes is minimised.
    start : str or Wavelet, default: "qshift_b"
        Where the search starts: its taps, with zeros at both ends or cut to the length.
    trials : int, default: 1
        Number of searches. All but the first start from angles moved at random, always the same.
        There are several local optima; more trials can find a better one.

    Returns
    -------
    Wavelet
        Orthonormal to rounding, its low-pass 0 at pi, tree b the time reverse of tree a.

    Raises
    ------
    TypeError, ValueError
        If length is not even or too small, or another argument does not fit.

    See Also
    --------
    dtwpt.wavelets : "stable_10", "stable_16" and "stable_20" were found in this way. The page
        :doc:`/choosing-a-wavelet` has a table of their analyticity, their predicted change and the
        time of their transforms.

    Examples
    --------
    >>> from dtwpt.invariance import optimise_wavelet
    >>> from dtwpt.invariance.design_wavelet import shift_change
    >>> best = optimise_wavelet(10, depths=(2,), start="qshift_06")
    >>> bool(shift_change(best, 2) < 0.98 * shift_change("qshift_a", 2))
    True
    """
    taps = as_count(length, "length")
    if taps % 2 or taps < 6:
        raise ValueError(f"length must be even and at least 6, got {taps}")
    searches = as_count(trials, "trials")
    power, points = _symmetric(spectrum), _points()

    def objective(free: NDArray[np.float64]) -> float:
        wavelet = _wavelet(free)
        return float(np.mean([np.log(_change(wavelet, each, power, points)) for each in depths]))

    first = _first(as_wavelet(start), taps)
    rng = np.random.default_rng(0)
    best = None
    for trial in range(searches):
        free = first + (rng.normal(size=first.size) * _SPREAD if trial else 0)
        found = minimize(objective, free, method="BFGS", options={"gtol": 1e-5, "maxiter": 300})
        if best is None or found.fun < best.fun:
            best = found
    low = lattice_taps(_angles(best.x))  # type: ignore[union-attr]
    return Wavelet.from_taps(low, name=f"optimised_{taps}")


def _first(wavelet: Wavelet, length: int) -> NDArray[np.float64]:
    """Return the free angles of about the wavelet's taps, brought to a length."""
    low = wavelet.low[0]
    missing = length - low.size
    if missing < 0:
        low = low[-missing // 2 : low.size + missing // 2 + missing % 2]
        low = low[:length]
    else:
        low = np.pad(low, (missing // 2, missing - missing // 2))
    return lattice_angles(low)[:-1]


def _angles(free: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(free, np.pi / 4 - free.sum())


def _wavelet(free: NDArray[np.float64]) -> Wavelet:
    # A search passes through pairs that are not half a sample apart, which from_taps refuses.
    return q_shift_pair(lattice_taps(_angles(free)))


def _symmetric(spectrum: Any) -> NDArray[np.float64]:
    power = as_spectrum(spectrum, (128, 128)).power
    mean = (power / power.sum((1, 2), keepdims=True)).mean(0)
    mirrored = mean[:, -np.arange(mean.shape[1])]
    return np.asarray(mean + mirrored)


def _points() -> NDArray[np.float64]:
    uniform = qmc.Sobol(4, rng=np.random.default_rng(0)).random(_POINTS)
    return np.asarray(ndtri(np.clip(uniform, 1e-9, 1 - 1e-9)).T)


def _change(
    wavelet: Wavelet, depth: int, power: NDArray[np.float64], points: NDArray[np.float64]
) -> float:
    packets = PacketBank(depth, wavelet).filters
    responses = [_folded(packets, side) for side in power.shape]
    squared = [np.abs(response) ** 2 for response in responses]
    # W(w) W(-w), which analytic filters have none of.
    crossed = [(each * each[:, -np.arange(each.shape[1])]).conj() for each in responses]
    wave = np.exp(2j * np.pi * np.fft.fftfreq(power.shape[1]))

    def moments(down: NDArray[Any], across: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(down @ power @ across.T)

    energy = moments(squared[0], squared[1]).real
    covariance = moments(squared[0], squared[1] * wave) / energy
    pseudo = moments(crossed[0], crossed[1]) / energy
    moved = moments(crossed[0], crossed[1] * wave) / energy
    oriented = np.ones(energy.shape, bool)
    oriented[-1] = oriented[:, -1] = oriented[0, 0] = False  # those at pi, and the low-pass
    rho, pseudo, moved = covariance[oriented], pseudo[oriented], moved[oriented]
    # In closed form without the pseudo-covariances, whose share alone is sampled.
    return float(
        np.mean(
            cmod_shift_closed_form(rho)
            + _sampled(rho, pseudo, moved, points)
            - _sampled(rho, 0 * pseudo, 0 * moved, points)
        )
    )


def _sampled(
    covariance: NDArray[Any],
    pseudo: NDArray[Any],
    moved: NDArray[Any],
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean square of the modulus' change, of outputs of unit energy."""
    # Of Re Z, Im Z at the place, then of both at the moved one.
    joint = np.empty((len(covariance), 4, 4))
    joint[:, :2, :2] = joint[:, 2:, 2:] = _blocks(np.ones(len(covariance)), pseudo)
    joint[:, 2:, :2] = _blocks(covariance, moved)
    joint[:, :2, 2:] = joint[:, 2:, :2].swapaxes(-1, -2)
    outputs = np.linalg.cholesky(joint + 1e-12 * np.eye(4)) @ points
    modulus = np.hypot(outputs[:, ::2], outputs[:, 1::2])
    return np.asarray(np.square(modulus[:, 1] - modulus[:, 0]).mean(1))


def _blocks(covariance: NDArray[Any], pseudo: NDArray[Any]) -> NDArray[np.float64]:
    """Covariances of real and imaginary parts, rows of the first, columns of the second factor."""
    plus, minus = (covariance + pseudo) / 2, (covariance - pseudo) / 2
    rows = [[plus.real, -minus.imag], [plus.imag, minus.real]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _folded(packets: NDArray[np.complex128], side: int) -> NDArray[np.complex128]:
    """Responses on a grid, also of filters longer than it."""
    count, length = packets.shape
    taps = np.zeros((count, -(-length // side) * side), complex)
    taps[:, :length] = packets
    return np.asarray(np.fft.fft(taps.reshape(count, -1, side).sum(1), axis=1))
