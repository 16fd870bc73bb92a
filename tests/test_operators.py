"""CMod and RMax: what they compute, how they line up, how stable they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

import dtwpt
from dtwpt.typing import Mode, WaveletName
from tests.strategies import depths, modes, noise, seeds, wavelets


@given(seeds, st.integers(1, 150), st.integers(1, 150), depths, wavelets, modes)
def test_cmod_is_the_modulus(
    seed: int, height: int, width: int, depth: int, wavelet: WaveletName, mode: Mode
) -> None:
    x = noise(seed, height, width)
    expected = np.abs(dtwpt.dtcwpt2(x, depth, wavelet, mode=mode))
    actual = dtwpt.cmod2(x, depth, wavelet, mode)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15)


@given(seeds, st.integers(2, 9), st.integers(2, 9), depths, st.sampled_from([1, 3, 5]))
def test_rmax_pools_the_real_part_around_the_samples_of_cmod(
    seed: int, rows: int, columns: int, depth: int, pool: int
) -> None:
    """From the undecimated coefficients, in periodic mode, where every window is complete."""
    step, m = 2**depth, 2 ** (depth - 1)
    x = noise(seed, rows * step, columns * step)
    every_pixel = dtwpt.dtcwpt2(x, depth, stride=1, mode="periodic")
    # The undecimated coefficient at pixel p is centred half a pixel before p.
    centre_y = step * np.arange(rows) + step // 2
    centre_x = step * np.arange(columns) + step // 2
    np.testing.assert_allclose(
        dtwpt.cmod2(x, depth, mode="periodic"),
        np.abs(every_pixel[..., centre_y[:, None], centre_x[None, :]]),
        atol=1e-12,
    )
    reach = m * np.arange(-(pool // 2), pool // 2 + 1)
    window_y = (centre_y[:, None] + reach) % x.shape[0]
    window_x = (centre_x[:, None] + reach) % x.shape[1]
    windows = every_pixel.real[..., window_y[:, None, :, None], window_x[None, :, None, :]]
    np.testing.assert_allclose(
        dtwpt.rmax2(x, depth, mode="periodic", pool=pool), windows.max((-2, -1)), atol=1e-12
    )


@pytest.mark.parametrize("size", [(530, 300), (90, 2200), (3, 5)])
@pytest.mark.parametrize("mode", ["symmetric", "reflect", "replicate", "periodic", "zero"])
def test_rmax_at_borders_sees_the_extended_image(size: tuple[int, int], mode: Mode) -> None:
    """Also where the image goes through in parts, which must overlap by the pooling window."""
    x = noise(0, *size)
    rmax = dtwpt.rmax2(x, 2, mode=mode)
    pad_mode = {"replicate": "edge", "periodic": "wrap", "zero": "constant"}.get(mode, mode)
    margin = 64
    padded = np.pad(x, margin, mode=pad_mode)  # type: ignore[call-overload]
    wide = dtwpt.rmax2(padded, 2, mode="zero")
    cells = margin // 4
    inner = wide[..., cells : cells + rmax.shape[-2], cells : cells + rmax.shape[-1]]
    np.testing.assert_allclose(rmax, inner, atol=1e-12)


@given(seeds, st.integers(2, 5), depths, st.sampled_from([dtwpt.cmod2, dtwpt.rmax2]))
def test_moving_by_a_cell_moves_by_a_sample(
    seed: int, cells: int, depth: int, operator: Any
) -> None:
    step = 2**depth
    x = noise(seed, cells * step, (cells + 1) * step)
    moved = operator(np.roll(x, (step, -2 * step), (0, 1)), depth, mode="periodic")
    expected = np.roll(operator(x, depth, mode="periodic"), (1, -2), (-2, -1))
    np.testing.assert_allclose(moved, expected, atol=1e-13)


def natural_pairs(size: int = 256) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Crops of photographs, and the same a pixel further to the right."""
    names = ["astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket"]
    for name in names:
        image = getattr(data, name)() / 255.0
        grey = image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image
        for top in range(0, grey.shape[0] - size + 1, 128):
            for left in range(0, grey.shape[1] - size, 128):
                rows, columns = slice(top, top + size), slice(left, left + size)
                yield grey[rows, columns], grey[rows, left + 1 : left + 1 + size]


def test_cmod_hardly_moves_and_rmax_does() -> None:
    """Relative squared change for a shift of one pixel at depth 3, over natural images."""
    atoms = dtwpt.PacketBank(3).atoms().reshape(2, 8, 8)
    gabor = ~(atoms["lowpass"] | atoms["boundary"])
    changes: dict[str, list[NDArray[Any]]] = {"cmod2": [], "rmax2": []}
    for one, other in natural_pairs():
        for name, per_packet in changes.items():
            operator = getattr(dtwpt, name)
            before, after = operator(one, 3), operator(other, 3)
            change = ((after - before) ** 2).sum((-2, -1)) / (before**2).sum((-2, -1))
            per_packet.append(change)
    cmod, rmax = (np.mean(values, axis=0) for values in changes.values())
    assert cmod.mean() < 0.035
    assert rmax.mean() > 6 * cmod.mean()
    assert cmod[gabor].mean() < 0.035
    assert rmax[gabor].mean() > 6 * cmod[gabor].mean()


def test_bad_pools_are_refused() -> None:
    x = np.ones((8, 8))
    for pool in (0, 2, -3):
        with pytest.raises(ValueError, match="pool must be an odd integer of at least 1, got"):
            dtwpt.rmax2(x, pool=pool)
    for other in (1.0, "3", None):
        with pytest.raises(TypeError, match="pool must be an odd integer of at least 1, got"):
            dtwpt.rmax2(x, pool=other)  # type: ignore[call-overload]
