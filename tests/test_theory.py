"""Formulas of docs/theory.rst that no function stands for, each from its definition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.special import hyp1f1, hyp2f1
from scipy.stats import norm

import dtwpt
from dtwpt.invariance import (
    Spectrum,
    alpha,
    beta,
    cmod_shift_closed_form,
    gamma,
    predict,
)
from dtwpt.invariance.filters import as_filters
from dtwpt.invariance.output import output_bandwidths

ROOT = Path(__file__).parent.parent
frequencies = st.tuples(st.floats(0.1, 3.1), st.floats(-3.1, 3.1))


def window(q: int) -> NDArray[Any]:
    reach = np.arange(-q, q + 1)
    return np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)


def gaps(omega: Any, q: int) -> NDArray[np.float64]:
    phases = np.sort(window(q) @ np.asarray(omega) % (2 * np.pi))
    return np.diff(phases, append=phases[0] + 2 * np.pi)


def complex_noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    """Circular, of variance 1."""
    return np.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2))


def test_alpha_by_parsevals_identity() -> None:
    """The norm of the difference is a sum over frequencies; the bandwidths bound it."""
    rng = np.random.default_rng(0)
    bank, n, u = dtwpt.PacketBank(2), 64, np.array([1, 2])
    image = np.cumsum(rng.normal(size=(n, n)), axis=1)
    image -= image.mean()
    transform = np.fft.fft2(image)
    kappa = output_bandwidths(as_filters(bank), np.abs(transform)[None] ** 2)[0]
    omega = 2 * np.pi * np.fft.fftfreq(n)
    for index in np.flatnonzero(bank.atoms()["gabor"])[::5]:
        row = bank.atoms()[index]
        response = np.fft.fft2(bank.atom(*row[["sign", "row", "col"]].tolist()), (n, n)).conj()
        theta = np.array([row["theta_y"], row["theta_x"]])
        z = np.fft.ifft2(transform * response)
        moved = np.roll(z, u, (0, 1))
        left = np.sum(np.abs(np.exp(1j * theta @ u) * moved - z) ** 2)
        power = np.abs(transform * response) ** 2 / n**2
        away = [(omega - t + np.pi) % (2 * np.pi) - np.pi for t in theta]
        chord = np.exp(-1j * np.add.outer(away[0] * u[0], away[1] * u[1])) - 1
        assert left == pytest.approx(np.sum(power * np.abs(chord) ** 2))
        sigma = [
            np.sqrt(np.sum(power * np.square(away[axis]).reshape((-1, 1) if axis == 0 else (1, -1)))
                    / power.sum())
            for axis in (0, 1)
        ]  # fmt: skip
        assert kappa[index] == pytest.approx(2 * max(sigma))
        energy = np.sum(np.abs(z) ** 2)
        bound = sigma[0] * u[0] + sigma[1] * u[1]
        assert np.sum((np.abs(moved) - np.abs(z)) ** 2) <= left <= bound**2 * energy
        assert bound <= alpha(kappa[index], u) + 1e-12
        # The best phase does at least as well as theta's.
        together = np.abs(np.sum(moved * z.conj()))
        angles = np.linspace(0, 2 * np.pi, 721)
        least = min(np.sum(np.abs(np.exp(1j * a) * moved - z) ** 2) for a in angles)
        assert 2 * energy - 2 * together <= left
        assert least == pytest.approx(2 * energy - 2 * together, rel=1e-2)


def test_gamma_is_smallest_where_gaps_are_equal() -> None:
    best = float(gamma((2 * np.pi / 9, 6 * np.pi / 9), 1) ** 2)
    count = 9
    bound = 1.5 + count / (4 * np.pi) * (np.sin(2 * np.pi / count) - 8 * np.sin(np.pi / count))
    assert best == pytest.approx(bound)
    assert best == pytest.approx(0.00073, abs=5e-6)
    assert best == pytest.approx(np.pi**4 / 20 / count**4, rel=0.05)
    others = np.random.default_rng(0).uniform(-np.pi, np.pi, (2000, 2))
    assert np.all(gamma(others, 1) ** 2 >= bound - 1e-12)


def test_beta_without_its_first_order_step() -> None:
    """The root of the sum of squares over the window is root 5 times beta."""
    kappa, m = 0.7, 4
    each = alpha(kappa, m * window(1))
    assert each.max() == pytest.approx(float(beta(kappa, m)))
    assert np.sqrt(np.sum(each**2)) == pytest.approx(np.sqrt(5) * float(beta(kappa, m)))


@given(st.floats(-3, 3), st.floats(0.1, 3))
def test_square_of_the_positive_part_of_a_gaussian(mean: float, spread: float) -> None:
    x = np.linspace(0, mean + 12 * spread if mean > -10 * spread else 1, 20001)
    numeric = trapezoid(x**2 * norm.pdf(x, mean, spread), x)
    ratio = mean / spread
    formula = (mean**2 + spread**2) * norm.cdf(ratio) + mean * spread * norm.pdf(ratio)
    assert formula == pytest.approx(numeric, rel=1e-5, abs=1e-9)


@given(frequencies, st.integers(1, 2))
def test_moments_of_the_maximum_of_a_wave(omega: tuple[float, float], q: int) -> None:
    """Mean with and without ReLU, second moment, and gamma split into scale and variance."""
    phase = (np.arange(40_000) + 0.5) * 2 * np.pi / 40_000
    largest = np.cos(phase[:, None] - window(q) @ np.asarray(omega)).max(1)
    delta = gaps(omega, q)
    constant = np.sin(delta / 2).sum() / np.pi
    assert constant == pytest.approx(largest.mean(), abs=1e-6)
    rectified = np.sin(np.minimum(delta, np.pi) / 2).sum() / np.pi
    assert rectified == pytest.approx(np.maximum(largest, 0).mean(), abs=1e-6)
    second = 0.5 + np.sin(delta).sum() / (4 * np.pi)
    assert second == pytest.approx(np.square(largest).mean(), abs=1e-6)
    variance = second - constant**2
    assert float(gamma(omega, 1, q)) ** 2 == pytest.approx((1 - constant) ** 2 + variance)


@given(frequencies, st.integers(1, 8))
def test_averages_over_shifts_damp_harmonics(theta: tuple[float, float], r: int) -> None:
    """The averaged maximum is the damped Fourier series; the rest of its waves is bounded."""
    count, m = 512, 2
    phase = np.arange(count) * 2 * np.pi / count
    points = m * window(1) @ np.asarray(theta)
    weights = (np.poly1d([0.5, 0.5]) ** (2 * r)).coef
    shifts = np.arange(-r, r + 1)
    moved = np.add.outer(theta[0] * shifts, theta[1] * shifts)
    # Of each wave, exactly: of the maximum's series on a grid of phases.
    largest = np.cos(phase[:, None] - points).max(1)
    series = np.fft.fft(largest) / count
    k = np.fft.fftfreq(count, 1 / count)
    damping = np.cos(k * theta[0] / 2) ** (2 * r) * np.cos(k * theta[1] / 2) ** (2 * r)
    transfer = np.einsum("i,j,kij->k", weights, weights, np.exp(1j * k[:, None, None] * moved))
    np.testing.assert_allclose(transfer, damping, atol=1e-12)
    averaged = np.fft.ifft(series * damping * count).real
    direct = np.einsum(
        "i,j,tij",
        weights,
        weights,
        np.cos(phase[:, None, None, None] + moved[..., None] - points).max(-1),
    )
    # But for the aliases of a maximum, which is no trigonometric polynomial.
    np.testing.assert_allclose(averaged, direct, atol=2e-3)
    left = np.sqrt(np.mean((averaged - averaged.mean()) ** 2))
    worst = np.abs(damping[1:]).max()
    assert left <= worst * largest.std() + 1e-12


@pytest.mark.parametrize("rho", [0.1, 0.45, 0.8, 0.99])
def test_steps_of_the_closed_form(rho: float) -> None:
    """Rice's mean, the series' integral, and Pfaff's transformation."""
    rng = np.random.default_rng(0)
    modulus = 1.3
    given_z = np.sqrt(rho) * modulus + np.sqrt(1 - rho) * complex_noise(rng, 400_000)
    rice = np.sqrt(np.pi) / 2 * np.sqrt(1 - rho)
    rice *= hyp1f1(-0.5, 1, -rho * modulus**2 / (1 - rho))
    assert rice == pytest.approx(np.abs(given_z).mean(), rel=5e-3)
    t, weights = np.polynomial.laguerre.laggauss(150)
    integral = np.sqrt(np.pi) / 2 * np.sqrt(1 - rho) * np.sum(
        weights * np.sqrt(t) * hyp1f1(-0.5, 1, -rho * t / (1 - rho))
    )  # fmt: skip
    before = np.pi / 4 * np.sqrt(1 - rho) * hyp2f1(-0.5, 1.5, 1, -rho / (1 - rho))
    after = np.pi / 4 * hyp2f1(-0.5, -0.5, 1, rho)
    assert before == pytest.approx(integral, rel=2e-3)
    assert after == pytest.approx(before, rel=1e-12)
    assert cmod_shift_closed_form(np.sqrt(rho)) == pytest.approx(2 - 2 * after)


def test_covariances_of_real_and_imaginary_parts() -> None:
    """Those of a filter's outputs on periodic noise, from K and C."""
    rng = np.random.default_rng(0)
    n, d = 16, (2, 1)
    kernel = rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
    response = np.fft.fft2(kernel, (n, n))
    opposite = response[-np.arange(n)][:, -np.arange(n)]
    k, c = (
        np.fft.ifft2(values)[d] for values in (np.abs(response) ** 2, (response * opposite).conj())
    )
    z = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4000, n, n))) * response.conj())
    there = np.roll(z, (-d[0], -d[1]), (1, 2))
    scale = 4 / np.sqrt(4000) / n * np.abs(k) * 10
    assert np.mean(there * z.conj()) == pytest.approx(k, abs=scale)
    assert np.mean(there * z) == pytest.approx(c, abs=scale)
    for product, formula in (
        (there.real * z.real, (k + c).real / 2),
        (there.imag * z.imag, (k - c).real / 2),
        (there.real * z.imag, (c - k).imag / 2),
    ):
        assert product.mean() == pytest.approx(formula, abs=scale)


def test_several_images() -> None:
    """The error is linear in spectra weighted by 1/e, and the closed form concave."""
    rng = np.random.default_rng(0)
    response, powers = rng.random((8, 8)), rng.random((5, 8, 8))
    chord = rng.random((8, 8))  # of any error that is a sum over the spectrum
    energies = (response * powers).sum((1, 2))
    each = (response * powers * chord).sum((1, 2)) / energies
    mixed = (powers / energies[:, None, None]).mean(0)
    assert (response * mixed * chord).sum() == pytest.approx(each.mean())
    r = rng.uniform(0, 1, (200, 6)) * np.exp(1j * rng.uniform(-1, 1, (200, 6)))
    of_mixture = cmod_shift_closed_form(np.abs(r.mean(1)))
    of_moduli = cmod_shift_closed_form(np.abs(r).mean(1))
    assert np.all(of_mixture >= of_moduli - 1e-12)
    assert np.all(of_moduli >= cmod_shift_closed_form(np.abs(r)).mean(1) - 1e-12)
    # And so predict has it: of two kinds of fields, against each alone.
    bank = dtwpt.PacketBank(2)
    gabor = bank.atoms()["gabor"]
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    kinds = np.stack([(radius + 0.02) ** -2, np.ones((128, 128))])
    kinds /= kinds.mean((1, 2), keepdims=True)
    alone = [predict(bank, spectrum=Spectrum(kind[None], np.zeros(1))) for kind in kinds]
    both = predict(bank, spectrum=Spectrum(kinds, np.zeros(2)))
    mean = np.mean([table["cmod_shift"] for table in alone], axis=0)
    assert np.all(both["cmod_shift"][gabor] >= mean[gabor] - 1e-9)


def test_every_formula_names_a_test_that_is_there() -> None:
    table = (ROOT / "docs" / "theory.rst").read_text("utf-8").split("Tests of the formulas")[1]
    named = re.findall(r"``(tests/\w+\.py)::(\w+)``", table)
    assert len(named) > 15
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text("utf-8"), test
