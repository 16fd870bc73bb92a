"""Power spectra of stationary fields, given by name, by values or by images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.arrays import is_tensor

__all__ = ["Spectrum", "as_spectrum", "estimate_spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """Mean square at each frequency of an FFT grid, and the field's mean.

    ``power.mean()`` is the variance of a pixel; the mean is not in it.
    """

    power: NDArray[np.float64]
    mean: float = 0.0

    def with_mean(self) -> NDArray[np.float64]:
        """Return the power with that of the mean at frequency zero."""
        power = self.power.copy()
        power[0, 0] += self.mean**2 * power.size
        return power


def as_spectrum(spectrum: Any, size: tuple[int, int]) -> Spectrum:
    """Return a spectrum on a grid of at least ``size``.

    Parameters
    ----------
    spectrum : {"white", "pink"}, array_like of shape (H, W), Spectrum, or iterable of images
        "white": equal power everywhere; "pink": :math:`1/|\\omega|^2`, as natural images have on the
        whole; an array: power on the grid of ``numpy.fft.fft2``; images: their average power.
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
        return Spectrum(power / power.mean())
    values = spectrum.detach().cpu().numpy() if is_tensor(spectrum) else spectrum
    if isinstance(values, np.ndarray) and values.ndim == 2:
        power = np.asarray(values, dtype=np.float64)
        if not np.isfinite(power).all() or (power < 0).any() or not power.any():
            raise ValueError("spectrum must be finite, not negative, and not zero everywhere")
        return Spectrum(power)
    if not isinstance(values, Iterable):
        raise TypeError(
            "spectrum must be 'white', 'pink', an array (H, W) or images, got "
            f"{type(spectrum).__name__}"
        )
    return estimate_spectrum(values)


def estimate_spectrum(images: Iterable[Any]) -> Spectrum:
    """Estimate the power spectrum that images of one size have in common.

    Each image's mean is removed, a Hann window applied, and its power spectrum brought to unit
    variance, so that an image of high contrast counts no more than another.

    Parameters
    ----------
    images : iterable of array_like, shape (H, W)
        Grey images, or an array (n, H, W).

    Returns
    -------
    Spectrum
        Its ``mean`` is the root mean square of the images' means in units of their standard
        deviation.

    Raises
    ------
    ValueError
        If there is no image, sizes differ, or an image is constant.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import estimate_spectrum
    >>> noise = np.random.default_rng(0).normal(size=(50, 64, 64))
    >>> bool(abs(estimate_spectrum(noise).power.mean() - 1) < 1e-12)
    True
    """
    total: NDArray[np.float64] | None = None
    squared_mean, count = 0.0, 0
    for image in images:
        array = np.asarray(image.detach().cpu() if is_tensor(image) else image, dtype=np.float64)
        if array.ndim != 2:
            raise ValueError(f"images must have shape (H, W), got {array.shape}")
        if total is not None and array.shape != total.shape:
            raise ValueError(f"images must have one size, got {total.shape} and {array.shape}")
        window = np.hanning(array.shape[0] + 2)[1:-1, None] * np.hanning(array.shape[1] + 2)[1:-1]
        mean, deviation = array.mean(), array.std()
        if not deviation > 0:
            raise ValueError("images must be finite and not constant to have a spectrum")
        power = np.abs(np.fft.fft2((array - mean) * window)) ** 2
        power[0, 0] = 0
        total = power / power.mean() + (0 if total is None else total)
        squared_mean += (mean / deviation) ** 2
        count += 1
    if total is None:
        raise ValueError("images must not be empty")
    return Spectrum(total / count, float(np.sqrt(squared_mean / count)))
