"""Padding modes at the ends of a signal."""

from __future__ import annotations

import sys
from typing import Any, get_args

import numpy as np

from dtwpt.typing import Mode

Array = Any

__all__ = ["MODES", "source_index"]

#: Names of the padding modes.
MODES: tuple[Mode, ...] = get_args(Mode)


def source_index(positions: Array, n: int, mode: str) -> Array:
    """Return the index of the sample that stands at each position of the extended signal.

    ==============  ==============================  ===================================
    mode            ``a b c d`` extended            rule
    ==============  ==============================  ===================================
    ``symmetric``   ``b a | a b c d | d c``         mirror between samples (half-sample)
    ``reflect``     ``c b | a b c d | c b``         mirror on the outermost sample
    ``replicate``   ``a a | a b c d | d d``         repeat the outermost sample
    ``periodic``    ``c d | a b c d | a b``         repeat the signal
    ``zero``        ``0 0 | a b c d | 0 0``         nothing there
    ==============  ==============================  ===================================

    Parameters
    ----------
    positions : ndarray or torch.Tensor of int
        Any integers, however far from the signal.
    n : int
        Length of the signal, at least 1.
    mode : str
        One of :data:`MODES`.

    Returns
    -------
    ndarray or torch.Tensor of int
        In ``[0, n)``; -1 where the extended signal is zero.
    """
    xp = np if isinstance(positions, (np.ndarray, np.integer)) else sys.modules["torch"]
    if mode == "periodic":
        return _remainder(positions, n)
    if mode == "symmetric":
        folded = _remainder(positions, 2 * n)
        return xp.minimum(folded, 2 * n - 1 - folded)
    if mode == "reflect":
        if n == 1:  # a single sample mirrored on itself is a constant
            return 0 * positions
        folded = _remainder(positions, 2 * n - 2)
        return xp.minimum(folded, 2 * n - 2 - folded)
    if mode == "replicate":
        return xp.clip(positions, 0, n - 1)
    return xp.where((positions >= 0) & (positions < n), positions, -1)


def _remainder(x: Array, divisor: int) -> Array:
    # The divisor may be a symbol of torch's; the exporter to ONNX wants it as a tensor.
    return x % divisor if isinstance(x, (np.ndarray, np.integer)) else x % x.new_full((), divisor)
