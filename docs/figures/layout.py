"""The maps of a zone plate, whose frequency grows from the middle outwards."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

side = 256
t = np.arange(side) - (side - 1) / 2
image = np.cos(np.pi / side * (t[:, None] ** 2 + t**2))
maps = dtwpt.cmod2(image, depth=2)

figure = plt.figure(figsize=(7.2, 2.75), layout="constrained")
left, middle, right = figure.subfigures(1, 3)
axes = left.subplots()
axes.imshow(image)
axes.set_title("image, 256 × 256")
axes.set_axis_off()
for part, sign, name in ((middle, 0, "c[0]|, sign +1"), (right, 1, "c[1]|, sign −1")):
    grid = part.subplots(4, 4)
    for row in range(4):
        for col in range(4):
            axes = grid[row, col]
            axes.imshow(maps[sign, row, col], cmap="magma", vmin=0)
            axes.set(xticks=[], yticks=[])
            if col == 0:
                axes.set_ylabel(row, rotation=0, ha="right", va="center")
            if row == 0:
                axes.set_title(col, pad=3)
    part.suptitle(f"|{name}", size=9)
