"""Change of the modulus of circular Gaussian outputs, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import hyp2f1

__all__ = ["circular_change", "cmod_shift_closed_form"]

# Share of pseudo-covariance, or of a mean's square, in the variance, below which the closed form
# replaces sampling.
_CIRCULAR = 1e-4


def cmod_shift_closed_form(correlation: ArrayLike) -> NDArray[np.float64]:
    r"""Relative squared change of the modulus of circular Gaussian variables.

    For :math:`Z, Z'` of one variance and complex correlation r, with no pseudo-covariance:

    .. math:: E(|Z| - |Z'|)^2 / E|Z|^2
        = 2 - \frac{\pi}{2} \, {}_2F_1(-1/2, -1/2; 1; |r|^2)

    Parameters
    ----------
    correlation : array_like of complex
        r, of modulus at most 1.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> from dtwpt.invariance import cmod_shift_closed_form
    >>> cmod_shift_closed_form([0, 0.9, 1]).round(4).tolist()
    [0.4292, 0.0899, 0.0]
    """
    r = np.minimum(np.abs(np.asarray(correlation)), 1)
    return np.asarray(np.maximum(2 - np.pi / 2 * hyp2f1(-0.5, -0.5, 1, r**2), 0))


def circular_change(joint: NDArray[np.float64], mean: complex) -> float | None:
    """Return E (|Z'| - |Z|)^2 / E |Z|^2; None if Z and Z' are not circular.

    Parameters
    ----------
    joint : ndarray, shape (n, n)
        Covariance whose last four variables are Re Z, Re Z', Im Z, Im Z'.
    mean : complex
        Of Z and of Z'.
    """
    re, re_after, im, im_after = range(len(joint) - 4, len(joint))
    blocks = [
        joint[np.ix_(rows, columns)]
        for rows, columns in (
            ((re, im), (re, im)),
            ((re_after, im_after), (re_after, im_after)),
            ((re, im), (re_after, im_after)),
        )
    ]
    before, after, cross = blocks
    energy = float(np.trace(before))
    pseudo = [abs(b[0, 0] - b[1, 1] + 1j * (b[0, 1] + b[1, 0])) for b in blocks]
    if not energy > 0 or max(*pseudo, abs(mean) ** 2) > _CIRCULAR * energy:
        return None
    gain = np.sqrt(np.trace(after) / energy)
    together = abs(np.trace(cross) + 1j * (cross[0, 1] - cross[1, 0])) / energy
    unlike = float(cmod_shift_closed_form(together / gain))
    return float(1 + gain**2 - gain * (2 - unlike))
