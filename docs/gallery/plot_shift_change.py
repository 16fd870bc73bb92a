"""
Features before and after a shift
=================================

:func:`dtwpt.plot.shift_change` moves a picture by a pixel and compares the maps of the complex
modulus with those of max pooling.
"""

from sklearn.datasets import load_sample_image

import dtwpt.plot

photograph = load_sample_image("china.jpg").mean(axis=-1)[60:360, 170:470]
fig = dtwpt.plot.shift_change(photograph, shift=(0, 1))
