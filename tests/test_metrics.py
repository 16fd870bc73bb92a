"""Stability metrics: their definitions, accumulation, and the crops that they are measured on."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric, MetricCollection

from dtwpt.metrics import (
    Consistency,
    FlipRate,
    ShiftChange,
    ShiftKLDivergence,
    consistency,
    flip_curve,
    flip_rate,
    flip_ratio,
    random_shifts,
    shift_change,
    shift_kl_divergence,
    shifted_crops,
    shifted_images,
    shifted_outputs,
    shifts_along,
    ten_crop_probabilities,
    ten_crops,
    unshifted_maps,
)
from tests.strategies import noise, seeds

references = st.sampled_from(["previous", "first"])


def logits(seed: int, shifts: int, images: int, classes: int = 3) -> Tensor:
    """A little different at every shift, so that some predictions flip and others do not."""
    base = noise(seed, 1, images, classes)
    return torch.from_numpy(base + 0.5 * noise(seed + 1, shifts, images, classes))


def pairs(shifts: int, reference: str) -> list[tuple[int, int]]:
    return [(0 if reference == "first" else s - 1, s) for s in range(1, shifts)]


@given(seeds, st.integers(2, 6), st.integers(1, 9), st.integers(2, 5), references)
def test_definitions(seed: int, shifts: int, images: int, classes: int, reference: str) -> None:
    outputs = logits(seed, shifts, images, classes)
    labels: NDArray[Any] = outputs.numpy().argmax(-1)
    p = softmax(outputs.numpy(), axis=-1)

    flips = [
        np.mean([labels[a, n] != labels[b, n] for n in range(images)])
        for a, b in pairs(shifts, reference)
    ]
    divergences = [
        np.mean([rel_entr(p[a, n], p[b, n]).sum() for n in range(images)])
        for a, b in pairs(shifts, reference)
    ]
    agree = np.mean(
        [
            labels[a, n] == labels[b, n]
            for n in range(images)
            for a, b in combinations(range(shifts), 2)
        ]
    )
    for given_outputs in (outputs, torch.from_numpy(labels)):
        rates = flip_rate(given_outputs, reference, per_shift=True)
        assert np.allclose(rates, flips, atol=1e-15)
        assert np.isclose(flip_rate(given_outputs, reference), np.mean(flips), atol=1e-15)
        assert np.isclose(consistency(given_outputs), agree, atol=1e-15)
    actual = shift_kl_divergence(outputs, reference, per_shift=True)
    assert np.allclose(actual, divergences, rtol=1e-10, atol=1e-14)
    assert np.isclose(shift_kl_divergence(outputs, reference), np.mean(divergences), atol=1e-14)


@given(seeds, st.integers(3, 7), st.integers(1, 5), st.integers(2, 4))
def test_all_pairs_of_shifts(seed: int, shifts: int, images: int, classes: int) -> None:
    """Loops over every pair, for predictions of images and of pixels."""
    outputs = logits(seed, shifts, images, classes)
    maps = torch.stack([logits(seed + p, shifts, images, classes) for p in range(6)], -1)
    maps = maps.reshape(shifts, images, classes, 2, 3)
    curve, of_maps = [], []
    for k in range(1, shifts):
        apart = [(a, a + k) for a in range(shifts - k)]
        flips = [
            outputs[a, n].argmax() != outputs[b, n].argmax()
            for a, b in apart
            for n in range(images)
        ]
        curve.append(np.mean(flips))
        pixels = [
            maps[a, n, :, i, j].argmax() != maps[b, n, :, i, j].argmax()
            for a, b in apart
            for n in range(images)
            for i in range(2)
            for j in range(3)
        ]
        of_maps.append(np.mean(pixels))
        p = softmax(outputs.numpy(), axis=-1)
        divergence = np.mean(
            [rel_entr(p[a, n], p[b, n]).sum() for a, b in apart for n in range(images)]
        )
        actual = shift_kl_divergence(outputs, "previous", step=k)
        assert np.isclose(actual, divergence, rtol=1e-10, atol=1e-14)
        change = [
            (outputs[b, n] - outputs[a, n]).square().sum() / outputs[a, n].square().sum()
            for a, b in apart
            for n in range(images)
        ]
        assert np.isclose(shift_change(outputs, "previous", step=k), np.mean(change), rtol=1e-12)
    assert np.allclose(flip_curve(outputs), curve, atol=1e-15)
    assert np.allclose(flip_curve(maps), of_maps, atol=1e-15)
    assert np.allclose(flip_curve(maps.argmax(2)), of_maps, atol=1e-15)
    flat = maps.permute(0, 1, 3, 4, 2).reshape(shifts, images * 6, classes)
    assert torch.allclose(shift_kl_divergence(maps), shift_kl_divergence(flat), rtol=1e-12)
    assert torch.equal(consistency(maps), consistency(flat))
    if min(curve) > 0:
        other = torch.rand(shifts - 1)
        expected = np.mean([float(a) / b for a, b in zip(other, curve, strict=True)])
        assert np.isclose(flip_ratio(other, flip_curve(outputs)), expected, rtol=1e-12)


METRICS: list[tuple[Callable[..., Metric], Callable[[Tensor], Tensor]]] = [
    (FlipRate, flip_rate),
    (
        partial(FlipRate, "first", num_shifts=4),
        partial(flip_rate, reference="first", per_shift=True),
    ),
    (Consistency, consistency),
    (ShiftKLDivergence, shift_kl_divergence),
    (
        partial(ShiftKLDivergence, "previous", num_shifts=4),
        partial(shift_kl_divergence, reference="previous", per_shift=True),
    ),
    (partial(FlipRate, step=2), partial(flip_rate, step=2)),
    (
        partial(ShiftChange, "previous", num_shifts=4, step=2),
        partial(shift_change, reference="previous", step=2, per_shift=True),
    ),
]


@pytest.mark.parametrize(("metric_of", "function"), METRICS)
def test_batches_add_up(
    metric_of: Callable[..., Metric], function: Callable[[Tensor], Tensor]
) -> None:
    outputs, metric = logits(0, 4, 12), metric_of()
    for _ in range(2):
        for batch in (outputs[:, :1], outputs[:, 1:5], outputs[:, 5:]):
            assert torch.allclose(metric(batch), function(batch), rtol=1e-14)
        assert torch.allclose(metric.compute(), function(outputs), rtol=1e-14)
        assert metric.compute().dtype == torch.float64
        assert metric.compute().shape == function(outputs).shape
        copied = pickle.loads(pickle.dumps(metric))
        assert torch.equal(copied.compute(), metric.compute())
        metric.reset()


@pytest.mark.parametrize(("metric_of", "function"), METRICS)
def test_processes_add_up(
    metric_of: Callable[..., Metric], function: Callable[[Tensor], Tensor]
) -> None:
    """What torchmetrics does between two processes, with the other one's states handed over."""
    outputs = logits(0, 4, 12)
    there = metric_of()
    there.update(outputs[:, 5:])
    remote = iter(there.metric_state.values())
    here = metric_of(
        distributed_available_fn=lambda: True,
        dist_sync_fn=lambda state, group: [state, next(remote)],
    )
    here.update(outputs[:, :5])
    assert torch.allclose(here.compute(), function(outputs), rtol=1e-14)
    joined = metric_of()
    joined.update(outputs[:, :5])
    joined.merge_state(there)
    assert torch.allclose(joined.compute(), function(outputs), rtol=1e-14)


def test_long_accumulation_loses_nothing() -> None:
    """Sums are exact where float32 would have stopped counting at 2**24."""
    metric = FlipRate()
    classes = torch.zeros(2, 2**13, dtype=torch.int64)
    metric.update(classes)
    metric.flips_previous_count = torch.tensor(2**24 + 2**13)
    classes[1, 0] = 1
    metric.update(classes)
    assert metric.compute() == 1 / (2**24 + 2**14)
    half = logits(0, 3, 500).half()
    divergence = ShiftKLDivergence()
    for image in range(500):
        divergence.update(half[:, image : image + 1])
    assert torch.allclose(divergence.compute(), shift_kl_divergence(half.double()), rtol=1e-13)


def test_collection() -> None:
    outputs = logits(0, 2, 20)
    collection = MetricCollection([FlipRate(), Consistency(), ShiftKLDivergence()])
    values = collection(outputs)
    assert set(values) == {"FlipRate", "Consistency", "ShiftKLDivergence"}
    assert values["FlipRate"] == 1 - values["Consistency"]  # two shifts: the same pairs
    assert values["ShiftKLDivergence"] > 0
    for metric in (FlipRate(), Consistency(), ShiftKLDivergence()):
        metric.update(outputs)
        metric.plot()


def test_nothing_seen() -> None:
    for metric in (FlipRate(), Consistency(), ShiftKLDivergence(num_shifts=3)):
        with (
            pytest.warns(UserWarning, match="before the ``update``"),
            pytest.raises(RuntimeError, match="has no data yet"),
        ):
            metric.compute()


def test_divergence_is_differentiable() -> None:
    outputs = logits(0, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: shift_kl_divergence(x, per_shift=True), outputs)
    extreme = torch.tensor([[[1e30, 0.0]], [[0.0, 1e30]]], dtype=torch.float64)
    assert shift_kl_divergence(extreme) == 1e30
    assert shift_kl_divergence(extreme[:1].expand(2, -1, -1)) == 0


class Average(nn.Module):
    """Classifies by the average colour."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        weight = torch.from_numpy(noise(0, 7, 3))
        self.register_buffer("weight", weight - weight.mean(1, keepdim=True))

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=x.mean((-2, -1)) @ self.weight.T)


def test_a_shift_invariant_model_is_perfect() -> None:
    """Crops of a whole number of periods have the same average wherever they are."""
    generator = torch.Generator().manual_seed(0)
    tile = torch.randint(256, (20, 3, 8, 8), generator=generator).double()
    images = tile.tile(1, 1, 6, 6)
    crops = shifted_crops(images, 32, range(9))
    assert not torch.equal(crops[0], crops[1])
    sequence = shifted_outputs(Average(), images, 32, range(9))
    drawn = shifted_outputs(Average(), images, 32, random_shifts(2, 20, 8, generator=generator))
    assert len(set(sequence[0].argmax(-1).tolist())) > 2
    assert flip_rate(sequence) == flip_rate(sequence, "first") == 0
    assert consistency(drawn) == 1
    assert shift_kl_divergence(sequence) == shift_kl_divergence(drawn) == 0


def test_a_model_of_one_pixel_flips_always() -> None:
    stripes = (torch.arange(40) % 2).double().expand(5, 1, 40, 40)

    def model(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1)

    outputs = shifted_outputs(model, stripes, 32, range(5))
    assert flip_rate(outputs) == 1
    assert flip_rate(outputs, "first", per_shift=True).tolist() == [1, 0, 1, 0]
    assert consistency(outputs[:2]) == 0
    down = shifted_outputs(model, stripes, 32, [(k, 0) for k in range(5)])
    assert flip_rate(down) == 0


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(0, 6), st.integers(0, 6))
def test_crops_show_the_shifted_image(
    seed: int, height: int, width: int, more_rows: int, more_columns: int
) -> None:
    """The middle of the image after it has moved by whole pixels."""
    images = noise(seed, 3, 2, height + more_rows, width + more_columns)
    rng = np.random.default_rng(seed)
    top, left = more_rows // 2, more_columns // 2
    shifts = np.stack(
        [
            rng.integers(top - more_rows, top + 1, (4, 3)),
            rng.integers(left - more_columns, left + 1, (4, 3)),
        ],
        -1,
    )

    def expected(image: NDArray[Any], shift: NDArray[Any]) -> NDArray[Any]:
        moved = np.roll(image, tuple(shift), (-2, -1))
        return moved[:, top : top + height, left : left + width]

    x, size = torch.from_numpy(images), (height, width)
    each = shifted_crops(x, size, torch.from_numpy(shifts))
    alike = shifted_crops(x, size, shifts[:, 0].tolist())
    right = shifted_crops(x, size, shifts[:, 0, 1])
    assert each.shape == alike.shape == right.shape == (4, 3, 2, height, width)
    for s in range(4):
        for n in range(3):
            assert np.array_equal(each[s, n], expected(images[n], shifts[s, n]))
            assert np.array_equal(alike[s, n], expected(images[n], shifts[s, 0]))
            sideways = np.array([0, shifts[s, 0, 1]])
            assert np.array_equal(right[s, n], expected(images[n], sideways))


# Other shifts, ten crops -------------------------------------------------------------------------


def test_directions() -> None:
    assert shifts_along("horizontal", 8).tolist() == [[0, k] for k in range(9)]
    assert shifts_along("vertical", 4, 2).tolist() == [[0, 0], [2, 0], [4, 0]]
    half = shifts_along("diagonal", 3, 0.5)
    assert half.tolist() == [[k / 2, k / 2] for k in range(7)]


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_images_shifted_whole(seed: int, height: int, width: int) -> None:
    images = noise(seed, 2, 3, height, width)
    shifts = np.random.default_rng(seed).integers(-12, 13, (3, 2, 2))
    ways = {
        by: shifted_images(torch.from_numpy(images), torch.from_numpy(shifts), by).numpy()
        for by in ("roll", "zero", "fourier")
    }
    for s, n in np.ndindex(3, 2):
        down, right = shifts[s, n]
        rolled, filled = np.empty_like(images[n]), np.zeros_like(images[n])
        for i, j in np.ndindex(height, width):
            rolled[:, (i + down) % height, (j + right) % width] = images[n, :, i, j]
            if 0 <= i + down < height and 0 <= j + right < width:
                filled[:, i + down, j + right] = images[n, :, i, j]
        assert np.array_equal(ways["roll"][s, n], rolled)
        assert np.array_equal(ways["zero"][s, n], filled)
        assert np.allclose(ways["fourier"][s, n], rolled, atol=1e-12)


@given(seeds, st.integers(2, 9), st.integers(2, 9), st.floats(-5, 5), st.floats(-5, 5))
def test_fractions_of_a_pixel(
    seed: int, height: int, width: int, down: float, right: float
) -> None:
    """Waves of every frequency, moved; those of the highest one keep what is real."""
    rng = np.random.default_rng(seed)
    y, x = (int(rng.integers(0, side // 2 + 1)) for side in (height, width))
    a, b = rng.uniform(0, 7, 2)

    def wave(length: int, count: int, start: float, shift: float) -> NDArray[np.float64]:
        angle = 2 * np.pi * count * np.arange(length) / length
        if 2 * count == length:
            return np.asarray(np.cos(start) * np.cos(np.pi * shift) * np.cos(angle))
        return np.asarray(np.cos(angle - 2 * np.pi * count * shift / length + start))

    image, expected = (
        np.outer(wave(height, y, a, i), wave(width, x, b, j)) for i, j in ((0, 0), (down, right))
    )
    tensor = torch.from_numpy(image)[None, None]
    moved = shifted_images(tensor, [(down, right)], "fourier")
    assert np.allclose(moved[0, 0, 0], expected, atol=1e-12)
    single = shifted_images(tensor.float(), [(down, right)], "fourier")
    assert single.dtype == torch.float32
    assert np.allclose(single[0, 0, 0], expected, atol=1e-5)


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(2, 3))
def test_half_pixels_are_pixels_of_larger_images(
    seed: int, height: int, width: int, scale: int
) -> None:
    images = torch.from_numpy(noise(seed, 2, 1, scale * height + 7, scale * width + 8))
    shifts = torch.arange(-3, 4)
    crops = shifted_crops(images, (height, width), shifts.double() / scale, scale=scale)
    room = (images.shape[2] - (height - 1) * scale - 1, images.shape[3] - (width - 1) * scale - 1)
    for s, shift in enumerate(shifts.tolist()):
        for i, j in np.ndindex(height, width):
            row, column = room[0] // 2 + scale * i, room[1] // 2 - shift + scale * j
            assert torch.equal(crops[s, :, 0, i, j], images[:, 0, row, column])


@given(seeds, st.sampled_from(["crop", "roll", "zero", "fourier"]))
def test_maps_of_an_equivariant_model_agree_once_shifted_back(seed: int, by: str) -> None:
    images = torch.from_numpy(noise(seed, 2, 3, 24, 25))
    shifts = random_shifts(4, 2, 3, generator=torch.Generator().manual_seed(seed))
    size = 16 if by == "crop" else None
    maps = shifted_outputs(lambda x: {"out": 2 * x}, images, size, shifts, by=by)
    back = unshifted_maps(maps, shifts, by)
    assert torch.allclose(back, back[:1].expand_as(back), atol=1e-12)
    assert flip_rate(maps) > 0.3
    assert flip_rate(back) == flip_rate(unshifted_maps(maps.argmax(2), shifts, by)) == 0
    assert shift_change(back) < 1e-24
    original = 2 * images[:, :, 4:20, 4:20] if by == "crop" else 2 * images
    top, left = (-shifts.amin((0, 1))).clamp(min=0) if by in ("crop", "zero") else (0, 0)
    seen = original[:, :, top:, left:][:, :, : back.shape[3], : back.shape[4]]
    assert torch.allclose(back[0], seen, atol=1e-12)


def test_ten_crops_are_torchvision_s() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    images = torch.from_numpy(noise(0, 2, 3, 11, 14))
    for size in (8, (7, 10), (11, 14), (4, 5)):
        expected = torch.stack(transforms.TenCrop(size)(images))
        assert torch.equal(ten_crops(images, size), expected)
    model = Average().train()
    probabilities = ten_crop_probabilities(model, images, 8)
    each = torch.stack([model(crop).logits.softmax(-1) for crop in ten_crops(images, 8)])
    assert torch.allclose(probabilities, each.mean(0), rtol=1e-12)
    assert model.training


class NoDouble(TorchFunctionMode):
    """A device without float64: what its tensors raise, unless they went through ``cpu``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        there = any(getattr(t, "there", False) for t in tree_leaves((args, kwargs)))
        if there and getattr(func, "__name__", "") != "cpu":
            for t in tree_leaves(out):
                if isinstance(t, Tensor):
                    assert t.dtype != torch.float64
                    t.there = True  # type: ignore[attr-defined]
        return out


@pytest.mark.parametrize(("metric_of", "function"), METRICS)
def test_devices_without_double_precision(
    metric_of: Callable[..., Metric], function: Callable[[Tensor], Tensor]
) -> None:
    outputs: Any = logits(0, 4, 12).float()
    outputs.there = True
    with NoDouble():
        images: Any = torch.rand(2, 3, 8, 8)
        images.there = True
        for by, shifts in (("roll", [1, 2]), ("zero", [1, 2]), ("fourier", [0.5, 1])):
            shifted_images(images, shifts, by)
        shifted_crops(images, 2, [0.5, 1], scale=2)
        value, metric = function(outputs), metric_of()
        state: Any
        for state in metric.metric_state.values():
            assert state.dtype != torch.float64
            state.there = True
        assert torch.allclose(metric(outputs), value, rtol=1e-12)
        assert torch.allclose(metric.compute(), value, rtol=1e-12)


def test_outputs_leave_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(3 * 64, 4))
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.from_numpy(noise(0, 5, 3, 12, 12, dtype=np.float32))
    outputs = shifted_outputs(model, images, 8, range(3))
    assert not outputs.requires_grad
    assert [module.training for module in model] == [False, True, True, True]
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    model.eval()
    for crop, output in zip(shifted_crops(images, 8, range(3)), outputs, strict=True):
        assert torch.equal(model(crop), output)
    model.train()
    with pytest.raises(RuntimeError):
        shifted_outputs(model, images, 9, range(2))
    assert model.training


def test_random_shifts() -> None:
    def draw(seed: int) -> Tensor:
        return random_shifts(2, 400, 3, generator=torch.Generator().manual_seed(seed))

    shifts = draw(0)
    assert shifts.shape == (2, 400, 2)
    assert torch.equal(shifts, draw(0))
    assert not torch.equal(shifts, draw(1))
    assert len(set(map(tuple, shifts.reshape(-1, 2).tolist()))) == 49  # every one of 7 x 7 occurs
    assert shifts.double().mean((0, 1)).abs().max() < 0.3
    torch.manual_seed(5)
    drawn = random_shifts(2, 3, 9)
    torch.manual_seed(5)
    assert torch.equal(drawn, random_shifts(2, 3, 9))


IMAGES = torch.zeros(2, 3, 10, 12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: flip_rate([[1, 2]]), TypeError, "outputs must be a torch.Tensor, got list"),  # type: ignore[arg-type]
        (lambda: flip_rate(torch.zeros(2, 3)), ValueError, r"\(shifts, images, classes\)"),
        (lambda: flip_rate(torch.zeros(2, 3, 1)), ValueError, "at least 2 classes"),
        (lambda: flip_rate(torch.zeros(2, 3, 4).bool()), TypeError, "floating-point"),
        (lambda: flip_rate(torch.zeros(2, 3, 4).long()), ValueError, r"\(shifts, images\)"),
        (lambda: flip_rate(torch.zeros(1, 3, 4)), ValueError, "at least 2 shifts"),
        (lambda: consistency(torch.zeros(2, 0, 4)), ValueError, "1 image, got 2 and 0"),
        (lambda: consistency(torch.full((2, 3, 4), torch.nan)), ValueError, "finite"),
        (lambda: flip_rate(torch.zeros(2, 3, 4), "last"), ValueError, "reference .* 'last'"),
        (lambda: shift_kl_divergence(torch.zeros(2, 3).long()), TypeError, "int64"),
        (lambda: FlipRate("middle"), ValueError, "reference"),
        (lambda: FlipRate(num_shifts=1), ValueError, "num_shifts must be .* 2, got 1"),
        (lambda: FlipRate(num_shifts=2.0), TypeError, "num_shifts"),  # type: ignore[arg-type]
        (lambda: FlipRate(num_shifts=3)(torch.zeros(2, 3, 4)), ValueError, "= 3 shifts, got 2"),
        (lambda: shifted_crops(np.zeros((1, 1, 2, 2)), 1, [0]), TypeError, "images"),  # type: ignore[arg-type]
        (lambda: shifted_crops(IMAGES[0], 8, [0]), ValueError, r"\(N, C, H, W\)"),
        (lambda: shifted_crops(IMAGES, 11, [0]), ValueError, "11 x 11 is larger than the images"),
        (lambda: shifted_crops(IMAGES, (8, 0), [0]), ValueError, "size"),
        (lambda: shifted_crops(IMAGES, 8.0, [0]), TypeError, "size"),  # type: ignore[arg-type]
        (lambda: shifted_crops(IMAGES, 8, []), ValueError, "shifts must not be empty"),
        (lambda: shifted_crops(IMAGES, 8, [0.5]), TypeError, "whole pixels"),
        (lambda: shifted_crops(IMAGES, 8, 3), TypeError, "shifts must be integers"),
        (lambda: shifted_crops(IMAGES, 8, [(0, 1, 2)]), ValueError, r"\(S, 2, 2\)"),
        (
            lambda: shifted_crops(IMAGES, 9, range(3)),
            ValueError,
            r"from -1 to 0 down and from -2 to 1 to the right, got \[0, 0\] to \[0, 2\]",
        ),
        (lambda: shifted_outputs(3, IMAGES, 8, [0]), TypeError, "model must be callable"),  # type: ignore[arg-type]
        (lambda: shifted_outputs(lambda x: x[0], IMAGES, 8, [0]), ValueError, r"\(2, K\)"),
        (lambda: shifted_outputs(len, IMAGES, 8, [0], by="roll"), ValueError, "size must be None"),
        (
            lambda: shifted_outputs(len, IMAGES, None, [0], by="turn"),
            ValueError,
            "by 'turn'",
        ),
        (lambda: shifted_images(IMAGES, [0], "crop"), ValueError, "by 'crop'; known: roll, zero"),
        (lambda: shifted_images(IMAGES, [0.5]), TypeError, "whole pixels"),
        (lambda: shifted_images(IMAGES.int(), [0], "fourier"), TypeError, "floating-point by"),
        (lambda: shifted_images(IMAGES, [torch.nan], "fourier"), ValueError, "finite"),
        (lambda: shifted_crops(IMAGES, 4, [0.3], scale=2), ValueError, "multiples of 1/2 pixel"),
        (lambda: shifted_crops(IMAGES, 6, [0], scale=2), ValueError, "6 x 6 at scale 2 is larger"),
        (lambda: shifted_crops(IMAGES, 4, [9], scale=2), ValueError, "of 1/2 pixel"),
        (lambda: unshifted_maps(IMAGES, [0]), ValueError, r"\(S, N, K, H, W\)"),
        (
            lambda: unshifted_maps(IMAGES[None], [0, 1]),
            ValueError,
            "as many as .* 1, got 2",
        ),
        (lambda: unshifted_maps(IMAGES[None], [12]), ValueError, "leave a pixel"),
        (lambda: ten_crops(IMAGES, 11), ValueError, "larger than the images"),
        (lambda: ten_crop_probabilities(lambda x: x, IMAGES, 8), ValueError, r"logits \(N, K\)"),
        (lambda: shifts_along("up", 3), ValueError, "unknown direction 'up'; known: horizontal"),
        (lambda: shifts_along("vertical", 3, 0.4), ValueError, "divide largest = 3, got 0.4"),
        (lambda: flip_rate(torch.zeros(2, 3, 4), step=2), ValueError, "less than .* shifts, 2"),
        (lambda: flip_rate(torch.zeros(3, 3, 4), "first", step=2), ValueError, "step must be 1"),
        (lambda: flip_ratio(torch.ones(2), torch.ones(3)), ValueError, r"\(2,\) and \(3,\)"),
        (
            lambda: flip_ratio(torch.ones(2), torch.zeros(2)),
            ValueError,
            "must be positive",
        ),
        (lambda: shift_change(torch.zeros(2, 3)), ValueError, r"images, \.\.\.\), got \(2, 3\)"),
        (lambda: FlipRate(num_shifts=3, step=3), ValueError, "num_shifts must be .* 4, got 3"),
        (lambda: shifted_outputs(len, IMAGES, 8, [0]), TypeError, "got int"),
        (lambda: random_shifts(2, 3, 0), ValueError, "max_shift"),
        (lambda: random_shifts(2, 3, 1, generator=0), TypeError, "torch.Generator, got int"),  # type: ignore[arg-type]
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_functions_do_without_torchmetrics() -> None:
    code = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "from dtwpt.metrics import flip_rate, shifted_outputs\n"
        "import torch; assert flip_rate(torch.tensor([[1, 2], [1, 3]])) == 0.5\n"
        "from dtwpt.metrics import FlipRate\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'ImportError: the classes of dtwpt.metrics need torchmetrics: pip install "dtwpt[metrics]"'
    )


def test_a_collection_keeps_its_metrics_apart() -> None:
    """Metrics that agree on the first batch are not taken for one and the same."""
    first, second = torch.tensor([[1, 1], [1, 1], [1, 1]]), torch.tensor([[1, 1], [2, 2], [1, 1]])
    metrics = {"previous": FlipRate(), "first": FlipRate("first"), "consistency": Consistency()}
    collection = torchmetrics.MetricCollection(dict(metrics))
    for batch in (first, second):
        collection.update(batch)
    for name, metric in metrics.items():
        alone = metric.clone()
        alone.reset()
        for batch in (first, second):
            alone.update(batch)
        assert collection.compute()[name] == alone.compute()
