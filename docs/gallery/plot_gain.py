"""
Complex modulus against max pooling, kernel by kernel
=====================================================

:func:`dtwpt.plot.gain` draws, kernel by kernel, how much a complex modulus would change against
how much max pooling does. Below the upper dashed line the modulus is the more stable of the two.
"""

import numpy as np

import dtwpt.plot
from dtwpt.invariance import characterize, predict

y, x = np.mgrid[-5:6, -5:6]
rng = np.random.default_rng(0)
layer = []
for frequency, angle in zip(np.linspace(0.6, 2.4, 12), rng.uniform(0, np.pi, 12), strict=True):
    wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    layer.append(wave * np.exp(-(x**2 + y**2) / 8))
layer = np.stack([*layer, *rng.normal(size=(4, 11, 11))])
ax = dtwpt.plot.gain(predict(layer), characterize(layer)["gabor_likeness"])
