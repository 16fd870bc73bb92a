"""Bandwidth of a filter's output, which depends on its input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance.filters import Filters

__all__ = ["output_bandwidths"]


def output_bandwidths(
    filters: Filters, power: NDArray[Any], responses: Iterable[NDArray[Any]] | None = None
) -> NDArray[np.float64]:
    r"""Return twice the root mean square distance of each output's frequencies from theta.

    Along the axis where it is larger: :math:`\kappa = 2\max(\sigma_y, \sigma_x)`, with
    :math:`\sigma_i^2 = \sum |W|^2 S (\omega_i - \theta_i)^2 / \sum |W|^2 S`. With this bandwidth
    alpha bounds the change of CMod, whatever the spectrum S of a stationary field, as
    :math:`|e^{i\langle\omega-\theta,u\rangle} - 1| \le |\langle\omega - \theta, u\rangle|`.
    Of a single image, of which only a part is compared, it is an estimate.

    Parameters
    ----------
    filters : Filters
    power : ndarray, shape (kinds, H, W)
        Power S of each kind of field on the grid of ``numpy.fft.fft2``. For filters with channels
        the Fourier transforms of images, shape (kinds, channels, H, W).
    responses : iterable of ndarray, optional
        Frequency responses of kernels on that grid, where they are known.

    Returns
    -------
    ndarray, shape (kinds, filters)
        rad/pixel; NaN for a filter without output.
    """
    if filters.bank is not None:
        return _of_packets(filters, power)
    size = power.shape[-2:]
    omega_y, omega_x = (2 * np.pi * np.fft.fftfreq(side) for side in size)
    out = np.empty((len(power), len(filters)))
    if responses is None:
        responses = (np.fft.fft2(kernel, size).conj() for kernel in filters)
    for index, (row, response) in enumerate(zip(filters.table, responses, strict=True)):
        if response.ndim == 3:  # of images with channels
            energy = np.abs((power * response).sum(1)) ** 2
        else:
            energy = power * np.abs(response) ** 2
        along_y = energy.sum(2) @ _squared_distance(omega_y, row["theta_y"])
        along_x = energy.sum(1) @ _squared_distance(omega_x, row["theta_x"])
        out[:, index] = _bandwidth(np.maximum(along_y, along_x), energy.sum((1, 2)))
    return out


def _of_packets(filters: Filters, power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Do the same for separable filters, summing over one axis after the other."""
    packets = filters.bank.filters  # type: ignore[union-attr]
    table = filters.table.reshape(2, len(packets), len(packets))
    theta = table["theta_y"][0, :, 0]
    along = []
    for side in power.shape[1:]:
        # Longer filters than the grid fold onto it.
        folded = np.zeros((len(packets), -(-packets.shape[1] // side) * side), complex)
        folded[:, : packets.shape[1]] = packets
        folded = folded.reshape(len(packets), -1, side).sum(1)
        energy = np.abs(np.fft.fft(folded, axis=1)) ** 2
        omega = 2 * np.pi * np.fft.fftfreq(side)
        along.append((energy, energy * _squared_distance(omega, theta[:, None])))
    (down, down_spread), (across, across_spread) = along
    mirrored = power[:, :, -np.arange(power.shape[2])]
    out = []
    for field in (power, mirrored):  # sign -1 sees the mirrored field as +1 does the field
        total = down @ field @ across.T
        spread = np.maximum(down_spread @ field @ across.T, down @ field @ across_spread.T)
        out.append(_bandwidth(spread, total))
    return np.stack(out, axis=1).reshape(len(power), -1)


def _squared_distance(omega: NDArray[Any], theta: Any) -> NDArray[np.float64]:
    return np.asarray(((omega - theta + np.pi) % (2 * np.pi) - np.pi) ** 2)


def _bandwidth(spread: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.divide(spread, total, out=np.full(total.shape, np.nan), where=total > 0)
    return np.asarray(2 * np.sqrt(ratio))
