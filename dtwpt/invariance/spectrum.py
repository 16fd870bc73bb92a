"""Power spectra of stationary fields, given by name, by values or by images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from dtwpt.arrays import is_tensor, refuse_masked
from dtwpt.invariance.images import grey_images, layer_images

__all__ = ["ColourSpectrum", "Spectrum", "as_spectrum", "estimate_spectrum", "windowed_power"]

# Images whose spectra are kept apart; those with channels need more memory.
_KINDS, _COLOUR_KINDS = 64, 16


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
    unit : ndarray, shape (kinds,), optional
        One unit of each kind in the images' own units: their standard deviations, which matter
        where a layer adds a bias. Default: 1.
    """

    power: NDArray[np.float64]
    mean: NDArray[np.float64]
    unit: NDArray[np.float64] | None = None

    def with_mean(self) -> NDArray[np.float64]:
        """Return the power with that of the mean at frequency zero."""
        power = self.power.copy()
        power[:, 0, 0] += self.mean**2 * power[0].size
        return power

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.power.shape[1], self.power.shape[2]

    def in_own_units(self, kinds: int) -> Spectrum:
        """Return the kinds in the images' units, further ones averaged with the first ``kinds``."""
        unit = np.ones(len(self.power)) if self.unit is None else self.unit
        power, mean = self.power * unit[:, None, None] ** 2, self.mean * unit
        if len(power) > kinds:
            power, mean = (
                np.stack([values[k::kinds].mean(0) for k in range(kinds)])
                for values in (power, mean)
            )
        return Spectrum(power, mean)

    def balanced(self, response: NDArray[np.float64]) -> Spectrum:
        """Return the one spectrum in which every kind gives a filter the same energy.

        A relative error is an average over images of ratios, in which an image counts however
        little it has for the filter; so does a kind of field here.

        Parameters
        ----------
        response : ndarray, shape (H, W // 2 + 1)
            Squared modulus of the filter's frequency response, mean of both signs of a frequency.
        """
        half = self.power[:, :, : response.shape[1]]
        share = response * column_weights(self.size[1]) / self.power[0].size
        energy = np.tensordot(half, share, 2) + self.mean**2 * response[0, 0]
        weights = np.divide(1, energy, out=np.zeros(energy.shape), where=energy > 0)
        weights = weights / weights.sum() if weights.any() else np.ones(energy.size) / energy.size
        power = np.tensordot(weights, self.power, 1)[None]
        return Spectrum(power, np.sqrt([weights @ self.mean**2]))


@dataclass(frozen=True)
class ColourSpectrum:
    """Power spectra and cross spectra of the channels of images, in the images' units.

    Parameters
    ----------
    cross : ndarray, shape (kinds, C, C, H, W // 2 + 1)
        E of channel c times the conjugate of channel d, on the grid of ``numpy.fft.rfft2``.
    mean : ndarray, shape (kinds, C)
    columns : int
        W.
    """

    cross: NDArray[np.complex64]
    mean: NDArray[np.float64]
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.cross.shape[3], self.columns


def as_spectrum(
    spectrum: Any, size: tuple[int, int], reach: int = 0, channels: int | None = None
) -> Any:
    r"""Return a spectrum from which covariances of filter outputs follow.

    Parameters
    ----------
    spectrum : {"white", "pink"}, array_like of shape (H, W), Spectrum, or iterable of images
        "white": equal power everywhere; "pink": :math:`1/|\omega|^2`, as natural images have on
        the whole; an array: power on the grid of ``numpy.fft.fft2``; images: their spectra.
    size : (int, int)
        Least rows and columns of the grid of a spectrum with a name.
    reach : int, default: 0
        Largest displacement between two outputs, pixels.
    channels : int, optional
        Of the images that a layer takes. Without images, all channels are the same field.

    Returns
    -------
    Spectrum, or ColourSpectrum of ``channels``

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or the array is not two-dimensional, has values that are negative
        or not finite, or is zero everywhere, or its grid is too small.
    """
    if isinstance(spectrum, (Spectrum, ColourSpectrum)):
        found = spectrum
    elif isinstance(spectrum, str) or getattr(spectrum, "ndim", 0) == 2:
        found = _grey_spectrum(spectrum, size, reach)
    elif isinstance(spectrum, Iterable):
        return estimate_spectrum(spectrum, reach=reach, channels=channels)
    else:
        raise TypeError(
            "spectrum must be 'white', 'pink', an array (H, W) or images, got "
            f"{type(spectrum).__name__}"
        )
    if 2 * reach > min(found.size):
        raise ValueError(
            f"spectrum on a grid of {found.size[0]} x {found.size[1]} repeats itself within "
            f"displacements of {reach} pixels: give a larger grid, or estimate_spectrum a reach"
        )
    if channels is not None and isinstance(found, Spectrum):
        return _same_in_all(found, channels)
    if channels is None and isinstance(found, ColourSpectrum):
        raise ValueError("spectrum has channels, but these filters see grey images")
    if isinstance(found, ColourSpectrum) and found.cross.shape[1] != channels:
        raise ValueError(
            f"spectrum has {found.cross.shape[1]} channels, but the layer takes {channels}"
        )
    return found


def _same_in_all(spectrum: Spectrum, channels: int) -> ColourSpectrum:
    own = spectrum.in_own_units(_COLOUR_KINDS)
    half = own.power[:, None, None, :, : own.size[1] // 2 + 1]
    cross = np.broadcast_to(half, (len(half), channels, channels, *half.shape[3:]))
    mean = np.repeat(own.mean[:, None], channels, axis=1)
    return ColourSpectrum(cross.astype(np.complex64), mean, own.size[1])


def _grey_spectrum(spectrum: Any, size: tuple[int, int], reach: int) -> Spectrum:
    """Return a spectrum that is given by its name or its values."""
    if isinstance(spectrum, str):
        if spectrum not in ("white", "pink"):
            raise ValueError(f"unknown spectrum {spectrum!r}; known spectra: white, pink")
        sides = [max(side, 2 * reach) for side in size]
        rows, columns = (max(128, 2 ** int(np.ceil(np.log2(side)))) for side in sides)
        power = np.ones((rows, columns))
        if spectrum == "pink":
            radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :])
            radius[0, 0] = np.inf
            power = radius**-2
        return Spectrum(power[None] / power.mean(), np.zeros(1))
    refuse_masked(spectrum, "spectrum")
    values = spectrum.detach().double().cpu().numpy() if is_tensor(spectrum) else spectrum
    power = np.asarray(values, dtype=np.float64)
    if not np.isfinite(power).all() or (power < 0).any() or not power.any():
        raise ValueError("spectrum must be finite, not negative, and not zero everywhere")
    # Fields are real, so that both signs of a frequency have the same power.
    power = (power + _opposite(power)) / 2
    return Spectrum(power[None], np.zeros(1))


def _opposite(power: NDArray[Any]) -> NDArray[Any]:
    rows, columns = power.shape
    return np.asarray(power[-np.arange(rows)][:, -np.arange(columns)])


def estimate_spectrum(images: Any, *, reach: int = 0, channels: int | None = None) -> Any:
    """Estimate the power spectra of images of one size.

    Each image's mean is removed, a Hann window applied, and its power spectrum brought to unit
    variance.

    Parameters
    ----------
    images : iterable or path of a folder
        Images in any form that :func:`measure` takes, all of one size.
    reach : int, default: 0
        Largest displacement, pixels, that the spectrum must resolve. Images with a side below twice
        that get zeros around them: far pixels are then unrelated, where otherwise the field would
        repeat itself.
    channels : int, optional
        Keep this many channels apart, as :class:`Layer` sees them; default: grey.

    Returns
    -------
    Spectrum, or ColourSpectrum of ``channels``
        Each image is a kind of field of its own, up to 64 (of colours 16); further images are
        averaged with these in turn, so that the memory is bounded. The means are in units of the
        standard deviations, except in a ColourSpectrum, which has the images' units.

    Raises
    ------
    TypeError, ValueError
        If there is no image, sizes differ, or an image is constant or masked.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import estimate_spectrum
    >>> noise = np.random.default_rng(0).normal(size=(50, 64, 64))
    >>> estimate_spectrum(noise).power.shape
    (50, 64, 64)
    """
    return _estimate_grey(images, reach) if channels is None else _estimate(images, reach, channels)


def _estimate_grey(images: Any, reach: int) -> Spectrum:
    powers: list[NDArray[np.float64]] = []
    squared_means: list[float] = []
    squared_units: list[float] = []
    count = 0
    for array in _of_one_size(grey_images(images)):
        mean, deviation = array.mean(), array.std()
        if not deviation > 0:
            raise ValueError("images must be finite and not constant to have a spectrum")
        power = windowed_power(array - mean, reach)
        power[0, 0] = 0
        power /= power.mean()
        squares = float(mean / deviation) ** 2, float(deviation) ** 2
        if count < _KINDS:
            powers.append(power)
            squared_means.append(squares[0])
            squared_units.append(squares[1])
        else:
            powers[count % _KINDS] += power
            squared_means[count % _KINDS] += squares[0]
            squared_units[count % _KINDS] += squares[1]
        count += 1
    members = np.bincount(np.arange(count) % _KINDS)
    return Spectrum(
        np.stack(powers) / members[:, None, None],
        np.sqrt(np.array(squared_means) / members),
        np.sqrt(np.array(squared_units) / members),
    )


def _estimate(images: Any, reach: int, channels: int) -> ColourSpectrum:
    cross: list[NDArray[np.complex64]] = []
    means: list[NDArray[np.float64]] = []
    count = columns = 0
    for array in _of_one_size(layer_images(images, channels)):
        mean = array.mean((1, 2))
        deviations = array.std((1, 2))
        if not deviations.max() > 0 or not np.isfinite(deviations).all():
            raise ValueError("images must be finite and not constant to have a spectrum")
        shape = _grid(array.shape[1:], reach)
        window = _hann(array.shape[1:])
        found = np.fft.rfft2((array - mean[:, None, None]) * window, shape)
        found[:, 0, 0] = 0
        columns = shape[1]
        weights = column_weights(columns)
        # The mean over the grid is the variance of a pixel.
        variance = (np.abs(found) ** 2 @ weights).sum(-1) / np.prod(shape)
        found *= np.divide(
            deviations, np.sqrt(variance), out=np.zeros(channels), where=variance > 0
        )[:, None, None]
        each = (found[:, None] * found[None].conj()).astype(np.complex64)
        if count < _COLOUR_KINDS:
            cross.append(each)
            means.append(mean)
        else:
            cross[count % _COLOUR_KINDS] += each
            means[count % _COLOUR_KINDS] += mean
        count += 1
    members = np.bincount(np.arange(count) % _COLOUR_KINDS)
    shares = members[:, None, None, None, None].astype(np.complex64)
    return ColourSpectrum(
        np.asarray(np.stack(cross) / shares, np.complex64),
        np.stack(means) / members[:, None],
        columns,
    )


def _of_one_size(images: Iterable[Any]) -> Iterable[NDArray[np.float64]]:
    first = None
    for image in images:
        array = np.asarray(image.cpu() if is_tensor(image) else image, dtype=np.float64)
        size = array.shape[-2:]
        first = size if first is None else first
        if size != first:
            raise ValueError(f"images must have one size, got {first} and {size}")
        yield array


def column_weights(columns: int) -> NDArray[np.float64]:
    """How often each column of half a plane of frequencies stands in the whole one."""
    weights = np.full(columns // 2 + 1, 2.0)
    weights[0] = 1
    if columns % 2 == 0:
        weights[-1] = 1
    return weights


def _grid(shape: Any, reach: int) -> tuple[int, int]:
    """Rows and columns of the grid for an image: its own, or more where displacements need it."""
    sides = [side if 2 * reach <= side else next_fast_len(side + 2 * reach) for side in shape]
    return sides[0], sides[1]


def _hann(shape: Any) -> NDArray[np.float64]:
    height, width = shape
    return np.asarray(np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1])


def windowed_power(image: NDArray[np.float64], reach: int = 0) -> NDArray[np.float64]:
    """Return the power spectrum of an image under a Hann window, which hides its borders."""
    grid = _grid(image.shape, reach)
    return np.asarray(np.abs(np.fft.fft2(image * _hann(image.shape), grid)) ** 2)
