"""Measurement of changes under deformations, on images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import map_coordinates
from scipy.signal import resample

from dtwpt.arrays import as_numpy
from dtwpt.invariance.deformation import (
    Responses,
    blank_deformed,
    half_plane_frequencies,
    outputs,
)
from dtwpt.invariance.deformation_maps import Displacement, as_maps
from dtwpt.invariance.filters import Filters, as_filters
from dtwpt.invariance.images import grey_images, layer_images
from dtwpt.invariance.windows import window_places

__all__ = ["measure_deformation", "warp"]

# Pixels at the borders over which the image fades to its mean, or where interpolation rings.
_MARGIN = 16
# Oversampling before spline interpolation, which is exact only far below the highest frequency.
_FINER = 3


def measure_deformation(
    images: Any,
    bank_or_kernels: Any,
    maps: ArrayLike | Displacement,
    q: int | None = None,
    *,
    stride: float | None = None,
    colour: Any = None,
) -> np.ndarray:
    """Measure how much CMod and RMax change when images are deformed.

    Parameters
    ----------
    images : iterable, or path of a folder
        As for :func:`measure`.
    bank_or_kernels : PacketBank, array_like, torch.Tensor, Layer or torch.nn.Module
        As for :func:`predict_deformation`. A layer gets the images with all channels, as they are.
    maps : array_like of float, shape (2, 2), (2, 3), (n, 2, 2) or (n, 2, 3), or callable
        Affine maps as for :func:`predict_deformation`: for every output the image is deformed about
        the filter's place, and all places of the image count. Instead of the image, which would
        need as many copies as places, the filter is deformed; that is the same thing. A callable
        displacement, as for :func:`local_maps`: the image is deformed as a whole by :func:`warp`,
        and all outputs count.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    stride, colour : optional
        As for :func:`predict`.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several maps
        The columns of :func:`predict_deformation`. Each error is a ratio of squared norms, averaged
        over the images; its standard error is that of this average (NaN of a single image). A
        ReLU that gives nothing on any image has NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, an image is too small for the filters and the maps, or holds
        NaN or infinity, or no image counts.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> from dtwpt.invariance import measure_deformation, rotation
    >>> noise = np.random.default_rng(0).normal(size=(3, 128, 128))
    >>> table = measure_deformation(noise, dtwpt.PacketBank(2), [rotation(2), rotation(10)])
    >>> bool(np.all(table["cmod"][0] < table["cmod"][1]))
    True
    """
    filters = as_filters(bank_or_kernels, stride, colour, q)
    whole = maps if callable(maps) else None
    table_of_maps, single = as_maps(np.eye(2) if whole is not None else maps)
    ratios = []
    views: _Views | None = None
    for number, image in enumerate(_pixels(images, filters.channels)):
        if views is None or views.shape != image.shape[1:]:
            views = _Views(filters, table_of_maps, image.shape[1:], number)
        moved = None if whole is None else np.stack([warp(plane, whole) for plane in image])
        ratios.append(_changes(image, moved, views))
    if not ratios:
        raise ValueError("images must not be empty")
    errors = np.array(ratios)
    count = np.isfinite(errors).sum(0)
    if not count.all() and not filters.relu:
        raise ValueError(
            "images must give every filter an output, but none does for filter "
            f"{int(np.argmin(count.min((0, 1))))}"
        )
    mean = np.nansum(errors, axis=0) / np.where(count, count, np.nan)
    squares = np.nansum((errors - mean) ** 2, axis=0)
    several = np.where(count > 1, count, np.nan)
    stderr = np.sqrt(squares / (several - 1) / several)
    table = blank_deformed(filters, len(table_of_maps))
    for index, name in enumerate(("cmod", "rmax")):
        table[name], table[name + "_stderr"] = mean[:, index], stderr[:, index]
    return table[0] if single else table


def warp(image: ArrayLike, displacement: Displacement) -> NDArray[np.float64]:
    """Deform an image: the result at t is the image at ``t + displacement(t)``.

    Parameters
    ----------
    image : array_like, shape (H, W)
    displacement : callable
        From rows and columns, arrays of one shape, to displacements down and right, pixels.

    Returns
    -------
    ndarray of float64, shape (H, W)
        Interpolated by the image's Fourier series (to about 1e-4 of white noise), the image being
        mirrored at its ends; places beyond them show the mirror image.

    Raises
    ------
    ValueError
        If the image is not two-dimensional.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import warp
    >>> image = np.random.default_rng(0).normal(size=(40, 40))
    >>> moved = warp(image, lambda y, x: (0 * y, 0 * x + 2))
    >>> bool(np.allclose(moved[:, :30], image[:, 2:32], atol=1e-3))
    True
    """
    array = as_numpy(image, "image").astype(np.float64)
    if array.ndim != 2:
        raise ValueError(f"image must have shape (H, W), got {array.shape}")
    place = np.stack(np.meshgrid(*(np.arange(float(side)) for side in array.shape), indexing="ij"))
    place += np.stack(np.broadcast_arrays(*displacement(*place), place[0])[:2])
    fine = array
    for axis, side in enumerate(array.shape):
        mirrored = np.concatenate([fine, np.flip(fine, axis)], axis)
        fine = resample(mirrored, 2 * side * _FINER, axis=axis)
    return np.asarray(map_coordinates(fine, place * _FINER, order=5, mode="grid-wrap"))


def _pixels(images: Any, channels: int | None) -> Iterator[NDArray[np.float64]]:
    """Yield images (channels, H, W), with one channel if they are grey."""
    read = grey_images(images) if channels is None else layer_images(images, channels)
    for number, image in enumerate(read):
        pixels = as_numpy(image, "images").astype(np.float64)
        if not np.isfinite(pixels).all():
            raise ValueError(f"image {number} holds NaN or infinity")
        yield pixels[None] if channels is None else pixels


class _Views:
    """How filters, at rest and deformed, see images of one size.

    Attributes
    ----------
    inner : (slice, slice)
        Places at which filters, deformed or not, lie within the image.
    waves : list of ndarray, each of shape (places, frequencies)
        At rest, then of each map.
    responses : list of Responses
    """

    def __init__(
        self, filters: Filters, maps: NDArray[np.float64], shape: tuple[int, ...], number: int
    ) -> None:
        self.filters, self.shape = filters, shape
        self.inner = _inner(shape, filters, maps, number)
        omega = half_plane_frequencies(shape[0], shape[1])
        window = np.concatenate([window_places(filters.stride, filters.side), [(0.0, 0.0)]])
        # The middle of an even number of taps lies between two pixels.
        between = np.array(filters.middle) % 1
        affine = [(np.eye(2), np.zeros(2)), *((each[:, :2], each[:, 2]) for each in maps)]
        self.waves = [
            np.exp(1j * ((window @ matrix.T + move + between) @ omega.T)) for matrix, move in affine
        ]
        self.responses = [Responses(filters, omega @ matrix) for matrix, _ in affine]


def _changes(
    image: NDArray[np.float64], other: NDArray[np.float64] | None, views: _Views
) -> NDArray[np.float64]:
    """Return the relative squared changes of CMod and RMax: shape (maps, 2, filters).

    At all inner places; NaN of a filter that answers nothing. ``other``: what is seen instead of
    the image after the change.
    """
    seen = [_spectrum(each) for each in (image, image if other is None else other)]
    filters, shape = views.filters, views.shape
    # Outputs below this are rounding errors.
    noise = (300 * np.finfo(np.float64).eps) ** 2 * float((image**2).mean())
    found = np.full((len(views.waves) - 1, 2, len(filters)), np.nan)
    for index, responses in enumerate(zip(*views.responses, strict=True)):
        offset = filters.offset(index)
        answers: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for response, phases in zip(responses, views.waves, strict=True):
            spectrum = seen[len(answers) > 0]
            transfer = outputs(response, phases) * spectrum
            sums = transfer.sum(1).reshape(-1, shape[0], shape[1] // 2 + 1)
            parts = irfft2(sums, shape)[(slice(None), *views.inner)]
            modulus = np.hypot(parts[-2], parts[-1])
            answers.append((filters.activated(modulus, offset), filters.pooled(parts[:-2], offset)))
        for row, after in zip(found, answers[1:], strict=True):
            for name, (before, changed) in enumerate(zip(answers[0], after, strict=True)):
                energy = np.mean(before**2)
                if energy > noise:
                    row[name, index] = np.mean((changed - before) ** 2) / energy
    return found


def _spectrum(image: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the transforms of channels that fade to their means: (channels, frequencies)."""
    fade = []
    for side in image.shape[1:]:
        edge = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        fade.append(np.sin(np.pi / 2 * np.minimum(edge / _MARGIN, 1)) ** 2)
    mean = image.mean((1, 2), keepdims=True)
    return np.asarray(rfft2(mean + (image - mean) * np.outer(*fade)).reshape(len(image), -1))


def _inner(
    shape: tuple[int, ...], filters: Filters, maps: NDArray[np.float64], number: int
) -> tuple[slice, slice]:
    matrices = np.concatenate([np.eye(2)[None], maps[:, :, :2]])
    half = np.array(filters.size) / 2 + filters.stride * (filters.side - 1) / 2
    far = (np.abs(matrices) @ half).max(0) + np.abs(maps[:, :, 2]).max(0)
    margin = np.ceil(far).astype(int) + _MARGIN
    if any(side <= 2 * m for side, m in zip(shape, margin, strict=True)):
        raise ValueError(
            f"image {number} of {shape[0]} x {shape[1]} pixels is too small: filters, windows and "
            f"maps need more than {2 * margin[0]} x {2 * margin[1]}"
        )
    down, across = (slice(m, side - m) for m, side in zip(margin, shape, strict=True))
    return down, across
