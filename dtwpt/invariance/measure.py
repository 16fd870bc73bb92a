"""Measurement of the shift errors on real images, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, as_real_input, dtype_name, is_tensor, namespace
from dtwpt.checks import as_count
from dtwpt.colour import LUMA
from dtwpt.invariance.filters import ERRORS, Filters, as_filters, as_shifts, blank_table
from dtwpt.invariance.output import output_bandwidths
from dtwpt.invariance.spectrum import windowed_power
from dtwpt.transform import cmod2, rmax2

__all__ = ["grey_images", "measure"]

# Pixels around the crop that Fourier interpolation needs for what it rings at the image's ends.
_INTERPOLATION_MARGIN = 16


def measure(
    images: Any,
    bank_or_kernels: Any,
    shift: ArrayLike = (0, 1),
    q: int = 1,
    *,
    stride: int | None = None,
    colour: ArrayLike | None = None,
) -> np.ndarray:
    """Measure the relative squared errors of RMax and CMod on images.

    Parameters
    ----------
    images : iterable, or path of a folder
        Arrays or tensors of shape (H, W), (n, H, W), (H, W, 3), (3, H, W) or (n, C, H, W), C
        being 1 or 3; or tuples that begin with one, as a ``DataLoader`` gives; or a folder of image
        files.
        Colours are reduced to luma. They are taken one after the other and forgotten. Tensors
        are worked on where they are.
    bank_or_kernels : PacketBank, array_like or torch.Tensor
        Packets, or a first layer's kernels of shape (out, in, h, w) or (n, h, w); see
        :func:`characterize`.
    shift : array_like of float, shape (2,) or (n, 2), default: (0, 1)
        Shifts (down, right), pixels. The shifted picture is another crop of the same image; if
        the shift is not whole, of the image interpolated by its Fourier series. Nothing wraps
        around and no border is invented: only outputs whose filters lie within the crop count.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    stride : int, optional
        Subsampling m of a layer before pooling, 2 by default; ``2**(depth - 1)`` for a bank.
    colour : array_like of float, shape (in,), optional
        Weights of a layer's input channels; their mean by default.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several shifts
        The columns of :func:`predict`. Each error is a ratio of squared norms, averaged over
        the images; its standard error is that of this average (NaN of a single image). Images
        on which a filter gives nothing at all, as blank ones, do not count for it.

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
    filters = as_filters(bank_or_kernels, stride, colour)
    shifts, single = as_shifts(shift)
    reach = as_count(q, "q")
    averages = [{name: _Average(len(filters)) for name in ERRORS} for _ in shifts]
    bandwidths = _Average(len(filters))
    for number, image in enumerate(grey_images(images)):
        if not namespace(image).isfinite(image).all():
            raise ValueError(f"image {number} holds NaN or infinity")
        pixels = np.asarray(image.detach().cpu() if is_tensor(image) else image, dtype=np.float64)
        squared = output_bandwidths(filters, windowed_power(pixels)[None])[0] ** 2
        bandwidths.add(np.nan_to_num(squared), np.isfinite(squared).astype(float))
        for average, (base, moved) in zip(averages, _crops(image, shifts, number), strict=True):
            _compare(average, base, moved, filters, reach, number)
    table = blank_table(filters, shifts)
    table["bandwidth"] = np.sqrt(bandwidths.result()[0])
    for row, average in zip(table, averages, strict=True):
        for name in ERRORS:
            row[name], row[name + "_stderr"] = average[name].result()
    return table[0] if single else table


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

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not self.count.all():
            raise ValueError(
                "images must answer every filter, but there is none that answers filter "
                f"{int(np.argmin(self.count))}"
            )
        enough = np.where(self.count > 1, self.count, np.nan)
        return self.mean, np.sqrt(self.squares / (enough - 1) / enough)


def grey_images(images: Any) -> Iterator[Array]:
    """Yield images (H, W) in float from everything that :func:`measure` takes."""
    if isinstance(images, (str, PathLike)):
        # Reading files is the business of a later layer, asked for here only for convenience.
        from dtwpt.extract import find_images, read_image

        images = (read_image(path) for path in find_images([images]))
    if not isinstance(images, Iterable):
        raise TypeError(f"images must be iterable or a folder, got {type(images).__name__}")
    found = False
    for item in images:
        first = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        array = as_real_input(first, 2, "images")
        for image in _planes(array):
            found = True
            yield image
    if not found:
        raise ValueError("images must not be empty")


def _planes(array: Array) -> Iterable[Array]:
    if array.ndim == 2:
        return [array]
    if array.ndim == 3 and array.shape[2] == 3:
        return [sum(weight * array[..., c] for c, weight in enumerate(LUMA))]
    if array.ndim == 3 and array.shape[0] == 3:
        return [sum(weight * array[c] for c, weight in enumerate(LUMA))]
    if array.ndim == 3:
        return [array[index] for index in range(array.shape[0])]
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return (plane for image in array for plane in _planes(image))
    raise ValueError(
        "images must have shape (H, W), (n, H, W), (H, W, 3), (3, H, W) or (n, C, H, W), C 1 or 3, "
        f"got {tuple(array.shape)}"
    )


def _crops(image: Array, shifts: NDArray[np.float64], number: int) -> Iterator[tuple[Array, Array]]:
    """Yield, for each shift, the middle of the image and the same place of the shifted image."""
    whole = np.all(shifts == np.round(shifts))
    margin = 0 if whole else _INTERPOLATION_MARGIN
    # Content that moves down by u comes from u rows above.
    before = np.maximum(np.ceil(shifts.max(0)), 0).astype(int) + margin
    after = np.maximum(np.ceil(-shifts.min(0)), 0).astype(int) + margin
    height, width = image.shape
    if height <= before[0] + after[0] or width <= before[1] + after[1]:
        raise ValueError(
            f"image {number} of {height} x {width} pixels leaves nothing between the margins of "
            f"{before + after} pixels that the shifts need"
        )
    base = image[before[0] : height - after[0], before[1] : width - after[1]]
    for shift in shifts:
        steps = np.floor(shift).astype(int)
        rest = shift - steps
        source = image if not rest.any() else _interpolated(image, rest)
        top, left = before - steps
        yield base, source[top : top + base.shape[0], left : left + base.shape[1]]


def _interpolated(image: Array, shift: NDArray[np.float64]) -> Array:
    """Return the image moved by a fraction of a pixel, by its Fourier series.

    The image is mirrored first: its series then has no jump to ring at.
    """
    xp = namespace(image)
    for axis, move in enumerate(shift):
        if not move:
            continue
        n = image.shape[axis]
        mirrored = xp.concatenate([image, xp.flip(image, (axis,))], axis)
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(2 * n) * move)
        # The outermost frequency stands for both its signs.
        phase[n] = np.cos(np.pi * move)
        if is_tensor(image):
            phase = xp.from_numpy(phase).to(image.device)
        shape = (-1, 1) if axis == 0 else (1, -1)
        spectrum = xp.fft.fft2(mirrored) * phase.reshape(shape)
        moved = xp.fft.ifft2(spectrum).real
        image = moved[:n] if axis == 0 else moved[:, :n]
    return image


def _compare(
    average: dict[str, _Average],
    base: Array,
    moved: Array,
    filters: Filters,
    q: int,
    number: int,
) -> None:
    reach = 2 * q * filters.stride
    if filters.bank is not None:
        reach += 2 * filters.stride - 1  # outputs stand on a grid, and one of them must fit
    if any(side < taps + reach for side, taps in zip(base.shape, filters.size, strict=True)):
        raise ValueError(
            f"image {number} is too small: its crop of {base.shape[0]} x {base.shape[1]} pixels "
            f"must be at least {filters.size[0] + reach} x {filters.size[1] + reach}, the filters "
            "and the pooling window"
        )
    outputs = _packet_outputs if filters.bank is not None else _kernel_outputs
    # Below this, what a filter gives is the rounding of what it should not give.
    noise = (300 * np.finfo(dtype_name(base)).eps) ** 2 * float((base**2).sum())
    cmod, rmax = outputs(base, filters, q)
    cmod_moved, rmax_moved = outputs(moved, filters, q)
    for name, one, other, scale in (
        ("rmax_cmod", rmax, cmod, cmod),
        ("cmod_shift", cmod_moved, cmod, cmod),
        ("rmax_shift", rmax_moved, rmax, rmax),
    ):
        energy = _energy(scale)
        average[name].add(_energy(one - other), np.where(energy > noise, energy, 0))


def _energy(maps: Array) -> NDArray[np.float64]:
    total = (maps**2).sum((-2, -1))
    total = total.cpu().numpy() if is_tensor(total) else total
    return np.asarray(total, dtype=np.float64)


def _packet_outputs(image: Array, filters: Filters, q: int) -> tuple[Array, Array]:
    """CMod and RMax, (filters, ...), where filters and windows lie within the image."""
    bank = filters.bank
    if bank is None:
        raise TypeError("filters must be a packet bank")
    step, length = 2 * filters.stride, filters.size[0]
    inner = []
    for side in image.shape:
        first, reach = (step - length) // 2, q * filters.stride
        start = -(-(reach - first) // step)
        stop = (side - reach - length - first) // step + 1
        inner.append(slice(start, stop))
    maps = (
        cmod2(image, bank.depth, bank.wavelet),
        rmax2(image, bank.depth, bank.wavelet, pool=2 * q + 1),
    )
    cmod, rmax = (m[..., inner[0], inner[1]].reshape(len(filters), -1, 1) for m in maps)
    return cmod, rmax


def _kernel_outputs(image: Array, filters: Filters, q: int) -> tuple[Array, Array]:
    xp, m = namespace(image), filters.stride
    height, width = (side - taps + 1 for side, taps in zip(image.shape, filters.size, strict=True))
    spectrum = xp.fft.fft2(image)
    cmods, rmaxs = [], []
    for kernel in filters:
        response = np.fft.fft2(kernel, tuple(image.shape)).conj()
        if is_tensor(image):
            response = xp.from_numpy(response).to(image.device)
        # Circular correlation: without wrapping around where the kernel lies within the image.
        z = xp.fft.ifft2(spectrum * response)[:height:m, :width:m]
        rows, columns = ((side - 2 * q - 1) // 2 + 1 for side in z.shape)
        cmods.append(xp.abs(z[q : q + 2 * rows : 2, q : q + 2 * columns : 2]))
        pooled = None
        for dy in range(2 * q + 1):
            for dx in range(2 * q + 1):
                part = z.real[dy : dy + 2 * rows - 1 : 2, dx : dx + 2 * columns - 1 : 2]
                pooled = part if pooled is None else xp.maximum(pooled, part)
        rmaxs.append(pooled)
    return xp.stack(cmods), xp.stack(rmaxs)
