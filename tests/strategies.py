"""What hypothesis draws from."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import dtwpt
from dtwpt.engine.borders import MODES

depths = st.integers(1, 4)
wavelets = st.sampled_from(dtwpt.wavelets())
modes = st.sampled_from(MODES)
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int, dtype: Any = np.float64) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def relative_error(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
