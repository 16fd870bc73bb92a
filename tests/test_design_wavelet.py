"""Wavelets optimised for stability under shifts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtwpt
from dtwpt.invariance import measure, optimise_wavelet, predict
from dtwpt.invariance.design_wavelet import lattice_angles, lattice_taps, shift_change
from tests.photographs import crops

# Each with the published wavelet of its length, or the nearest longer or shorter one.
RIVALS = {"stable_10": "qshift_a", "stable_16": "qshift_d", "stable_20": "qshift_d"}


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12))
def test_any_angles_make_an_orthonormal_low_pass(angles: list[float]) -> None:
    low = lattice_taps(angles)
    for shift in range(0, low.size, 2):
        product = low[shift:] @ low[: low.size - shift]
        assert product == pytest.approx(float(shift == 0), abs=1e-14)
    gain_at_pi = low @ np.resize([1.0, -1.0], low.size)
    assert gain_at_pi == pytest.approx(np.sqrt(2) * np.cos(np.sum(angles) + np.pi / 4), abs=1e-13)


@pytest.mark.parametrize("name", dtwpt.wavelets())
def test_angles_are_found_again(name: str) -> None:
    low = dtwpt.Wavelet(name).low[0]
    tolerance = 1e-8 if name == "qshift_32" else 1e-13
    np.testing.assert_allclose(lattice_taps(lattice_angles(low)), low, atol=tolerance)


@pytest.mark.parametrize("name", RIVALS)
def test_optimised_wavelets_are_orthonormal_and_cannot_be_bettered_nearby(name: str) -> None:
    low = dtwpt.Wavelet(name).low[0]
    products = np.correlate(low, low, "full")[(low.size - 1) % 2 :: 2]
    products[products.size // 2] -= 1
    assert np.abs(products).max() < 1e-15
    assert abs(low @ np.resize([1.0, -1.0], low.size)) < 1e-15
    again = optimise_wavelet(low.size, start=name)
    np.testing.assert_allclose(again.low[0], low, atol=2e-5)


@pytest.mark.parametrize("name", ["qshift_06", "stable_16"])
@pytest.mark.parametrize("depth", [2, 3])
def test_the_objective_is_the_predicted_error(name: str, depth: int) -> None:
    bank = dtwpt.PacketBank(depth, name)
    atoms = bank.atoms()
    oriented = ~(atoms["boundary"] | atoms["lowpass"])
    expected = predict(bank, (0, 1), spectrum="pink")["cmod_shift"][oriented].mean()
    assert shift_change(name, depth) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("depth", [2, 3])
def test_optimised_wavelets_win_on_photographs(name: str, depth: int) -> None:
    """None of which they were optimised for: that was pink noise."""
    errors = {}
    photographs = list(crops(257, 8))
    for wavelet in (name, RIVALS[name]):
        bank = dtwpt.PacketBank(depth, wavelet)
        atoms = bank.atoms()
        oriented = ~(atoms["boundary"] | atoms["lowpass"])
        errors[wavelet] = measure(photographs, bank, [(0, 1), (1, 0)])[:, oriented]
        assert shift_change(name, depth) < shift_change(RIVALS[name], depth)
    for error in ("cmod_shift", "rmax_shift"):
        ratio = errors[name][error].mean() / errors[RIVALS[name]][error].mean()
        assert ratio < 0.99, error


def test_a_search_finds_the_best_of_its_length_from_afar() -> None:
    found = optimise_wavelet(10, start="qshift_06")
    assert found.name == "optimised_10"
    np.testing.assert_allclose(found.low[0], dtwpt.Wavelet("stable_10").low[0], atol=1e-4)


def test_bad_arguments_are_named() -> None:
    for length in (4, 11):
        with pytest.raises(ValueError, match=f"length must be even and at least 6, got {length}"):
            optimise_wavelet(length)
    with pytest.raises(ValueError, match="unknown wavelet 'haar'"):
        optimise_wavelet(10, start="haar")
