"""Choice of a strided layer's filters: those that change least at equal information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.checks import as_count
from dtwpt.invariance.bounds import gamma
from dtwpt.invariance.gaussian import predict
from dtwpt.invariance.spectrum import as_spectrum
from dtwpt.packets import PacketBank
from dtwpt.wavelets import Wavelet

__all__ = ["CANDIDATES", "Design", "design", "energy_captured", "frame_bounds"]

#: Columns of a design's table.
CANDIDATES = np.dtype(
    [
        ("filter", np.int64),
        ("theta_y", np.float64),
        ("theta_x", np.float64),
        ("frequency", np.float64),
        ("orientation", np.float64),
        ("gamma", np.float64),
        ("error", np.float64),
        ("error_stderr", np.float64),
        ("rank", np.int64),
        ("usual", np.bool_),
        ("avoid", np.bool_),
    ]
)

# Frequencies of Gabor candidates along an axis, from 0 to pi.
_STEPS = 6
# Points of the frequency plane along an axis for each of those that subsampling makes alike.
_POINTS = 12
# Variance of the noise in the outputs of filters of unit norm, of pixels of unit variance: without
# it, everything could be recovered from a filter's side lobes.
_NOISE = 0.01


@dataclass(frozen=True)
class Design:
    """The result of :func:`design`.

    Attributes
    ----------
    table : structured ndarray, shape (candidates,)
        Each candidate's ``theta_y``, ``theta_x``, ``frequency``, ``orientation``; ``gamma``
        (:func:`gamma`); the predicted ``error`` and its standard error; ``rank``, 1 for the chosen
        filter of least error, 0 for those not chosen; ``usual``: whether it is one of those that
        capture most energy, whatever their errors; ``avoid``: its error is above ``limit``.
    candidates : ndarray of complex128, shape (candidates, h, w)
    kernels : ndarray of complex128, shape (budget, h, w)
        The chosen filters in the order of their ranks; a layer takes the real parts.
    limit : float
        Largest error of a chosen filter. No filter of this layer should lie where errors exceed it:
        as much can be seen without.
    captured, usual_captured : float
        Share of the image's energy that can be recovered linearly from noisy outputs of the chosen
        filters, and of the usual ones (``energy_captured``).
    bounds : (float, float)
        Frame bounds of the chosen filters at unit norm, on CMod's grid.
    stride, pool : int
    """

    table: np.ndarray
    candidates: NDArray[np.complex128]
    kernels: NDArray[np.complex128]
    limit: float
    captured: float
    usual_captured: float
    bounds: tuple[float, float]
    stride: int
    pool: int

    @property
    def chosen(self) -> NDArray[np.int64]:
        """Rows of the chosen candidates, in the order of their ranks."""
        rows = np.flatnonzero(self.table["rank"])
        return np.asarray(rows[np.argsort(self.table["rank"][rows])])

    @property
    def usual(self) -> NDArray[np.int64]:
        """Rows of the candidates that capture most energy."""
        return np.flatnonzero(self.table["usual"])


def design(
    stride: int = 2,
    pool: int = 3,
    spectrum: Any = "pink",
    *,
    depth: int | None = None,
    wavelet: str | Wavelet = "qshift_b",
    size: int = 11,
    budget: int = 16,
    information: float = 0.95,
    shift: ArrayLike = ((0, 1), (1, 0)),
) -> Design:
    """Choose filters of a strided layer with max pooling that change least under shifts.

    The usual choice is the set of filters that captures most of the images' energy. The design is
    the choice that captures nearly as much with the smallest largest error: candidates above a
    limit are left out, and the limit is lowered as far as the information allows.

    Parameters
    ----------
    stride : int, default: 2
        Of the convolution, m; the pooling has stride 2.
    pool : int, default: 3
        Side of the pooling window, odd.
    spectrum : {"white", "pink"}, array_like (H, W), Spectrum, or iterable of images
        Of the images, as for :func:`predict`.
    depth : int, optional
        Take the packets of this depth as candidates, all but the low-pass. By default Gabor
        filters, at frequencies pi/6 apart.
    wavelet : str or Wavelet, default: "qshift_b"
        Of the packets.
    size : int, default: 11
        Taps of the Gabor filters along an axis.
    budget : int, default: 16
        Number of filters to choose.
    information : float, default: 0.95
        Share of what the usual choice captures that the design must capture.
    shift : array_like of float, shape (2,) or (n, 2), default: ((0, 1), (1, 0))
        Shifts, over which errors are averaged.

    Returns
    -------
    Design

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    See Also
    --------
    dtwpt.plot.design : the picture.

    Examples
    --------
    >>> from dtwpt.invariance import design
    >>> found = design(stride=2, depth=2, budget=12)
    >>> error = found.table["error"]
    >>> bool(error[found.chosen].mean() < error[found.usual].mean())
    True
    """
    m, side, count = as_count(stride, "stride"), as_count(pool, "pool"), as_count(budget, "budget")
    if side % 2 == 0:
        raise ValueError(f"pool must be odd, got {side}")
    if not 0 < information <= 1:
        raise ValueError(f"information must be above 0 and at most 1, got {information!r}")
    if depth is None:
        kernels, theta = _gabors(as_count(size, "size"))
    else:
        kernels, theta = _packets(PacketBank(depth, wavelet))
    if count > len(kernels):
        raise ValueError(f"budget must be at most {len(kernels)}, the candidates, got {count}")
    shifts = np.reshape(np.asarray(shift, dtype=np.float64), (-1, 2))
    predicted = predict(kernels, shifts, side // 2, spectrum, stride=m)
    table = np.zeros(len(kernels), CANDIDATES)
    table["filter"] = np.arange(len(kernels))
    table["theta_y"], table["theta_x"] = theta.T
    table["frequency"] = np.hypot(*theta.T)
    table["orientation"] = np.degrees(np.arctan2(*theta.T)) % 180
    table["gamma"] = gamma(theta, m, side // 2) if side > 1 else np.sqrt(1.5)
    table["error"] = predicted["rmax_shift"].mean(0)
    table["error_stderr"] = np.sqrt((predicted["rmax_shift_stderr"] ** 2).sum(0)) / len(shifts)

    seen = _Aliased(kernels, spectrum, 2 * m)
    usual, usual_captured = seen.greedy(np.arange(len(kernels)), count)
    order = np.argsort(table["error"], kind="stable")
    few, many = count, len(kernels)  # that many of least error are enough
    chosen, captured = usual, usual_captured
    while few < many:
        middle = (few + many) // 2
        trial, share = seen.greedy(order[:middle], count)
        if share >= information * usual_captured:
            many, chosen, captured = middle, trial, share
        else:
            few = middle + 1
    chosen = chosen[np.argsort(table["error"][chosen], kind="stable")]
    table["rank"][chosen] = np.arange(1, count + 1)
    table["usual"][usual] = True
    limit = float(table["error"][chosen].max())
    table["avoid"] = table["error"] > limit
    return Design(
        table, kernels, kernels[chosen], limit, captured, usual_captured,
        frame_bounds(kernels[chosen], 2 * m), m, side,
    )  # fmt: skip


def energy_captured(kernels: NDArray[np.complex128], spectrum: Any, stride: int) -> float:
    """Return the share of the images' energy that outputs at a stride allow to recover.

    By the best linear decoder, for stationary images with the spectrum, without their mean. The
    outputs, of filters at unit norm, carry noise of 1 % of the variance of a pixel.

    Parameters
    ----------
    kernels : ndarray of complex, shape (n, h, w)
    spectrum
        As for :func:`predict`.
    stride : int
        Of the complex outputs.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance.design import energy_captured
    >>> pixel = np.ones((1, 1, 1), complex)
    >>> [round(energy_captured(pixel, "white", stride), 2) for stride in (1, 2)]
    [1.0, 0.25]
    """
    seen = _Aliased(kernels, spectrum, stride)
    return seen.greedy(np.arange(len(kernels)), len(kernels))[1]


def frame_bounds(kernels: NDArray[np.complex128], stride: int) -> tuple[float, float]:
    r"""Return the frame bounds of filters of unit norm and their conjugates, at a stride.

    The smallest and the largest :math:`\sum |Z|^2 / \sum x^2` of any image, from the eigenvalues
    of the frequencies that the stride makes alike. The lower one is 0 if some image is not seen.

    Parameters
    ----------
    kernels : ndarray of complex, shape (n, h, w)
    stride : int

    Returns
    -------
    (float, float)

    Examples
    --------
    >>> import dtwpt, numpy as np
    >>> from dtwpt.invariance.design import frame_bounds
    >>> bank = dtwpt.PacketBank(1)
    >>> atoms = np.stack([bank.atom(s, i, j) for s, i, j in
    ...                   [(s, i, j) for s in (1, -1) for i in (0, 1) for j in (0, 1)]])
    >>> [round(bound, 6) for bound in frame_bounds(atoms, 2)]
    [2.0, 2.0]
    """
    seen = _Aliased(kernels, "white", stride)
    # Both of a pair of opposite frequencies are seen by both of a pair of filters.
    rows = seen.rows.reshape(len(seen.rows), -1, stride**2)
    values = np.linalg.eigvalsh(rows.conj().swapaxes(1, 2) @ rows) / 2
    return max(float(values.min()), 0.0), float(values.max())


class _Aliased:
    """Responses and power at the frequencies that a stride makes alike."""

    def __init__(self, kernels: NDArray[np.complex128], spectrum: Any, stride: int) -> None:
        side = stride * max(_POINTS, -(-max(kernels.shape[1:]) // stride))
        power = as_spectrum(spectrum, (side, side)).power
        power = (power / power.mean((1, 2), keepdims=True)).mean(0)
        grid = 2 * np.pi * (np.arange(side) + 0.5) / side  # without frequency 0, the mean's
        power = _at(power, grid)
        energy = np.sqrt((np.abs(kernels) ** 2).sum((1, 2), keepdims=True))
        y, x = (np.exp(-1j * np.outer(grid, np.arange(taps))) for taps in kernels.shape[1:])
        response = y @ (kernels / energy) @ x.T
        # The grid is its own mirror image.
        both = np.stack([response.conj(), response[:, ::-1, ::-1]], axis=1)
        # (alike, n, 2, stride**2); power, of pixels of unit variance, (alike, stride**2).
        self.rows = np.moveaxis(self._alike(both, stride), 2, 0) / stride
        self.power = self._alike(power / power.mean(), stride)

    @staticmethod
    def _alike(plane: NDArray[Any], stride: int) -> NDArray[Any]:
        """Bring frequencies that the stride makes alike into the last axis."""
        step = plane.shape[-1] // stride
        parts = plane.reshape(*plane.shape[:-2], stride, step, stride, step)
        parts = np.moveaxis(parts, (-4, -2), (-2, -1))
        return parts.reshape(*plane.shape[:-2], step * step, stride * stride)

    def greedy(self, among: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], float]:
        """Choose filters one after the other, each that adds most; return what they capture."""
        rows = self.rows[:, among]
        fibres, _, _, alike = rows.shape
        unknown = self.power[:, :, None] * np.eye(alike).astype(complex)
        chosen: list[int] = []
        captured = 0.0
        for _ in range(min(count, len(among))):
            # Additional information in two more noisy outputs.
            told = (rows.reshape(fibres, -1, alike) @ unknown).reshape(rows.shape)
            seen = told @ rows.conj().swapaxes(-1, -2) + _NOISE * np.eye(2)
            inverse = np.linalg.inv(seen)
            gain = (inverse * (told @ told.conj().swapaxes(-1, -2)).swapaxes(-1, -2)).real
            gains = gain.sum((0, 2, 3)) / self.power.size
            gains[chosen] = -1
            best = int(np.argmax(gains))
            captured += float(gains[best])
            chosen.append(best)
            part = told[:, best]
            unknown = unknown - part.conj().swapaxes(-1, -2) @ inverse[:, best] @ part
        return among[chosen], captured


def _at(power: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power at the nearest frequencies, but that of the mean."""
    rows, columns = (np.round(grid * side / (2 * np.pi)).astype(int) % side for side in power.shape)
    found = power[np.ix_(rows, columns)]
    return np.asarray((found + found[::-1, ::-1]) / 2)


def _gabors(size: int) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    step = np.pi / _STEPS
    theta = np.array(
        [
            (i * step, j * step)
            for i in range(_STEPS)
            for j in range(1 - _STEPS, _STEPS)
            if i > 0 or j > 0
        ]
    )
    place = np.arange(size) - (size - 1) / 2
    window = np.hanning(size + 2)[1:-1]
    window = np.outer(window, window)
    down, across = (np.exp(1j * theta[:, axis, None] * place) for axis in range(2))
    kernels = window * down[:, :, None] * across[:, None, :]
    # Zero response to constants, as for oriented filters.
    kernels = kernels - window * (kernels.sum((1, 2), keepdims=True) / window.sum())
    return np.asarray(kernels), theta


def _packets(bank: PacketBank) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    atoms = bank.atoms()
    atoms = atoms[~atoms["lowpass"]]
    kernels = np.stack(
        [bank.atom(int(row["sign"]), int(row["row"]), int(row["col"])) for row in atoms]
    )
    return kernels, np.stack([atoms["theta_y"], atoms["theta_x"]], axis=-1)
