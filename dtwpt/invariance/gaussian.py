"""Prediction of the shift errors for Gaussian fields, with no image at all.

In a stationary Gaussian field, the outputs of a filter in one pooling window and in its shifted
copy are jointly Gaussian. Their covariances follow from the field's power spectrum, and the three
relative errors are expectations over a few Gaussian variables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.invariance.closed_form import circular_change
from dtwpt.invariance.envelope import gaussian_bound
from dtwpt.invariance.fields import Field, fields
from dtwpt.invariance.filters import Filters, as_filters, as_shifts, blank_table
from dtwpt.invariance.moments import Moments
from dtwpt.invariance.sampling import (
    SCRAMBLINGS,
    factor,
    mean_and_error,
    mean_squares,
    normal_points,
    ratios,
)
from dtwpt.invariance.spectrum import as_spectrum
from dtwpt.invariance.windows import window_places

__all__ = ["predict"]


def predict(
    bank_or_kernels: Any,
    shift: ArrayLike = (0, 1),
    q: int | None = None,
    spectrum: Any = "white",
    *,
    stride: float | None = None,
    colour: Any = None,
    moments: Moments | None = None,
) -> np.ndarray:
    r"""Predict the relative squared errors of RMax and CMod for a Gaussian field.

    Parameters
    ----------
    bank_or_kernels : PacketBank, array_like, torch.Tensor, Layer or torch.nn.Module
        Packets; a first layer's kernels of shape (out, in, h, w) or (n, h, w), see
        :func:`characterize`; or a :class:`Layer`, or a network that begins with one
        (:func:`as_layer`), with bias, ReLU, any pooling, and all channels of the images.
    shift : array_like of float, shape (2,) or (n, 2), default: (0, 1)
        Shifts (down, right), pixels; they need not be whole.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    spectrum : {"white", "pink"}, array_like (H, W), Spectrum, or images
        Power of the field on the grid of ``numpy.fft.fft2``; of images, in any form that
        :func:`measure` takes, their spectra and means (see :func:`estimate_spectrum`), with equal
        weight for every image and filter.
    stride : float, optional
        Subsampling m before pooling, not necessarily whole; ``2**(depth - 1)`` for a bank and 2
        for kernels by default. CMod has the stride 2 m.
    colour : array_like of float, shape (in,), or "full", optional
        Weights of a layer's input channels; their mean by default, and for a :class:`Layer` "full":
        the channels see those of the images.
    moments : Moments, optional
        Of photographs, from :func:`estimate_moments` for the same filters: corrects the errors of
        RMax for their non-Gaussian statistics.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several shifts
        Columns ``filter``, ``theta_y``, ``theta_x``, ``frequency``, ``orientation``, ``gabor`` (see
        :func:`characterize`), ``shift_y``, ``shift_x``; ``bandwidth``, of the filter's output
        (twice the root mean square distance of its frequencies from theta along the axis where
        that is larger: the one with which :func:`alpha` bounds the expected change); and, each
        with its standard error in ``*_stderr``,

        - ``rmax_cmod``: E (RMax - CMod)^2 / E CMod^2;
        - ``cmod_shift``: E (CMod' - CMod)^2 / E CMod^2, CMod' of the shifted field; in closed form,
          with standard error 0, where the pseudo-covariance is negligible;
        - ``rmax_shift``: E (RMax' - RMax)^2 / E RMax^2;
        - ``rmax_shift_by_cmod``: E (RMax' - RMax)^2 / E CMod^2, the quantity that the papers bound;
        - ``rmax_cmod_bound``: a bound on ``rmax_cmod`` (see :func:`rmax_cmod_bound`); its standard
          error is that of a quadrature. NaN where the pooling is more than a maximum;
        - ``cmod_shift_bound``: ``min E |exp(i phi) Z' - Z|^2 / E CMod^2`` over phases phi, a bound
          on ``cmod_shift``;
        - ``pseudo_covariance``: ``|E Z^2| / E |Z|^2``, which is 0 where the phase is uniform, as
          gamma supposes.

        For a layer, RMax is its output and CMod that of its twin, see :class:`Layer`. Where the
        output is zero, errors are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    See Also
    --------
    measure : the same columns, on images.

    Examples
    --------
    >>> import dtwpt
    >>> from dtwpt.invariance import predict
    >>> table = predict(dtwpt.PacketBank(2), shift=(0, 1))
    >>> table.shape
    (32,)
    >>> bool(table["cmod_shift"].mean() < table["rmax_shift"].mean() / 2)
    True
    """
    filters = as_filters(bank_or_kernels, stride, colour, q)
    shifts, single = as_shifts(shift)
    places = [_Places(filters, move) for move in shifts]
    reach = int(np.ceil(max(each.reach for each in places)))
    height, width = filters.size
    field = as_spectrum(spectrum, (height + reach, width + reach), reach, filters.channels)
    if moments is not None:
        _check_moments(moments, filters, reach)
    table = blank_table(filters, shifts)
    normal: NDArray[np.float64] | None = None
    for index, kernel in enumerate(filters):
        kinds = fields(field, kernel, alone=filters.bias is not None)
        description = filters.table[index]
        each = [kind.bandwidth(description["theta_y"], description["theta_x"]) for kind in kinds]
        squared = np.square([width for width in each if np.isfinite(width)])
        if squared.size:  # some field gives it an output
            table["bandwidth"][:, index] = np.sqrt(squared.mean())
        for row, where in zip(table[:, index], places, strict=True):
            joints = [where.joint(kind) for kind in kinds]
            if normal is None:
                normal = normal_points(2 * len(joints[0][0]), len(joints))
            _fill(row, filters, index, where, joints, kinds, normal, moments)
    return table[0] if single else table


class _Places:
    """Positions of the outputs for one shift: both windows, and the middles of both.

    The joint covariance is that of the real parts at the points p of a window, at p - u, in the
    middles 0 and -u, and of the imaginary parts in both middles: for the output of the shifted
    field at p is that of the field at p - u.
    """

    def __init__(self, filters: Filters, move: NDArray[np.float64]) -> None:
        side = filters.side
        self.points = side**2
        window = window_places(filters.stride, side)
        middle = np.zeros((1, 2))
        places = np.concatenate([window, window - move, middle, middle - move])
        away = np.round(places[:, None] - places[None], 9)
        self.reach = float(np.abs(away).max())
        self.down, at_y = np.unique(away[..., 0], return_inverse=True)
        self.across, at_x = np.unique(away[..., 1], return_inverse=True)
        self.between = at_y.reshape(away.shape[:2]), at_x.reshape(away.shape[:2])
        self._size: tuple[int, int] | None = None

    def covariances(self, field: Field) -> NDArray[np.float64]:
        """Return real-real, imaginary-imaginary, real-imaginary products at all displacements."""
        if self._size != field.size:
            self._size = field.size
            rows, columns = (2 * np.pi * np.fft.fftfreq(side) for side in field.size)
            self._rows = np.exp(1j * np.outer(self.down, rows))
            half = np.abs(columns[: len(columns) // 2 + 1])
            self._columns = np.exp(1j * np.outer(half, self.across))
        return np.asarray((self._rows @ field.spectra @ self._columns).real)

    def joint(self, field: Field) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the joint covariance of real and imaginary parts, and the outputs' |K|^2."""
        values = self.covariances(field)
        # The displacements are symmetric, so the opposite one stands at the other end.
        both = values[0] + values[1] + 1j * (values[2][::-1, ::-1] - values[2])
        squared = np.abs(both[self.between]) ** 2
        reals, imaginary, mixed = (part[self.between] for part in values)
        n = len(reals)
        joint = np.empty((n + 2, n + 2))
        joint[:n, :n] = reals
        joint[:n, n:] = mixed[:, n - 2 :]
        joint[n:, :n] = joint[:n, n:].T
        joint[n:, n:] = imaginary[n - 2 :, n - 2 :]
        return joint, squared


def _check_moments(moments: Moments, filters: Filters, reach: int) -> None:
    if not isinstance(moments, Moments):
        raise TypeError(f"moments must come from estimate_moments, got {type(moments).__name__}")
    if len(moments.lags) != len(filters):
        raise ValueError(f"moments are of {len(moments.lags)} filters, not of {len(filters)}")
    if moments.reach < reach:
        raise ValueError(
            f"moments reach over {moments.reach} pixels, but window and shift need {reach}: give "
            "estimate_moments that reach"
        )


def _fill(
    row: np.void,
    filters: Filters,
    index: int,
    places: _Places,
    joints: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    kinds: list[Field],
    normal: NDArray[np.float64],
    moments: Moments | None,
) -> None:
    """Compute the errors of one filter for one shift."""
    offset = filters.offset(index)
    found: dict[str, list[NDArray[np.float64]]] = {}
    block = normal.shape[2] // len(joints)
    for number, ((joint, squared), kind) in enumerate(zip(joints, kinds, strict=True)):
        own = normal[:, :, number * block : (number + 1) * block]
        shape = (len(joint), SCRAMBLINGS, block)
        points = own[: len(joint)].reshape(len(joint), -1)
        samples = (factor(joint) @ points).reshape(shape)
        plain = corrected = mean_squares(filters, offset, samples, kind.mean)
        if moments is not None:
            samples = _heavy(joint, squared, places, moments, index, own).reshape(shape)
            corrected = mean_squares(filters, offset, samples, kind.mean)
        bound, bound_error = _bounds(filters, places, joint, kind.mean)
        spread, coherent, pseudo = _second_moments(joint, kind.mean)
        linear = filters.bias is None
        cmod = np.full(SCRAMBLINGS, spread) if linear else plain.cmod
        closed = circular_change(joint, kind.mean) if linear else None
        each = {
            "rmax_cmod": (corrected.rmax_cmod, corrected.cmod),
            "cmod_shift": (plain.cmod_shift, plain.cmod),
            "rmax_shift": (corrected.rmax_shift, corrected.rmax),
            "rmax_shift_by_cmod": (corrected.rmax_shift, corrected.cmod),
            "rmax_cmod_bound": (np.full(SCRAMBLINGS, bound), cmod),
            "cmod_shift_bound": (np.full(SCRAMBLINGS, coherent), cmod),
            "pseudo_covariance": (np.full(SCRAMBLINGS, pseudo), np.full(SCRAMBLINGS, spread)),
        }
        if closed is not None:
            each["cmod_shift"] = np.full(SCRAMBLINGS, closed * spread), np.full(SCRAMBLINGS, spread)
        for name, (error, energy) in each.items():
            found.setdefault(name, []).append(ratios(error, energy, 1e-12 * spread))
    for name, values in found.items():
        row[name], row[name + "_stderr"] = mean_and_error(values)
    if np.isfinite(row["rmax_cmod_bound"]) and spread > 0 and filters.bias is None:
        row["rmax_cmod_bound_stderr"] = bound_error / spread


def _heavy(
    joint: NDArray[np.float64],
    squared: NDArray[np.float64],
    places: _Places,
    moments: Moments,
    index: int,
    normal: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sample outputs whose amplitudes vary as on photographs, with the same covariance."""
    n = len(joint) - 2
    correlation = squared / max(squared[0, 0], 1e-300)
    down, across = places.down[places.between[0]], places.across[places.between[1]]
    covariance, raised = moments.log_amplitudes(index, down, across, np.minimum(correlation, 1))
    at = np.concatenate([np.arange(n), [n - 2, n - 1]])
    carrier = factor(joint * raised[np.ix_(at, at)])
    amplitude = factor(covariance) @ normal[len(joint) : len(joint) + n].reshape(n, -1)
    samples = carrier @ normal[: len(joint)].reshape(len(joint), -1)
    return np.asarray(samples * np.exp(amplitude[at]))


def _bounds(
    filters: Filters, places: _Places, joint: NDArray[np.float64], mean: complex
) -> tuple[float, float]:
    """Return the bound on E (RMax - CMod)^2 before bias and ReLU, which only bring them closer."""
    if len(filters.blur) > 1:
        return float("nan"), float("nan")
    middle = len(joint) - np.array([4, 2])
    window = slice(0, places.points)
    return gaussian_bound(
        np.diag(joint)[window], joint[window][:, middle], joint[np.ix_(middle, middle)], mean
    )


def _second_moments(joint: NDArray[np.float64], mean: complex) -> tuple[float, float, float]:
    """Return E |Z|^2, min E |exp(i phi) Z' - Z|^2 and |E Z^2|."""
    re, re_after, im, im_after = range(len(joint) - 4, len(joint))
    spread = joint[re, re] + joint[im, im] + abs(mean) ** 2
    together = (
        joint[re, re_after] + joint[im, im_after]
        + 1j * (joint[im, re_after] - joint[re, im_after]) + abs(mean) ** 2
    )  # fmt: skip
    pseudo = joint[re, re] - joint[im, im] + 2j * joint[re, im] + mean**2
    return float(spread), float(max(2 * spread - 2 * abs(together), 0)), float(abs(pseudo))
