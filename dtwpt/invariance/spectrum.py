"""Power spectra of stationary fields, given by name, by values or by images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.arrays import is_tensor

__all__ = ["Spectrum", "as_spectrum", "estimate_spectrum", "windowed_power"]

# Images whose spectra are kept apart.
_KINDS = 64


@dataclass(frozen=True)
class Spectrum:
    """Power spectra of one or several kinds of stationary fields.

    Parameters
    ----------
    power : ndarray, shape (kinds, H, W)
        Mean square at each frequency of the grid of ``numpy.fft.fft2``; its mean over the grid is
        the variance of a pixel. The fields' means are not in it.
    mean : ndarray, shape (kinds,)
        Mean of each kind of field.
    """

    power: NDArray[np.float64]
    mean: NDArray[np.float64]

    def with_mean(self) -> NDArray[np.float64]:
        """Return the power with that of the mean at frequency zero."""
        power = self.power.copy()
        power[:, 0, 0] += self.mean**2 * power[0].size
        return power

    def balanced(self, response: NDArray[np.float64]) -> Spectrum:
        """Return the one spectrum in which every kind gives a filter the same energy.

        A relative error is an average over images of ratios, in which an image counts however
        little it has for the filter; so does a kind of field here.

        Parameters
        ----------
        response : ndarray, shape (H, W)
            Squared modulus of the filter's frequency response.
        """
        energy = np.einsum("kyx,yx->k", self.with_mean(), response) / response.size
        weights = np.divide(1, energy, out=np.zeros(energy.shape), where=energy > 0)
        weights = weights / weights.sum() if weights.any() else np.ones(energy.size) / energy.size
        power = np.tensordot(weights, self.power, 1)[None]
        return Spectrum(power, np.sqrt([weights @ self.mean**2]))


def as_spectrum(spectrum: Any, size: tuple[int, int]) -> Spectrum:
    r"""Return a spectrum on a grid of at least ``size``.

    Parameters
    ----------
    spectrum : {"white", "pink"}, array_like of shape (H, W), Spectrum, or iterable of images
        "white": equal power everywhere; "pink": :math:`1/|\omega|^2`, as natural images have on
        the whole; an array: power on the grid of ``numpy.fft.fft2``; images: their spectra.
    size : (int, int)
        Rows and columns that the covariances must reach over.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or the array is not two-dimensional, has values that are negative
        or not finite, or is zero everywhere.
    """
    if isinstance(spectrum, Spectrum):
        return spectrum
    if isinstance(spectrum, str):
        if spectrum not in ("white", "pink"):
            raise ValueError(f"unknown spectrum {spectrum!r}; known spectra: white, pink")
        rows, columns = (max(128, 2 ** int(np.ceil(np.log2(side)))) for side in size)
        power = np.ones((rows, columns))
        if spectrum == "pink":
            radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :])
            radius[0, 0] = np.inf
            power = radius**-2
        return Spectrum(power[None] / power.mean(), np.zeros(1))
    values = spectrum.detach().cpu().numpy() if is_tensor(spectrum) else spectrum
    if isinstance(values, np.ndarray) and values.ndim == 2:
        power = np.asarray(values, dtype=np.float64)
        if not np.isfinite(power).all() or (power < 0).any() or not power.any():
            raise ValueError("spectrum must be finite, not negative, and not zero everywhere")
        return Spectrum(power[None], np.zeros(1))
    if not isinstance(values, Iterable):
        raise TypeError(
            "spectrum must be 'white', 'pink', an array (H, W) or images, got "
            f"{type(spectrum).__name__}"
        )
    return estimate_spectrum(values)


def estimate_spectrum(images: Iterable[Any]) -> Spectrum:
    """Estimate the power spectra of images of one size.

    Each image's mean is removed, a Hann window applied, and its power spectrum brought to unit
    variance.

    Parameters
    ----------
    images : iterable of array_like, shape (H, W)
        Grey images, or an array (n, H, W).

    Returns
    -------
    Spectrum
        Each image is a kind of field of its own, up to 64; further images are averaged with these
        in turn, so that the memory is bounded. The means are in units of the standard deviations.

    Raises
    ------
    ValueError
        If there is no image, sizes differ, or an image is constant.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import estimate_spectrum
    >>> noise = np.random.default_rng(0).normal(size=(50, 64, 64))
    >>> estimate_spectrum(noise).power.shape
    (50, 64, 64)
    """
    powers: list[NDArray[np.float64]] = []
    squared_means: list[float] = []
    count = 0
    for image in images:
        array = np.asarray(image.detach().cpu() if is_tensor(image) else image, dtype=np.float64)
        if array.ndim != 2:
            raise ValueError(f"images must have shape (H, W), got {array.shape}")
        if powers and array.shape != powers[0].shape:
            raise ValueError(f"images must have one size, got {powers[0].shape} and {array.shape}")
        mean, deviation = array.mean(), array.std()
        if not deviation > 0:
            raise ValueError("images must be finite and not constant to have a spectrum")
        power = windowed_power(array - mean)
        power[0, 0] = 0
        power /= power.mean()
        squared_mean = float(mean / deviation) ** 2
        if count < _KINDS:
            powers.append(power)
            squared_means.append(squared_mean)
        else:
            powers[count % _KINDS] += power
            squared_means[count % _KINDS] += squared_mean
        count += 1
    if not powers:
        raise ValueError("images must not be empty")
    members = np.bincount(np.arange(count) % _KINDS)
    return Spectrum(
        np.stack(powers) / members[:, None, None], np.sqrt(np.array(squared_means) / members)
    )


def windowed_power(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power spectrum of an image under a Hann window, which hides its borders."""
    height, width = image.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    return np.asarray(np.abs(np.fft.fft2(image * window)) ** 2)
