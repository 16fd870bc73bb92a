"""The two ways to apply the matrix of an axis, and what it costs to keep one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtwpt
from dtwpt import axis as axis_module
from dtwpt.axis import Axis, axis_for
from dtwpt.borders import MODES
from tests.strategies import depths, modes, noise, relative_error, seeds


@pytest.fixture(params=["whole", "banded"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every axis applies its matrix the one way, then every axis the other."""
    monkeypatch.setattr(Axis, "dense", property(lambda self: request.param == "whole"))
    axis_for.cache_clear()
    yield request.param
    axis_for.cache_clear()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (90, 7), (101, 64)])
def test_both_ways_give_the_same(way: str, shape: tuple[int, int], mode: str) -> None:
    """Against outputs computed however the library chooses to."""
    x = noise(0, *shape)
    for depth, wavelet in ((1, "qshift_b"), (3, "qshift_a")):
        matrices = [axis_matrix(n, depth, wavelet, mode) for n in shape]
        expected = np.einsum("iah,jbw,hw->iajb", *matrices, x)
        c = dtwpt.dtcwpt2(x, depth, wavelet, mode=mode)
        packets = 2**depth
        trees = expected.reshape(c.shape[-2], 2, packets, c.shape[-1], 2, packets)
        aa, ab, ba, bb = (trees[:, s, :, :, t] for s in (0, 1) for t in (0, 1))
        plus, minus = (aa - bb) + 1j * (ab + ba), (aa + bb) + 1j * (ba - ab)
        together = np.sqrt(0.5) * np.stack([plus, minus])  # (sign, row, P, column, P)
        np.testing.assert_allclose(c, together.transpose(0, 2, 4, 1, 3), rtol=0, atol=1e-13)
        assert relative_error(dtwpt.idtcwpt2(c, shape, wavelet, mode), x) < 1e-12
        d = dtwpt.dtcwpt(x, depth, wavelet, mode=mode)
        assert relative_error(dtwpt.idtcwpt(d, shape[1], wavelet, mode), x) < 1e-12


def axis_matrix(n: int, depth: int, wavelet: str, mode: str) -> Any:
    """Matrix of one axis, (cells, 2 P, n), column by column from the transform of unit signals."""
    c = dtwpt.dtcwpt(np.eye(n), depth, wavelet, mode=mode)
    return np.concatenate([c.real, c.imag], axis=1).transpose(2, 1, 0)


@given(seeds, st.integers(1, 300), depths, st.integers(0, 4), modes)
def test_matrices_applied_whole_stay_small(
    seed: int, n: int, depth: int, part: int, mode: str
) -> None:
    axis = axis_for(n, depth, dtwpt.Wavelet("qshift_b"), 2 ** max(depth - part, 0), mode)
    if axis.dense:
        assert axis.matrix.nbytes <= 8 * axis_module._DENSE_NUMBERS
        x = noise(seed, n)
        cells = (axis.matrix @ x).reshape(axis.count, axis.channels)
        np.testing.assert_allclose(axis.signal(x[None])[0], cells.T, atol=1e-13)


def test_many_sizes_do_not_fill_the_memory() -> None:
    """What is kept for later is bounded in number, and each piece in size."""
    for n in range(300, 400):
        dtwpt.cmod2(np.ones((1, n), np.float32), 4)
    kept = axis_for.cache_info()
    assert kept.maxsize is not None
    assert kept.currsize <= kept.maxsize
    # A matrix, and the same in the order that the columns of an image need.
    assert kept.maxsize * 2 * 8 * axis_module._DENSE_NUMBERS <= 2**28
