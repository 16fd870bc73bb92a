"""Hilbert transforms of kernels, each across the half-plane of its own frequency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The half-planes are those of dtwpt.invariance.analytic_kernels.
from dtwpt.invariance.kernels import frequencies, half_plane

__all__ = ["impulse_responses", "needed_reach"]

# Share of the transforms' energy that must lie within the taps that are kept.
_KEPT = 0.999


def impulse_responses(theta: NDArray[np.float64], h: int, w: int) -> NDArray[np.float64]:
    """Return Hilbert transforms of an impulse at (0, 0), on the grid of analytic kernels."""
    omega_y, omega_x = frequencies(4 * h)[:, None], frequencies(4 * w)[None, :]
    responses = np.empty((len(theta), 4 * h, 4 * w))
    for response, (theta_y, theta_x) in zip(responses, theta, strict=True):
        half = half_plane(theta_y, theta_x, omega_y, omega_x)
        response[:] = np.fft.ifft2(-1j * (2 * half - 1)).real
    return responses


def needed_reach(kernels: NDArray[np.float64], responses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows and columns that the transforms need beyond the kernels on either side.

    Parameters
    ----------
    kernels : ndarray, shape (n, in, h, w)
    responses : ndarray, shape (n, 4 h, 4 w)
        Of :func:`impulse_responses`.
    """
    if len(kernels) == 0:
        return np.zeros(2, np.int64)
    spectra = np.fft.fft2(kernels, responses.shape[1:])
    whole = np.fft.ifft2(np.fft.fft2(responses)[:, None] * spectra).real
    energy = (whole**2).sum(1)
    reach = []
    for axis, side in ((2, kernels.shape[2]), (1, kernels.shape[3])):
        along = energy.sum(axis)
        for beyond in range(3 * side // 2 + 1):
            kept = along[:, np.arange(-beyond, side + beyond) % (4 * side)].sum(1)
            # Half of what may be lost is lost along either axis.
            if (along.sum(1) - kept <= (1 - _KEPT) / 2 * along.sum(1)).all():
                break
        reach.append(beyond)
    return np.array(reach)
