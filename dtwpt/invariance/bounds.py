"""Analytic bounds on the change of CMod and RMax, from a filter's frequency and bandwidth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.checks import as_count

__all__ = ["alpha", "beta", "gamma"]


def alpha(bandwidth: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    r"""Bound the change of CMod under a shift: :math:`\alpha(\kappa u) = \kappa |u|_1 / 2`.

    Of a filter whose energy lies within a square of side :math:`\kappa`, the relative change
    :math:`\|CMod(T_u x) - CMod(x)\| / \|CMod(x)\|` is at most this: in expectation over a
    stationary field, or with norms over all positions of a periodic image. On CMod's own grid of
    step 2 m it can fail for a single image unless :math:`\kappa \leq \pi/m` holds *all* of the
    energy. The column ``cmod_shift_bound`` of :func:`measure` holds for every image.

    Parameters
    ----------
    bandwidth : array_like of float
        :math:`\kappa`, rad/pixel.
    shift : array_like of float, shape (..., 2)
        :math:`u = (u_y, u_x)`, pixels. The leading axes broadcast with ``bandwidth``.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        If a value is not finite, a bandwidth is negative, or shift has no last axis of length 2.

    References
    ----------
    .. [1] H. Leterme et al., arXiv 2209.11740, proposition on the shift invariance of CMod.

    Examples
    --------
    >>> from dtwpt.invariance import alpha
    >>> alpha([0.4, 0.8], (0, 1)).tolist()
    [0.2, 0.4]
    """
    kappa = _bandwidths(bandwidth)
    length = np.abs(_pairs(shift, "shift")).sum(-1)
    return np.asarray(kappa * length / 2)


def beta(bandwidth: ArrayLike, stride: int, q: int = 1) -> NDArray[np.float64]:
    r"""Bound the envelope's change within a pooling window: :math:`\beta_q = q m \kappa`.

    To first order in :math:`m \kappa`, in expectation over a stationary field.
    :func:`rmax_cmod_bound` is tighter, and does not assume a small :math:`m \kappa`.

    Parameters
    ----------
    bandwidth : array_like of float
        :math:`\kappa`, rad/pixel.
    stride : int
        Subsampling m before max pooling: ``2**(depth - 1)`` for RMax over packets.
    q : int, default: 1
        The pooling window is ``2 q + 1`` wide.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    TypeError, ValueError
        If a bandwidth is negative or not finite, or stride or q is not an integer of at least 1.

    Examples
    --------
    >>> from dtwpt.invariance import beta
    >>> float(beta(0.5, stride=2))
    1.0
    """
    reach = as_count(q, "q") * as_count(stride, "stride")
    return np.asarray(reach * _bandwidths(bandwidth))


def gamma(theta: ArrayLike, stride: int, q: int = 1) -> NDArray[np.float64]:
    r"""Root mean square gap between a wave's peak and the best sample of a pooling window.

    For a filter, it assumes a phase that is uniform and independent of the modulus, which the
    column ``pseudo_covariance`` of :func:`predict` checks.

    A wave :math:`\cos(\Theta - \langle\omega, p\rangle)` with :math:`\Theta` uniform is sampled at
    the points p of :math:`\{-q..q\}^2`, :math:`\omega = m\theta`. This is the root mean square gap
    between the largest sample and the peak, 1:

    .. math:: \gamma_q(\omega)^2 = E\,(1 - \max_p \cos(\Theta - \langle\omega, p\rangle))^2
        = \frac{3}{2} + \frac{1}{4\pi} \sum_i (\sin\delta_i - 8 \sin(\delta_i/2)),

    with :math:`\delta_i` the gaps between neighbouring phases around the circle. It is near 0
    where the phases are spread, and :math:`\sqrt{3/2}` where all coincide, at
    :math:`\omega \in 2\pi Z^2`: there max pooling cannot imitate a modulus.

    Parameters
    ----------
    theta : array_like of float, shape (..., 2)
        Frequencies, rad/pixel.
    stride : int
        Subsampling m before max pooling: ``2**(depth - 1)`` for RMax over packets.
    q : int, default: 1
        The pooling window is ``2 q + 1`` wide.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    TypeError, ValueError
        If theta has no last axis of length 2 or is not finite, or stride or q is not an integer
        of at least 1.

    References
    ----------
    .. [1] H. Leterme et al., arXiv 2209.11740.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import gamma
    >>> bool(np.isclose(gamma((np.pi, 0), stride=2) ** 2, 1.5))
    True
    >>> float(gamma((1.2, 0.5), stride=2).round(3))
    0.045
    """
    omega = as_count(stride, "stride") * _pairs(theta, "theta")
    reach = np.arange(-as_count(q, "q"), q + 1)
    points = np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)
    phases = np.sort((omega @ points.T) % (2 * np.pi), axis=-1)
    around = phases[..., :1] + 2 * np.pi
    gaps = np.diff(np.concatenate([phases, around], axis=-1), axis=-1)
    squared = 1.5 + (np.sin(gaps) - 8 * np.sin(gaps / 2)).sum(-1) / (4 * np.pi)
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _bandwidths(bandwidth: ArrayLike) -> NDArray[np.float64]:
    kappa = np.asarray(bandwidth, dtype=np.float64)
    if not (np.isfinite(kappa) & (kappa >= 0)).all():
        raise ValueError(f"bandwidth must be finite and not negative, got {bandwidth!r}")
    return kappa


def _pairs(values: ArrayLike, name: str) -> NDArray[np.float64]:
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.ndim == 0 or pairs.shape[-1] != 2:
        raise ValueError(f"{name} must have shape (..., 2), got {pairs.shape}")
    if not np.isfinite(pairs).all():
        raise ValueError(f"{name} must be finite, got {values!r}")
    return pairs
