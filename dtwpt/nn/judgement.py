"""Which filters of a trained convolution are Gabor-like, and which are not, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance.kernels import characterize

__all__ = ["ChannelReport", "Rule", "judge"]

# Share of a filter's energy that its mean may have, which does not go through the modulus.
_LARGEST_MEAN = 0.1


@dataclass(frozen=True)
class ChannelReport:
    """What became of one channel of a stem, and why.

    Parameters
    ----------
    channel : int
    changed : bool
        Whether it is a modulus now.
    reason : str
    gabor_likeness : float
        As in :func:`dtwpt.invariance.characterize`, of the filter in its main colour.
    frequency : float
        rad/pixel.
    orientation : float
        Degrees, in [0, 180).
    colour_share : float
        Share of the filter's energy that lies in its main colour.
    norm_sign : int
        Sign of the normalisation's scale: with -1 the layer passes on minima.
    """

    channel: int
    changed: bool
    reason: str
    gabor_likeness: float
    frequency: float
    orientation: float
    colour_share: float
    norm_sign: int


@dataclass(frozen=True)
class Rule:
    """What a filter must be for its channel to be changed.

    Parameters
    ----------
    threshold : float
        Least Gabor-likeness.
    colour_threshold : float
        Least share of the energy in the main colour.
    stride : int
        Of the convolution.
    """

    threshold: float
    colour_threshold: float
    stride: int

    def __post_init__(self) -> None:
        for name in ("threshold", "colour_threshold"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")

    def objection(self, row: Any, share: float, sign: int) -> str | None:
        """Return why a channel is to stay as it is, or None."""
        largest = max(abs(row["theta_y"]), abs(row["theta_x"]))
        if sign == 0:
            return "the scale of the normalisation is zero"
        if share < self.colour_threshold:
            return f"of no one colour: its main one has {share:.2f} of the energy"
        if row["gabor_likeness"] < self.threshold:
            return f"not Gabor-like: {row['gabor_likeness']:.2f}"
        if row["dc_share"] > _LARGEST_MEAN:
            return f"low-pass: its mean has {row['dc_share']:.2f} of its energy"
        if self.stride > 1 and largest > np.pi - np.pi / (2 * self.stride):
            return "high-pass: the highest frequency is within its window"
        return None


def judge(
    weight: NDArray[np.float64],
    signs: NDArray[np.int64],
    rule: Rule,
    chosen: NDArray[np.bool_] | None = None,
) -> tuple[tuple[ChannelReport, ...], NDArray[np.float64]]:
    """Look at every filter.

    Parameters
    ----------
    weight : ndarray, shape (out, in, h, w)
    signs : ndarray, shape (out,)
        Of the normalisation's scales.
    rule : Rule
    chosen : ndarray, shape (out,), optional
        The channels that were changed, where that is no question any more.

    Returns
    -------
    reports : tuple of ChannelReport
    direction : ndarray, shape (out, 2)
        Frequency (down, right) of each filter that is changed, 0 of the others.
    """
    if not np.isfinite(weight).all():
        raise ValueError("conv.weight must be finite, got NaN or infinity")
    direction = np.zeros((len(weight), 2))
    reports = []
    for channel, kernel in enumerate(weight):
        sign = int(signs[channel])
        colours, strength, _ = np.linalg.svd(kernel.reshape(len(kernel), -1), full_matrices=False)
        if strength[0] == 0:
            blank = ChannelReport(
                channel, False, "the filter is zero", np.nan, np.nan, np.nan, np.nan, sign
            )
            reports.append(blank)
            continue
        share = float(strength[0] ** 2 / (strength**2).sum())
        row = characterize(kernel[None], rule.stride, colours[:, 0])[0]
        objection = rule.objection(row, share, sign)
        changed = objection is None if chosen is None else bool(chosen[channel])
        if changed:
            direction[channel] = row["theta_y"], row["theta_x"]
            reason = "Gabor-like" if objection is None else f"loaded as such ({objection})"
        else:
            reason = objection or "loaded as it was"
        reports.append(
            ChannelReport(
                channel,
                changed,
                reason,
                float(row["gabor_likeness"]),
                float(row["frequency"]),
                float(row["orientation"]),
                share,
                sign,
            )
        )
    return tuple(reports), direction
