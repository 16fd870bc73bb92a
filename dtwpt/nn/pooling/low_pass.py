"""Low-pass filters of wavelets by name, computed from their definition."""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from dtwpt.packets import PacketBank
from dtwpt.wavelets import KNOWN

__all__ = ["LOW_PASSES", "low_pass"]

# Zeros at frequency pi, and which roots of the product filter are in the reconstruction's.
_BIORTHOGONAL = {
    "bior2.2": (2, "none"),
    "bior3.3": (3, "none"),
    "bior4.4": (4, "real"),
    "bior5.5": (6, "left"),
}

#: Names of the filters of :func:`low_pass`.
LOW_PASSES = ("haar", "db2", "db3", "db4", "db5", "db6", *_BIORTHOGONAL, *KNOWN)


@lru_cache(maxsize=32)
def low_pass(name: str) -> tuple[float, ...]:
    """Return the reconstruction low-pass of a wavelet, which sums to 1.

    Parameters
    ----------
    name : str
        One of :data:`LOW_PASSES`. "haar" and "db2" to "db6": Daubechies' extremal phase filters;
        "bior": biorthogonal splines and the pairs near them; a wavelet of the dual tree: the mean
        of its two trees' filters at the first stage.

    Returns
    -------
    tuple of float

    Notes
    -----
    I. Daubechies, "Ten Lectures on Wavelets", SIAM 1992, sections 6.4 and 8.3: the product of
    analysis and reconstruction filter is ``((1 - y) ** n) * q(y)`` with ``y = sin(w / 2) ** 2`` and
    ``q(y) = sum of comb(n - 1 + k, k) * y ** k``, k < n; filters share its roots.
    """
    if name in KNOWN:
        taps = PacketBank(1, name).filters[0]
        mean = np.trim_zeros(taps.real + taps.imag)
        return tuple((mean / mean.sum()).tolist())
    if name in _BIORTHOGONAL:
        zeros, which = _BIORTHOGONAL[name]
        roots = _roots(int(name[4]))
        real = np.abs(roots.imag) < 1e-9
        kept = {"none": roots[:0], "real": roots[real], "left": roots[roots.real < 0]}[which]
        # A root r of q is the factor 1 - y / r, and y has the taps (-1, 2, -1) / 4.
        factors = [np.array([0.25 / r, 1 - 0.5 / r, 0.25 / r]) for r in kept]
    else:
        zeros = 1 if name == "haar" else int(name[2])
        roots = _roots(zeros)
        # Of the two z of a root y = (2 - z - 1 / z) / 4, the one within the unit circle.
        half = 1 - 2 * roots
        inside = half - np.sqrt(half**2 - 1)
        inside = np.where(abs(inside) < 1, inside, 1 / inside)
        factors = [np.array([1, -z]) / (1 - z) for z in inside]
    product: NDArray[np.complex128] = np.ones(1, dtype=complex)
    for factor in factors:
        product = np.convolve(product, factor)
    for _ in range(zeros):
        product = np.convolve(product, [0.5, 0.5])
    return tuple(product.real.tolist())


def _roots(n: int) -> NDArray[np.complex128]:
    """Return the roots y of the remainder q of Daubechies' product filter."""
    return np.roots([comb(n - 1 + k, k) for k in reversed(range(n))]).astype(complex)
