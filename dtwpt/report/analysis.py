"""Analysis for a report: errors of packets or of a layer, predicted, and measured on images."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.images.reading import centre_crop, read_image
from dtwpt.invariance import Layer, characterize, estimate_spectrum, gamma, measure, predict
from dtwpt.invariance.filters import BOUNDS, ERRORS, as_filters
from dtwpt.packets import PacketBank

__all__ = [
    "Analysis",
    "Crops",
    "analyse_layer",
    "analyse_packets",
    "least_size",
    "margin",
    "read_crops",
]

# Side of the crops where images are large enough.
_SIDE = 256


@dataclass(frozen=True)
class Crops:
    """One crop an image, in grey or in colour: crops of one would not be independent samples."""

    files: list[str]
    size: tuple[int, int]
    colour: bool = False

    @property
    def images(self) -> Iterator[NDArray[np.float32]]:
        """The crops one after the other, read again every time: thousands need no memory."""
        colour = "channels" if self.colour else "luma"
        return (centre_crop(read_image(file, colour), self.size) for file in self.files)


def read_crops(
    files: Sequence[str],
    crop: int | tuple[int, int] | None = None,
    least: tuple[int, int] = (1, 1),
    progress: Callable[[], None] | None = None,
) -> Crops:
    """Read the middle of images, in grey.

    Parameters
    ----------
    files : sequence of str
    crop : int or (int, int), optional
        Side or (height, width). Default: 256, or the shorter side of the smallest image.
    least : (int, int)
        What the filters and the shifts need.
    progress : callable, optional
        Called after each file.

    Returns
    -------
    Crops

    Raises
    ------
    ImageError
        If a file cannot be read, or is too small, or its middle is blank.
    ValueError
        If the crop is smaller than what is needed.
    """
    wanted = (crop, crop) if isinstance(crop, int) else crop
    asked = wanted if wanted is not None else (_SIDE, _SIDE)
    if any(side < need for side, need in zip(asked, least, strict=True)):
        raise ValueError(
            f"crops of {asked[0]}x{asked[1]} are too small: these filters, pooling windows and "
            f"shifts need {least[0]}x{least[1]} pixels"
        )
    smallest = _SIDE
    for file in files:
        image = read_image(file)
        height, width = image.shape
        need = least if wanted is None else asked
        if height < need[0] or width < need[1]:
            why = (
                "these filters, pooling windows and shifts need" if wanted is None else "--crop is"
            )
            raise ImageError(file, f"{height}x{width} pixels, {why} {need[0]}x{need[1]}")
        smallest = min(smallest, height, width)
        if np.ptp(centre_crop(image, wanted or (min(_SIDE, height), min(_SIDE, width)))) == 0:
            raise ImageError(file, "blank where it is cropped: a constant has nothing to shift")
        if progress is not None:
            progress()
    side = max(smallest, *least)
    return Crops(list(files), wanted or (side, side))


# Analysis -----------------------------------------------------------------------------------------


# Below this share of its norm, a kernel's response to grey images is rounding.
_BLANK = 1e-6
# Lengths of the curves' shifts, in pixels.
_LENGTHS = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8)
# Pixels about a crop that shifts by a fraction of a pixel need, as measure() has it.
_INTERPOLATION = 16


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Attributes
    ----------
    bank : PacketBank or None
    kernels : ndarray or None
        Those of a layer that answer grey images.
    filters : ndarray of int
        Numbers of the filters: of a layer, their places in the file.
    blank : list of int
        Kernels left out because they do not respond to grey images.
    description : structured ndarray, shape (filters,)
        ``bank.atoms()``, or :func:`dtwpt.invariance.characterize` of the kernels.
    grey_share : ndarray or None
        Of kernels: share of their energy that answers grey images.
    gabor : ndarray of bool
        Which filters are Gabor-like.
    stride : float
        Subsampling m before pooling.
    q : int or None
        Its window is ``2 q + 1`` wide; None of a layer whose pooling is no maximum over such a
        window, or whose stride is not whole.
    spectrum : str or None
        The field of the prediction; None: the images' own.
    crops : Crops or None
    predicted, measured : structured ndarray, shape (shifts, filters)
    curve_predicted, curve_measured : structured ndarray, shape (lengths, filters)
        Of the Gabor-like filters alone (of all, if there is none), for lengths of the first shift.
    layer : Layer or None
        With bias, ReLU and pooling, of colour images, if it is not of kernels alone.
    """

    bank: PacketBank | None
    kernels: NDArray[Any] | None
    filters: NDArray[np.int64]
    blank: list[int]
    description: np.ndarray
    grey_share: NDArray[np.float64] | None
    gabor: NDArray[np.bool_]
    stride: float
    q: int | None
    spectrum: str | None
    crops: Crops | None
    predicted: np.ndarray
    measured: np.ndarray | None
    curve_predicted: np.ndarray
    curve_measured: np.ndarray | None
    layer: Layer | None = None

    @property
    def shown(self) -> np.ndarray:
        """The measured table or, without images, the predicted one."""
        return self.predicted if self.measured is None else self.measured

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The filters of the curves: the Gabor-like ones, or all if there are none."""
        return self.gabor if self.gabor.any() else np.ones_like(self.gabor)

    @property
    def gamma(self) -> NDArray[np.float64]:
        """Gamma of each filter; NaN where it is not defined."""
        if self.q is None:
            return np.full(len(self.filters), np.nan)
        theta = np.stack([self.description["theta_y"], self.description["theta_x"]], axis=-1)
        return gamma(theta, int(self.stride), self.q)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the table, each with one value a filter and shift."""
        shifts = len(self.predicted)
        out: dict[str, NDArray[Any]] = {"filter": np.tile(self.filters, shifts)}
        for name in self.description.dtype.names or ():
            out[name] = np.tile(self.description[name], shifts)
        if self.grey_share is not None:
            out["grey_share"] = np.tile(self.grey_share, shifts)
        out["gamma"] = np.tile(self.gamma, shifts)
        for name in ("shift_y", "shift_x"):
            out[name] = self.predicted[name].reshape(-1)
        for which, table in (("predicted", self.predicted), ("measured", self.measured)):
            if table is not None:
                out[f"{which}_bandwidth"] = table["bandwidth"].reshape(-1)
                for error in ERRORS + BOUNDS:
                    for end in ("", "_stderr"):
                        out[f"{which}_{error}{end}"] = table[error + end].reshape(-1)
        return out

    def csv(self) -> bytes:
        """Return the table as CSV, every number with all its digits; truth values are 0 and 1."""
        columns = self.columns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([_in_full(value) for value in row])
        return text.getvalue().encode()


def analyse_packets(
    bank: PacketBank,
    shifts: Sequence[tuple[float, float]],
    q: int = 1,
    spectrum: str = "pink",
    crops: Crops | None = None,
    progress: Callable[[], None] | None = None,
) -> Analysis:
    """Predict, and measure on images if there are any, the errors of a bank's packets.

    Parameters
    ----------
    bank : PacketBank
    shifts : sequence of (float, float)
        Down and right, pixels; the pictures are of the first one.
    q : int, default: 1
    spectrum : {"pink", "white"}
        Of the prediction without images.
    crops : Crops, optional
        Images to measure on; the prediction then uses their spectra.
    progress : callable, optional
        Called after each image of each of two measurements.

    Returns
    -------
    Analysis
    """
    atoms = bank.atoms()
    gabor = np.asarray(atoms["gabor"])
    every = slice(None) if not gabor.any() else gabor
    tables = _tables(bank, None, bank, None, every, shifts, q, spectrum, crops, progress)
    return Analysis(
        bank, None, np.arange(len(atoms)), [], atoms, None, gabor, 2 ** (bank.depth - 1), q,
        spectrum if crops is None else None, crops, *tables,
    )  # fmt: skip


def analyse_layer(
    kernels: NDArray[Any] | Layer,
    shifts: Sequence[tuple[float, float]],
    stride: int = 2,
    q: int = 1,
    spectrum: str = "pink",
    crops: Crops | None = None,
    progress: Callable[[], None] | None = None,
) -> Analysis:
    """Do the same for the kernels of a layer, given grey images, or for a whole layer.

    Parameters
    ----------
    kernels : ndarray, shape (out, in, h, w) or (n, h, w), or Layer
        Of a Layer bias, ReLU and pooling count, and the images are taken in colour if it has three
        channels; stride and q are its own.
    shifts : sequence of (float, float)
    stride : int, default: 2
        Of the convolution, before pooling with stride 2.
    q : int, default: 1
    spectrum : {"pink", "white"}
    crops : Crops, optional
    progress : callable, optional

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        If no kernel responds to grey images, or a Layer has a bias and there are no images, in
        whose units the bias is, or it does not have one or three channels.
    """
    if isinstance(kernels, Layer):
        return _analyse_whole(kernels, shifts, spectrum, crops, progress)
    values = np.asarray(kernels, dtype=np.float64)
    values = values[:, None] if values.ndim == 3 else values
    energy = np.square(values).sum(axis=(1, 2, 3))
    grey = values.shape[1] * np.square(values.mean(axis=1)).sum(axis=(1, 2))
    answers = (grey > _BLANK**2 * energy) & (energy > 0)
    if not answers.any():
        raise ValueError("no kernel responds to grey images")
    numbers, values = np.flatnonzero(answers), values[answers]
    description = characterize(values, stride)
    gabor = np.asarray(description["gabor"])
    some = values[gabor] if gabor.any() else values
    tables = _tables(
        values, stride, some, stride, slice(None), shifts, q, spectrum, crops, progress
    )
    return Analysis(
        None, values, numbers, np.flatnonzero(~answers).tolist(), description,
        (grey / np.where(energy > 0, energy, 1))[answers], gabor, stride, q,
        spectrum if crops is None else None, crops, *tables,
    )  # fmt: skip


def _analyse_whole(
    layer: Layer,
    shifts: Sequence[tuple[float, float]],
    spectrum: str,
    crops: Crops | None,
    progress: Callable[[], None] | None,
) -> Analysis:
    values = np.asarray(layer.filters, dtype=np.float64)
    values = values[:, None] if values.ndim == 3 else values
    if values.shape[1] not in (1, 3):
        raise ValueError(f"a layer must have 1 or 3 channels, got {values.shape[1]}")
    if crops is None and layer.bias is not None:
        raise ValueError(
            "a layer with a bias needs images, in whose units it is: give some, or leave it out"
        )
    if crops is not None:
        crops = replace(crops, colour=values.shape[1] == 3)
    energy = np.square(values).sum(axis=(1, 2, 3))
    answers = energy > _BLANK**2 * energy.max()
    if not answers.any():
        raise ValueError("no kernel of the layer has an output")
    numbers, values = np.flatnonzero(answers), values[answers]
    bias = None if layer.bias is None else np.asarray(layer.bias, np.float64)[answers]
    layer = replace(layer, filters=values, bias=bias)
    stride = 2 if layer.stride is None else layer.stride
    description = characterize(values, stride, "full")
    gabor = np.asarray(description["gabor"])
    some = layer
    if gabor.any():
        some = replace(layer, filters=values[gabor], bias=None if bias is None else bias[gabor])
    tables = _tables(layer, None, some, None, slice(None), shifts, None, spectrum, crops, progress)
    grey = values.shape[1] * np.square(values.mean(axis=1)).sum(axis=(1, 2))
    plain = layer.window % 2 == 1 and len(layer.blur) == 1 and stride == int(stride)
    return Analysis(
        None, values, numbers, np.flatnonzero(~answers).tolist(), description,
        grey / energy[answers], gabor, stride, (layer.window - 1) // 2 if plain else None,
        spectrum if crops is None else None, crops, *tables, layer=layer,
    )  # fmt: skip


def least_size(
    filters: PacketBank | NDArray[Any] | Layer,
    stride: int,
    q: int,
    shifts: Sequence[tuple[float, float]],
) -> tuple[int, int]:
    """Return the height and width that images must have for filters and shifts."""
    extent = float(2 * q * stride)
    if isinstance(filters, Layer):
        extent = (2 if filters.stride is None else filters.stride) * (filters.side - 1)
        filters = np.asarray(filters.filters)
    if isinstance(filters, PacketBank):
        # Outputs lie at fixed positions, up to one step from the border.
        taps = (filters.filters.shape[1] + 2 * stride - 1,) * 2
    else:  # as long as their analytic extension
        taps = (4 * filters.shape[-2], 4 * filters.shape[-1])
    curve = _whole_shifts(shifts[0])
    height, width = (
        taps[axis] + int(np.ceil(extent)) + max(margin(each, axis) for each in (shifts, curve))
        for axis in (0, 1)
    )
    return height, width


def margin(shifts: Sequence[tuple[float, float]], axis: int) -> int:
    """Return the pixels along an axis needed to measure the shifts together."""
    moves = np.array(shifts)
    along = moves[:, axis]
    needed = max(np.ceil(along.max()), 0) + max(np.ceil(-along.min()), 0)
    return int(needed) + (0 if np.all(moves == np.round(moves)) else 2 * _INTERPOLATION)


def _tables(
    filters: Any,
    stride: int | None,
    some: Any,
    some_stride: int | None,
    columns: Any,
    shifts: Sequence[tuple[float, float]],
    q: int | None,
    spectrum: str,
    crops: Crops | None,
    progress: Callable[[], None] | None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Return the tables of the filters and the curves of some, predicted and measured."""
    curve = _shifts_of_lengths(shifts[0])
    field: Any = spectrum
    if crops is not None:
        furthest = int(np.ceil(np.abs([*shifts, *curve]).max()))
        seen = as_filters(filters, stride, q=q)
        reach = furthest + int(np.ceil(seen.stride * (seen.side - 1)))
        field = estimate_spectrum(crops.images, reach=reach, channels=seen.channels)
    predicted = predict(filters, list(shifts), q, field, stride=stride)
    curve_predicted = predict(some, curve, q, field, stride=some_stride)[:, columns]
    if crops is None:
        return predicted, None, curve_predicted, None
    measured = measure(_watched(crops.images, progress), filters, list(shifts), q, stride=stride)
    whole = _whole_shifts(shifts[0])
    watched = _watched(crops.images, progress)
    curve_measured = measure(watched, some, whole, q, stride=some_stride)[:, columns]
    return predicted, measured, curve_predicted, curve_measured


def _watched(images: Iterable[Any], progress: Callable[[], None] | None) -> Iterator[Any]:
    for image in images:
        yield image
        if progress is not None:
            progress()


def _step(shift: tuple[float, float]) -> NDArray[np.float64]:
    """Return the shortest shift in that direction from pixel to pixel, or else of one pixel."""
    move = np.array(shift, dtype=np.float64)
    if np.all(move == np.round(move)):
        move = move / np.gcd(*np.abs(move).astype(np.int64))
        return np.asarray(move, dtype=np.float64)
    return np.asarray(move / np.hypot(*move), dtype=np.float64)


def _shifts_of_lengths(shift: tuple[float, float]) -> list[tuple[float, float]]:
    step = _step(shift)
    unit = step / np.hypot(*step)
    lengths = [*_LENGTHS, np.hypot(*step)] if np.hypot(*step) > _LENGTHS[-1] else _LENGTHS
    return [(float(length * unit[0]), float(length * unit[1])) for length in lengths]


def _whole_shifts(shift: tuple[float, float]) -> list[tuple[float, float]]:
    step = _step(shift)
    count = max(1, int(np.floor(_LENGTHS[-1] / np.hypot(*step) + 1e-9)))
    return [(float(k * step[0]), float(k * step[1])) for k in range(1, count + 1)]


def _in_full(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    return str(int(value)) if isinstance(value, (int, np.integer)) else repr(float(value))
