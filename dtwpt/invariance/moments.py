"""Fourth moments of outputs on photographs, which correct predictions for Gaussian fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import map_coordinates

from dtwpt.arrays import as_numpy
from dtwpt.checks import as_count
from dtwpt.invariance.filters import Filters, as_filters
from dtwpt.invariance.images import grey_images
from dtwpt.transform import dtcwpt2

__all__ = ["Moments", "estimate_moments"]

# Moments below are rounding.
_LEAST = 1e-6


@dataclass(frozen=True)
class Moments:
    """Variation of the energy of outputs, and its correlation over distance.

    Parameters
    ----------
    lags : ndarray, shape (filters, 2 k + 1, 2 k + 1)
        ``E |Z(x)|^2 |Z(x + d)|^2 / (E |Z|^2)^2`` at the displacements ``spacing * (-k..k)`` along
        both axes, the geometric mean over images. A circular Gaussian field has ``1 + |r(d)|^2``.
    spacing : int
        Pixels.
    """

    lags: NDArray[np.float64]
    spacing: int

    @property
    def reach(self) -> int:
        """Largest displacement, pixels."""
        return int(self.spacing * (self.lags.shape[1] // 2))

    def log_amplitudes(
        self, index: int, down: Any, across: Any, correlation: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Covariance of a filter's log-amplitudes, and what correlations are without them.

        The output is modelled as ``exp(g) G``, G circular Gaussian and g Gaussian and independent
        of it, so that ``E |Z|^2 |Z'|^2 / (E |Z|^2)^2 = exp(4 c) (1 + |r_G|^2)``, with c the
        covariance of g and ``r = exp(c - c_0) r_G``.

        Parameters
        ----------
        index : int
            Filter.
        down, across : ndarray
            Displacements, pixels; they broadcast.
        correlation : ndarray
            Squared modulus of r there.

        Returns
        -------
        covariance : ndarray
            c of each displacement.
        factor : ndarray
            r_G / r.
        """
        middle = self.lags.shape[1] // 2
        down, across = np.broadcast_arrays(down, across)
        places = np.stack([down, across]) / self.spacing + middle
        fourth = map_coordinates(self.lags[index], places, order=1, mode="nearest")
        variance = np.log(max(self.lags[index, middle, middle] / 2, 1)) / 4
        # A quadratic equation in exp(2 c).
        half = correlation * np.exp(2 * variance) / 2
        squared = np.sqrt(half**2 + fourth) - half
        covariance = np.minimum(np.log(np.maximum(squared, 1e-12)) / 2, variance)
        largest = 1 / np.sqrt(np.maximum(correlation, 1e-12))
        return covariance, np.minimum(np.exp(variance - covariance), largest)


def estimate_moments(
    images: Any,
    bank_or_kernels: Any,
    reach: int | None = None,
    *,
    stride: float | None = None,
    colour: Any = None,
) -> Moments:
    """Estimate fourth moments of outputs on images, for :func:`predict` to correct with.

    Photographs are edges on nearly empty ground: where an output is large, its neighbours are.
    The images need not be those that are predicted for. The logarithms of their moments are
    averaged, as they are covariances of log-amplitudes: an average of the moments would be
    dominated by the few images that are nearly empty.

    Parameters
    ----------
    images : iterable, or path of a folder
        As :func:`measure` takes them; each counts the same.
    bank_or_kernels : PacketBank, array_like or torch.Tensor
        The same as for :func:`predict`.
    reach : int, optional
        Largest displacement, pixels: the pooling window's width and the shift. Default: six times
        the stride m.
    stride, colour : optional
        As for :func:`predict`.

    Returns
    -------
    Moments

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or an image is too small.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> from dtwpt.invariance import estimate_moments
    >>> noise = np.random.default_rng(0).normal(size=(2, 128, 128))
    >>> moments = estimate_moments(noise, dtwpt.PacketBank(1))
    >>> moments.lags.shape, moments.reach
    ((8, 13, 13), 6)
    """
    filters = as_filters(bank_or_kernels, stride, colour)
    if filters.channels is not None:
        raise ValueError("moments are for filters of grey images, not for a Layer with channels")
    m = int(np.ceil(filters.stride))
    spacing = max(1, m // 2)
    steps = -(-(6 * m if reach is None else as_count(reach, "reach")) // spacing)
    lags = np.arange(-steps, steps + 1)
    total, count = np.zeros((len(filters), lags.size, lags.size)), np.zeros(len(filters))
    for number, image in enumerate(grey_images(images)):
        pixels = as_numpy(image, "images")
        if any(
            s < t + 2 * steps * spacing for s, t in zip(pixels.shape, filters.size, strict=True)
        ):
            raise ValueError(
                f"image {number} of {pixels.shape[0]} x {pixels.shape[1]} pixels is too small for "
                f"filters of {filters.size[0]} x {filters.size[1]} and a reach of {steps * spacing}"
            )
        for index, energy in enumerate(_energies(pixels, filters, spacing)):
            mean = energy.mean()
            if mean > 0:
                lagged = _autocorrelation(energy / mean, lags)
                total[index] += np.log(np.maximum(lagged, _LEAST))
                count[index] += 1
    if not count.all():
        raise ValueError(f"images must answer every filter, filter {int(count.argmin())} gives 0")
    return Moments(np.exp(total / count[:, None, None]), spacing)


def _energies(image: NDArray[Any], filters: Filters, spacing: int) -> Any:
    """Yield each filter's |Z|^2 where it lies within the image, on a grid of that spacing."""
    rows, columns = (side - taps for side, taps in zip(image.shape, filters.size, strict=True))
    if filters.bank is not None:
        bank = filters.bank
        before = -(-filters.size[0] // spacing)
        maps = dtcwpt2(image, bank.depth, bank.wavelet, stride=spacing)
        for plane in maps.reshape(len(filters), *maps.shape[-2:]):
            inner = plane[before // 2 + 1 :, before // 2 + 1 :]
            yield np.abs(inner[: rows // spacing - 1, : columns // spacing - 1]) ** 2
        return
    spectrum = np.fft.fft2(image)
    for kernel in filters:
        z = np.fft.ifft2(spectrum * np.fft.fft2(kernel, image.shape).conj())
        yield np.abs(z[: rows + 1 : spacing, : columns + 1 : spacing]) ** 2


def _autocorrelation(values: NDArray[Any], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean product of values that are so far apart, along both axes."""
    sides = [next_fast_len(side + int(lags[-1]), real=True) for side in values.shape]
    power = np.abs(rfft2(values, sides)) ** 2
    sums = irfft2(power, sides)[np.ix_(lags, lags)]
    rows, columns = (side - np.abs(lags) for side in values.shape)
    return np.asarray(sums / (rows[:, None] * columns))
