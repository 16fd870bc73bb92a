"""Objects on backgrounds: where they come to lie, and that nothing wraps around."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dtwpt.scenes import compose, sweep
from tests.strategies import noise


def digit(side: int = 8) -> NDArray[np.float64]:
    """A bright object with a soft edge that is opaque in its middle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    opacity = np.clip(side / 2 - np.hypot(y, 0.7 * x), 0, 1)
    return np.stack([0.5 + 0.5 * (x > 0), opacity], -1)


def test_pixels_of_its_own_size() -> None:
    """At scale 1 the object's pixels are those of the scene, blended by opacity."""
    background, cutout = noise(0, 32, 32), digit()
    expected = background.copy()
    colour, opacity = cutout[..., 0], cutout[..., 1]
    expected[4:12, 20:28] = (1 - opacity) * expected[4:12, 20:28] + opacity * colour
    scene = compose(cutout, background, (8 / 32, 24 / 32), area=(8 / 32) ** 2)
    np.testing.assert_allclose(scene, expected, atol=1e-12)


@pytest.mark.parametrize(("area", "angle"), [(0.02, 0), (0.05, 33.0), (0.2, 200.0)])
def test_shift_by_whole_pixels(area: float, angle: float) -> None:
    """On an empty ground, moving the object moves the picture, and nothing comes back."""
    background = np.zeros((40, 48))
    still = compose(digit(), background, (0.5, 0.5), area, angle)
    for down, right in ((3, -5), (-30, 0), (0, 60)):
        moved = compose(digit(), background, (0.5 + down / 40, 0.5 + right / 48), area, angle)
        expected = np.zeros((40, 48))
        rows, columns = (slice(max(d, 0), n + min(d, 0)) for d, n in ((down, 40), (right, 48)))
        if right < 48:
            back = (
                slice(max(-down, 0), 40 - max(down, 0)),
                slice(max(-right, 0), 48 - max(right, 0)),
            )
            expected[rows, columns] = still[back]
        np.testing.assert_allclose(moved, expected, atol=1e-12)


def test_area_and_angle() -> None:
    opaque = np.ones((6, 12, 2))
    background = np.zeros((64, 64))
    for area in (0.03, 0.1, 0.3):
        assert compose(opaque, background, area=area).mean() == pytest.approx(area, rel=0.06)
    upright = compose(opaque, background, area=0.1, angle=90.0)
    np.testing.assert_allclose(upright, np.rot90(compose(opaque, background, area=0.1)), atol=1e-12)
    # Counter-clockwise: what is on the right goes to the top.
    half = opaque.copy()
    half[:, :6, 0] = 0
    turned = compose(half, background, area=0.1, angle=90.0)
    assert turned[:32].sum() > 10 * turned[32:].sum()


def test_transparent_and_colours() -> None:
    background = noise(1, 10, 12, 3).astype(np.float32)
    hidden = np.concatenate([np.full((4, 4, 3), 9.0), np.zeros((4, 4, 1))], -1).astype(np.float32)
    scene = compose(hidden, background)
    assert scene.dtype == np.float32
    np.testing.assert_array_equal(scene, background)
    # Colours of what is transparent do not bleed into what is not.
    hidden[1:3, 1:3] = 1
    assert compose(hidden, 0 * background, area=0.5).max() <= 1 + 1e-6


def test_sweep() -> None:
    background = noise(2, 16, 16)
    values, scenes = sweep(digit(), background, "angle", area=0.3)
    assert values == list(range(1, 342, 20))
    np.testing.assert_array_equal(scenes[3], compose(digit(), background, area=0.3, angle=61))
    places, scenes = sweep(digit(), background, "centre", angle=10.0)
    assert (len(places), scenes.shape) == (441, (441, 16, 16))


def test_moves_that_a_roll_is_not() -> None:
    """A network that no roll changes is not unchanged by an object that moves."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2, padding_mode="circular"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).double()
    _, scenes = sweep(digit(), noise(3, 24, 24), "centre", [(0.5, 0.5), (0.5, 13 / 24)])
    with torch.no_grad():
        still, moved = net(torch.from_numpy(scenes)[:, None])
        rolled = net(torch.from_numpy(scenes[:1])[:, None].roll(1, -1))[0]
    assert (rolled - still).norm() / still.norm() < 1e-14
    assert (moved - still).norm() / still.norm() > 1e-3


def test_refusals() -> None:
    background = np.zeros((8, 8))
    with pytest.raises(ValueError, match="cutout must have 2 channels"):
        compose(np.ones((2, 2, 4)), background)
    with pytest.raises(ValueError, match="opacity, 0 to 1"):
        compose(np.full((2, 2, 2), 2.0), background)
    with pytest.raises(ValueError, match="area must be positive, got 0"):
        compose(np.ones((2, 2, 2)), background, area=0)
    with pytest.raises(TypeError, match="centre must be two numbers"):
        compose(np.ones((2, 2, 2)), background, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown factor 'size'"):
        sweep(np.ones((2, 2, 2)), background, "size")
    with pytest.raises(TypeError, match="angle is the factor that changes"):
        sweep(np.ones((2, 2, 2)), background, "angle", [1], angle=2)
