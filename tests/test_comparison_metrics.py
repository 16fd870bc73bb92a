"""Metrics of comparisons: right at shifts, single layers, and the table of networks."""

from __future__ import annotations

import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.metrics import (
    compare,
    consistency,
    equivariance_error,
    fidelity,
    max_sampling_bias,
    worst_case_accuracy,
)
from tests.strategies import noise, seeds


@given(seeds, st.integers(2, 6), st.integers(1, 9))
def test_right_at_shifts(seed: int, shifts: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(3, size=(shifts, images)), rng.integers(3, size=images)
    both = [
        predicted[a, n] == labels[n] == predicted[b, n]
        for a, b in combinations(range(shifts), 2)
        for n in range(images)
    ]
    outputs = torch.from_numpy(predicted)
    joint, product = fidelity(outputs, torch.from_numpy(labels))
    assert joint == pytest.approx(np.mean(both))
    accuracy = np.mean(predicted == labels)
    assert product == pytest.approx(accuracy * float(consistency(outputs)))
    worst = worst_case_accuracy(outputs, torch.from_numpy(labels))
    assert worst == pytest.approx(
        np.mean([all(predicted[:, n] == labels[n]) for n in range(images)])
    )
    assert worst <= joint <= accuracy + 1e-12


def test_product_is_no_share() -> None:
    # Half right and half wrong, each of them consistently: the share is a half, as the accuracy.
    joint, product = fidelity(torch.tensor([[0, 0], [0, 0]]), torch.tensor([0, 1]))
    assert joint == product == 0.5
    # Right where consistent: the product is too low.
    joint, product = fidelity(torch.tensor([[0, 1], [0, 2]]), torch.tensor([0, 0]))
    assert joint == 0.5
    assert product == 0.25


def test_labels_that_do_not_fit() -> None:
    outputs = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        fidelity(outputs, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TypeError, match="labels must be integers"):
        worst_case_accuracy(outputs, torch.zeros(3))
    with pytest.raises(ValueError, match="whole images"):
        fidelity(torch.zeros(2, 3, 4, 5, 5), torch.zeros(3, dtype=torch.int64))


def circular(x: Tensor) -> Tensor:
    kernel = torch.linspace(-1, 2, 9, dtype=x.dtype).reshape(1, 1, 3, 3)
    return functional.conv2d(functional.pad(x, [1] * 4, mode="circular"), kernel)


def strongest_phase(x: Tensor) -> Tensor:
    phases = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    best = phases.flatten(2).norm(dim=2).argmax(0)
    return phases[best, torch.arange(len(x))]


def band_limited(x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(x)
    spectrum[..., 4:-3, :] = 0
    spectrum[..., 4:] = 0
    whole: Tensor = torch.fft.irfft2(spectrum, x.shape[-2:])
    return whole[..., ::2, ::2]


def test_equivariance_error() -> None:
    x = torch.from_numpy(noise(0, 3, 1, 16, 16))
    shifts = [[1, 0], [3, 5], [2, 7]]
    assert equivariance_error(circular, x, shifts) < 1e-15
    assert equivariance_error(circular, x, [[0.5, 1.25]]) < 1e-1  # but for the highest frequency
    # Subsampling below half the highest frequency commutes with any shift, the output's by half.
    assert equivariance_error(band_limited, x, [*shifts, [2, 2]]) < 1e-14
    # The choice of a grid does not, unless the output may be shifted by any number of samples.
    each = equivariance_error(strongest_phase, x, shifts, align="best", per_shift=True)
    assert each.shape == (3,)
    assert each.max() < 1e-15
    assert equivariance_error(strongest_phase, x, shifts) > 0.1

    def subsample(x: Tensor) -> Tensor:
        return x[..., ::2, ::2]

    assert equivariance_error(subsample, x, [[2, 4]]) == 0
    # By its definition, at a shift of two samples of the output that are mixed up on purpose.
    moved = subsample(x.roll((1, 0), (-2, -1)))
    best = min(
        float((moved[0] - subsample(x)[0].roll((a, b), (-2, -1))).norm())
        for a in range(8)
        for b in range(8)
    )
    expected = best / float(subsample(x)[0].norm())
    assert equivariance_error(subsample, x[:1], [[1, 0]], align="best") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pool", "hard", "soft"),
    [
        (nn.MaxPool2d(2), 1, 1),
        (nn.AvgPool2d(2), 0, 0.25),
        (nn.MaxPool2d(2, ceil_mode=True), 1, 1),
        (nn.AvgPool2d(1, 2), None, None),  # the corner: at the maximum as often as not, in part
    ],
)
def test_max_sampling_bias(pool: nn.Module, hard: float | None, soft: float | None) -> None:
    x = torch.from_numpy(noise(1, 2, 2, 8, 8))
    bias = max_sampling_bias(pool, x)
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    if hard is None:
        hard = soft = float((windows.argmax(-1) == 0).double().mean())
    assert bias.hard == pytest.approx(hard)
    assert bias.soft == pytest.approx(soft)


def test_max_sampling_bias_of_overlapping_windows() -> None:
    x = torch.from_numpy(noise(2, 1, 2, 8, 8))
    pool = nn.MaxPool2d(3, 2, 1)
    hard, soft = max_sampling_bias(pool, x, kernel_size=3, padding=1)
    assert hard == soft == 1
    assert max_sampling_bias(pool, x).hard < 1  # another window
    with pytest.raises(ValueError, match="as many as outputs"):
        max_sampling_bias(pool, x, kernel_size=3)


class Mean(nn.Module):
    """Classes by the mean: no shift but a crop or zeros changes it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(1, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        mean = x[..., :: self.stride, :: self.stride].mean((-2, -1))
        logits: Tensor = torch.cat([mean, -mean], 1) + 0 * self.linear(mean)
        return logits


@pytest.mark.parametrize("installed", [True, False])
def test_compare(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "pandas", None)
    images = torch.from_numpy(noise(3, 40, 1, 16, 16))
    labels = (images[..., 2:-2, 2:-2].mean((-3, -2, -1)) < 0).long()
    table: Any = compare(
        {"whole": Mean(1), "strided": Mean(2)}, images, labels, 2, batch_size=16, repeats=1
    )
    assert isinstance(table, list) != installed
    whole, strided = table.to_dict("records") if installed else table
    assert whole["model"] == "whole"
    assert whole["accuracy"] == 1
    for kind in ("roll", "half"):
        assert whole[f"consistency_{kind}"] == whole[f"worst_{kind}"] == 1
        assert whole[f"flips_{kind}"] == 0
        assert strided[f"flips_{kind}"] > 0
    for kind in ("crop", "fill"):
        assert 0 < whole[f"flips_{kind}"] < 1
        assert whole[f"worst_{kind}"] <= whole[f"fidelity_{kind}"] <= whole[f"consistency_{kind}"]
    assert (whole["parameters"], whole["macs"]) == (4, 2e-6)
    assert whole["milliseconds"] > 0


def test_compare_refuses() -> None:
    images, labels = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"larger than 2 \* shifts = 8"):
        compare({"mean": Mean(1)}, images, labels, 4)
    with pytest.raises(ValueError, match="unknown kind 'zoom'"):
        compare({"mean": Mean(1)}, images, labels, 1, kinds=("zoom",))
    with pytest.raises(TypeError, match="mapping of names"):
        compare({}, images, labels, 1)
