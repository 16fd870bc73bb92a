"""Measurement of the shift errors on real images, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, dtype_name, is_tensor, namespace
from dtwpt.invariance.filters import BOUNDS, ERRORS, as_filters, as_shifts, blank_table
from dtwpt.invariance.images import grey_images, layer_images
from dtwpt.invariance.output import output_bandwidths
from dtwpt.invariance.windows import Outputs, Windows, energy, total

__all__ = ["measure"]

# Pixels around the crop that Fourier interpolation needs, as it rings at the image's borders.
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
        Colours are reduced to luma, except for a layer with channels. Images are processed one at a
        time and not kept. Tensors are processed on their own device.
    bank_or_kernels : PacketBank, array_like, torch.Tensor, Layer or torch.nn.Module
        Packets, kernels, or a layer, as for :func:`predict`. A layer gets the images unchanged:
        normalise them as its network expects.
    shift : array_like of float, shape (2,) or (n, 2), default: (0, 1)
        Shifts (down, right), pixels. The shifted picture is another crop of the same image; if
        the shift is not whole, of the image interpolated by its Fourier series. There is no
        wrap-around and no padding: only outputs whose filters lie within the crop count.
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
        the images; its standard error is that of this average (NaN of a single image). Images on
        which a filter's output is zero, such as blank ones, are left out for that filter; if a
        ReLU's output is zero on all images, errors are NaN. The bounds hold for every image alone:
        they come from its pairs of outputs in a window, and from its outputs before and after the
        shift.

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
    windows = Windows(filters)
    averages = [{name: _Average(len(filters)) for name in ERRORS + BOUNDS} for _ in shifts]
    bandwidths = _Average(len(filters))
    read = (
        grey_images(images) if filters.channels is None else layer_images(images, filters.channels)
    )
    for number, image in enumerate(read):
        if not namespace(image).isfinite(image).all():
            raise ValueError(f"image {number} holds NaN or infinity")
        pixels = np.asarray(image.cpu() if is_tensor(image) else image, dtype=np.float64)
        grid = windows.grid(pixels.shape)
        responses = None if filters.bank is not None else windows.responses(grid, image)
        squared = output_bandwidths(filters, _power(pixels, grid), responses)[0] ** 2
        bandwidths.add(np.nan_to_num(squared), np.isfinite(squared).astype(float))
        before = None
        for average, (base, moved) in zip(averages, _crops(image, shifts, number), strict=True):
            if before is None:
                _check_size(base, windows, number)
                before = windows(base, grid, True)
                # Below this, what a filter gives is the rounding of what it should not give.
                relative = 300 * np.finfo(dtype_name(base)).eps
                noise = relative**2 * windows.norms * float((base**2).sum())
            _compare(average, before, windows(moved, grid, False), noise)
    table = blank_table(filters, shifts)
    table["bandwidth"] = np.sqrt(bandwidths.result(filters.relu)[0])
    for row, average in zip(table, averages, strict=True):
        for name in ERRORS + BOUNDS:
            row[name], row[name + "_stderr"] = average[name].result(filters.relu)
    return table[0] if single else table


def _power(pixels: NDArray[np.float64], grid: tuple[int, int]) -> NDArray[Any]:
    """Power of one image under a window on a grid, of several channels their transforms."""
    height, width = pixels.shape[-2:]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    transform = np.fft.fft2(pixels * window, grid)
    return np.asarray((np.abs(transform) ** 2 if pixels.ndim == 2 else transform)[None])


def _check_size(base: Array, windows: Windows, number: int) -> None:
    sides, least = tuple(base.shape[-2:]), windows.least
    if any(side < need for side, need in zip(sides, least, strict=True)):
        raise ValueError(
            f"image {number} is too small: its crop of {sides[0]} x {sides[1]} pixels "
            f"must be at least {least[0]} x {least[1]}, the filters and the pooling window"
        )


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
    average: dict[str, _Average], before: Outputs, after: Outputs, noise: NDArray[np.float64]
) -> None:
    """Add what changes from one image to the other; energies up to ``noise`` do not count."""
    plain = energy(before.middle)
    cmod = energy(before.cmod)
    moved_rmax = energy(after.rmax - before.rmax)
    together = np.abs(total(after.middle * before.middle.conj()))
    for name, error, scale in (
        ("rmax_cmod", energy(before.rmax - before.cmod), cmod),
        ("cmod_shift", energy(after.cmod - before.cmod), cmod),
        ("rmax_shift", moved_rmax, energy(before.rmax)),
        ("rmax_shift_by_cmod", moved_rmax, cmod),
        ("rmax_cmod_bound", before.bound, cmod),
        ("cmod_shift_bound", np.maximum(plain + energy(after.middle) - 2 * together, 0), cmod),
        ("pseudo_covariance", np.abs(total(before.middle**2)), plain),
    ):
        average[name].add(error, np.where(scale > noise, scale, 0))
