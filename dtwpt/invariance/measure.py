"""Measurement of the shift errors on real images, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, dtype_name, is_tensor, namespace
from dtwpt.invariance.filters import (
    BOUNDS,
    ERRORS,
    Filters,
    as_filters,
    as_shifts,
    blank_table,
)
from dtwpt.invariance.images import grey_images, layer_images
from dtwpt.invariance.output import output_bandwidths
from dtwpt.invariance.spectrum import windowed_power
from dtwpt.transform import dtcwpt2

__all__ = ["grey_images", "measure"]

# Pixels around the crop that Fourier interpolation needs for what it rings at the image's ends.
_INTERPOLATION_MARGIN = 16


def measure(
    images: Any,
    bank_or_kernels: Any,
    shift: ArrayLike = (0, 1),
    q: int | None = None,
    *,
    stride: float | None = None,
    colour: Any = None,
) -> np.ndarray:
    """Measure the relative squared errors of RMax and CMod on images.

    Parameters
    ----------
    images : iterable, or path of a folder
        Arrays or tensors of shape (H, W), (n, H, W), (H, W, 3), (3, H, W) or (n, C, H, W), C
        being 1 or 3; or tuples that begin with one, as a ``DataLoader`` gives; or a folder of image
        files. An array of shape (n, H, W) by itself is n grey images.
        Colours are reduced to luma, but for a layer that sees them. Images are taken one after
        the other and forgotten. Tensors are worked on where they are.
    bank_or_kernels : PacketBank, array_like, torch.Tensor, Layer or torch.nn.Module
        Packets, kernels, or a layer, as for :func:`predict`. A layer gets the images as they are:
        normalise them as its network wants them.
    shift : array_like of float, shape (2,) or (n, 2), default: (0, 1)
        Shifts (down, right), pixels. The shifted picture is another crop of the same image; if
        the shift is not whole, of the image interpolated by its Fourier series. Nothing wraps
        around and no border is invented: only outputs whose filters lie within the crop count.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    stride : float, optional
        Subsampling m before pooling, not necessarily whole; ``2**(depth - 1)`` for a bank and 2
        for kernels by default.
    colour : array_like of float, shape (in,), or "full", optional
        As for :func:`predict`.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several shifts
        The columns of :func:`predict`. Each error is a ratio of squared norms, averaged over
        the images; its standard error is that of this average (NaN of a single image). Images
        on which a filter gives nothing at all, as blank ones, do not count for it; a ReLU that
        gives nothing on any has NaN. The bounds hold for every image alone: they come from its
        pairs of outputs in a window, and from its outputs before and after the shift.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, an image is too small for the filters and the shifts, or holds
        NaN or infinity, or no image counts.

    See Also
    --------
    predict : the same columns, from a power spectrum.

    Examples
    --------
    >>> import numpy as np, dtwpt
    >>> from dtwpt.invariance import measure
    >>> noise = (np.random.default_rng(k).normal(size=(128, 128)) for k in range(3))
    >>> table = measure(noise, dtwpt.PacketBank(2), shift=[(0, 1), (0, 2)])
    >>> table.shape
    (2, 32)
    >>> bool(np.all(table["cmod_shift"][0] < table["cmod_shift"][1]))
    True
    """
    filters = as_filters(bank_or_kernels, stride, colour, q)
    shifts, single = as_shifts(shift)
    averages = [{name: _Average(len(filters)) for name in ERRORS + BOUNDS} for _ in shifts]
    bandwidths = _Average(len(filters))
    read = (
        grey_images(images) if filters.channels is None else layer_images(images, filters.channels)
    )
    for number, image in enumerate(read):
        if not namespace(image).isfinite(image).all():
            raise ValueError(f"image {number} holds NaN or infinity")
        pixels = np.asarray(image.cpu() if is_tensor(image) else image, dtype=np.float64)
        squared = output_bandwidths(filters, _power(pixels))[0] ** 2
        bandwidths.add(np.nan_to_num(squared), np.isfinite(squared).astype(float))
        before = None
        for average, (base, moved) in zip(averages, _crops(image, shifts, number), strict=True):
            before = _compare(average, base, moved, filters, None, number, before)
    table = blank_table(filters, shifts)
    table["bandwidth"] = np.sqrt(bandwidths.result(filters.relu)[0])
    for row, average in zip(table, averages, strict=True):
        for name in ERRORS + BOUNDS:
            row[name], row[name + "_stderr"] = average[name].result(filters.relu)
    return table[0] if single else table


def _power(pixels: NDArray[np.float64]) -> NDArray[Any]:
    """Power of one image under a window, of several channels their cross spectra."""
    if pixels.ndim == 2:
        return windowed_power(pixels)[None]
    height, width = pixels.shape[1:]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    return np.fft.fft2(pixels * window)[None]


@dataclass
class _Average:
    """Running mean and variance over images, filter by filter."""

    size: int
    count: NDArray[np.int64] = field(init=False)
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.count = np.zeros(self.size, np.int64)
        self.mean, self.squares = np.zeros(self.size), np.zeros(self.size)

    def add(self, error: NDArray[np.float64], energy: NDArray[np.float64]) -> None:
        counts = energy > 0
        ratio = np.divide(error, energy, out=np.zeros(self.size), where=counts)
        self.count += counts
        away = np.where(counts, ratio - self.mean, 0)
        self.mean += away / np.maximum(self.count, 1)
        self.squares += away * np.where(counts, ratio - self.mean, 0)

    def result(self, may_lack: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not self.count.all() and not may_lack:
            raise ValueError(
                "images must answer every filter, but there is none that answers filter "
                f"{int(np.argmin(self.count))}"
            )
        enough = np.where(self.count > 1, self.count, np.nan)
        mean = np.where(self.count, self.mean, np.nan)
        return mean, np.sqrt(self.squares / (enough - 1) / enough)


def _crops(image: Array, shifts: NDArray[np.float64], number: int) -> Iterator[tuple[Array, Array]]:
    """Yield, for each shift, the middle of the image and the same place of the shifted image."""
    whole = np.all(shifts == np.round(shifts))
    margin = 0 if whole else _INTERPOLATION_MARGIN
    # Content that moves down by u comes from u rows above.
    before = np.maximum(np.ceil(shifts.max(0)), 0).astype(int) + margin
    after = np.maximum(np.ceil(-shifts.min(0)), 0).astype(int) + margin
    height, width = image.shape[-2:]
    if height <= before[0] + after[0] or width <= before[1] + after[1]:
        raise ValueError(
            f"image {number} of {height} x {width} pixels leaves nothing between the margins of "
            f"{before + after} pixels that the shifts need"
        )
    base = image[..., before[0] : height - after[0], before[1] : width - after[1]]
    for shift in shifts:
        steps = np.floor(shift).astype(int)
        rest = shift - steps
        source = image if not rest.any() else _interpolated(image, rest)
        top, left = before - steps
        rows, columns = base.shape[-2:]
        yield base, source[..., top : top + rows, left : left + columns]


def _interpolated(image: Array, shift: NDArray[np.float64]) -> Array:
    """Return the image moved by a fraction of a pixel, by its Fourier series.

    The image is mirrored first: its series then has no jump to ring at.
    """
    xp = namespace(image)
    for axis, move in zip((-2, -1), shift, strict=True):
        if not move:
            continue
        n = image.shape[axis]
        mirrored = xp.concatenate([image, xp.flip(image, (axis,))], axis)
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(2 * n) * move)
        # The outermost frequency stands for both its signs.
        phase[n] = np.cos(np.pi * move)
        if is_tensor(image):
            phase = xp.from_numpy(phase).to(image.device)
        shape = (-1, 1) if axis == -2 else (1, -1)
        spectrum = xp.fft.fft2(mirrored) * phase.reshape(shape)
        moved = xp.fft.ifft2(spectrum).real
        image = moved[..., :n, :] if axis == -2 else moved[..., :n]
    return image


def _compare(
    average: dict[str, _Average],
    base: Array,
    moved: Array,
    filters: Filters,
    q: int | None,
    number: int,
    before: _Outputs | None = None,
) -> _Outputs:
    """Add what changes from one image to the other; return the outputs of the former.

    These may be given, if they are known, and q, if it is not the filters' own.
    """
    if q is not None:
        filters = replace(filters, window=2 * q + 1)
    if before is None:
        _check_size(base, filters, number)
        before = _outputs(base, filters, True)
    after = _outputs(moved, filters, False)
    # Below this, what a filter gives is the rounding of what it should not give.
    norms = np.array([np.sum(np.abs(kernel) ** 2) for kernel in filters])
    noise = (300 * np.finfo(dtype_name(base)).eps) ** 2 * norms * float((base**2).sum())
    plain = _energy(before.middle)
    cmod = _energy(before.cmod)
    moved_rmax = _energy(after.rmax - before.rmax)
    together = np.abs(_sum(after.middle * before.middle.conj()))
    for name, error, energy in (
        ("rmax_cmod", _energy(before.rmax - before.cmod), cmod),
        ("cmod_shift", _energy(after.cmod - before.cmod), cmod),
        ("rmax_shift", moved_rmax, _energy(before.rmax)),
        ("rmax_shift_by_cmod", moved_rmax, cmod),
        ("rmax_cmod_bound", before.bound, cmod),
        ("cmod_shift_bound", np.maximum(plain + _energy(after.middle) - 2 * together, 0), cmod),
        ("pseudo_covariance", np.abs(_sum(before.middle**2)), plain),
    ):
        if name in average:
            average[name].add(error, np.where(energy > noise, energy, 0))
    return before


def _check_size(base: Array, filters: Filters, number: int) -> None:
    reach = int(np.ceil(filters.stride * (filters.side - 1)))
    if _on_grid(filters):
        reach += int(2 * filters.stride) - 1  # outputs stand on a grid, and one of them must fit
    sides = tuple(base.shape[-2:])
    if any(side < taps + reach for side, taps in zip(sides, filters.size, strict=True)):
        raise ValueError(
            f"image {number} is too small: its crop of {sides[0]} x {sides[1]} pixels "
            f"must be at least {filters.size[0] + reach} x {filters.size[1] + reach}, the filters "
            "and the pooling window"
        )


@dataclass
class _Outputs:
    """What filters give where they and windows lie within an image: (filters, rows, columns)."""

    rmax: Array
    cmod: Array
    middle: Array
    bound: NDArray[np.float64]


def _outputs(image: Array, filters: Filters, bounded: bool) -> _Outputs:
    if _on_grid(filters):
        return _pooled(*_packet_outputs(image, filters), filters, None, bounded)
    xp = namespace(image)
    spectrum = xp.fft.fft2(image)
    each = [
        _pooled(*_kernel_outputs(spectrum, kernel, filters), filters, index, bounded)
        for index, kernel in enumerate(filters)
    ]
    return _Outputs(
        xp.concatenate([one.rmax for one in each]),
        xp.concatenate([one.cmod for one in each]),
        xp.concatenate([one.middle for one in each]),
        np.concatenate([one.bound for one in each]),
    )


def _on_grid(filters: Filters) -> bool:
    """Whether the transform gives the outputs, with a stride that is its own."""
    bank = filters.bank
    own = bank is not None and filters.stride == 2 ** (bank.depth - 1)
    return own and filters.pool_stride == 2 and filters.side % 2 == 1 and filters.bias is None


def _pooled(
    window: list[Array], middle: Array, filters: Filters, index: int | None, bounded: bool
) -> _Outputs:
    """Pool the outputs of a window, each (filters, rows, columns), about those in its middle."""
    xp = namespace(middle)
    offset = 0.0 if index is None else filters.offset(index)
    reals = [z.real for z in window]
    modulus = xp.abs(middle)
    bound = np.full(len(middle), np.nan)
    if bounded and len(filters.blur) == 1:
        energy = _energy(middle)
        excess: Any = 0
        likely: Any = -np.inf
        guess: Any = 0
        for z, real in zip(window, reals, strict=True):
            above = xp.clip(real - modulus, 0, None)
            excess = excess + above * above
            # What this output is on average, given that in the middle.
            r: Any = np.zeros(len(middle), complex)
            np.divide(_sum(z * middle.conj()), energy, out=r, where=energy > 0)
            if is_tensor(middle):
                r = xp.from_numpy(r).to(middle.device, middle.dtype)
            expected = (r[:, None, None] * middle).real
            guess = xp.where(expected > likely, real, guess)
            likely = xp.where(expected > likely, expected, likely)
        below = xp.clip(modulus - guess, 0, None)
        bound = _sum(excess + below * below)
    return _Outputs(
        filters.pooled(reals, offset, xp), filters.activated(modulus, offset), middle, bound
    )


def _sum(maps: Array) -> NDArray[Any]:
    total = maps.sum((-2, -1))
    return np.asarray(total.cpu().numpy() if is_tensor(total) else total)


def _energy(maps: Array) -> NDArray[np.float64]:
    return np.asarray(_sum(abs(maps) ** 2), dtype=np.float64)


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
    spectrum: Array, kernel: NDArray[np.complex128], filters: Filters
) -> tuple[list[Array], Array]:
    xp, m = namespace(spectrum), filters.stride
    size = tuple(spectrum.shape[-2:])
    response = np.fft.fft2(kernel, size).conj()
    if is_tensor(spectrum):
        response = xp.from_numpy(response).to(spectrum.device, spectrum.dtype)
    product = spectrum * response.astype(spectrum.dtype) if xp is np else spectrum * response
    if product.ndim == 3:
        product = product.sum(0)
    # Circular correlation: without wrapping around where the kernel lies within the image.
    extent = m * (filters.side - 1)
    starts = []
    for side, taps in zip(size, filters.size, strict=True):
        count = int((side - taps - extent) / (filters.pool_stride * m) + 1e-9) + 1
        starts.append(filters.pool_stride * m * np.arange(count))
    take = _Sampler(product)
    steps = m * np.arange(filters.side)
    window = [take(starts[0] + y, starts[1] + x) for y in steps for x in steps]
    return window, take(starts[0] + extent / 2, starts[1] + extent / 2)


class _Sampler:
    """Values of a periodic map, given by its Fourier transform, at any rows and columns."""

    def __init__(self, transform: Array) -> None:
        self.transform = transform
        self.whole: Array | None = None

    def __call__(self, rows: NDArray[Any], columns: NDArray[Any]) -> Array:
        xp = namespace(self.transform)
        if np.all(rows == np.round(rows)) and np.all(columns == np.round(columns)):
            if self.whole is None:
                self.whole = xp.fft.ifft2(self.transform)
            values = self.whole[rows.astype(int)][:, columns.astype(int)]
        else:
            height, width = self.transform.shape
            down = np.exp(2j * np.pi * np.outer(rows, np.fft.fftfreq(height))) / height
            across = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(width), columns)) / width
            if is_tensor(self.transform):
                down, across = (
                    xp.from_numpy(part).to(self.transform.device, self.transform.dtype)
                    for part in (down, across)
                )
            values = down @ self.transform @ across
        return values[None]
