"""Shift invariance against frequency and orientation: bounds, prediction, measurement."""

from dtwpt.invariance.bounds import alpha, beta, gamma
from dtwpt.invariance.design_wavelet import optimise_wavelet
from dtwpt.invariance.gaussian import cmod_shift_closed_form, predict
from dtwpt.invariance.kernels import analytic_kernels, characterize
from dtwpt.invariance.measure import measure
from dtwpt.invariance.spectrum import Spectrum, estimate_spectrum

__all__ = [
    "Spectrum",
    "alpha",
    "analytic_kernels",
    "beta",
    "characterize",
    "cmod_shift_closed_form",
    "estimate_spectrum",
    "gamma",
    "measure",
    "optimise_wavelet",
    "predict",
]
