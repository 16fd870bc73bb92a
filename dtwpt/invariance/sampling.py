"""Quasi-Monte Carlo: normal points, and the ratio of two mean squares with its standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

__all__ = ["SCRAMBLINGS", "mean_square_ratio", "normal_points"]

#: Independent scramblings of Sobol points, whose scatter gives the standard errors.
SCRAMBLINGS = 8
# Points (a power of two) in each, at least so many for each kind of field.
_POINTS, _LEAST_POINTS = 2**11, 2**7


def normal_points(dimensions: int, kinds: int = 1) -> NDArray[np.float64]:
    """Quasi-random standard normal points, shape (dimensions, scramblings * points).

    Enough points for that many kinds of fields to have some of their own.
    """
    rng = np.random.default_rng(0)
    points = max(_POINTS, 2 ** int(np.ceil(np.log2(_LEAST_POINTS * kinds))))
    uniform = np.concatenate(
        [qmc.Sobol(dimensions, rng=rng).random(points) for _ in range(SCRAMBLINGS)]
    )
    return np.ascontiguousarray(ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)).T)


def mean_square_ratio(
    error: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[float, float]:
    """Mean square of ``error`` over that of ``scale``, at the points, and its standard error."""
    above, below = (np.square(values).reshape(SCRAMBLINGS, -1).mean(1) for values in (error, scale))
    stderr = (above / below).std(ddof=1) / np.sqrt(SCRAMBLINGS)
    return float(above.mean() / below.mean()), float(stderr)
