"""Against the packages dtcwt and pytorch_wavelets; ``make test-reference`` runs it.

Both need numpy<2 and an old setuptools, so they live in an environment of their own.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

import dtwpt

pytestmark = pytest.mark.reference

PUBLISHED = [name for name in dtwpt.wavelets() if name.startswith("qshift")]


@pytest.fixture(scope="module")
def dtcwt() -> Any:
    return importlib.import_module("dtcwt")


@pytest.fixture(scope="module")
def pytorch_wavelets() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces the end of pkg_resources
        return importlib.import_module("pytorch_wavelets")


@pytest.mark.parametrize("name", PUBLISHED)
def test_taps_are_those_of_dtcwt(dtcwt: Any, name: str) -> None:
    h0a, h0b, _, _, h1a, h1b, _, _ = (np.ravel(taps) for taps in dtcwt.coeffs.qshift(name))
    wavelet = dtwpt.Wavelet(name)
    np.testing.assert_array_equal(wavelet.low, [h0a, h0b])
    np.testing.assert_array_equal(wavelet.high, [h1a, h1b])


@pytest.mark.parametrize("name", PUBLISHED)
def test_taps_are_those_of_pytorch_wavelets(pytorch_wavelets: Any, name: str) -> None:
    coeffs = importlib.import_module("pytorch_wavelets.dtcwt.coeffs")
    h0a, h0b, _, _, h1a, h1b, _, _ = (np.ravel(taps) for taps in coeffs.qshift(name))
    wavelet = dtwpt.Wavelet(name)
    np.testing.assert_array_equal(wavelet.low, [h0a, h0b])
    np.testing.assert_array_equal(wavelet.high, [h1a, h1b])


def test_all_packages_answer_a_wave_evenly(pytorch_wavelets: Any, dtcwt: Any) -> None:
    """The modulus of a wave is the same everywhere, in a subband that is analytic.

    Packet "low, then high" corresponds to the wavelets of level 2. The other packages' first
    level has filters of its own (biorthogonal, of odd length), so the values themselves differ.
    """
    torch = importlib.import_module("torch")
    y, x = np.mgrid[:128, :128]
    # A frequency in the band [pi/4, pi/2], where the packet of place 1 is "low, then high".
    wave = np.cos(0.36 * np.pi * x + 0.02 * np.pi * y)
    ours = dtwpt.cmod2(wave, 2, mode="periodic")[:, 0, 1]
    strongest = ours[int(ours.mean((1, 2)).argmax())]
    assert strongest[8:-8, 8:-8].std() < 0.05 * strongest[8:-8, 8:-8].mean()
    theirs = np.abs(dtcwt.Transform2d().forward(wave, nlevels=2).highpasses[1])
    best = theirs[..., int(theirs.mean((0, 1)).argmax())]
    assert best[8:-8, 8:-8].std() < 0.05 * best[8:-8, 8:-8].mean()
    _, bands = pytorch_wavelets.DTCWTForward(J=2)(torch.from_numpy(wave)[None, None].float())
    again = np.hypot(*np.moveaxis(bands[1].numpy()[0, 0], -1, 0))
    np.testing.assert_allclose(np.sort(again.mean((1, 2))), np.sort(theirs.mean((0, 1))), rtol=1e-2)
    assert strongest.shape == best.shape
