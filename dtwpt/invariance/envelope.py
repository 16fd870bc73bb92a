"""Bound on the distance between RMax and CMod that counts the envelope's change exactly."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

__all__ = ["gaussian_bound", "rmax_cmod_bound"]

# Moduli and phases of the output in the middle of a window over which is averaged; the coarse ones
# estimate the accuracy.
_NODES, _COARSE = (24, 32), (16, 20)


def rmax_cmod_bound(correlation: ArrayLike) -> NDArray[np.float64]:
    r"""Bound E (RMax - CMod)^2 / E CMod^2 from the correlations within a pooling window.

    Let :math:`R_p` be the real outputs in a window and Z the complex one in its middle, of a
    circular Gaussian field. RMax, the largest :math:`R_p`, exceeds :math:`|Z|` by at most the sum
    of the individual excesses, and falls short by at most as much as any one of them. With
    :math:`p^*` any function of Z,

    .. math:: E (\mathrm{RMax} - \mathrm{CMod})^2
        \leq \sum_p E (R_p - |Z|)_+^2 + E (|Z| - R_{p^*})_+^2.

    Given Z, :math:`R_p` is Gaussian with mean :math:`\mathrm{Re}(r_p Z)` and variance
    :math:`(1 - |r_p|^2) / 2` (:math:`E |Z|^2 = 1`). This gives the terms in closed form, and the
    best :math:`p^*`.

    Parameters
    ----------
    correlation : array_like of complex, shape (..., points)
        :math:`r_p`, of the outputs in a window with that in its middle, of modulus at most 1. The
        order of the points does not matter.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    ValueError
        If a modulus exceeds 1, or there is no point.

    See Also
    --------
    predict : the same for fields that are not circular, as ``rmax_cmod_bound``.

    Examples
    --------
    A wave at a right angle to its samples has nothing but gamma:

    >>> import numpy as np
    >>> from dtwpt.invariance import gamma, rmax_cmod_bound
    >>> omega = np.array([1.2, 0.5])
    >>> p = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    >>> wave = np.exp(1j * p @ omega)
    >>> bool(np.isclose(rmax_cmod_bound(wave), gamma(omega, 1) ** 2, rtol=0.05))
    True
    >>> float(rmax_cmod_bound(0.7 * wave).round(2))
    0.58
    """
    r = np.asarray(correlation, dtype=np.complex128)
    if r.ndim == 0 or r.shape[-1] == 0:
        raise ValueError(f"correlation must have shape (..., points), got {r.shape}")
    if not (np.abs(r) <= 1 + 1e-9).all():
        raise ValueError("correlation must be finite and at most 1 in modulus")
    out = np.empty(r.shape[:-1])
    for index in np.ndindex(out.shape):
        at = r[index]
        gain = np.stack([at.real, -at.imag], axis=-1)
        spread = np.sqrt(np.maximum(1 - np.abs(at) ** 2, 0) / 2)
        out[index] = _expectation(gain, spread, np.eye(2) / np.sqrt(2), 0, np.zeros(2), _NODES)
    return out


def gaussian_bound(
    reals: NDArray[np.float64],
    cross: NDArray[np.float64],
    middle: NDArray[np.float64],
    mean: complex,
) -> tuple[float, float]:
    """Return the bound on E (RMax - CMod)^2 for any Gaussian field, and its accuracy.

    Parameters
    ----------
    reals : ndarray, shape (points,)
        Variances of the real outputs in a window.
    cross : ndarray, shape (points, 2)
        Their covariances with real and imaginary part in the middle.
    middle : ndarray, shape (2, 2)
        Covariance of these two.
    mean : complex
        Mean of every output.
    """
    gain = cross @ np.linalg.pinv(middle, rcond=1e-9, hermitian=True)
    spread = np.sqrt(np.maximum(reals - np.sum(gain * cross, axis=1), 0))
    values, vectors = np.linalg.eigh(middle)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    centre = np.array([mean.real, mean.imag])
    fine, coarse = (
        _expectation(gain, spread, factor, mean.real, centre, nodes) for nodes in (_NODES, _COARSE)
    )
    return fine, abs(fine - coarse)


def _expectation(
    gain: NDArray[np.float64],
    spread: NDArray[np.float64],
    factor: NDArray[np.float64],
    offset: float,
    centre: NDArray[np.float64],
    nodes: tuple[int, int],
) -> float:
    """Average both terms over the output in the middle, of which R_p are ``gain`` times."""
    points, weights = _normal_plane(*nodes)
    middle = points @ factor.T
    modulus = np.hypot(middle[..., 0] + centre[0], middle[..., 1] + centre[1])
    above = middle @ gain.T + offset - modulus[..., None]
    excess = _partial(above, spread).sum(-1)
    shortfall = _partial(-above, spread).min(-1)
    return float(weights @ (excess + shortfall).mean(-1))


@lru_cache(maxsize=4)
def _normal_plane(moduli: int, phases: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes (moduli, phases, 2) and weights (moduli,) of two standard normal variables."""
    squares, weights = np.polynomial.laguerre.laggauss(moduli)
    angles = (np.arange(phases) + 0.5) * 2 * np.pi / phases
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.sqrt(2 * squares)[:, None, None] * unit, weights


def _partial(mean: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """E of the squared positive part of Gaussian variables."""
    spread = np.maximum(spread, 1e-12)
    ratio = mean / spread
    density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray((mean**2 + spread**2) * ndtr(ratio) + mean * spread * density)
