"""Shift invariance against frequency and orientation: bounds, prediction, measurement."""

from dtwpt.invariance.bounds import alpha, beta, gamma
from dtwpt.invariance.closed_form import cmod_shift_closed_form
from dtwpt.invariance.deformation import deformation_constants, predict_deformation
from dtwpt.invariance.deformation_maps import local_maps, rotation, scaling, shear
from dtwpt.invariance.deformation_measure import measure_deformation, warp
from dtwpt.invariance.design import Design, design
from dtwpt.invariance.design_wavelet import optimise_wavelet
from dtwpt.invariance.envelope import rmax_cmod_bound
from dtwpt.invariance.gaussian import predict
from dtwpt.invariance.kernels import analytic_kernels, characterize
from dtwpt.invariance.layer import Layer, as_layer
from dtwpt.invariance.margin import dc_margin
from dtwpt.invariance.measure import measure
from dtwpt.invariance.moments import Moments, estimate_moments
from dtwpt.invariance.shift import estimate_shift
from dtwpt.invariance.spectrum import ColourSpectrum, Spectrum, estimate_spectrum

__all__ = [
    "ColourSpectrum",
    "Design",
    "Layer",
    "Moments",
    "Spectrum",
    "alpha",
    "analytic_kernels",
    "as_layer",
    "beta",
    "characterize",
    "cmod_shift_closed_form",
    "dc_margin",
    "deformation_constants",
    "design",
    "estimate_moments",
    "estimate_shift",
    "estimate_spectrum",
    "gamma",
    "local_maps",
    "measure",
    "measure_deformation",
    "optimise_wavelet",
    "predict",
    "predict_deformation",
    "rmax_cmod_bound",
    "rotation",
    "scaling",
    "shear",
    "warp",
]
