"""Spectra of a filter's output on one kind of field or on several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance.spectrum import ColourSpectrum, Spectrum, column_weights

__all__ = ["ALONE", "Field", "fields"]

#: Kinds of fields that are predicted one by one where a bias makes amplitudes count.
ALONE = 16


@dataclass(frozen=True)
class Field:
    """Output of a filter on one kind of field.

    Parameters
    ----------
    spectra : ndarray of complex128, shape (3, H, W // 2 + 1)
        Cross spectra of the real part with itself, of the imaginary part with itself, of the real
        part with the imaginary one. Their sum over the grid is the covariance: columns that stand
        for two count twice.
    mean : complex
    size : (int, int)
        H, W.
    """

    spectra: NDArray[np.complex128]
    mean: complex
    size: tuple[int, int]

    def bandwidth(self, theta_y: float, theta_x: float) -> float:
        """Twice the root mean square distance of frequencies from theta, on the wider axis."""
        rows, columns = (2 * np.pi * np.fft.fftfreq(side) for side in self.size)
        half = columns[: self.spectra.shape[2]]
        # Power at a frequency and at the opposite one.
        even = (self.spectra[0] + self.spectra[1]).real / 2
        odd = self.spectra[2].imag
        ahead, behind = even + odd, even - odd
        ahead[0, 0] += abs(self.mean) ** 2
        total = ahead.sum() + behind.sum()
        if not total > 0:
            return float("nan")
        down = sum(
            power.sum(1) @ _squared_distance(sign * rows, theta_y)
            for sign, power in ((1, ahead), (-1, behind))
        )
        across = sum(
            power.sum(0) @ _squared_distance(sign * half, theta_x)
            for sign, power in ((1, ahead), (-1, behind))
        )
        return float(2 * np.sqrt(max(down, across) / total))


def _squared_distance(omega: NDArray[Any], theta: float) -> NDArray[np.float64]:
    return np.asarray(((omega - theta + np.pi) % (2 * np.pi) - np.pi) ** 2)


def fields(
    spectrum: Spectrum | ColourSpectrum, kernel: NDArray[np.complex128], *, alone: bool
) -> list[Field]:
    """Return a filter's output on each kind of field, or on the one that stands for all.

    Parameters
    ----------
    spectrum : Spectrum or ColourSpectrum
        Of the latter, kernel has shape (channels, h, w).
    kernel : ndarray
    alone : bool
        Kinds are kept apart, in the images' units, up to 16. Otherwise they are mixed such that
        each gives the filter the same energy.
    """
    if isinstance(spectrum, ColourSpectrum):
        return _of_colours(spectrum, kernel, alone)
    size = spectrum.size
    weights = column_weights(size[1]) / (size[0] * size[1])
    real, imaginary = (_response(part, size) for part in (kernel.real, kernel.imag))
    if alone:
        spectrum = spectrum.in_own_units(ALONE)
    else:
        spectrum = spectrum.balanced(np.abs(real) ** 2 + np.abs(imaginary) ** 2)
    # The output is the inner product with W, so its imaginary part has Im W negated.
    products = np.stack([np.abs(real) ** 2, np.abs(imaginary) ** 2, -real * imaginary.conj()])
    products *= weights
    half = spectrum.power[:, :, : size[1] // 2 + 1]
    total = complex(kernel.conj().sum())
    return [
        Field(products * power, float(mean) * total, size)
        for power, mean in zip(half, spectrum.mean, strict=True)
    ]


def _of_colours(
    spectrum: ColourSpectrum, kernel: NDArray[np.complex128], alone: bool
) -> list[Field]:
    size = spectrum.size
    weights = column_weights(size[1]) / (size[0] * size[1])
    real, imaginary = (
        np.stack([_response(channel, size) for channel in part]).astype(np.complex64)
        for part in (kernel.real, kernel.imag)
    )
    totals = kernel.conj().sum((1, 2))
    found = []
    for cross, mean in zip(spectrum.cross, spectrum.mean, strict=True):
        # Channels on the left stand for the first factor of a product.
        one, other = ((part[:, None] * cross).sum(0) for part in (real, imaginary))
        spectra = np.stack(
            [
                (one * real.conj()).sum(0),
                (other * imaginary.conj()).sum(0),
                -(one * imaginary.conj()).sum(0),
            ]
        )
        found.append(Field(np.asarray(spectra * weights), complex(mean @ totals), size))
    if alone:
        return found
    energies = [float(f.spectra[:2].real.sum()) + abs(f.mean) ** 2 for f in found]
    shares = np.array([1 / energy if energy > 0 else 0.0 for energy in energies])
    shares = shares / shares.sum() if shares.any() else np.full(len(found), 1 / len(found))
    mixed = sum(share * f.spectra for share, f in zip(shares, found, strict=True))
    # Means differ from kind to kind: their mean square counts, with the direction of the sum.
    squared = sum(share * abs(f.mean) ** 2 for share, f in zip(shares, found, strict=True))
    total = sum(share * f.mean for share, f in zip(shares, found, strict=True))
    phase = total / abs(total) if abs(total) > 0 else 1
    return [Field(np.asarray(mixed, np.complex128), complex(np.sqrt(squared) * phase), size)]


def _response(kernel: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.complex128]:
    """Frequency response of the correlation with a kernel, also one larger than the grid."""
    folded = np.zeros(size)
    rows, columns = (np.arange(taps) % side for taps, side in zip(kernel.shape, size, strict=True))
    np.add.at(folded, (rows[:, None], columns), kernel)
    return np.asarray(np.fft.rfft2(folded).conj())
