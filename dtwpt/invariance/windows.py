"""Outputs of filters in pooling windows on an image: :class:`Windows`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from dtwpt.arrays import Array, dtype_name, is_tensor, namespace
from dtwpt.invariance.filters import Filters
from dtwpt.transform import dtcwpt2

__all__ = ["Outputs", "Windows", "energy", "total", "window_places"]

# Maximum bytes of responses cached between images.
_KEPT = 2**27


def window_places(stride: float, side: int) -> NDArray[np.float64]:
    """Return where the outputs of a pooling window lie about its middle, (side**2, 2) pixels."""
    steps = stride * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass
class Outputs:
    """Outputs where filters and windows lie within an image: (filters, rows, columns).

    Attributes
    ----------
    rmax, cmod, middle : array or tensor
        Pooled outputs, their twins, and the complex outputs in the middles of the windows.
    bound : ndarray, shape (filters,)
        Bound on the sum of (RMax - CMod)^2, NaN where it is not asked for.
    """

    rmax: Array
    cmod: Array
    middle: Array
    bound: NDArray[np.float64]


class Windows:
    """Pooled outputs of filters on images, one after the other.

    Parameters
    ----------
    filters : Filters

    Attributes
    ----------
    norms : ndarray, shape (filters,)
        Squared norms.
    """

    def __init__(self, filters: Filters) -> None:
        self.filters = filters
        self.norms = np.array([np.sum(np.abs(kernel) ** 2) for kernel in filters])
        bank = filters.bank
        own = bank is not None and filters.stride == 2 ** (bank.depth - 1)
        # The transform gives the outputs, with a stride that is its own.
        self._on_grid = (
            own and filters.pool_stride == 2 and filters.side % 2 == 1 and filters.bias is None
        )
        self._responses: dict[Any, list[NDArray[Any]]] = {}
        self._room = _KEPT

    @property
    def least(self) -> tuple[int, int]:
        """Rows and columns that images must have."""
        filters = self.filters
        reach = int(np.ceil(filters.stride * (filters.side - 1)))
        if self._on_grid:
            # Outputs stand on a grid, and one of them must fit.
            reach += int(2 * filters.stride) - 1
        return filters.size[0] + reach, filters.size[1] + reach

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the least size of Fourier transforms of images with these rows and columns."""
        height, width = (self._side(side) for side in shape[-2:])
        return height, width

    def _side(self, side: int) -> int:
        m = self.filters.stride
        if m != int(m):  # between the pixels, the image's own Fourier series counts
            return side
        size = next_fast_len(side)
        while size % m:
            size = next_fast_len(size + 1)
        return size

    def responses(self, size: tuple[int, int], image: Array) -> Iterator[NDArray[Any]]:
        """Yield the filters' frequency responses on a grid, as precise as an image."""
        dtype = np.result_type(dtype_name(image), np.complex64)
        key = (*size, dtype.char)
        if key in self._responses:
            yield from self._responses[key]
            return
        count = len(self.filters) * (self.filters.channels or 1)
        needed = count * size[0] * size[1] * dtype.itemsize
        kept = []
        for kernel in self.filters:
            response = np.fft.fft2(kernel, size).conj().astype(dtype)
            if needed <= self._room:
                kept.append(response)
            yield response
        if kept:
            self._responses[key] = kept
            self._room -= needed

    def __call__(self, image: Array, size: tuple[int, int], bounded: bool) -> Outputs:
        """Return the outputs on an image of at least the ``least`` size.

        Parameters
        ----------
        image : array or tensor, shape (H, W) or (channels, H, W)
        size : (int, int)
            Of the Fourier transforms, from :meth:`grid` for an image that is no smaller. Between
            pixels the image's own transform counts, without zeros around it.
        bounded : bool
            Whether to compute the bound.
        """
        filters = self.filters
        if self._on_grid:
            return _pooled(*_packet_outputs(image, filters), filters, None, bounded)
        xp = namespace(image)
        if filters.stride != int(filters.stride):
            size = tuple(image.shape[-2:])
        spectrum = xp.fft.fft2(image, size)
        each = []
        for index, response in enumerate(self.responses(size, image)):
            factor = xp.from_numpy(response).to(image.device) if is_tensor(image) else response
            product = spectrum * factor
            if product.ndim == 3:
                product = product.sum(0)
            outputs = _kernel_outputs(product, filters, tuple(image.shape[-2:]))
            each.append(_pooled(*outputs, filters, index, bounded))
        return Outputs(
            xp.concatenate([one.rmax for one in each]),
            xp.concatenate([one.cmod for one in each]),
            xp.concatenate([one.middle for one in each]),
            np.concatenate([one.bound for one in each]),
        )


def _pooled(
    window: list[Array], middle: Array, filters: Filters, index: int | None, bounded: bool
) -> Outputs:
    """Pool the outputs of a window, each (filters, rows, columns), about those in its middle."""
    xp = namespace(middle)
    offset = 0.0 if index is None else filters.offset(index)
    reals = [z.real for z in window]
    modulus = xp.abs(middle)
    bound = np.full(len(middle), np.nan)
    if bounded and len(filters.blur) == 1:
        spread = energy(middle)
        excess: Any = 0
        likely: Any = -np.inf
        guess: Any = 0
        for z, real in zip(window, reals, strict=True):
            above = xp.clip(real - modulus, 0, None)
            excess = excess + above * above
            # Conditional mean of this output, given the one in the middle.
            r: Any = np.zeros(len(middle), complex)
            np.divide(total(z * middle.conj()), spread, out=r, where=spread > 0)
            if is_tensor(middle):
                r = xp.from_numpy(r).to(middle.device, middle.dtype)
            expected = (r[:, None, None] * middle).real
            guess = xp.where(expected > likely, real, guess)
            likely = xp.where(expected > likely, expected, likely)
        below = xp.clip(modulus - guess, 0, None)
        bound = total(excess + below * below)
    return Outputs(
        filters.pooled(reals, offset, xp), filters.activated(modulus, offset), middle, bound
    )


def total(maps: Array) -> NDArray[Any]:
    """Sum over rows and columns, as an array."""
    sums = maps.sum((-2, -1))
    return np.asarray(sums.cpu().numpy() if is_tensor(sums) else sums)


def energy(maps: Array) -> NDArray[np.float64]:
    """Sum of squared moduli over rows and columns, as an array."""
    squared = maps.real**2 + maps.imag**2 if _is_complex(maps) else maps * maps
    return np.asarray(total(squared), dtype=np.float64)


def _is_complex(maps: Array) -> bool:
    return bool(maps.is_complex() if is_tensor(maps) else np.iscomplexobj(maps))


def _packet_outputs(image: Array, filters: Filters) -> tuple[list[Array], Array]:
    """Return the outputs in windows and in their middles, where filters lie within the image."""
    bank = filters.bank
    if bank is None:
        raise TypeError("filters must be a packet bank")
    m, length, q = int(filters.stride), filters.size[0], filters.side // 2
    step, first = 2 * m, (2 * m - filters.size[0]) // 2
    inner = []
    for side in image.shape:
        start = -(-(q * m - first) // step)
        inner.append((start, (side - q * m - length - first) // step + 1))
    # Of images that begin 0 or m pixels later, the transform gives every second output.
    phases = {}
    for y in (0, 1):
        for x in (0, 1):
            maps = dtcwpt2(image[y * m :, x * m :], bank.depth, bank.wavelet)
            phases[y, x] = maps.reshape(len(filters), *maps.shape[-2:])
    (top, bottom), (left, right) = inner

    def at(y: int, x: int) -> Array:
        maps = phases[y % 2, x % 2]
        return maps[:, top + y // 2 : bottom + y // 2, left + x // 2 : right + x // 2]

    window = [at(y, x) for y in range(-q, q + 1) for x in range(-q, q + 1)]
    return window, window[len(window) // 2]


def _kernel_outputs(
    transform: Array, filters: Filters, shape: tuple[int, ...]
) -> tuple[list[Array], Array]:
    """Do the same for one kernel, from the Fourier transform of all its outputs.

    They are a circular correlation: without wrapping around where the kernel lies within the image.
    """
    m, side, step = filters.stride, filters.side, filters.pool_stride
    counts = [
        int((length - taps - m * (side - 1)) / (step * m) + 1e-9) + 1
        for length, taps in zip(shape, filters.size, strict=True)
    ]
    half = (side - 1) / 2
    if m == int(m):
        every = _every(transform, int(m), 0.0)
        rows, columns = (step * np.arange(count) for count in counts)
        window = [every[rows + y][:, columns + x] for y in range(side) for x in range(side)]
        if side % 2 == 0:
            middle = _every(transform, int(m), m * half)[rows][:, columns]
    else:
        offsets = np.append(np.arange(side), half)
        values = _between(
            transform,
            *((m * (offsets[:, None] + step * np.arange(count))).ravel() for count in counts),
        )
        values = values.reshape(side + 1, counts[0], side + 1, counts[1])
        window = [values[y, :, x] for y in range(side) for x in range(side)]
        middle = values[-1, :, -1]
    if side % 2:
        middle = window[len(window) // 2]
    return [values[None] for values in window], middle[None]


def _every(transform: Array, m: int, offset: float) -> Array:
    """Return every m-th value, from an offset on, of a map given by its Fourier transform."""
    xp = namespace(transform)
    height, width = transform.shape
    if offset:
        down, across = (
            np.exp(2j * np.pi * np.fft.fftfreq(side) * offset) for side in (height, width)
        )
        transform = transform * _like(np.outer(down, across), transform)
    # Aliased frequencies add up.
    parts = transform.reshape(m, height // m, m, width // m)
    return xp.fft.ifft2(parts.sum((0, 2)) / m**2)


def _between(transform: Array, rows: NDArray[Any], columns: NDArray[Any]) -> Array:
    """Return a map's values at any rows and columns, by its Fourier series."""
    height, width = transform.shape
    down = np.exp(2j * np.pi * np.outer(rows, np.fft.fftfreq(height))) / height
    across = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(width), columns)) / width
    return _like(down, transform) @ transform @ _like(across, transform)


def _like(values: NDArray[Any], maps: Array) -> Array:
    """Bring values to the kind of array, dtype and device of maps."""
    if not is_tensor(maps):
        return values.astype(maps.dtype)
    return namespace(maps).from_numpy(values).to(maps.device, maps.dtype)
