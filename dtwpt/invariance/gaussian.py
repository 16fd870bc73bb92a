"""Prediction of the shift errors for Gaussian fields, with no image at all.

In a stationary Gaussian field, the outputs of a filter in one pooling window and in its shifted
copy are jointly Gaussian. Their covariances follow from the field's power spectrum, and the three
relative errors are expectations over a few Gaussian variables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import hyp2f1

from dtwpt.checks import as_count
from dtwpt.invariance.filters import as_filters, as_shifts, blank_table
from dtwpt.invariance.output import output_bandwidths
from dtwpt.invariance.sampling import mean_square_ratio, normal_points
from dtwpt.invariance.spectrum import Spectrum, as_spectrum

__all__ = ["cmod_shift_closed_form", "predict"]

# Share of pseudo-covariance, or of a mean's square, in the variance, below which the closed form
# stands in for sampling.
_CIRCULAR = 1e-4


def cmod_shift_closed_form(correlation: ArrayLike) -> NDArray[np.float64]:
    r"""Relative squared change of the modulus of circular Gaussian variables.

    For :math:`Z, Z'` of one variance and complex correlation r, with no pseudo-covariance:

    .. math:: E(|Z| - |Z'|)^2 / E|Z|^2
        = 2 - \frac{\pi}{2} \, {}_2F_1(-1/2, -1/2; 1; |r|^2)

    Parameters
    ----------
    correlation : array_like of complex
        r, of modulus at most 1.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> from dtwpt.invariance import cmod_shift_closed_form
    >>> cmod_shift_closed_form([0, 0.9, 1]).round(4).tolist()
    [0.4292, 0.0899, 0.0]
    """
    r = np.minimum(np.abs(np.asarray(correlation)), 1)
    return np.asarray(np.maximum(2 - np.pi / 2 * hyp2f1(-0.5, -0.5, 1, r**2), 0))


def predict(
    bank_or_kernels: Any,
    shift: ArrayLike = (0, 1),
    q: int = 1,
    spectrum: Any = "white",
    *,
    stride: int | None = None,
    colour: ArrayLike | None = None,
) -> np.ndarray:
    """Predict the relative squared errors of RMax and CMod for a Gaussian field.

    Parameters
    ----------
    bank_or_kernels : PacketBank, array_like or torch.Tensor
        Packets, or a first layer's kernels of shape (out, in, h, w) or (n, h, w); see
        :func:`characterize`.
    shift : array_like of float, shape (2,) or (n, 2), default: (0, 1)
        Shifts (down, right), pixels; they need not be whole.
    q : int, default: 1
        RMax pools over windows of ``2 q + 1`` samples a side.
    spectrum : {"white", "pink"}, array_like (H, W), Spectrum, or iterable of images
        Power of the field on the grid of ``numpy.fft.fft2``; of images, their spectra and means
        (see :func:`estimate_spectrum`), every image being given the same weight for every filter.
    stride : int, optional
        Subsampling m of a layer before pooling, 2 by default; ``2**(depth - 1)`` for a bank.
    colour : array_like of float, shape (in,), optional
        Weights of a layer's input channels; their mean by default.

    Returns
    -------
    structured ndarray, shape (filters,), or (n, filters) of several shifts
        Columns ``filter``, ``theta_y``, ``theta_x``, ``frequency``, ``orientation``, ``shift_y``,
        ``shift_x``; ``bandwidth``, of the filter's output (twice the root mean square distance of
        its frequencies from theta along the axis where that is larger: the one for which
        :func:`alpha` is a bound); and, each with its standard error in ``*_stderr``,

        - ``rmax_cmod``: E (RMax - CMod)^2 / E CMod^2;
        - ``cmod_shift``: E (CMod' - CMod)^2 / E CMod^2, CMod' of the shifted field; in closed form,
          with standard error 0, where the pseudo-covariance is negligible;
        - ``rmax_shift``: E (RMax' - RMax)^2 / E RMax^2.

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
    filters = as_filters(bank_or_kernels, stride, colour)
    shifts, single = as_shifts(shift)
    reach = as_count(q, "q")
    furthest = int(np.ceil(np.abs(shifts).max())) + 2 * reach * filters.stride
    height, width = filters.size
    field = as_spectrum(spectrum, (height + furthest, width + furthest))
    table = blank_table(filters, shifts)
    squared = output_bandwidths(filters, field.with_mean()) ** 2
    table["bandwidth"] = np.sqrt(np.nanmean(squared, axis=0))
    side = filters.stride * np.arange(-reach, reach + 1)
    window = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    normal = normal_points(2 * len(window) + 2)
    for index, kernel in enumerate(filters):
        covariance = _Covariance(kernel, field)
        for row, move in zip(table[:, index], shifts, strict=True):
            _fill(row, covariance, window, move, normal)
    return table[0] if single else table


class _Covariance:
    """Covariances of a filter's real and imaginary output between two places of the field."""

    def __init__(self, kernel: NDArray[np.complex128], field: Spectrum) -> None:
        size = field.power.shape[1:]
        real, imaginary = (_response(part, size) for part in (kernel.real, kernel.imag))
        # |W|^2 at the frequencies; that of kernel.real + i kernel.imag as a complex sequence.
        field = field.balanced(np.abs(real - 1j * imaginary) ** 2)
        power = field.power[0] / field.power[0].size
        # The output is the inner product with W, so its imaginary part has Im W negated.
        self.spectra = np.stack(
            [
                power * np.abs(real) ** 2,
                power * np.abs(imaginary) ** 2,
                -power * real * imaginary.conj(),
            ]
        )
        self.omega = tuple(2 * np.pi * np.fft.fftfreq(side) for side in size)
        self.mean = field.mean[0] * kernel.conj().sum()

    def __call__(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return E of real-real, imaginary-imaginary, real-imaginary products at displacements.

        For every y with every x: shape (3, y, x). The first factor stands at the displacement from
        the second.
        """
        down = np.exp(1j * np.outer(y, self.omega[0]))
        across = np.exp(1j * np.outer(self.omega[1], x))
        return np.asarray((down @ self.spectra @ across).real)


def _response(kernel: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.complex128]:
    """Frequency response of the correlation with a kernel, also one larger than the grid."""
    folded = np.zeros(size)
    rows, columns = (np.arange(taps) % side for taps, side in zip(kernel.shape, size, strict=True))
    np.add.at(folded, (rows[:, None], columns), kernel)
    return np.fft.fft2(folded).conj()


def _joint_covariance(
    covariance: _Covariance, window: NDArray[np.int64], move: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Covariance of the real parts in a window and its shifted copy, and both imaginary parts.

    The order is: real parts at the window's points p, at p - u, imaginary parts at 0 and -u, for
    the output of the shifted field at p is that of the field at p - u.
    """
    points = len(window)
    steps = np.unique(window[:, 0])
    # All displacements within a window lie on a grid, which the shift moves as a whole.
    grid = np.unique(steps[:, None] - steps)
    middle = len(grid) // 2
    signs = np.array([[0], [1], [-1]])
    everywhere = covariance(*((grid + signs * step).ravel() for step in move))
    blocks = everywhere.reshape(3, 3, len(grid), 3, len(grid))
    at_rest, ahead, behind = (blocks[:, sign, :, sign] for sign in range(3))
    spacing = 1 if len(steps) == 1 else int(steps[1] - steps[0])
    index = (window[:, None, :] - window[None, :, :]) // spacing + middle
    between = index[..., 0], index[..., 1]
    centre = window // spacing + middle
    to_centre = centre[:, 0], centre[:, 1]

    joint = np.empty((2 * points + 2,) * 2)
    first, second, im_first, im_second = (
        slice(0, points),
        slice(points, 2 * points),
        2 * points,
        2 * points + 1,
    )
    joint[first, first] = joint[second, second] = at_rest[0][between]
    joint[first, second] = ahead[0][between]
    joint[second, first] = joint[first, second].T
    joint[first, im_first] = joint[im_first, first] = at_rest[2][to_centre]
    joint[second, im_second] = joint[im_second, second] = at_rest[2][to_centre]
    joint[first, im_second] = joint[im_second, first] = ahead[2][to_centre]
    joint[second, im_first] = joint[im_first, second] = behind[2][to_centre]
    joint[im_first, im_first] = joint[im_second, im_second] = at_rest[1][middle, middle]
    joint[im_first, im_second] = joint[im_second, im_first] = ahead[1][middle, middle]
    return joint


def _fill(
    row: np.void,
    covariance: _Covariance,
    window: NDArray[np.int64],
    move: NDArray[np.float64],
    normal: NDArray[np.float64],
) -> None:
    """Compute the errors of one filter for one shift."""
    points = len(window)
    joint = _joint_covariance(covariance, window, move)
    values, vectors = np.linalg.eigh(joint)
    # The best coordinates of quasi-random points come first, so the largest variances do.
    factor = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    samples = factor @ normal
    samples[: 2 * points] += covariance.mean.real
    samples[2 * points :] += covariance.mean.imag
    before, after = samples[:points], samples[points : 2 * points]
    rmax, rmax_after = before.max(0), after.max(0)
    cmod = np.hypot(before[points // 2], samples[-2])
    cmod_after = np.hypot(after[points // 2], samples[-1])
    for name, one, other, scale in (
        ("rmax_cmod", rmax, cmod, cmod),
        ("cmod_shift", cmod_after, cmod, cmod),
        ("rmax_shift", rmax_after, rmax, rmax),
    ):
        row[name], row[name + "_stderr"] = mean_square_ratio(one - other, scale)
    correlation = _circular_correlation(joint, points, covariance.mean)
    if correlation is not None:
        row["cmod_shift"] = cmod_shift_closed_form(correlation)
        row["cmod_shift_stderr"] = 0.0


def _circular_correlation(joint: NDArray[np.float64], points: int, mean: complex) -> complex | None:
    """Correlation of the outputs in the middle of both windows; None if they are not circular."""
    re, re_after, im, im_after = points // 2, points + points // 2, 2 * points, 2 * points + 1
    variance = joint[re, re] + joint[im, im]
    pseudo = [
        joint[re, re] - joint[im, im] + 2j * joint[re, im],
        joint[re, re_after]
        - joint[im, im_after]
        + 1j * (joint[re, im_after] + joint[im, re_after]),
    ]
    if max(np.abs(pseudo).max(), abs(mean) ** 2) > _CIRCULAR * variance:
        return None
    covariance = (
        joint[re, re_after] + joint[im, im_after] + 1j * (joint[im, re_after] - joint[re, im_after])
    )
    return complex(covariance / variance)
