"""
Kernels of a first layer
========================

:func:`dtwpt.invariance.characterize` describes the kernels of a convolution: frequency,
orientation, and whether they look like Gabor filters. :func:`dtwpt.plot.kernels` draws them, with
a frame around those that do. Here the layer is made up: twelve waves under envelopes and four
kernels of noise. Take ``model.conv1.weight`` of a trained network.
"""

import numpy as np

import dtwpt.plot
from dtwpt.invariance import characterize

y, x = np.mgrid[-5:6, -5:6]
rng = np.random.default_rng(0)
layer = []
for frequency, angle in zip(np.linspace(0.6, 2.4, 12), rng.uniform(0, np.pi, 12), strict=True):
    wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    layer.append(wave * np.exp(-(x**2 + y**2) / 8))
layer = np.stack([*layer, *rng.normal(size=(4, 11, 11))])
table = characterize(layer)
names = [f"{row['frequency']:.1f}, {row['orientation']:.0f}°" for row in table]
ax = dtwpt.plot.kernels(layer, names=names, marked=table["gabor"])
