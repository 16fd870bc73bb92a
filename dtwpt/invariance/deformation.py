r"""Change of CMod and RMax when the image is rotated, scaled, sheared or warped.

Near a filter's position c every smooth deformation is an affine map, :math:`X'(c + r) = X(c + A r +
u)`. A filter W of response :math:`\hat W(\omega)`, relative to its position, then responds as
:math:`\hat W(A^T \omega)` at the moved position: on a Gaussian field, all moments follow from the
spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.invariance.closed_form import circular_change
from dtwpt.invariance.deformation_maps import as_maps
from dtwpt.invariance.fields import ALONE
from dtwpt.invariance.filters import Filters, as_filters
from dtwpt.invariance.sampling import (
    SCRAMBLINGS,
    factor,
    mean_and_error,
    mean_squares,
    normal_points,
    ratios,
)
from dtwpt.invariance.spectrum import ColourSpectrum, Spectrum, as_spectrum, column_weights
from dtwpt.invariance.windows import window_places
from dtwpt.packets import PLANE_GAIN

__all__ = [
    "CONSTANTS",
    "DEFORMED",
    "Responses",
    "blank_deformed",
    "deformation_constants",
    "half_plane_frequencies",
    "outputs",
    "predict_deformation",
]

_FILTER = [
    ("filter", np.int64),
    *((name, np.float64) for name in ("theta_y", "theta_x", "frequency", "orientation")),
]

#: Columns of :func:`predict_deformation` and :func:`measure_deformation`.
DEFORMED = np.dtype(
    [
        *_FILTER,
        *((name, np.float64) for name in ("cmod", "cmod_stderr", "rmax", "rmax_stderr")),
    ]
)

#: Columns of :func:`deformation_constants`.
CONSTANTS = np.dtype(
    [
        *_FILTER,
        *((name, np.float64) for name in ("translation", "rotation", "scaling", "deformation")),
    ]
)

# Maximum bytes of kernels' responses cached between images.
_KEPT = 2**26


def predict_deformation(
    bank_or_kernels: Any,
    maps: ArrayLike,
    q: int | None = None,
    spectrum: Any = "white",
    *,
    stride: float | None = None,
    colour: Any = None,
) -> np.ndarray:
    r"""Predict how much CMod and RMax change under affine maps about the filters' positions.

    For a stationary Gaussian field, band-limited between its pixels. If the map moves the filter's
    own position, as a rotation about a distant point does, u is that displacement; for a smooth
    deformation, :func:`local_maps` gives A and u at each position.

    Parameters
    ----------
    bank_or_kernels : PacketBank, array_like, torch.Tensor, Layer or torch.nn.Module
        Packets, kernels, or a layer with bias, ReLU, any pooling, and all channels of the images,
        as for :func:`predict`. A filter's position is the middle of its taps.
    maps : array_like of float, shape (2, 2), (2, 3), (n, 2, 2) or (n, 2, 3)
        A, or ``[A | u]``: the deformed field at ``c + r`` is the field at ``c + A @ r + u``. See
        :func:`rotation`, :func:`scaling` and :func:`shear`. ``[I | -u]`` is a shift by u.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    spectrum : {"white", "pink"}, array_like (H, W), Spectrum, or iterable of images
        As for :func:`predict`.
    stride, colour : optional
        As for :func:`predict`.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several maps
        Columns ``filter``, ``theta_y``, ``theta_x``, ``frequency``, ``orientation``, and, each with
        its standard error in ``*_stderr``,

        - ``cmod``: E (CMod' - CMod)^2 / E CMod^2, CMod' of the deformed field; in closed form, with
          standard error 0, where the outputs are circular;
        - ``rmax``: E (RMax' - RMax)^2 / E RMax^2.

        Of a layer, RMax stands for its output and CMod for its twin, see :class:`Layer`. Where its
        output is zero, errors are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    See Also
    --------
    measure_deformation : the same columns, on images.

    Examples
    --------
    >>> import dtwpt
    >>> from dtwpt.invariance import predict_deformation, rotation
    >>> table = predict_deformation(dtwpt.PacketBank(2), [rotation(2), rotation(10)])
    >>> table.shape
    (2, 32)
    >>> bool(table["cmod"][0].mean() < table["cmod"][1].mean() / 5)
    True
    """
    filters = as_filters(bank_or_kernels, stride, colour, q)
    table_of_maps, single = as_maps(maps)
    extent = filters.stride * (filters.side - 1)
    reach = int(np.ceil(np.abs(table_of_maps[:, :, 2]).max() + extent))
    size = (filters.size[0] + reach, filters.size[1] + reach)
    plane = _Plane(as_spectrum(spectrum, size, reach, filters.channels), filters)
    window = np.concatenate([window_places(filters.stride, filters.side), [(0.0, 0.0)]])
    at_rest = Responses(filters, plane.omega)
    still = plane.phases(window)
    normal: NDArray[np.float64] | None = None

    table = blank_deformed(filters, len(table_of_maps))
    for rows, affine in zip(table, table_of_maps, strict=True):
        matrix, move = affine[:, :2], affine[:, 2]
        deformed = Responses(filters, plane.omega @ matrix)
        moved = plane.phases(window @ matrix.T + move)
        for index, (before, after) in enumerate(zip(at_rest, deformed, strict=True)):
            transfer = _in_order(outputs(before, still), outputs(after, moved))
            kinds = plane.kinds(before)
            if normal is None:
                normal = normal_points(len(transfer), len(kinds))
            joints = [(_joint(transfer, power), mean) for power, mean in kinds]
            _fill(rows[index], filters, index, joints, normal)
    return table[0] if single else table


def deformation_constants(
    bank_or_kernels: Any,
    spectrum: Any = "white",
    *,
    stride: float | None = None,
    colour: Any = None,
) -> np.ndarray:
    r"""Return the Lipschitz constants of CMod for small deformations.

    To first order, the relative change of CMod, :math:`\|CMod' - CMod\| / \|CMod\|` in the root
    mean square over a Gaussian field, is a constant times the size of the deformation. Scattering
    transforms are stable because such constants exist ([1]_, theorem 2.12): with the displacement u
    and its gradient G, a change of at most ``translation`` :math:`|u|` + ``deformation``
    :math:`\|G\|`.

    Parameters
    ----------
    bank_or_kernels, spectrum, stride, colour
        As for :func:`predict_deformation`. A layer with a bias has no such constants: its changes
        do not scale with the image.

    Returns
    -------
    structured ndarray, shape (filters,)
        Columns ``filter``, ``theta_y``, ``theta_x``, ``frequency``, ``orientation``, and

        - ``translation``: for a pixel, in the worst direction;
        - ``rotation``: for a radian, about the filter's place;
        - ``scaling``: for a change of scale by a factor e;
        - ``deformation``: for the worst gradient G of spectral norm 1.

        Exact where outputs are circular, as those of analytic filters are.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    References
    ----------
    .. [1] S. Mallat, "Group Invariant Scattering", Communications on Pure and Applied Mathematics
       65 (2012), 1331-1398.

    Examples
    --------
    >>> import dtwpt
    >>> from dtwpt.invariance import deformation_constants
    >>> table = deformation_constants(dtwpt.PacketBank(2))[5]
    >>> print(f"{table['rotation']:.2f} a radian, {table['translation']:.2f} a pixel")
    2.22 a radian, 0.22 a pixel
    """
    filters = as_filters(bank_or_kernels, stride, colour)
    if filters.bias is not None:
        raise ValueError("bank_or_kernels must be without bias, got a Layer with one")
    plane = _Plane(as_spectrum(spectrum, filters.size, channels=filters.channels), filters)
    omega = plane.omega
    table = np.empty(len(filters), CONSTANTS)
    _describe(table, filters)
    slopes = [Responses(filters, omega, along=axis) for axis in range(2)]
    at_rest = Responses(filters, omega)
    for row, response, down, right in zip(table, at_rest, *slopes, strict=True):
        ((power, _),) = plane.kinds(response)
        energy, moments = 0.0, np.zeros((6, 6))
        with_output = np.zeros(6, np.complex128)
        # Both signs of each frequency: only one half is listed.
        for sign, part in ((1, 0), (-1, 1)):
            value = response[part]
            # Of the output, by the entries of G (row by row), then by those of u.
            by_gradient = [
                sign * omega[:, a] * (down, right)[b][part] for a in range(2) for b in range(2)
            ]
            by_shift = [-1j * sign * omega[:, a] * value for a in range(2)]
            change = np.conj(by_gradient + by_shift)
            here = power if sign > 0 else power.conj()
            moments += _product(change, here, change).real
            with_output += _product(change, here, value.conj()[None])[:, 0]
            energy += float(_product(value.conj()[None], here, value.conj()[None])[0, 0].real)
        rho = with_output / energy
        form = 0.5 * (
            moments / energy + np.outer(rho.real, rho.real) - np.outer(rho.imag, rho.imag)
        )
        row["translation"] = _largest(form[4:, 4:])
        gradient = form[:4, :4]
        # Orthogonal matrices are the extreme points of the unit ball: rotations, then reflections.
        turns = np.array([[1, 0, 0, 1], [0, -1, 1, 0]])
        mirrors = np.array([[1, 0, 0, -1], [0, 1, 1, 0]])
        row["scaling"], row["rotation"] = np.sqrt(np.diag(turns @ gradient @ turns.T))
        row["deformation"] = max(_largest(pair @ gradient @ pair.T) for pair in (turns, mirrors))
    return table


class Responses:
    r"""Responses of filters, counted from their places, at frequencies and their opposites.

    Iterating gives a pair for each filter, :math:`\hat W(\omega) = \sum_r W(r)
    e^{-i\langle\omega, r\rangle}` and :math:`\hat W(-\omega)`; with ``along``, of the derivative
    along that axis. Each has shape (channels, n), with one channel for grey images.
    """

    def __init__(
        self,
        filters: Filters,
        omega: NDArray[np.float64],
        along: int | None = None,
    ) -> None:
        self.filters = filters
        self.axes = []
        self.kept: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for axis, (side, centre) in enumerate(zip(filters.size, filters.middle, strict=True)):
            place = np.arange(side) - centre
            factor = -1j * place if axis == along else np.ones(side)
            taps = np.diag(factor) if filters.bank is None else factor[:, None] * _signed(filters)
            self.axes.append(_transformed(omega[:, axis], place, taps))

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        if self.filters.bank is None:
            yield from self.kept or self._of_kernels()
            return
        down, across = self.axes
        count = len(self.filters.bank.filters)
        for row in self.filters.table:
            column = row["col"] + (count if row["sign"] < 0 else 0)
            yield tuple(
                PLANE_GAIN * (below[row["row"]] * right[column])[None]
                for below, right in zip(down, across, strict=True)
            )

    def _of_kernels(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        down, across = self.axes
        needed = 32 * len(self.filters) * (self.filters.channels or 1) * down[0].shape[1]
        kept = []
        for kernel in self.filters:
            kernels = kernel[None] if kernel.ndim == 2 else kernel
            facing, opposite = (
                np.einsum("cyn,yn->cn", kernels @ right, below)
                for below, right in zip(down, across, strict=True)
            )
            response = facing, opposite
            if needed <= _KEPT:
                kept.append(response)
            yield response
        self.kept = kept


def _signed(filters: Filters) -> NDArray[np.complex128]:
    """Return the packets and their conjugates, which the sign -1 takes along rows: (L, 2 n)."""
    packets = filters.bank.filters  # type: ignore[union-attr]
    return np.concatenate([packets, packets.conj()]).T


def _transformed(
    omega: NDArray[np.float64], place: NDArray[Any], taps: NDArray[Any]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return the sums of columns of taps with waves, and with the opposite ones: (columns, n)."""
    facing = np.empty((taps.shape[1], len(omega)), np.complex128)
    opposite = np.empty_like(facing)
    for start in range(0, len(omega), 4096):  # so that the waves need little memory
        part = slice(start, start + 4096)
        waves = np.exp(-1j * np.outer(place, omega[part]))
        facing[:, part], opposite[:, part] = taps.T @ waves, taps.T @ waves.conj()
    return facing, opposite


class _Plane:
    """One half of the frequency plane, for real fields, and the power there.

    Attributes
    ----------
    omega : ndarray, shape (n, 2)
    power : ndarray, shape (kinds, channels, channels, n)
        Cross spectra of each kind of field, half of them where the other half plane has a
        frequency, too.
    mean : ndarray, shape (kinds, channels)
    """

    def __init__(self, field: Spectrum | ColourSpectrum, filters: Filters) -> None:
        height, width = field.size
        self.omega = half_plane_frequencies(height, width)
        self.alone = filters.bias is not None
        if isinstance(field, Spectrum):
            if self.alone:
                field = field.in_own_units(ALONE)
            mirrored = field.power[:, -np.arange(height)][:, :, -np.arange(width)]
            cross: NDArray[Any] = ((field.power + mirrored) / 2)[:, None, None, :, : width // 2 + 1]
            self.mean = field.mean[:, None]
        else:
            cross, self.mean = field.cross, field.mean
        share = column_weights(width) / (2 * height * width)
        self.power = (cross * share.astype(cross.real.dtype)).reshape(*cross.shape[:3], -1)

    def phases(self, places: NDArray[Any]) -> NDArray[np.complex128]:
        """Return the waves at places: shape (places, frequencies)."""
        return np.asarray(np.exp(1j * (places @ self.omega.T)))

    def kinds(
        self, response: tuple[NDArray[Any], NDArray[Any]]
    ) -> list[tuple[NDArray[Any], complex]]:
        """Return the power and the output's mean of each kind of field.

        Where amplitudes do not count all are mixed into one, in which each gives the filter the
        same energy, as in :func:`predict`.
        """
        facing, opposite = response
        # Frequency 0 comes first.
        means = self.mean @ facing[:, 0].conj()
        if self.alone:
            return [(power, complex(mean)) for power, mean in zip(self.power, means, strict=True)]
        squared = facing.conj()[:, None] * facing + opposite[:, None] * opposite.conj()
        kinds = len(self.power)
        energy = (self.power.reshape(kinds, -1) @ squared.ravel()).real + np.abs(means) ** 2
        share = np.divide(1, energy, out=np.zeros(kinds), where=energy > 0)
        share = share / share.sum() if share.any() else np.full(kinds, 1 / kinds)
        # Their mean square counts, with the direction of the sum.
        total = complex(share @ means)
        mean = np.sqrt(share @ np.abs(means) ** 2) * (total / abs(total) if total else 1)
        return [(np.tensordot(share, self.power, 1), complex(mean))]


def half_plane_frequencies(height: int, width: int) -> NDArray[np.float64]:
    """Return the frequencies of ``numpy.fft.rfft2``, rad/pixel, one a row."""
    y = 2 * np.pi * np.fft.fftfreq(height)
    x = 2 * np.pi * np.arange(width // 2 + 1) / width
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def blank_deformed(filters: Filters, count: int) -> np.ndarray:
    """Return a table of shape (maps, filters) with the filters described."""
    table = np.empty((count, len(filters)), dtype=DEFORMED)
    _describe(table, filters)
    return table


def _describe(table: np.ndarray, filters: Filters) -> None:
    table["filter"] = np.arange(len(filters))
    for name in ("theta_y", "theta_x", "frequency", "orientation"):
        table[name] = filters.table[name]


def outputs(
    response: tuple[NDArray[Any], NDArray[Any]], phases: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """Transfer functions of real outputs at places, and of the imaginary one at the last of them.

    Parameters
    ----------
    response : (ndarray, ndarray), each of shape (channels, n)
    phases : ndarray, shape (places, n)

    Returns
    -------
    ndarray, shape (places + 1, channels, n)
    """
    facing, opposite = response[0].conj(), response[1]
    real, imaginary = (facing + opposite) / 2, (facing - opposite) / 2j
    return np.concatenate([phases[:, None] * real, (phases[-1] * imaginary)[None]])


def _in_order(
    before: NDArray[np.complex128], after: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """Return both in the order of :func:`mean_squares`."""
    parts = [both[:-2] for both in (before, after)]
    parts += [both[place, None] for place in (-2, -1) for both in (before, after)]
    return np.concatenate(parts)


def _product(one: NDArray[Any], power: NDArray[Any], other: NDArray[Any]) -> NDArray[np.complex128]:
    """Sum over frequencies and channels of transfer functions, (k, channels, n) each."""
    weighted = one * power[0] if len(power) == 1 else np.einsum("icn,cdn->idn", one, power)
    return np.asarray(weighted.reshape(len(one), -1) @ other.reshape(len(other), -1).conj().T)


def _joint(transfer: NDArray[np.complex128], power: NDArray[Any]) -> NDArray[np.float64]:
    """Covariance of real outputs: of each pair of frequencies one is listed."""
    return 2 * _product(transfer, power, transfer).real


def _fill(
    row: np.void,
    filters: Filters,
    index: int,
    kinds: list[tuple[NDArray[np.float64], complex]],
    normal: NDArray[np.float64],
) -> None:
    """Compute the errors of one filter for one map."""
    offset = filters.offset(index)
    block = normal.shape[2] // len(kinds)
    cmod, rmax = [], []
    for number, (joint, mean) in enumerate(kinds):
        own = normal[:, :, number * block : (number + 1) * block]
        samples = np.tensordot(factor(joint), own, 1)
        found = mean_squares(filters, offset, samples, mean)
        spread = float(joint[-4, -4] + joint[-2, -2] + abs(mean) ** 2)
        rmax.append(ratios(found.rmax_shift, found.rmax, 1e-12 * spread))
        closed = circular_change(joint, mean) if filters.bias is None else None
        if closed is None:
            cmod.append(ratios(found.cmod_shift, found.cmod, 1e-12 * spread))
        else:
            cmod.append(np.full(SCRAMBLINGS, closed))
    for name, values in (("cmod", cmod), ("rmax", rmax)):
        row[name], row[name + "_stderr"] = mean_and_error(values)


def _largest(form: NDArray[np.float64]) -> float:
    """Root of a quadratic form's largest value on unit vectors."""
    return float(np.sqrt(max(np.linalg.eigvalsh(form)[-1], 0)))
