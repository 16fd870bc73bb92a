"""Amplitude-phase recombination: its invariants, and what the transforms draw."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dtwpt.augment import _OPERATIONS, PairRecombination, SingleRecombination, recombine
from tests.strategies import noise, seeds


def naive(x: Tensor, y: Tensor, dims: tuple[int, ...]) -> Tensor:
    full = np.fft.fftn(x.numpy(), axes=dims)
    size = np.abs(np.fft.fftn(y.numpy(), axes=dims))
    mixed = np.fft.ifftn(size * np.exp(1j * np.angle(full)), axes=dims)
    assert np.abs(mixed.imag).max() < 1e-12
    return torch.from_numpy(mixed.real)


@given(
    seeds,
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(-2, -1), (-3, -2, -1)]),
    st.integers(-4, 4),
)
def test_invariants(seed: int, rows: int, columns: int, dims: tuple[int, ...], move: int) -> None:
    x, y = torch.from_numpy(noise(seed, 2, 3, rows, columns))
    mixed = recombine(x, y, dims=dims)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-11)
    close(mixed, naive(x, y, dims))
    close(recombine(x, x, dims=dims), x)
    # A shift of the phases' image shifts the result, one of the amplitudes' changes nothing.
    moved = recombine(x.roll(move, -1), y, dims=dims)
    close(moved, mixed.roll(move, -1))
    close(recombine(x, y.roll(move, -2), dims=dims), mixed)
    spectra = [torch.fft.fftn(image, dim=dims).abs() for image in (mixed, y)]
    torch.testing.assert_close(*spectra, rtol=1e-9, atol=1e-9)
    close(mixed.mean(dims).abs(), y.mean(dims).abs())


def test_dtypes_and_range() -> None:
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        mixed = recombine(x.to(dtype), y.to(dtype))
        assert (mixed.dtype, mixed.shape) == (dtype, y.shape)
        exact = recombine(x.to(dtype).double(), y.to(dtype).double())
        torch.testing.assert_close(mixed.double(), exact, rtol=0, atol=tolerance)
    black = torch.zeros(1, 4, 4)  # which has no phase
    assert recombine(black, y[:, :1, :4, :4]).isfinite().all()
    clamped = recombine(x, 2 * y, clamp=True)
    assert clamped.min() == 0
    assert clamped.max() == 1
    with pytest.raises(
        TypeError, match=r"phase must be of a floating-point dtype, got torch\.uint8"
    ):
        recombine(torch.zeros(4, 4, dtype=torch.uint8), x)
    with pytest.raises(ValueError, match="of one size"):
        recombine(x, y[..., :7])


def test_pairs() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(7, 1, 6, 6).double(), torch.arange(7)
    mixed, kept = PairRecombination(p=1.0, clamp=False)(images, labels)
    assert kept is labels
    # Each has the phases of its own and the amplitudes of exactly one other.
    sizes = torch.fft.fft2(images).abs().flatten(1)
    found = torch.cdist(torch.fft.fft2(mixed).abs().flatten(1), sizes).argmin(1)
    assert sorted(found.tolist()) == list(range(7))
    assert (found != torch.arange(7)).all()
    torch.testing.assert_close(mixed, recombine(images, images[found]))
    both, twice = PairRecombination(p=1.0, append=True)(images, labels)
    assert torch.equal(both[:7], images)
    assert both[7:].min() >= 0
    assert torch.equal(twice, labels.repeat(2))
    assert PairRecombination(p=0.0)(images) is images
    often = sum(PairRecombination()(images) is not images for _ in range(400)) / 400
    assert 0.5 < often < 0.7
    alone = torch.rand(1, 1, 6, 6)
    torch.testing.assert_close(PairRecombination(p=1.0)(alone), alone)


@pytest.mark.parametrize("operation", _OPERATIONS)
def test_operations(operation: torch.nn.Module) -> None:
    torch.manual_seed(1)
    image = torch.rand(3, 9, 12)
    changed = [operation(image) for _ in range(8)]
    assert all(one.shape == image.shape and 0 <= one.min() <= one.max() <= 1 for one in changed)
    assert any((one - image).abs().max() > 0.01 for one in changed)
    flat = torch.full((2, 4, 4), 0.25)
    assert operation(flat).isfinite().all()


def test_single() -> None:
    torch.manual_seed(2)
    images = torch.rand(6, 3, 8, 8)
    altered, label = SingleRecombination()(images, "label")
    assert label == "label"
    assert altered.shape == images.shape
    assert 0 <= altered.min() <= altered.max() <= 1
    # Two operations that can be told apart: amplitudes of one, phases of the other.
    chosen = SingleRecombination([lambda x: x.roll(1, -1), lambda x: 0.5 * x], p=1.0)
    seen = [chosen(images[0]) for _ in range(60)]
    expected = [
        recombine(a, b).clamp(0, 1)
        for a in (images[0].roll(1, -1), 0.5 * images[0])
        for b in (images[0].roll(1, -1), 0.5 * images[0])
    ]
    which = {min(range(4), key=lambda k: float((one - expected[k]).abs().max())) for one in seen}
    assert which == {0, 1, 2, 3}
    assert all(min(float((one - x).abs().max()) for x in expected) < 1e-6 for one in seen)
    unclamped = SingleRecombination([lambda x: 3 * x], p=0.0, clamp=False)(images[0])
    assert unclamped.max() > 1
    with pytest.raises(ValueError, match="p must be a number from 0 to 1, got 2"):
        PairRecombination(2)
    with pytest.raises(ValueError, match="operations must not be empty"):
        SingleRecombination([])
