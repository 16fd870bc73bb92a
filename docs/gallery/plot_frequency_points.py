"""
A first layer in the frequency plane
====================================

:func:`dtwpt.plot.frequency_points` draws a number for each kernel where the kernel lies in the
frequency plane: here, the predicted change of its max pooling under a shift by one pixel.
"""

import numpy as np

import dtwpt.plot
from dtwpt.invariance import predict

y, x = np.mgrid[-5:6, -5:6]
rng = np.random.default_rng(0)
layer = []
for frequency, angle in zip(np.linspace(0.6, 2.4, 12), rng.uniform(0, np.pi, 12), strict=True):
    wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    layer.append(wave * np.exp(-(x**2 + y**2) / 8))
layer = np.stack([*layer, *rng.normal(size=(4, 11, 11))])
table = predict(layer)
ax = dtwpt.plot.frequency_points(table, table["rmax_shift"], label="relative change of RMax")
