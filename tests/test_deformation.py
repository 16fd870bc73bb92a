"""What rotation, scaling, shear and smooth deformations change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dtwpt
from dtwpt.invariance import (
    Layer,
    analytic_kernels,
    deformation_constants,
    local_maps,
    measure_deformation,
    predict,
    predict_deformation,
    rotation,
    scaling,
    shear,
    warp,
)
from tests.photographs import crops
from tests.test_invariance import bank_of_gabors, coloured

MIXED = np.array([[1.03, 0.05, 0.6], [-0.02, 0.96, -0.5]])


def gabors(count: int, side: int) -> NDArray[np.complex128]:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    theta = rng.uniform(0.5, 2, (count, 2)) * [1, -1]
    waves = np.exp(1j * (theta[:, :1, None] * y + theta[:, 1:, None] * x))
    return np.asarray(waves * np.exp(-(y**2 + x**2) / side))


def series(image: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The image's Fourier series at any places, shape (..., 2)."""
    height, width = image.shape
    spectrum = np.fft.fft2(image) / image.size
    down = np.exp(2j * np.pi * places[..., :1] * np.fft.fftfreq(height))
    across = np.exp(2j * np.pi * places[..., 1:] * np.fft.fftfreq(width))
    return np.asarray(np.einsum("...y,yx,...x->...", down, spectrum, across).real)


@pytest.mark.parametrize("side", [5, 6])
def test_measurement_is_that_of_images_deformed_about_each_place(side: int) -> None:
    """Every place's own deformed image, from the definition."""
    rng = np.random.default_rng(0)
    size, stride = 51, 2
    image = np.zeros((size, size))
    image[16:-16, 16:-16] = rng.normal(size=(size - 32,) * 2)
    image[16:-16, 16:-16] -= image[16:-16, 16:-16].mean()
    kernels = gabors(2, side)
    table = measure_deformation([image], kernels, [rotation(20), MIXED], stride=stride)
    taps = np.stack(np.meshgrid(*2 * [np.arange(side) - (side - 1) / 2], indexing="ij"), -1)
    window = stride * np.stack(np.meshgrid(*2 * [[-1, 0, 1]], indexing="ij"), -1).reshape(-1, 2)
    offset = (side - 1) / 2 % 1
    for row, affine in zip(table, (np.column_stack([rotation(20), [0, 0]]), MIXED), strict=True):
        matrices = [np.eye(2), rotation(20), MIXED[:, :2]]
        half = side / 2 + stride
        far = np.max([np.abs(each) @ [half, half] for each in matrices], axis=0)
        margin = np.ceil(far + np.abs(MIXED[:, 2])).astype(int) + 16
        y, x = (np.arange(m, size - m) + offset for m in margin)
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None, None, None]
        around = window[:, None, None] + taps
        before = series(image, centres + around)
        after = series(image, centres + around @ affine[:, :2].T + affine[:, 2])
        for kernel, found in zip(kernels, row, strict=True):
            one, other = (np.sum(seen * kernel.conj(), (-2, -1)) for seen in (before, after))
            for name, first, second in (
                ("cmod", np.abs(one[..., 4]), np.abs(other[..., 4])),
                ("rmax", one.real.max(-1), other.real.max(-1)),
            ):
                expected = np.sum((second - first) ** 2) / np.sum(first**2)
                assert found[name] == pytest.approx(expected, rel=1e-9), name


def test_a_layer_is_measured_on_colours_from_the_definition() -> None:
    """Bias, ReLU, an even window and a mean after it, at every place of an image of channels."""
    rng = np.random.default_rng(0)
    size, side, stride = 61, 5, 1.5
    image = np.zeros((2, size, size))
    image[:, 17:-17, 17:-17] = rng.normal(size=(2, size - 34, size - 34))
    image[:, 17:-17, 17:-17] -= image[:, 17:-17, 17:-17].mean((1, 2), keepdims=True)
    kernels, bias = rng.normal(size=(2, 2, side, side)), np.array([0.7, -0.4])
    layer = Layer(kernels, bias, relu=True, window=2, blur=[0.25, 0.75], stride=stride)
    table = measure_deformation([image], layer, MIXED)
    analytic = analytic_kernels(kernels, "full")  # the kernel lies at row and column 7 of 20
    half = 10 + stride
    far = np.maximum(half, np.abs(MIXED[:, :2]) @ [half, half]) + np.abs(MIXED[:, 2])
    y, x = (np.arange(m, size - m) for m in np.ceil(far).astype(int) + 16)
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None, None].astype(float)
    steps = stride * np.stack(np.meshgrid(*2 * [[-1.0, 0, 1]], indexing="ij"), -1)

    def answers(kernel: NDArray[Any], offset: float, affine: NDArray[Any]) -> Any:
        """The layer and its twin, of the image deformed about each place."""
        taps = np.stack(np.meshgrid(*2 * [np.arange(20.0) - 9], indexing="ij"), -1)
        window = np.concatenate([steps.reshape(-1, 2), np.zeros((1, 2))])[:, None, None]
        outputs = []
        for each in window:
            around = (each + taps) @ affine[:, :2].T + affine[:, 2]
            seen = np.stack([series(channel, centres + around) for channel in image], -3)
            outputs.append(np.sum(seen * kernel.conj(), (-3, -2, -1)))
        real = np.stack(outputs[:-1], -1).real.reshape(*outputs[0].shape, 3, 3)
        pooled = 0.0
        for row, down in enumerate((0.25, 0.75)):
            for column, right in enumerate((0.25, 0.75)):
                largest = real[..., row : row + 2, column : column + 2].max((-2, -1))
                pooled = pooled + down * right * np.maximum(largest + offset, 0)
        return np.maximum(np.abs(outputs[-1]) + offset, 0), pooled

    still = np.eye(2, 3)
    for kernel, offset, found in zip(analytic, bias, table, strict=True):
        before, after = (answers(kernel, offset, affine) for affine in (still, MIXED))
        for name, first, second in zip(("cmod", "rmax"), before, after, strict=True):
            expected = np.sum((second - first) ** 2) / np.sum(first**2)
            assert found[name] == pytest.approx(expected, rel=1e-9), name


@pytest.mark.parametrize(
    "options",
    [
        {"relu": True, "window": 2, "blur": 3},
        {"window": 3, "stride": 1.5},
    ],
)
def test_layers_are_predicted_on_colours(options: dict[str, Any]) -> None:
    """Affine, ReLU, any pooling, on Gaussian fields with channels: within 5 %, r above .99."""
    rng = np.random.default_rng(2)
    fields = [coloured(rng, 216) for _ in range(3)]
    kernels = bank_of_gabors()[:6]
    bias = None
    if "relu" in options:
        places = [
            np.einsum("ochw,chw->o", kernels, f[:, k : k + 9, :9])
            for f in fields
            for k in range(0, 200, 10)
        ]
        bias = rng.uniform(-0.5, 0.5, 6) * np.std(places, axis=0) - np.mean(places, axis=0)
    layer = Layer(kernels, bias, **options)
    maps = [rotation(8), MIXED]
    measured = measure_deformation(fields, layer, maps)
    predicted = predict_deformation(layer, maps, spectrum=fields)
    for name in ("cmod", "rmax"):
        assert np.mean(np.abs(measured[name] / predicted[name] - 1)) < 0.05, name
        assert np.corrcoef(measured[name].ravel(), predicted[name].ravel())[0, 1] > 0.99, name
    # A shift is a deformation, for layers, too.
    moved = predict_deformation(layer, np.column_stack([np.eye(2), [-1, -0.5]]), spectrum=fields)
    expected = predict(layer, (1, 0.5), spectrum=fields)
    for name in ("cmod", "rmax"):
        np.testing.assert_allclose(moved[name], expected[name + "_shift"], rtol=0.03)


def test_a_shift_is_a_deformation() -> None:
    bank = dtwpt.PacketBank(2)
    for shift in ((0, 1), (2.5, -1)):
        moved = predict_deformation(bank, np.column_stack([np.eye(2), np.negative(shift)]))
        expected = predict(bank, shift)
        inner = ~bank.atoms()["boundary"]
        for name in ("cmod", "rmax"):
            np.testing.assert_allclose(
                moved[name][inner], expected[name + "_shift"][inner], rtol=0.03, atol=1e-3
            )


def test_prediction_matches_measurement_on_gaussian_fields() -> None:
    bank = dtwpt.PacketBank(2)
    rng = np.random.default_rng(0)
    maps = [rotation(6), scaling(1.1), MIXED]
    measured = measure_deformation(rng.normal(size=(3, 192, 192)), bank, maps)
    predicted = predict_deformation(bank, maps)
    for row, expected in zip(measured, predicted, strict=True):
        for name in ("cmod", "rmax"):
            assert np.mean(np.abs(row[name] / expected[name] - 1)) < 0.05, name
            assert np.corrcoef(row[name], expected[name])[0, 1] > 0.99, name


def test_prediction_follows_photographs() -> None:
    bank = dtwpt.PacketBank(2)
    photographs = list(crops(216, 8))
    maps = [rotation(5)]
    measured = measure_deformation(photographs, bank, maps)
    predicted = predict_deformation(bank, maps, spectrum=photographs)
    oriented = ~(bank.atoms()["boundary"] | bank.atoms()["lowpass"])
    for row, expected in zip(measured, predicted, strict=True):
        for name, low, high in (("cmod", 0.8, 1.2), ("rmax", 0.9, 1.5)):
            assert np.corrcoef(row[name], expected[name])[0, 1] > 0.95, name
            assert low < np.mean(row[name][oriented] / expected[name][oriented]) < high, name


def test_a_bent_image_through_the_transform_changes_as_predicted() -> None:
    """The image is warped and transformed as a whole; the prediction is of its places."""
    bank = dtwpt.PacketBank(2)
    size = 200
    middle = (size - 1) / 2

    def bend(y: Any, x: Any) -> tuple[Any, Any]:
        return 1.5 * np.sin((x - middle) / 30), 0.02 * (y - middle)

    rng = np.random.default_rng(1)
    edge = 10
    ratios = []
    images = rng.normal(size=(4, size, size))
    for image in images:
        still, moved = (dtwpt.cmod2(each, 2)[..., edge:-edge, edge:-edge]
                        for each in (image, warp(image, bend)))  # fmt: skip
        ratios.append(np.sum((moved - still) ** 2, (-2, -1)) / np.sum(still**2, (-2, -1)))
    measured = np.mean(ratios, axis=0).ravel()
    # Gauss and Legendre's places for a mean over the cells that were compared.
    nodes, weights = np.polynomial.legendre.leggauss(4)
    along = middle + nodes * 2 * (size // 4 - 2 * edge)
    places = np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)
    shares = np.outer(weights, weights).ravel() / 4
    predicted = shares @ predict_deformation(bank, local_maps(bend, places))["cmod"]
    inner = ~(bank.atoms()["boundary"] | bank.atoms()["lowpass"])
    assert np.mean(np.abs(measured / predicted - 1)[inner]) < 0.05
    assert np.corrcoef(measured, predicted)[0, 1] > 0.95  # of few outputs
    # Over other places, without the grid: about the same.
    again = measure_deformation(images[:1], bank, bend)["cmod"]
    assert np.corrcoef(again, measured)[0, 1] > 0.95


def test_constants_are_the_slopes_of_the_prediction() -> None:
    bank = dtwpt.PacketBank(2)
    table = deformation_constants(bank, "pink")
    small = 1e-3
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(3, 2, 2))
    gradients /= np.linalg.norm(gradients, 2, axis=(1, 2))[:, None, None]
    maps = [
        rotation(np.degrees(small)),
        scaling(np.exp(small)),
        *(np.eye(2) + small * each for each in gradients),
        np.column_stack([np.eye(2), [0.6 * small, -0.8 * small]]),
    ]
    slopes = predict_deformation(bank, maps, spectrum="pink")
    circular = slopes["cmod_stderr"].max(0) == 0
    assert circular.sum() >= 16
    slopes = np.sqrt(slopes["cmod"][:, circular]) / small
    table = table[circular]
    np.testing.assert_allclose(slopes[0], table["rotation"], rtol=2e-3)
    np.testing.assert_allclose(slopes[1], table["scaling"], rtol=2e-3)
    assert np.all(slopes[2:5] <= table["deformation"] * 1.002)
    assert np.all(slopes[5] <= table["translation"] * 1.002)
    # Reached by some orthogonal matrix.
    turns = np.linspace(0, 2 * np.pi, 33)
    rotations = [[[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] for t in turns]
    both = np.concatenate([rotations, np.array(rotations) @ np.diag([1, -1])])
    found = predict_deformation(gabors(1, 9), np.eye(2) + small * both)
    constant = deformation_constants(gabors(1, 9))["deformation"]
    assert np.sqrt(found["cmod"]).max() / small == pytest.approx(constant[0], rel=0.01)


def test_maps_move_pictures_as_they_say() -> None:
    """A picture that turns clockwise, grows, and whose lower rows slide to the right."""
    y, x = np.mgrid[:41, :41] - 20.0

    def blob(down: float, right: float) -> NDArray[np.float64]:
        return np.asarray(np.exp(-((y - down) ** 2 + (x - right) ** 2) / 8))

    for matrix, place in (
        (rotation(90), (10, 0)),
        (scaling(1.5), (0, 15)),
        (shear(0.5), (0, 10)),
    ):
        change = matrix - np.eye(2)

        def displacement(rows: Any, columns: Any, change: Any = change) -> Any:
            return np.tensordot(change, np.stack([rows - 20, columns - 20]), 1)

        seen = warp(blob(0, 10), displacement)
        peak = np.unravel_index(seen.argmax(), seen.shape)
        np.testing.assert_array_equal(np.subtract(peak, 20), place)


def test_bad_arguments_are_named() -> None:
    bank = dtwpt.PacketBank(2)
    with pytest.raises(ValueError, match=r"maps must have shape \(2, 2\), .* got \(3,\)"):
        predict_deformation(bank, [1, 2, 3])
    with pytest.raises(ValueError, match="maps must be finite"):
        predict_deformation(bank, np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="must be without bias, got a Layer with one"):
        deformation_constants(Layer(np.eye(5), bias=[1]))
    with pytest.raises(ValueError, match="image 0 has 3 channels, but the layer takes 2"):
        measure_deformation([np.ones((3, 90, 90))], Layer(np.ones((1, 2, 5, 5))), rotation(1))
    with pytest.raises(ValueError, match="factor must be above 0, got 0"):
        scaling(0)
    with pytest.raises(ValueError, match="degrees must be finite"):
        rotation(np.inf)
    with pytest.raises(ValueError, match=r"image 0 of 60 x 60 pixels is too small"):
        measure_deformation([np.ones((60, 60))], bank, rotation(1))
    with pytest.raises(ValueError, match="images must not be empty"):
        measure_deformation([], bank, rotation(1))
    with pytest.raises(ValueError, match="places must be finite, of shape"):
        local_maps(lambda y, x: (y, x), [1, 2])
    with pytest.raises(ValueError, match="displacement must return two finite arrays"):
        local_maps(lambda y, x: (y + np.nan, x), [(1, 2)])
