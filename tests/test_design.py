"""The choice of a layer's filters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import dtwpt
from dtwpt.invariance import design, measure
from dtwpt.invariance.design import energy_captured, frame_bounds
from tests.photographs import NAMES, grey


def test_designed_filters_win_on_photographs_they_were_not_designed_on() -> None:
    photographs = [grey(name)[40:256, 60:276] for name in NAMES]
    seen, unseen = photographs[::2], photographs[1::2]
    for depth, gain in ((None, 0.7), (2, 0.85)):
        found = design(2, 3, seen, depth=depth, budget=12, size=9)
        assert found.captured >= 0.95 * found.usual_captured
        atoms = found.candidates
        both = np.concatenate([found.kernels, atoms[found.usual]])
        error = measure(unseen, both, [(0, 1), (1, 0)], stride=2)["rmax_shift"].mean(0)
        assert error[:12].mean() < gain * error[12:].mean()
        captured = [energy_captured(part, unseen, 4) for part in (both[:12], both[12:])]
        assert captured[0] > 0.9 * captured[1]


def test_a_design_says_what_it_chose() -> None:
    found = design(depth=2, budget=10, information=0.9)
    table = found.table
    assert len(table) == 30
    assert np.array_equal(table["rank"][found.chosen], np.arange(1, 11))
    assert np.all(np.diff(table["error"][found.chosen]) >= 0)
    assert found.limit == table["error"][found.chosen].max()
    assert np.array_equal(table["avoid"], table["error"] > found.limit)
    assert table["error"][found.chosen].mean() < table["error"][found.usual].mean()
    np.testing.assert_array_equal(found.kernels, found.candidates[found.chosen])
    assert found.captured == pytest.approx(energy_captured(found.kernels, "pink", 4), rel=1e-9)
    everything = design(depth=2, budget=30)
    assert everything.captured == everything.usual_captured


@pytest.mark.parametrize("depth", [1, 2])
def test_all_packets_are_a_tight_frame(depth: int) -> None:
    bank = dtwpt.PacketBank(depth)
    atoms = np.stack([bank.atom(*at) for at in itertools.product((1, -1), *2 * [range(2**depth)])])
    # Of squared norm 1/2, they would be a Parseval frame.
    np.testing.assert_allclose(frame_bounds(atoms, 2**depth), 2, rtol=1e-6)


def test_energy_captured_is_that_of_the_best_linear_decoder() -> None:
    """Against the covariances of a small periodic image, pixel by pixel."""
    rng = np.random.default_rng(0)
    side, stride = 24, 2
    kernels = rng.normal(size=(2, 3, 3)) + 1j * rng.normal(size=(2, 3, 3))
    kernels /= np.sqrt((np.abs(kernels) ** 2).sum((1, 2), keepdims=True))
    rows = []
    for kernel in kernels:
        for top, left in itertools.product(range(0, side, stride), repeat=2):
            row = np.zeros((side, side), complex)
            where = np.ix_((top + np.arange(3)) % side, (left + np.arange(3)) % side)
            row[where] = kernel.conj()
            rows += [row.real.ravel(), row.imag.ravel()]
    matrix = np.array(rows)
    # White: the covariance of pixels is I; noise of .01, half in each part.
    seen = matrix @ matrix.T + 0.005 * np.eye(len(matrix))
    expected = np.trace(matrix.T @ np.linalg.solve(seen, matrix)) / side**2
    # The frequencies differ by half a step.
    assert energy_captured(kernels, "white", stride) == pytest.approx(expected, rel=1e-3)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="pool must be odd, got 2"):
        design(pool=2)
    with pytest.raises(ValueError, match="information must be above 0 and at most 1, got 2"):
        design(information=2)
    with pytest.raises(ValueError, match="budget must be at most 30, the candidates, got 40"):
        design(depth=2, budget=40)
