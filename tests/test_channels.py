"""Colour images: position and treatment of their channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dtwpt
from dtwpt.extract import Settings, extract
from dtwpt.features import packet_features
from dtwpt.sklearn import PacketFeatures
from dtwpt.typing import Colour

rng = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("lead", [(), (5,)])
def test_channels_last_are_refused_or_understood(channels: int, lead: tuple[int, ...]) -> None:
    x = rng.random((*lead, 24, 17, channels))
    functions: list[Any] = [dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt2, packet_features]
    for function in functions:
        for images in (x, torch.from_numpy(x)):
            with pytest.raises(ValueError, match=r"looks like colour images.*channel_axis=-1"):
                function(images)
        expected = function(np.moveaxis(x, -1, -3))
        np.testing.assert_array_equal(function(x, channel_axis=-1), expected)
        np.testing.assert_array_equal(function(torch.from_numpy(x), channel_axis=-1), expected)
        narrow = function(x, channel_axis=None)
        np.testing.assert_array_equal(narrow[0], function(x[0], channel_axis=None))


def test_channel_axis_may_be_any() -> None:
    x = rng.random((6, 2, 30, 20))
    expected = dtwpt.cmod2(x)
    for axis in range(-4, 4):
        moved = np.moveaxis(x, 1, axis)
        np.testing.assert_array_equal(dtwpt.cmod2(moved, channel_axis=axis), expected)
    with pytest.raises(ValueError, match=r"channel_axis must be .*, got 4 for shape \(6, 2, 30"):
        dtwpt.cmod2(x, channel_axis=4)
    with pytest.raises(TypeError, match=r"channel_axis must be .*, got 'last'"):
        dtwpt.cmod2(x, channel_axis="last")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="beside its rows and columns"):
        dtwpt.cmod2(x[0, 0], channel_axis=0)
    # Small maps of a network are no colour images.
    assert dtwpt.cmod2(np.ones((2, 64, 4, 4))).shape[:2] == (2, 64)


@pytest.mark.parametrize("colour", ["luma", "channels"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_are_those_of_the_command(tmp_path: Path, colour: Colour, channels: int) -> None:
    pixels = rng.integers(0, 256, (40, 36, channels), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "a.png")
    expected = extract([tmp_path], Settings(pool=2, colour=colour)).features[0]
    got = packet_features(pixels, pool=2, colour=colour)
    np.testing.assert_array_equal(got, expected)
    tensor = torch.from_numpy(pixels).movedim(-1, 0)
    np.testing.assert_array_equal(packet_features(tensor, pool=2, colour=colour), expected)
    if channels == 1:
        np.testing.assert_array_equal(
            packet_features(pixels[..., 0], pool=2, colour=colour), expected
        )
    elif channels == 3 or colour == "luma":
        transformer = PacketFeatures(pool=2, colour=colour)
        np.testing.assert_array_equal(transformer.fit_transform(pixels[None])[0], expected)
        assert len(transformer.get_feature_names_out()) == len(expected)


def test_wrong_colours_are_refused() -> None:
    x = rng.random((7, 20, 20))
    with pytest.raises(ValueError, match="x must have 1 to 4 channels for colour='luma', got 20"):
        packet_features(x, colour="luma")
    assert packet_features(x, colour="luma", channel_axis=None).shape == (7, 32)
    with pytest.raises(ValueError, match="known colours: luma, channels"):
        packet_features(x, colour="rgb")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="known colours: luma, channels"):
        PacketFeatures(colour="rgb").fit(x)  # type: ignore[arg-type]


def test_messages_are_one_short_line() -> None:
    """Whatever is given in the place of a small argument is not printed."""
    long = [np.arange(5000.0), list(range(5000)), "x" * 5000, "two\nlines", torch.ones(50, 50)]
    functions: list[Any] = [
        *(lambda bad, name=name: dtwpt.rmax2(np.ones((8, 8)), **{name: bad})
          for name in ("depth", "wavelet", "mode", "pool", "channel_axis")),
        *(lambda bad, name=name: packet_features(np.ones((8, 8)), **{name: bad})
          for name in ("operator", "pool", "colour")),
        lambda bad: dtwpt.dtcwpt2(np.ones((8, 8)), stride=bad),
        lambda bad: dtwpt.idtcwpt2(np.ones((2, 4, 4, 2, 2), complex), bad),
        dtwpt.Wavelet,
        lambda bad: dtwpt.PacketBank(2).atom(bad, 1, 1),
    ]  # fmt: skip
    for function in functions:
        for bad in long:
            with pytest.raises((TypeError, ValueError)) as caught:
                function(bad)
            message = str(caught.value)
            assert len(message) < 300
            assert "\n" not in message
