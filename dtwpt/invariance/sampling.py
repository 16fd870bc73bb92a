"""Quasi-Monte Carlo expectations of a layer's output, before and after a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from dtwpt.invariance.filters import Filters

__all__ = [
    "SCRAMBLINGS",
    "MeanSquares",
    "factor",
    "mean_and_error",
    "mean_squares",
    "normal_points",
    "ratios",
]

#: Independent scramblings of Sobol points, whose scatter gives the standard errors.
SCRAMBLINGS = 8
# Points (a power of two) in each, at least so many for each kind of field.
_POINTS, _LEAST_POINTS = 2**11, 2**7


def normal_points(dimensions: int, kinds: int = 1) -> NDArray[np.float64]:
    """Quasi-random standard normal points, shape (dimensions, scramblings, points).

    Enough points for that many kinds of fields to have some of their own.
    """
    rng = np.random.default_rng(0)
    points = max(_POINTS, 2 ** int(np.ceil(np.log2(_LEAST_POINTS * kinds))))
    uniform = np.concatenate(
        [qmc.Sobol(dimensions, rng=rng).random(points) for _ in range(SCRAMBLINGS)]
    )
    normal = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)).T
    return np.ascontiguousarray(normal).reshape(dimensions, SCRAMBLINGS, -1)


def factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix that gives independent variables a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    # The best coordinates of quasi-random points come first, so the largest variances do.
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1])


@dataclass
class MeanSquares:
    """Mean squares of each scrambling: of differences, and of RMax and CMod before the change."""

    rmax_cmod: NDArray[np.float64]
    cmod_shift: NDArray[np.float64]
    rmax_shift: NDArray[np.float64]
    rmax: NDArray[np.float64]
    cmod: NDArray[np.float64]


def mean_squares(
    filters: Filters, offset: float, samples: NDArray[np.float64], mean: complex
) -> MeanSquares:
    """Pool samples and compare them.

    Parameters
    ----------
    filters : Filters
    offset : float
        Bias of the filter.
    samples : ndarray, shape (variables, scramblings, points)
        The real outputs in a window, those after the change, then in the middle the real outputs
        before and after, and the imaginary ones. They are changed.
    mean : complex
        Of every output.
    """
    points = filters.side**2
    samples[: 2 * points + 2] += mean.real
    samples[2 * points + 2 :] += mean.imag
    rmax = filters.pooled(samples[:points], offset)
    rmax_after = filters.pooled(samples[points : 2 * points], offset)
    modulus, modulus_after = np.hypot(samples[2 * points :][:2], samples[2 * points + 2 :])
    cmod = filters.activated(modulus, offset)
    cmod_after = filters.activated(modulus_after, offset)
    return MeanSquares(
        *(
            np.square(values).mean(-1)
            for values in (rmax - cmod, cmod_after - cmod, rmax_after - rmax, rmax, cmod)
        )
    )


def ratios(
    error: NDArray[np.float64], energy: NDArray[np.float64], least: float
) -> NDArray[np.float64]:
    """Mean error over mean energy, with the scatter of the scramblings about it.

    NaN where the energy is not above ``least``: a layer with zero output has no relative error.
    """
    ratio = np.divide(error, energy, out=np.full(error.shape, np.nan), where=energy > least)
    return np.asarray(ratio + error.mean() / max(energy.mean(), 1e-300) - ratio.mean())


def mean_and_error(kinds: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Mean of the ratios of several kinds of fields, and its standard error."""
    table = np.stack(kinds)
    table = table[np.isfinite(table).all(1)]
    if not len(table):
        return float("nan"), float("nan")
    average = table.mean(0)
    return float(average.mean()), float(average.std(ddof=1) / np.sqrt(SCRAMBLINGS))
