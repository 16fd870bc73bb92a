"""One NaN pixel, and the coefficients that see it."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

image = np.random.default_rng(0).normal(size=(192, 192))
image[80, 110] = np.nan
maps = dtwpt.cmod2(image, depth=2)
spoilt = np.isnan(maps[0, 1, 2])

figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
left.imshow(image)
left.plot(110, 80, "s", ms=6, mfc="none", mec="#d9730d", mew=1.5)
left.set_title("image with one NaN (in the square)")
right.imshow(maps[0, 1, 2])
right.imshow(np.where(spoilt, 1.0, np.nan), cmap="autumn", vmin=0, vmax=2)
right.set_title(f"one map of 48 × 48: {spoilt.sum()} NaN")
for panel in (left, right):
    panel.set(xticks=[], yticks=[])
