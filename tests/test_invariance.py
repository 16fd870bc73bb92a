"""Bounds, prediction and measurement of shift invariance."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from skimage.filters import gabor_kernel

import dtwpt
from dtwpt.invariance import (
    alpha,
    analytic_kernels,
    beta,
    characterize,
    cmod_shift_closed_form,
    estimate_spectrum,
    gamma,
    measure,
    predict,
)
from dtwpt.invariance.filters import ERRORS
from tests.photographs import crops

angles = st.floats(-7, 7)


# Bounds -----------------------------------------------------------------------------------------


def gamma_by_integration(omega: NDArray[Any], q: int) -> float:
    """E (1 - max_p cos(Theta - <omega, p>))^2, cut where the largest sample changes."""
    reach = np.arange(-q, q + 1)
    phases = np.sort((omega[0] * reach[:, None] + omega[1] * reach).ravel() % (2 * np.pi))
    ends = np.append(phases, phases[0] + 2 * np.pi)
    total = 0.0
    for left, right in pairwise(ends):
        for start, stop, phase in (
            (left, (left + right) / 2, left),
            ((left + right) / 2, right, right),
        ):
            value, _ = quad(
                lambda t, phase=phase: (1 - np.cos(t - phase)) ** 2, start, stop, epsabs=1e-14
            )
            total += value
    return total / (2 * np.pi)


@settings(max_examples=60)
@given(angles, angles, st.integers(1, 3), st.integers(1, 4))
def test_gamma_is_the_integral_it_stands_for(y: float, x: float, q: int, stride: int) -> None:
    squared = float(gamma((y, x), stride, q) ** 2)
    assert squared == pytest.approx(gamma_by_integration(stride * np.array([y, x]), q), abs=1e-10)


@given(angles, angles, st.integers(1, 3), st.integers(-2, 2), st.integers(-2, 2))
def test_gamma_is_periodic_and_symmetric(y: float, x: float, q: int, k: int, n: int) -> None:
    value = gamma((y, x), 1, q)
    for other in [(y + 2 * np.pi * k, x + 2 * np.pi * n), (-y, x), (y, -x), (x, y), (-x, -y)]:
        # The square root turns a rounding of 1e-16 into 1e-8 where gamma is 0.
        assert gamma(other, 1, q) ** 2 == pytest.approx(value**2, abs=1e-12)
    assert gamma((2 * np.pi * k, 2 * np.pi * n), 1, q) ** 2 == pytest.approx(1.5, abs=1e-9)
    assert gamma((y / 2, x / 2), 2, q) == pytest.approx(value, abs=1e-6)


def test_bounds_are_vectorised() -> None:
    theta = np.random.default_rng(0).uniform(-3, 3, (4, 5, 2))
    table = gamma(theta, 2)
    assert table.shape == (4, 5)
    assert table[2, 3] == gamma(theta[2, 3], 2)
    np.testing.assert_allclose(alpha([0.1, 0.2], [(1, 0), (-1, 2)]), [0.05, 0.3])
    np.testing.assert_allclose(beta([0.1, 0.2], stride=4, q=2), [0.8, 1.6])


@pytest.mark.parametrize("depth", [2, 3])
def test_bounds_hold_on_average(depth: int) -> None:
    """With the bandwidth of the outputs, which both tables report."""
    bank = dtwpt.PacketBank(depth)
    m = 2 ** (depth - 1)
    inner = ~bank.atoms()["boundary"]
    gabor = inner & ~bank.atoms()["lowpass"]
    rng = np.random.default_rng(0)
    collections = {
        "photographs": list(crops(200, 24)),
        "noise": list(rng.normal(size=(4, 200, 200))),
        "pink noise": [_pink(rng, 200) for _ in range(6)],
        "squares": [np.kron(rng.normal(size=(29, 29)), np.ones((7, 7))) for _ in range(4)],
    }
    for images in collections.values():
        for shift in ((0, 1), (1, 1), (2, 0), (0.5, -0.5)):
            table = measure(images, bank, shift)
            bound = alpha(table["bandwidth"], shift)
            assert np.all(np.sqrt(table["cmod_shift"][inner]) <= bound[inner])
            theta = np.stack([table["theta_y"], table["theta_x"]], axis=-1)
            allowed = (gamma(theta, m) + beta(table["bandwidth"], m)) ** 2
            assert np.all(table["rmax_cmod"][gabor] <= allowed[gabor])
            # The paper's bound on RMax itself, by the triangle inequality.
            norm = np.sqrt(table["rmax_shift"][gabor])
            assert np.all(norm <= (2 * np.sqrt(allowed) + bound)[gabor])


def _pink(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    radius = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    radius[0, 0] = np.inf
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) / radius).real


# Prediction and measurement ---------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3])
def test_prediction_matches_measurement_on_white_noise(depth: int) -> None:
    bank = dtwpt.PacketBank(depth)
    rng = np.random.default_rng(0)
    noise = (rng.normal(size=(513, 512)) for _ in range(16))
    shifts = [(0, 1), (2, -1)]
    measured, predicted = measure(noise, bank, shifts), predict(bank, shifts)
    for row, expected in zip(measured, predicted, strict=True):
        for name in ERRORS:
            assert np.mean(np.abs(row[name] / expected[name] - 1)) < 0.03, name
            assert np.corrcoef(row[name], expected[name])[0, 1] > 0.995, name
            # The standard errors are neither too small nor too large.
            spread = np.hypot(row[name + "_stderr"], expected[name + "_stderr"])
            pull = (row[name] - expected[name]) / spread
            assert 0.3 < np.sqrt(np.mean(pull**2)) < 2.5, name


def test_prediction_follows_photographs() -> None:
    bank = dtwpt.PacketBank(3)
    atoms = bank.atoms()
    gabor = ~(atoms["boundary"] | atoms["lowpass"])
    photographs = list(crops(257, 68))
    measured = measure(photographs, bank)
    predicted = predict(bank, spectrum=photographs)
    for name in ("cmod_shift", "rmax_shift"):
        assert np.corrcoef(measured[name], predicted[name])[0, 1] > 0.95, name
    name = "rmax_cmod"
    assert np.corrcoef(measured[name][gabor], predicted[name][gabor])[0, 1] > 0.95
    theta = np.stack([atoms["theta_y"], atoms["theta_x"]], axis=-1)
    assert np.corrcoef(measured[name][gabor], gamma(theta, 4)[gabor] ** 2)[0, 1] > 0.88


def test_prediction_matches_measurement_for_kernels() -> None:
    """Gabor kernels and a random layer of three channels, at stride 2 and 3, shifts of any size."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-6:7, -6:7]
    envelope = np.exp(-(y**2 + x**2) / 16)
    gabors = np.stack([envelope * np.cos(0.4 * y + 1.2 * x), envelope * np.sin(0.9 * y - 0.7 * x)])
    for kernels, stride, q in ((gabors, 2, 1), (rng.normal(size=(3, 3, 5, 5)), 3, 2)):
        shifts = [(0, 1), (0.5, 0.25)]
        noise = (rng.normal(size=(300, 300)) for _ in range(12))
        measured = measure(noise, kernels, shifts, q, stride=stride)
        predicted = predict(kernels, shifts, q, stride=stride)
        for name in ERRORS:
            np.testing.assert_allclose(measured[name], predicted[name], rtol=0.06, atol=2e-4)


@pytest.mark.parametrize("r", [0, 0.3, 0.9 * np.exp(2j), 0.999, 1])
def test_closed_form_is_the_expectation(r: complex) -> None:
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(2, 2, 400_000))
    z, w = z[0] + 1j * z[1], w[0] + 1j * w[1]
    other = r * z + np.sqrt(max(1 - abs(r) ** 2, 0)) * w
    changes = (np.abs(z) - np.abs(other)) ** 2 / np.mean(np.abs(z) ** 2)
    stderr = changes.std() / np.sqrt(changes.size)
    assert cmod_shift_closed_form(r) == pytest.approx(changes.mean(), abs=4 * stderr + 1e-15)


def test_closed_form_agrees_with_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    from dtwpt.invariance import gaussian

    bank = dtwpt.PacketBank(3)
    closed = predict(bank, (0, 1))
    exact = closed["cmod_shift_stderr"] == 0
    assert exact.sum() > 60
    monkeypatch.setattr(gaussian, "_CIRCULAR", -1.0)
    sampled = predict(bank, (0, 1))
    assert np.all(sampled["cmod_shift_stderr"] > 0)
    away = (sampled["cmod_shift"] - closed["cmod_shift"])[exact]
    assert np.all(np.abs(away) < 5 * sampled["cmod_shift_stderr"][exact] + 1e-4)
    assert np.sqrt(np.mean((away / sampled["cmod_shift_stderr"][exact]) ** 2)) < 2


def test_no_shift_no_error_and_errors_grow() -> None:
    bank = dtwpt.PacketBank(2)
    lengths = np.linspace(0, 3, 7)
    predicted = predict(bank, np.stack([0 * lengths, lengths], axis=1), spectrum="pink")
    assert predicted.shape == (7, 32)
    for name in ("cmod_shift", "rmax_shift"):
        assert np.abs(predicted[name][0]).max() < 1e-6
    gabor = ~(bank.atoms()["boundary"] | bank.atoms()["lowpass"])
    assert np.all(np.diff(predicted["cmod_shift"][:, gabor].mean(1)) > 0)
    # RMax samples every other pixel: moved by two, it sees most of what it saw before.
    assert predicted["rmax_shift"][4].mean() < predicted["rmax_shift"][2].mean()
    np.testing.assert_allclose(predicted["rmax_cmod"][0], predicted["rmax_cmod"][6], atol=0.01)


def test_measurement_takes_images_in_any_form(tmp_path: Any) -> None:
    bank = dtwpt.PacketBank(2)
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (3, 90, 101, 3), dtype=np.uint8)
    grey = (colour / 255.0) @ [0.299, 0.587, 0.114]
    expected = measure(list(grey), bank)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(
            torch.from_numpy(np.moveaxis(colour, 3, 1) / 255.0), torch.zeros(3)
        ),
        batch_size=2,
    )
    for number, image in enumerate(colour):
        np.save(tmp_path / f"{number}.npy", image)
    for images in (grey, iter(colour), np.moveaxis(colour, 3, 1), loader, tmp_path):
        table = measure(images, bank)
        for name in ERRORS:
            np.testing.assert_allclose(table[name], expected[name], rtol=1e-3)
    kernels = rng.normal(size=(4, 3, 5, 5))
    tensors = torch.from_numpy(grey)
    np.testing.assert_allclose(
        measure(tensors, kernels)["rmax_shift"], measure(grey, kernels)["rmax_shift"], rtol=1e-10
    )


def test_blank_images_do_not_count() -> None:
    bank = dtwpt.PacketBank(2)
    noise = np.random.default_rng(0).normal(size=(3, 90, 90))
    zero = np.zeros((1, 90, 90))
    table, without = measure(np.concatenate([zero, noise]), bank), measure(noise, bank)
    for name in ("bandwidth", *ERRORS):
        np.testing.assert_allclose(table[name], without[name])
    with pytest.raises(ValueError, match="none that answers filter 0"):
        measure(zero, bank)


# Kernels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [0.1, 0.15, 0.2, 0.25, 0.3])
@pytest.mark.parametrize("part", ["complex", "real", "imag"])
def test_gabor_kernels_are_recovered(frequency: float, part: str) -> None:
    degrees = np.arange(0, 180, 15)
    for angle in degrees:
        kernel = gabor_kernel(frequency, theta=np.radians(angle))  # type: ignore[no-untyped-call]
        row = characterize(kernel if part == "complex" else getattr(kernel, part))[0]
        assert row["frequency"] == pytest.approx(2 * np.pi * frequency, rel=0.03)
        assert abs((row["orientation"] - angle + 90) % 180 - 90) < 2
        assert row["gabor_likeness"] > 0.9
        assert row["dc_share"] < 0.02
        assert row["theta_y"] > -1e-6 or part == "complex"


def test_packets_are_gabor_like_and_random_kernels_are_not() -> None:
    bank = dtwpt.PacketBank(2)
    atoms, table = bank.atoms(), characterize(bank)
    gabor = ~(atoms["boundary"] | atoms["lowpass"])
    assert table["gabor_likeness"][gabor].min() > 0.95
    for name in ("theta_y", "theta_x"):
        np.testing.assert_allclose(table[name][gabor], atoms[name][gabor], atol=0.1)
    np.testing.assert_allclose(table["bandwidth"][gabor], atoms["bandwidth"][gabor], atol=0.15)
    random = np.random.default_rng(0).normal(size=(50, 3, 7, 7))
    assert np.median(characterize(random)["gabor_likeness"]) < 0.35
    layer = torch.nn.Conv2d(3, 8, 7)
    table = characterize(layer.weight)
    np.testing.assert_array_equal(table, characterize(layer.weight.detach().numpy()))
    blue = characterize(layer.weight, colour=(0, 0, 1))
    np.testing.assert_array_equal(blue, characterize(layer.weight[:, 2]))
    box = characterize(np.ones((5, 5)))
    assert box["dc_share"] == pytest.approx(1)
    assert box["frequency"] < 0.5


def test_analytic_kernels_extend_real_ones() -> None:
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(6, 5, 8))
    extended = analytic_kernels(kernels)
    embedded = np.zeros(extended.shape)
    embedded[:, 7:12, 12:20] = kernels
    np.testing.assert_allclose(extended.real, embedded, atol=1e-12)
    spectra = np.abs(np.fft.fft2(extended)) ** 2
    opposite = spectra[:, -np.arange(20)][:, :, -np.arange(32)]
    # At each frequency one of the pair is zero, except on the line between the half-planes.
    smaller = np.minimum(spectra, opposite).sum((1, 2)) / spectra.sum((1, 2))
    assert smaller.max() < 0.1


# Errors -----------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    bank = dtwpt.PacketBank(2)
    noise = np.random.default_rng(0).normal(size=(2, 90, 90))
    with pytest.raises(ValueError, match=r"theta must have shape \(\.\.\., 2\), got \(3,\)"):
        gamma([1, 2, 3], 2)
    with pytest.raises(ValueError, match="stride must be an integer of at least 1, got 0"):
        gamma([1, 2], 0)
    with pytest.raises(TypeError, match="q must be an integer"):
        beta(1, 2, q=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bandwidth must be finite and not negative"):
        alpha(-1, (0, 1))
    with pytest.raises(ValueError, match=r"shift must have shape \(2,\) or \(n, 2\), got \(3,\)"):
        predict(bank, (1, 2, 3))
    with pytest.raises(ValueError, match="unknown spectrum 'brown'; known spectra: white, pink"):
        predict(bank, spectrum="brown")
    with pytest.raises(ValueError, match="spectrum must be finite, not negative"):
        predict(bank, spectrum=-np.ones((64, 64)))
    with pytest.raises(TypeError, match="spectrum must be 'white', 'pink', an array"):
        predict(bank, spectrum=3)
    with pytest.raises(ValueError, match="stride and colour are for kernels"):
        predict(bank, stride=3)
    with pytest.raises(ValueError, match=r"kernels of zero norm have no frequency: \[1\]"):
        characterize(np.stack([np.eye(5), np.zeros((5, 5))]))
    with pytest.raises(ValueError, match="kernels must have shape"):
        characterize(np.ones(5))
    with pytest.raises(TypeError, match="kernels must be real or complex numbers"):
        characterize(np.full((2, 5, 5), "x"))
    with pytest.raises(ValueError, match="kernels must be finite"):
        characterize(np.full((2, 5, 5), np.nan))
    with pytest.raises(ValueError, match="colour must be 3 finite weights"):
        characterize(np.ones((2, 3, 5, 5)), colour=(1, 2))
    with pytest.raises(ValueError, match="image 0 is too small: its crop of 40 x 39 pixels must"):
        measure(noise[:, :40, :40], bank)
    with pytest.raises(ValueError, match="image 1 of 90 x 90 pixels leaves nothing between"):
        measure([np.ones((300, 300)), noise[0]], bank, (0, 91))
    with pytest.raises(ValueError, match="image 1 holds NaN or infinity"):
        measure([noise[0], np.full((90, 90), np.nan)], bank)
    with pytest.raises(ValueError, match="images must not be empty"):
        measure([], bank)
    with pytest.raises(ValueError, match="images must have shape"):
        measure([np.ones((2, 5, 90, 90))], bank)
    with pytest.raises(TypeError, match="images must be iterable or a folder, got int"):
        measure(3, bank)
    with pytest.raises(ValueError, match="images must have one size"):
        estimate_spectrum([noise[0], noise[1, :50]])
    with pytest.raises(ValueError, match="not constant"):
        estimate_spectrum([np.ones((9, 9))])
