r"""Change of CMod and RMax when the image turns, grows, shears or is bent.

Near a filter's place c every smooth deformation is an affine map,
:math:`X'(c + r) = X(c + A r + u)`. A filter W of response :math:`\hat W(\omega)`, counted from
its place, then answers as :math:`\hat W(A^T \omega)` does at the moved place: on a Gaussian
field, all moments follow from the spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.checks import as_count
from dtwpt.invariance.deformation_maps import as_maps
from dtwpt.invariance.filters import Filters, as_filters
from dtwpt.invariance.gaussian import cmod_shift_closed_form
from dtwpt.invariance.sampling import mean_square_ratio, normal_points
from dtwpt.invariance.spectrum import Spectrum, as_spectrum
from dtwpt.packets import PLANE_GAIN

__all__ = [
    "CONSTANTS",
    "DEFORMED",
    "Responses",
    "blank_deformed",
    "deformation_constants",
    "half_plane_frequencies",
    "middles",
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

# Share of pseudo-covariance, or of a mean's square, in the variance, below which the closed form
# stands in for sampling.
_CIRCULAR = 1e-4


def predict_deformation(
    bank_or_kernels: Any,
    maps: ArrayLike,
    q: int = 1,
    spectrum: Any = "white",
    *,
    stride: int | None = None,
    colour: ArrayLike | None = None,
) -> np.ndarray:
    r"""Predict how much CMod and RMax change under affine maps about the filters' places.

    For a stationary Gaussian field, band-limited between its pixels. Where the map moves the
    filter's own place, as a rotation about a distant point does, u says by how much; of a smooth
    deformation, :func:`local_maps` tells A and u at each place.

    Parameters
    ----------
    bank_or_kernels : PacketBank, array_like or torch.Tensor
        Packets, or a first layer's kernels of shape (out, in, h, w) or (n, h, w). Their place is
        the middle of their taps.
    maps : array_like of float, shape (2, 2), (2, 3), (n, 2, 2) or (n, 2, 3)
        A, or ``[A | u]``: the deformed field at ``c + r`` is the field at ``c + A @ r + u``. See
        :func:`rotation`, :func:`scaling` and :func:`shear`. ``[I | -u]`` is a shift by u.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    spectrum : {"white", "pink"}, array_like (H, W), Spectrum, or iterable of images
        As for :func:`predict`.
    stride : int, optional
        Subsampling m of a layer before pooling, 2 by default; ``2**(depth - 1)`` for a bank.
    colour : array_like of float, shape (in,), optional
        Weights of a layer's input channels; their mean by default.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several maps
        Columns ``filter``, ``theta_y``, ``theta_x``, ``frequency``, ``orientation``, and, each with
        its standard error in ``*_stderr``,

        - ``cmod``: E (CMod' - CMod)^2 / E CMod^2, CMod' of the deformed field; in closed form, with
          standard error 0, where the outputs are circular;
        - ``rmax``: E (RMax' - RMax)^2 / E RMax^2.

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
    filters = as_filters(bank_or_kernels, stride, colour)
    table_of_maps, single = as_maps(maps)
    reach = as_count(q, "q")
    furthest = int(np.ceil(np.abs(table_of_maps[:, :, 2]).max())) + 2 * reach * filters.stride
    field = as_spectrum(spectrum, (filters.size[0] + furthest, filters.size[1] + furthest))
    plane = _Plane(field)
    middle = middles(bank_or_kernels, filters)
    at_rest = Responses(filters, middle, plane.omega)
    side = filters.stride * np.arange(-reach, reach + 1)
    window = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    normal = normal_points(2 * len(window) + 2)
    still = plane.phases(window)

    table = blank_deformed(filters, len(table_of_maps))
    for rows, affine in zip(table, table_of_maps, strict=True):
        matrix, move = affine[:, :2], affine[:, 2]
        deformed = Responses(filters, middle, plane.omega @ matrix)
        moved = plane.phases(window @ matrix.T + move)
        for row, before, after in zip(rows, at_rest, deformed, strict=True):
            weights, mean = plane.weights(before)
            _fill(row, outputs(before, still), outputs(after, moved), weights, mean, normal)
    return table[0] if single else table


def deformation_constants(
    bank_or_kernels: Any,
    spectrum: Any = "white",
    *,
    stride: int | None = None,
    colour: ArrayLike | None = None,
) -> np.ndarray:
    r"""Return the Lipschitz constants of CMod for small deformations.

    To first order, the relative change of CMod, :math:`\|CMod' - CMod\| / \|CMod\|` in the root
    mean square over a Gaussian field, is a constant times the size of the deformation. Scattering
    transforms are stable as such constants exist ([1]_, theorem 2.12): with the displacement u and
    its gradient G, a change of at most ``translation`` :math:`|u|` + ``deformation``
    :math:`\|G\|`.

    Parameters
    ----------
    bank_or_kernels, spectrum, stride, colour
        As for :func:`predict_deformation`.

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
    plane = _Plane(as_spectrum(spectrum, filters.size))
    middle = middles(bank_or_kernels, filters)
    omega = plane.omega
    table = np.empty(len(filters), CONSTANTS)
    _describe(table, filters)
    slopes = [Responses(filters, middle, omega, along=axis) for axis in range(2)]
    at_rest = Responses(filters, middle, omega)
    for row, response, down, right in zip(table, at_rest, *slopes, strict=True):
        weights, _ = plane.weights(response)
        (facing, opposite), derivatives = response, (down, right)
        # Of the output, by the entries of G (row by row), then by those of u.
        changes = []
        for sign, value, part in ((1, facing, 0), (-1, opposite, 1)):
            by_gradient = [
                sign * omega[:, a] * derivatives[b][part] for a in range(2) for b in range(2)
            ]
            by_shift = [-1j * sign * omega[:, a] * value for a in range(2)]
            changes.append(np.conj(by_gradient + by_shift))
        # Both signs of each frequency, of which only one half is listed.
        energy = weights @ (np.abs(facing) ** 2 + np.abs(opposite) ** 2)
        moments = sum(((change * weights) @ change.conj().T).real for change in changes)
        with_output = (changes[0] * weights) @ facing + (changes[1] * weights) @ opposite
        rho = with_output / energy
        form = 0.5 * (
            moments / energy + np.outer(rho.real, rho.real) - np.outer(rho.imag, rho.imag)
        )
        row["translation"] = _largest(form[4:, 4:])
        gradient = form[:4, :4]
        # Orthogonal matrices are the extreme points of the unit ball: turns, then turned mirrors.
        turns = np.array([[1, 0, 0, 1], [0, -1, 1, 0]])
        mirrors = np.array([[1, 0, 0, -1], [0, 1, 1, 0]])
        row["scaling"], row["rotation"] = np.sqrt(np.diag(turns @ gradient @ turns.T))
        row["deformation"] = max(_largest(pair @ gradient @ pair.T) for pair in (turns, mirrors))
    return table


class Responses:
    r"""Responses of filters, counted from their places, at frequencies and their opposites.

    Iterating gives a pair for each filter, :math:`\hat W(\omega) = \sum_r W(r)
    e^{-i\langle\omega, r\rangle}` and :math:`\hat W(-\omega)`; with ``along``, of the derivative
    along that axis.
    """

    def __init__(
        self,
        filters: Filters,
        middle: tuple[float, float],
        omega: NDArray[np.float64],
        along: int | None = None,
    ) -> None:
        self.filters = filters
        self.axes = []
        for axis, (side, centre) in enumerate(zip(filters.size, middle, strict=True)):
            place = np.arange(side) - centre
            factor = -1j * place if axis == along else np.ones(side)
            taps = np.diag(factor) if filters.bank is None else factor[:, None] * _signed(filters)
            self.axes.append(_transformed(omega[:, axis], place, taps))

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        down, across = self.axes
        if self.filters.bank is None:
            for kernel in self.filters:
                yield tuple(
                    np.einsum("yn,yn->n", kernel @ right, below)
                    for below, right in zip(down, across, strict=True)
                )
            return
        count = len(self.filters.bank.filters)
        for row in self.filters.table:
            column = row["col"] + (count if row["sign"] < 0 else 0)
            yield tuple(
                PLANE_GAIN * below[row["row"]] * right[column]
                for below, right in zip(down, across, strict=True)
            )


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
    """One half of the frequency plane, for real fields, and the power there."""

    def __init__(self, field: Spectrum) -> None:
        self.field = field
        height, width = field.power.shape[1:]
        columns = width // 2 + 1
        self.omega = half_plane_frequencies(height, width)
        # A frequency and its opposite share their power; the first and last columns hold both.
        share = np.full((height, columns), 0.5)
        share[:, 0] = 0.25
        if width % 2 == 0:
            share[:, -1] = 0.25
        mirrored = field.power[:, -np.arange(height)][:, :, -np.arange(width)]
        both = (field.power + mirrored)[:, :, :columns]
        self.power = (both * share).reshape(len(both), -1) / (height * width)

    def phases(self, places: NDArray[Any]) -> NDArray[np.complex128]:
        """Return the waves at places: shape (places, frequencies)."""
        return np.asarray(np.exp(1j * (places @ self.omega.T)))

    def weights(
        self, response: tuple[NDArray[Any], NDArray[Any]]
    ) -> tuple[NDArray[np.float64], complex]:
        """Return power at a pair of frequencies and the output's mean.

        Each kind of field gives the filter the same energy, as in :func:`predict`.
        """
        squared = np.abs(response[0]) ** 2 + np.abs(response[1]) ** 2
        # Frequency 0 comes first.
        constant = response[0][0]
        energy = self.power @ squared + self.field.mean**2 * np.abs(constant) ** 2
        share = np.divide(1, energy, out=np.zeros(energy.shape), where=energy > 0)
        share = share / share.sum() if share.any() else np.full(energy.size, 1 / energy.size)
        mean = np.sqrt(share @ self.field.mean**2) * np.conj(constant)
        return share @ self.power, complex(mean)


def half_plane_frequencies(height: int, width: int) -> NDArray[np.float64]:
    """Return the frequencies of ``numpy.fft.rfft2``, rad/pixel, one a row."""
    y = 2 * np.pi * np.fft.fftfreq(height)
    x = 2 * np.pi * np.arange(width // 2 + 1) / width
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def middles(bank_or_kernels: Any, filters: Filters) -> tuple[float, float]:
    """Return the place of the middle of the taps, from the first one of the filters."""
    height, width = filters.size
    if filters.bank is None:
        taps = np.shape(bank_or_kernels)[-2:]
        # What extends a kernel to an analytic one reaches further on one side.
        if (height, width) != taps:
            return tuple(3 * side // 2 + (side - 1) / 2 for side in taps)
    return (height - 1) / 2, (width - 1) / 2


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
    """Transfer functions of the real outputs in a window and of the imaginary one in its middle."""
    facing, opposite = response[0].conj(), response[1]
    real, imaginary = (facing + opposite) / 2, (facing - opposite) / 2j
    return np.concatenate([phases * real, phases[len(phases) // 2 :][:1] * imaginary])


def _fill(
    row: np.void,
    before: NDArray[np.complex128],
    after: NDArray[np.complex128],
    weights: NDArray[np.float64],
    mean: complex,
    normal: NDArray[np.float64],
) -> None:
    """Compute the errors of one filter for one map."""
    transfer = np.concatenate([before, after])
    # Of each pair of frequencies one is listed, with the power of each.
    scaled = transfer * np.sqrt(2 * weights)
    parts = np.concatenate([scaled.real, scaled.imag], axis=1)
    joint = parts @ parts.T
    values, vectors = np.linalg.eigh(joint)
    samples = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1] @ normal
    count = len(before)
    middle = (count - 1) // 2
    means = np.full(count, mean.real)
    means[-1] = mean.imag
    samples = samples.reshape(2, count, -1) + means[:, None]
    rmax = samples[:, :-1].max(1)
    row["rmax"], row["rmax_stderr"] = mean_square_ratio(rmax[1] - rmax[0], rmax[0])
    pick = [middle, count - 1]
    (first, cross), (_, second) = (
        [joint[np.ix_([i + a for i in pick], [j + b for j in pick])] for b in (0, count)]
        for a in (0, count)
    )
    energy = float(np.trace(first))
    pseudo = [
        abs(block[0, 0] - block[1, 1] + 1j * (block[0, 1] + block[1, 0]))
        for block in (first, second, cross)
    ]
    if max(*pseudo, abs(mean) ** 2) < _CIRCULAR * energy:
        gain = float(np.trace(second)) / energy
        shared = abs(np.trace(cross) + 1j * (cross[0, 1] - cross[1, 0]))
        unlike = cmod_shift_closed_form(shared / energy / np.sqrt(gain))
        row["cmod"] = 1 + gain - np.sqrt(gain) * (2 - unlike)
        row["cmod_stderr"] = 0.0
        return
    cmod = np.hypot(samples[:, middle], samples[:, -1])
    row["cmod"], row["cmod_stderr"] = mean_square_ratio(cmod[1] - cmod[0], cmod[0])


def _largest(form: NDArray[np.float64]) -> float:
    """Root of a quadratic form's largest value on unit vectors."""
    return float(np.sqrt(max(np.linalg.eigvalsh(form)[-1], 0)))
