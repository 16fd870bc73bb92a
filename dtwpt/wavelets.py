"""Orthonormal q-shift wavelets: the filter pairs from which packets are built.

The taps of ``qshift_*`` are the published coefficients of Kingsbury's q-shift filters ([1]_), the
facts on which every dual-tree package rests. Those of ``stable_*`` are our own: of all q-shift
filters of their length, the ones whose packets are predicted to change least under a shift
(:func:`dtwpt.invariance.optimise_wavelet`).

References
----------
.. [1] N. Kingsbury, "Complex wavelets for shift invariant analysis and filtering of signals",
   Applied and Computational Harmonic Analysis 10 (2001), 234-253.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.text import shown
from dtwpt.typing import WaveletName

__all__ = ["AnyWavelet", "Wavelet", "q_shift_pair", "wavelets"]

# Low-pass taps of tree a. Tree b is the time reverse; the high-passes follow by alternation.
# Published ones, and those that dtwpt.invariance.optimise_wavelet finds for pink noise.
_LOW_A: dict[WaveletName, tuple[float, ...]] = {
    "qshift_06": (
        0.03516383657149474,
        0.0,
        -0.08832942445107285,
        0.23389032060723564,
        0.7602723690661257,
        0.5875182977235605,
        0.0,
        -0.11430183714424873,
        0.0,
        0.0,
    ),
    "qshift_a": (
        0.051130405283831656,
        -0.013975370246888838,
        -0.10983605166597087,
        0.26383956105893763,
        0.7666284677930372,
        0.5636557101270515,
        0.0008736226952170968,
        -0.1002312195074762,
        -0.0016896812725281543,
        -0.006181881892116438,
    ),
    "qshift_b": (
        0.003253142763653182,
        -0.00388321199915849,
        0.03466034684485349,
        -0.03887280126882779,
        -0.11720388769911527,
        0.27529538466888204,
        0.7561456438925225,
        0.5688104207121227,
        0.011866092033797,
        -0.1067118046866654,
        0.023825384794920298,
        0.01702522388155399,
        -0.005439475937274115,
        -0.004556895628475491,
    ),
    "qshift_c": (
        -0.0047616119384559135,
        -0.00044602278926228516,
        -7.144197327965012e-05,
        0.034914612306842195,
        -0.03727389579989796,
        -0.11591145742744076,
        0.2763686431330317,
        0.7563937651990367,
        0.567134484100133,
        0.01463740596447335,
        -0.11255888425752203,
        0.02228926326692271,
        0.018498682724156248,
        -0.0072026778782583465,
        -0.0002276522058977718,
        0.002430349945148675,
    ),
    "qshift_d": (
        -0.002284127440270531,
        0.0012098941630734423,
        -0.011834794515430786,
        0.0012834569993443994,
        0.044365221606616996,
        -0.05327610880304726,
        -0.1133058863621428,
        0.2809028632221865,
        0.7528160380878561,
        0.5658080673964587,
        0.024550152433666563,
        -0.12018854471079482,
        0.018156493945546453,
        0.03152637712208465,
        -0.006628794612430063,
        -0.0025761743066007948,
        0.0012775586538069982,
        0.002411869456666278,
    ),
    "qshift_32": (
        -0.000302986558716425,
        4.083838317973739e-06,
        0.00017105469713049528,
        0.000548739255398577,
        -0.00020463177982368814,
        -0.0021471959924182797,
        0.0005109599523920865,
        0.008735659961321607,
        -0.0045667504284199025,
        -0.024908230393248357,
        0.021969288761055316,
        0.05439655434041221,
        -0.07531137270116668,
        -0.11030730105056673,
        0.29644419111849857,
        0.7389230769321623,
        0.5658967132314698,
        0.04199437595114133,
        -0.13652493719126912,
        0.006103726725663456,
        0.05362119716916521,
        -0.01081758277455643,
        -0.01902371743701418,
        0.006372839274768152,
        0.0054257302454038,
        -0.002110067325399009,
        -0.0012940179652023295,
        0.00023342000018862117,
        0.00032136178581709574,
        -0.00012060436707275685,
        2.3936857658654733e-06,
        0.00017759141189701083,
    ),
    "stable_10": (
        0.055715804295917964,
        -0.009469168716075506,
        -0.10961025114801379,
        0.27802914401648,
        0.7590737423501568,
        0.5630127085069866,
        0.0027700384655037873,
        -0.11950839187826139,
        -0.0008425527770170906,
        -0.004957510742582075,
    ),
    "stable_16": (
        -0.0016004373915831512,
        -0.0025837481240477862,
        0.03223748598458838,
        0.05104853887419012,
        -0.07423593104391951,
        -0.11311475111961297,
        0.29835269977007395,
        0.7373489026601995,
        0.566285653112923,
        0.0404625355721689,
        -0.13533713295569588,
        0.013492815988946243,
        0.04775078017121977,
        -0.03586708407051942,
        -0.02634633646105901,
        0.016319571405223204,
    ),
    "stable_20": (
        -0.0014828038874947357,
        -0.0035081846032690455,
        -0.00535325890257892,
        -0.01667260635897694,
        0.03579114342724276,
        0.061216057554303996,
        -0.08253257436605509,
        -0.10774206303379139,
        0.301929892643309,
        0.7343929149157629,
        0.563413167022119,
        0.04921088564262961,
        -0.14465301052117732,
        0.005804443369538724,
        0.05302510931554852,
        -0.027996458068432966,
        -0.027310169608910723,
        0.01843721557955559,
        0.014279286064544941,
        -0.006035423810772834,
    ),
}

#: Names of the built-in wavelets: the published ones, shortest first, then our own.
KNOWN = tuple(_LOW_A)

# Deviation from orthonormality that a pair may have; the published qshift_32 misses by 2e-9.
_ORTHONORMAL_TOLERANCE = 1e-8
# Tolerated relative misfit of tree b to tree a delayed by half a sample, over half of the band. The
# shortest published pair, qshift_06, has 0.10; ordinary wavelets and their reverse have 0.5 up.
_HALF_SAMPLE_TOLERANCE = 0.2


def wavelets() -> list[WaveletName]:
    """Return the names of the built-in q-shift wavelets.

    First the published ones, ``qshift_*``; then ``stable_*``, with their number of taps, which were
    optimised for stability under shifts.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import dtwpt
    >>> dtwpt.wavelets()  # doctest: +NORMALIZE_WHITESPACE
    ['qshift_06', 'qshift_a', 'qshift_b', 'qshift_c', 'qshift_d', 'qshift_32',
     'stable_10', 'stable_16', 'stable_20']
    """
    return list(_LOW_A)


class Wavelet:
    """An orthonormal low-pass/high-pass pair for each of the two trees.

    Parameters
    ----------
    name : str
        One of :func:`wavelets`. Use :meth:`from_taps` for other pairs.

    Attributes
    ----------
    name : str
    text : str
        The name of a built-in wavelet, the taps of any other.
    low, high : ndarray of float64, shape (2, L)
        Low-pass and high-pass taps; row 0 is tree a, row 1 is tree b, whose low-pass lags tree
        a's by half a sample. Read-only.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.

    Notes
    -----
    The published taps of ``qshift_32`` are orthonormal only to 2e-9. Packets are normalised to unit
    norm, which removes the error: transforms with it reconstruct to machine precision, but differ
    from those with the published taps by up to 1e-8.

    Examples
    --------
    >>> import dtwpt
    >>> w = dtwpt.Wavelet("qshift_b")
    >>> w.low.shape
    (2, 14)
    >>> bool(abs(w.low[1] - w.low[0, ::-1]).max() == 0)
    True
    """

    name: str
    text: str
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"wavelet must be a name or a dtwpt.Wavelet, got {type(name).__name__}")
        if name not in _LOW_A:
            raise ValueError(f"unknown wavelet {shown(name)}; known wavelets: {', '.join(_LOW_A)}")
        low_a = np.array(_LOW_A[name])
        self._set(name, np.stack([low_a, low_a[::-1]]), None)

    @classmethod
    def from_taps(
        cls, low: ArrayLike, high: ArrayLike | None = None, *, name: str = "custom"
    ) -> Wavelet:
        """Build a wavelet from the user's own taps, after checking them.

        Parameters
        ----------
        low : array_like of float, shape (L,) or (2, L)
            Low-pass taps, L even. One row: tree a's, and tree b is its time reverse (a q-shift
            pair). Two rows: tree a's and tree b's.
        high : array_like of float, shape (L,) or (2, L), optional
            High-pass taps in the same form. By default the alternating flip
            ``high[n] = (-1)**n * low[L - 1 - n]`` of tree a, and its time reverse for tree b (the
            alternating flip of tree b up to sign).
        name : str, default: "custom"
            A label; it takes no part in comparisons.

        Returns
        -------
        Wavelet
            With the nearest taps that are orthonormal to rounding: inverses are then exact, even
            for taps printed with ten digits.

        Raises
        ------
        ValueError
            If the shapes do not fit, if a value is not finite, if a tree is not orthonormal to
            1e-8, or if tree b's low-pass does not lag tree a's by half a sample, or tree a's
            high-pass tree b's (relative misfit over half of the band at most 0.2). The message
            gives the misfit.

        Examples
        --------
        >>> import dtwpt
        >>> own = dtwpt.Wavelet.from_taps(dtwpt.Wavelet("qshift_a").low[0], name="mine")
        >>> own == dtwpt.Wavelet("qshift_a")
        True
        >>> dtwpt.Wavelet.from_taps([0.5, 0.5])
        Traceback (most recent call last):
            ...
        ValueError: low of tree a is not orthonormal: it misses by 0.5, accepted is at most 1e-08
        """
        pairs = _two_trees(low, "low")
        highs = None if high is None else _two_trees(high, "high")
        if highs is not None and highs.shape != pairs.shape:
            raise ValueError(
                f"high must have as many taps as low, got {highs.shape[1]} and {pairs.shape[1]}"
            )
        wavelet = cls.__new__(cls)
        wavelet._set(str(name), pairs, highs)
        wavelet._check()
        if not any(np.array_equal(pairs[0], taps) for taps in _LOW_A.values()):
            exact = [_orthonormal(*pair) for pair in zip(wavelet.low, wavelet.high, strict=True)]
            lows, exact_highs = (np.stack(rows) for rows in zip(*exact, strict=True))
            wavelet._set(str(name), lows, None if highs is None else exact_highs)
        return wavelet

    @staticmethod
    def from_text(text: str) -> Wavelet:
        """Return the wavelet whose ``text`` it is."""
        return _from_text(text)

    def _set(self, name: str, low: NDArray[np.float64], high: NDArray[np.float64] | None) -> None:
        if high is None:
            high_a = _alternating_flip(low[0])
            # For a q-shift pair this is high_a reversed; written so that it also holds for others.
            high_b = -_alternating_flip(low[1])
            high = np.stack([high_a, high_b])
        self.name = name
        self.low = _frozen(low)
        self.high = _frozen(high)
        #: The name of a built-in wavelet, the taps of any other.
        self.text = name
        if name not in _LOW_A or not np.array_equal(self.low[0], _LOW_A[name]) or high is not None:
            self.text = json.dumps([self.low.tolist(), self.high.tolist()])
        self._hash = hash((self.low.tobytes(), self.high.tobytes()))

    def _check(self) -> None:
        for tree, label in enumerate("ab"):
            low, high = self.low[tree], self.high[tree]
            for what, miss in (
                ("low", _shift_products(low, low, unit=True)),
                ("high", _shift_products(high, high, unit=True)),
                ("high against low", _shift_products(low, high, unit=False)),
            ):
                if miss > _ORTHONORMAL_TOLERANCE:
                    raise ValueError(
                        f"{what} of tree {label} is not orthonormal: it misses by {miss:.3g}, "
                        f"accepted is at most {_ORTHONORMAL_TOLERANCE:g}"
                    )
            gain = float(abs(low.sum()))
            if gain < 1.0:
                raise ValueError(
                    f"low of tree {label} is no low-pass: its sum is {gain:.3g}, expected about "
                    f"{np.sqrt(2):.4f}"
                )
        # Moved down by half the band, a high-pass is a low-pass, and tree a lags in its turn.
        moved = self.high * np.resize([1.0, -1.0], self.high.shape[1])
        sign = np.sign(moved[0].sum() * moved[1].sum())
        for what, lagging, leading, first, second in (
            ("low", "b", "a", self.low[0], self.low[1]),
            ("high (moved to frequency 0)", "a", "b", moved[1], sign * moved[0]),
        ):
            miss, delay = _half_sample_misfit(first, second)
            if miss > _HALF_SAMPLE_TOLERANCE:
                raise ValueError(
                    f"{what} of tree {lagging} must lag tree {leading} by half a sample: it lags "
                    f"by {delay:.3f} samples, with a relative misfit of {miss:.3g} over the lower "
                    f"half of the band, accepted is at most {_HALF_SAMPLE_TOLERANCE:g}"
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Wavelet):
            return NotImplemented
        return np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructors, so that a copy's taps are read-only as well.
        return _restored, (self.name, self.low, self.high)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if self.name in _LOW_A and self == Wavelet(self.name):
            return f"Wavelet({self.name!r})"
        return f"<Wavelet {self.name!r}, {self.low.shape[1]} taps>"


def q_shift_pair(low: NDArray[np.float64], name: str = "custom") -> Wavelet:
    """Return the wavelet of tree a's low-pass, without the checks of :meth:`Wavelet.from_taps`."""
    wavelet = Wavelet.__new__(Wavelet)
    wavelet._set(name, np.stack([low, low[::-1]]), None)
    return wavelet


@lru_cache(maxsize=16)
def _from_text(text: str) -> Wavelet:
    if text in _LOW_A:
        return Wavelet(text)
    low, high = (np.array(taps) for taps in json.loads(text))
    return _restored("custom", low, high)


def _restored(name: str, low: NDArray[np.float64], high: NDArray[np.float64]) -> Wavelet:
    wavelet = Wavelet.__new__(Wavelet)
    wavelet._set(name, low, high)
    return wavelet


def _alternating_flip(low: NDArray[np.float64]) -> NDArray[np.float64]:
    high: NDArray[np.float64] = low[::-1].copy()
    high[1::2] *= -1
    return high


def _frozen(taps: Any) -> NDArray[np.float64]:
    frozen: NDArray[np.float64] = (
        np.array(taps, dtype=np.float64) + 0.0
    )  # no -0: equal taps, one hash
    frozen.setflags(write=False)
    return frozen


def _two_trees(taps: ArrayLike, name: str) -> NDArray[np.float64]:
    if np.iscomplexobj(taps):
        raise ValueError(f"{name} must be real taps of shape (L,) or (2, L), got complex ones")
    try:
        array = np.array(taps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be real taps of shape (L,) or (2, L): {error}") from None
    if array.ndim == 1:
        array = np.stack([array, array[::-1]])
    if array.ndim != 2 or array.shape[0] != 2:
        raise ValueError(f"{name} must have shape (L,) or (2, L), got {np.shape(taps)}")
    if array.shape[1] == 0 or array.shape[1] % 2:
        raise ValueError(f"{name} must have an even number of taps, got {array.shape[1]}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array


def _shift_products(x: NDArray[np.float64], y: NDArray[np.float64], *, unit: bool) -> float:
    """Largest deviation of sum_n x[n] y[n + 2k] from its orthonormal value (1 at k=0 if unit)."""
    products = np.correlate(x, y, mode="full")[(x.size - 1) % 2 :: 2]
    if unit:
        products[products.size // 2] -= 1.0
    return float(np.abs(products).max())


def _orthonormal(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the nearest orthonormal pair, by Newton steps; the same if it is one to rounding."""
    pairs = ((0, 0, True), (1, 1, True), (0, 1, False))
    taps = np.stack([low, high])
    length = taps.shape[1]
    for _ in range(5):
        misses, slopes = [], []
        for one, other, unit in pairs:
            for lag in range(0 if one == other else 2 - length, length, 2):
                slope = np.zeros((2, length))
                moved = np.zeros((2, length))  # the other's taps at n + lag, the one's at n - lag
                to, origin = slice(max(0, -lag), length - max(0, lag)), max(0, lag)
                moved[0, to] = taps[other, origin : origin + length - abs(lag)]
                moved[1, origin : origin + length - abs(lag)] = taps[one, to]
                misses.append(taps[one] @ moved[0] - (unit and lag == 0))
                slope[one] += moved[0]
                slope[other] += moved[1]
                slopes.append(slope.ravel())
        if np.abs(misses).max() < 1e-14:
            break
        step = np.linalg.lstsq(np.array(slopes), np.array(misses), rcond=1e-9)[0]
        taps = taps - step.reshape(2, length)
    return taps[0], taps[1]


def _half_sample_misfit(
    low_a: NDArray[np.float64], low_b: NDArray[np.float64]
) -> tuple[float, float]:
    """Relative L2 distance of H_b from H_a delayed by 1/2 on (0, pi/2], and the fitted delay."""
    omega = np.pi / 2 * np.arange(1, 257) / 256
    kernel = np.exp(-1j * np.outer(omega, np.arange(low_a.size)))
    response_a, response_b = kernel @ low_a, kernel @ low_b
    energy = np.abs(response_a) ** 2
    misfit = np.abs(response_b - np.exp(-0.5j * omega) * response_a) ** 2
    phase = np.unwrap(np.angle(response_b * response_a.conj()))
    delay = -np.sum(phase * omega * energy) / np.sum(omega**2 * energy)
    return float(np.sqrt(misfit.sum() / energy.sum())), float(delay)


#: A wavelet, or the name of one.
AnyWavelet: TypeAlias = WaveletName | Wavelet
