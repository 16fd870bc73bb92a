"""Quasi-Monte Carlo: normal points, and the ratio of two mean squares with its standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

__all__ = ["mean_square_ratio", "normal_points"]

# Scrambled Sobol points: independent scramblings, whose scatter gives the standard errors, and
# points (a power of two) in each.
_SCRAMBLINGS, _POINTS = 8, 2**11


def normal_points(dimensions: int) -> NDArray[np.float64]:
    """Quasi-random standard normal points, shape (dimensions, scramblings * points)."""
    rng = np.random.default_rng(0)
    uniform = np.concatenate(
        [qmc.Sobol(dimensions, rng=rng).random(_POINTS) for _ in range(_SCRAMBLINGS)]
    )
    return np.ascontiguousarray(ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)).T)


def mean_square_ratio(
    error: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[float, float]:
    """Mean square of ``error`` over that of ``scale``, at the points, and its standard error."""
    above, below = (
        np.square(values).reshape(_SCRAMBLINGS, -1).mean(1) for values in (error, scale)
    )
    stderr = (above / below).std(ddof=1) / np.sqrt(_SCRAMBLINGS)
    return float(above.mean() / below.mean()), float(stderr)
