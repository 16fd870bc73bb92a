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
from dtwpt.features import packet_feature_names
from dtwpt.invariance import (
    Layer,
    Moments,
    alpha,
    analytic_kernels,
    as_layer,
    beta,
    characterize,
    cmod_shift_closed_form,
    estimate_moments,
    estimate_spectrum,
    gamma,
    measure,
    predict,
    rmax_cmod_bound,
)
from dtwpt.invariance.filters import ERRORS, as_filters
from dtwpt.invariance.output import output_bandwidths
from dtwpt.nn import MaxBlurPool2d
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
            norm = np.sqrt(table["rmax_shift_by_cmod"][gabor])
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
    noise = (rng.normal(size=(513, 512)).astype(np.float32) for _ in range(12))
    shifts = [(0, 1), (2, -1)]
    measured, predicted = measure(noise, bank, shifts), predict(bank, shifts)
    for row, expected in zip(measured, predicted, strict=True):
        for name in (*ERRORS, "rmax_shift_by_cmod"):
            assert np.mean(np.abs(row[name] / expected[name] - 1)) < 0.03, name
            assert np.corrcoef(row[name], expected[name])[0, 1] > 0.995, name
            # The standard errors are neither too small nor too large.
            spread = np.hypot(row[name + "_stderr"], expected[name + "_stderr"])
            pull = (row[name] - expected[name]) / spread
            assert 0.3 < np.sqrt(np.mean(pull**2)) < 2.5, name
        for name in ("rmax_cmod_bound", "cmod_shift_bound", "pseudo_covariance"):
            np.testing.assert_allclose(row[name], expected[name], rtol=0.05, atol=0.05)
        edge = bank.atoms()["boundary"]
        assert expected["pseudo_covariance"][edge].max() > 0.3
        assert expected["pseudo_covariance"][bank.atoms()["gabor"]].max() < 0.01


@pytest.fixture(scope="module")
def on_photographs() -> tuple[np.ndarray, np.ndarray]:
    """Depth 3 measured on photographs, and predicted from their spectra."""
    bank = dtwpt.PacketBank(3)
    photographs = [image.astype(np.float32) for image in crops(257, 34)]
    return measure(photographs, bank), predict(bank, spectrum=photographs)


def test_prediction_follows_photographs(on_photographs: tuple[np.ndarray, np.ndarray]) -> None:
    measured, predicted = on_photographs
    atoms = dtwpt.PacketBank(3).atoms()
    gabor = atoms["gabor"]
    for name in ("cmod_shift", "rmax_shift"):
        assert np.corrcoef(measured[name], predicted[name])[0, 1] > 0.95, name
    name = "rmax_cmod"
    assert np.corrcoef(measured[name][gabor], predicted[name][gabor])[0, 1] > 0.95
    theta = np.stack([atoms["theta_y"], atoms["theta_x"]], axis=-1)
    assert np.corrcoef(measured[name][gabor], gamma(theta, 4)[gabor] ** 2)[0, 1] > 0.88


def test_measurement_is_that_of_the_operators() -> None:
    """Where they lie within the image: the columns by the library's own cmod2 and rmax2."""
    bank, x = dtwpt.PacketBank(2), np.random.default_rng(0).normal(size=(96, 97))
    table = measure([x], bank)
    inner = (..., slice(5, 18), slice(5, 18))
    before, after = (
        {
            "cmod": dtwpt.cmod2(part, 2)[inner].reshape(32, -1),
            "rmax": dtwpt.rmax2(part, 2)[inner].reshape(32, -1),
        }
        for part in (x[:, 1:], x[:, :-1])
    )
    expected = {
        "rmax_cmod": before["rmax"] - before["cmod"],
        "cmod_shift": after["cmod"] - before["cmod"],
        "rmax_shift_by_cmod": after["rmax"] - before["rmax"],
    }
    for name, difference in expected.items():
        ratio = np.sum(difference**2, 1) / np.sum(before["cmod"] ** 2, 1)
        # The places are those of the inner two thirds.
        assert np.corrcoef(ratio, table[name])[0, 1] > 0.97, name
        assert ratio.mean() == pytest.approx(table[name].mean(), rel=0.05)


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


# Layers -----------------------------------------------------------------------------------------


def coloured(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Gaussian field (3, n, n) of correlated channels with slopes and means of their own."""
    mix = np.array([[1.0, 0.3, 0.0], [0.6, 0.8, 0.2], [0.2, 0.5, 0.7]])
    slope = np.exp(-np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)) * 3)
    grey = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, n, n))) * slope).real
    out: NDArray[np.float64] = np.einsum("cd,dyx->cyx", mix, grey)
    out += np.array([0.3, -0.2, 0.1])[:, None, None]
    return out


def bank_of_gabors() -> NDArray[np.float64]:
    """Twelve kernels (12, 3, 9, 9) with colours."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-4:5, -4:5]
    kernels = []
    for _ in range(12):
        frequency, angle, phase = rng.uniform(0.7, 2), rng.uniform(0, np.pi), rng.uniform(0, 6)
        wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        kernels.append(rng.normal(size=3)[:, None, None] * wave * np.exp(-(x**2 + y**2) / 8))
    return np.array(kernels)


LAYERS = {
    "affine, ReLU, max": {"relu": True, "window": 3},
    "affine, ReLU, even max": {"relu": True, "window": 2},
    "ReLU, mean": {"relu": True, "window": 1, "blur": [0.5, 0.5]},
    "affine, ReLU, blurred max": {"relu": True, "window": 2, "blur": 3},
    "real stride": {"stride": 2**0.5, "window": 3},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
def test_layers_are_predicted_on_colours(options: dict[str, Any]) -> None:
    """Affine, ReLU, any pooling, on Gaussian fields with channels: within 5 %, r above .99."""
    rng = np.random.default_rng(2)
    fields = [coloured(rng, 200) for _ in range(8)]
    kernels = bank_of_gabors()
    bias = None
    if "stride" not in options:  # such that no output is always off
        places = [np.einsum("ochw,chw->o", kernels, f[:, k : k + 9, :9])
                  for f in fields for k in range(0, 190, 10)]  # fmt: skip
        bias = rng.uniform(-0.5, 0.5, 12) * np.std(places, axis=0) - np.mean(places, axis=0)
    layer = Layer(kernels, bias, **options)
    measured = measure(fields, layer, (1, 0.5))
    predicted = predict(layer, (1, 0.5), spectrum=fields)
    for name in (*ERRORS, "rmax_shift_by_cmod"):
        assert np.mean(np.abs(measured[name] / predicted[name] - 1)) < 0.05, name
        assert np.corrcoef(measured[name], predicted[name])[0, 1] > 0.99, name
    for table in (measured, predicted):
        assert np.all(table["cmod_shift"] <= table["cmod_shift_bound"] * 1.0001)
        if len(layer.blur) == 1:
            assert np.all(table["rmax_cmod"] <= table["rmax_cmod_bound"])


def test_a_network_is_what_its_layer_says() -> None:
    """Measured on a stem of torch: what the modules themselves give, and as predicted."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 6, 7, stride=2, padding=3)
    norm = torch.nn.BatchNorm2d(6)
    norm.running_mean, norm.running_var = torch.randn(6) / 9, torch.rand(6) + 0.1
    norm.weight.data, norm.bias.data = torch.randn(6) / 2, torch.rand(6) + 0.5
    stem = torch.nn.Sequential(conv, norm, torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1)).eval()
    layer = as_layer(stem)
    assert (layer.stride, layer.window, layer.pool_stride, layer.relu) == (2, 3, 2, True)
    rng = np.random.default_rng(0)
    images = [coloured(rng, 161) / 3 for _ in range(4)]
    table = measure(images, stem)
    ratios = []
    for image in images:
        x = torch.from_numpy(image).float()[None]
        with torch.no_grad():
            before, after = stem(x[..., 1:]), stem(x[..., :-1])
        inner = (..., slice(8, -8), slice(8, -8))
        change = ((after - before)[inner] ** 2).sum((0, 2, 3))
        ratios.append((change / (before[inner] ** 2).sum((0, 2, 3))).numpy())
    np.testing.assert_allclose(table["rmax_shift"], np.mean(ratios, 0), rtol=0.15)
    predicted = predict(stem, spectrum=images)
    assert np.corrcoef(table["rmax_shift"], predicted["rmax_shift"])[0, 1] > 0.98
    for pool, expected in (
        (torch.nn.AvgPool2d(2), (1, (0.5, 0.5), 2)),
        (MaxBlurPool2d(2, 2, blur=3), (2, (0.25, 0.5, 0.25), 2)),
    ):
        found = as_layer(torch.nn.Sequential(conv, torch.nn.ReLU(), pool))
        assert (found.window, found.blur, found.pool_stride) == expected
    with pytest.raises(ValueError, match=r"must be nn.ReLU, got GELU"):
        as_layer(torch.nn.Sequential(conv, torch.nn.GELU(), torch.nn.MaxPool2d(2)))


def test_packets_at_any_stride() -> None:
    bank = dtwpt.PacketBank(2)
    gabor = bank.atoms()["gabor"]
    noise = list(np.random.default_rng(0).normal(size=(4, 180, 180)))
    for stride in (3, 1.5):
        measured, predicted = (
            table[gabor] for table in (measure(noise, bank, stride=stride),
                                       predict(bank, stride=stride))
        )  # fmt: skip
        for name in ERRORS:
            assert np.mean(np.abs(measured[name] / predicted[name] - 1)) < 0.05, name
    # The kernels' way of measuring agrees with the transform's.
    atoms = np.stack([bank.atom(*row) for row in bank.atoms()[gabor][["sign", "row", "col"]]])
    one, other = measure(noise, bank)[gabor], measure(noise, atoms, stride=2)
    for name in (*ERRORS, "rmax_cmod_bound"):
        assert np.mean(np.abs(one[name] / other[name] - 1)) < 0.04, name


# Envelope ---------------------------------------------------------------------------------------


def test_bound_is_the_expectation_it_stands_for() -> None:
    """Both terms by simulation; and a wave leaves gamma alone."""
    rng = np.random.default_rng(0)
    r = 0.8 * np.exp(1j * np.array([0.0, 1.0, -2.0]))
    z, w = (
        (rng.normal(size=(n, 400_000)) + 1j * rng.normal(size=(n, 400_000))) / np.sqrt(2)
        for n in (1, 3)
    )
    reals = (r[:, None] * z + np.sqrt(1 - np.abs(r[:, None]) ** 2) * w).real
    excess = np.mean(np.clip(reals - np.abs(z), 0, None) ** 2, 1).sum()
    bound = float(rmax_cmod_bound(r))
    # Any rule for p* that looks at Z alone gives more, and so does the truth less.
    best = np.argmax((r[:, None] * z).real, axis=0)
    taken = np.take_along_axis(reals, best[None], 0)
    shortfall = np.mean(np.clip(np.abs(z) - taken, 0, None) ** 2)
    assert bound <= (excess + shortfall) * 1.005
    assert bound > 0.97 * (excess + shortfall)
    truth = np.mean((reals.max(0) - np.abs(z)) ** 2)
    assert truth < bound
    p = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    for omega in rng.uniform(-3, 3, (20, 2)):
        wave = rmax_cmod_bound(np.exp(1j * p @ omega))
        assert wave == pytest.approx(gamma(omega, 1) ** 2, rel=0.1, abs=1e-3)


def test_envelope_bound_holds_and_is_tight(on_photographs: tuple[np.ndarray, np.ndarray]) -> None:
    """120 kernels at their strides on white and pink noise; photographs; 1.5 times at most."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-6:7, -6:7]
    ratios = []
    for stride in (1, 2, 3, 4):
        frequency, angle = rng.uniform(0.4, 2.4, 30), rng.uniform(0, np.pi, 30)
        width, phase = rng.uniform(1.2, 3.5, 30), rng.uniform(0, 6, 30)
        kernels = np.stack(
            [
                np.cos(f * (np.cos(a) * x + np.sin(a) * y) + p) * np.exp(-(x**2 + y**2) / 2 / w**2)
                for f, a, w, p in zip(frequency, angle, width, phase, strict=True)
            ]
        )
        for spectrum in ("white", "pink"):
            table = predict(kernels, stride=stride, spectrum=spectrum)
            assert np.all(table["rmax_cmod"] <= table["rmax_cmod_bound"])
            ratios.append(np.sqrt(table["rmax_cmod_bound"] / table["rmax_cmod"]))
            assert np.all(table["rmax_cmod_bound_stderr"] < 0.02 * table["rmax_cmod_bound"])
        photographs = list(crops(120, 3))
        measured = measure(photographs, kernels, stride=stride)
        assert np.all(measured["rmax_cmod"] <= measured["rmax_cmod_bound"])
    measured, predicted = on_photographs
    gabor = predicted["gabor"]
    # That of the image and that of its spectrum.
    assert np.all(measured["rmax_cmod"] <= measured["rmax_cmod_bound"])
    assert np.all(measured["rmax_cmod"] <= predicted["rmax_cmod_bound"])
    for table in (measured, predicted):
        ratios.append(np.sqrt(table["rmax_cmod_bound"] / table["rmax_cmod"])[gabor])
    assert max(ratio.mean() for ratio in ratios[-2:]) < 1.5
    assert np.concatenate(ratios).mean() < 1.5


def test_alpha_needs_its_hypotheses() -> None:
    """Two waves that are alike on CMod's grid: alpha holds over all places, and not on the grid."""
    n, bank = 64, dtwpt.PacketBank(2)
    y, x = np.mgrid[:n, :n]
    index = int(np.flatnonzero((bank.atoms()["row"] == 1) & (bank.atoms()["col"] == 1))[0])
    atom = bank.atom(1, 1, 1)
    response = np.fft.fft2(atom, (n, n)).conj()
    # One stride apart in frequency, with amplitudes that cancel in the middle of every cell.
    fx = np.array([4, 4 + n // 4])
    gains = response[8, fx]
    waves = np.exp(2j * np.pi * (8 * y + fx[:, None, None] * x) / n)
    offset = 1  # a row of CMod's grid
    amplitudes = np.array([1, -0.98]) / gains * np.exp(-2j * np.pi * fx * offset / n)
    image = np.tensordot(amplitudes, waves, 1).real
    z = np.fft.ifft2(np.fft.fft2(image) * response)
    moved = np.roll(z, 1, axis=1)
    power = np.abs(np.fft.fft2(image))[None] ** 2
    kappa = output_bandwidths(as_filters(bank), power)[0, index]
    change, energy = (np.abs(moved) - np.abs(z)) ** 2, np.abs(z) ** 2
    everywhere = np.sqrt(change.sum() / energy.sum()) / alpha(kappa, (0, 1))
    grid = (slice(None), slice(offset, None, 4))
    on_grid = np.sqrt(change[grid].sum() / energy[grid].sum()) / alpha(kappa, (0, 1))
    assert everywhere <= 1
    assert on_grid > 5
    # The bound per image holds on the grid, too.
    a, b = z[grid], moved[grid]
    together = np.abs(np.sum(b * a.conj()))
    coherent = np.sum(np.abs(a) ** 2) + np.sum(np.abs(b) ** 2) - 2 * together
    assert change[grid].sum() <= coherent


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
    from dtwpt.invariance import closed_form

    bank = dtwpt.PacketBank(3)
    closed = predict(bank, (0, 1))
    exact = closed["cmod_shift_stderr"] == 0
    assert exact.sum() > 60
    monkeypatch.setattr(closed_form, "_CIRCULAR", -1.0)
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


# Moments ----------------------------------------------------------------------------------------


def test_moments_tell_the_log_amplitudes_of_a_mixture() -> None:
    """Outputs exp(g) G of known covariances: fourth moments by simulation give them back."""
    rng = np.random.default_rng(0)
    variance, covariance, carrier = 0.2, 0.12, 0.6
    a, b = rng.normal(size=(2, 2_000_000))
    g = np.sqrt(variance) * a
    other = covariance / variance * g + np.sqrt(variance - covariance**2 / variance) * b
    x, y = (rng.normal(size=(2, 2, 2_000_000)) / np.sqrt(2)).transpose(0, 2, 1) @ np.array([1, 1j])
    z, w = np.exp(g) * x, np.exp(other) * (carrier * x + np.sqrt(1 - carrier**2) * y)
    energy = np.mean(np.abs(z) ** 2)
    r = abs(np.mean(z * w.conj())) / energy
    assert r == pytest.approx(np.exp(covariance - variance) * carrier, rel=0.02)
    lags = np.full((1, 3, 3), np.mean(np.abs(z) ** 2 * np.abs(w) ** 2) / energy**2)
    lags[0, 1, 1] = np.mean(np.abs(z) ** 4) / energy**2
    found, factor = Moments(lags, 1).log_amplitudes(0, [0, 1], [0, 0], np.array([1, r**2]))
    np.testing.assert_allclose(found, [variance, covariance], rtol=0.1)
    np.testing.assert_allclose(factor, [1, carrier / r], rtol=0.05)


def test_moments_correct_photographs_they_were_not_taken_from() -> None:
    bank = dtwpt.PacketBank(2)
    gabor = bank.atoms()["gabor"]
    photographs = list(crops(257, 16))  # the first eight are of other photographs than the last
    moments = estimate_moments(photographs[:7], bank)
    judged = photographs[9:]
    measured, plain = measure(judged, bank), predict(bank, spectrum=judged)
    corrected = predict(bank, spectrum=judged, moments=moments)
    for name in ("rmax_cmod", "rmax_shift", "rmax_shift_by_cmod"):
        before, after = (
            measured[name][gabor].mean() / table[name][gabor].mean() for table in (plain, corrected)
        )
        assert before > 1.15
        assert abs(after - 1) < 0.1, name
        assert np.all(corrected[name + "_stderr"] > 0)
    np.testing.assert_array_equal(corrected["cmod_shift"], plain["cmod_shift"])
    with pytest.raises(ValueError, match="moments are of 32 filters, not of 128"):
        predict(dtwpt.PacketBank(3), moments=moments)


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
    for depth, step in ((2, 1), (3, 3), (4, 19)):
        bank = dtwpt.PacketBank(depth, "qshift_a")
        some = bank.atoms()[::step]
        kernels = np.stack([bank.atom(*row) for row in some[["sign", "row", "col"]]])
        found = characterize(kernels, 2 ** (depth - 1))["gabor"]
        np.testing.assert_array_equal(found, some["gabor"])
        assert 0 < found.sum() < found.size
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
    low = layer.weight.to(torch.bfloat16)
    np.testing.assert_array_equal(characterize(low), characterize(low.float()))
    opposed = layer.weight.detach().numpy().copy()
    opposed[3, 2] = -opposed[3, 0] - opposed[3, 1]
    with pytest.raises(ValueError, match=r"zero norm have no frequency: \[3\]"):
        characterize(opposed)
    full = characterize(opposed, colour="full")
    assert full["gabor_likeness"][3] > 0.1


def test_weak_kernels_and_small_images() -> None:
    wave = np.cos(1.2 * np.arange(9)) * np.hanning(9) * np.hanning(9)[:, None]
    image = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    table = measure([image], np.stack([wave, 1e-8 * wave]))
    assert table["rmax_shift"][1] == pytest.approx(table["rmax_shift"][0], rel=1e-2)
    # A shift by the image's side does not bring the image back.
    far = predict(wave, [(0, 48), (0, 96)], spectrum=[image])
    assert np.all(far["cmod_shift"] > 0.35)
    rgb = np.random.default_rng(0).random((96, 96, 3))
    grey = rgb @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(
        predict(wave, spectrum=rgb)["cmod_shift"], predict(wave, spectrum=[grey])["cmod_shift"]
    )
    tensor = torch.from_numpy(grey).requires_grad_()
    np.testing.assert_allclose(measure([tensor], wave)["cmod_shift"],
                               measure([grey], wave)["cmod_shift"])  # fmt: skip
    measure([tensor.to(torch.bfloat16)], torch.from_numpy(wave).to(torch.bfloat16))


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


# Taps and names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qshift_a", "qshift_d"])
def test_rounded_taps_are_made_orthonormal(name: str) -> None:
    published = dtwpt.Wavelet(name)
    own = dtwpt.Wavelet.from_taps(published.low[0].round(9))
    assert np.abs(own.low - published.low).max() < 1e-9
    assert dtwpt.Wavelet.from_taps(own.low, own.high) == own
    x = np.random.default_rng(0).normal(size=(20, 33))
    back = dtwpt.idtcwpt2(dtwpt.dtcwpt2(x, 2, own), x.shape, wavelet=own)
    np.testing.assert_allclose(back, x, atol=1e-12)


def test_names_are_of_the_images_alone() -> None:
    with pytest.raises(ValueError, match=r"size must be \(height, width\) of the images alone"):
        packet_feature_names((3, 32, 32), pool="none")


# Errors -----------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:  # noqa: PLR0915
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
    with pytest.raises(ValueError, match="colour is for kernels"):
        predict(bank, colour=(1, 0, 0))
    with pytest.raises(ValueError, match=r"stride must be a number of at least 1, got 0\.5"):
        predict(bank, stride=0.5)
    with pytest.raises(ValueError, match="q and stride are parts of a Layer"):
        predict(Layer(np.eye(5)), q=2)
    with pytest.raises(ValueError, match="blur must have the sum 1, got 2"):
        Layer(np.eye(5), blur=[1, 1])
    with pytest.raises(ValueError, match="bias must be 1 finite numbers"):
        predict(Layer(np.eye(5), bias=[1, 2]))
    with pytest.raises(ValueError, match="grid of 16 x 16 repeats itself within displacements of"):
        predict(bank, (0, 9), spectrum=np.ones((16, 16)))
    with pytest.raises(ValueError, match="correlation must be finite and at most 1"):
        rmax_cmod_bound([2])
    masked = np.ma.masked_greater(noise[0], 1)
    for refuse in (
        lambda: characterize(masked),
        lambda: estimate_spectrum([masked]),
        lambda: predict(bank, spectrum=masked),
        lambda: measure([masked], bank),
    ):
        with pytest.raises(TypeError, match="must not be masked"):
            refuse()
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
