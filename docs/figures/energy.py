"""Where the energy of an image goes: the shares add up to one."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

rng = np.random.default_rng(0)
side = 256
y, x = np.mgrid[:side, :side]
image = np.zeros((side, side))
for _ in range(300):
    radius = 6 * rng.pareto(2) + 3
    centre = rng.uniform(0, side, 2)
    image[np.hypot(y - centre[0], x - centre[1]) < radius] = rng.uniform()
image -= image.mean()

c = dtwpt.dtcwpt2(image, depth=2, mode="periodic")
share = np.sum(abs(c) ** 2, axis=(-2, -1)) / np.sum(image**2)

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.7), layout="constrained")
axes[0].imshow(image)
axes[0].set_title("x")
axes[0].set_axis_off()
for panel, values, name in zip(axes[1:], share, ("sign +1", "sign −1"), strict=True):
    panel.imshow(np.log(values), cmap="Blues", vmin=np.log(share.min()), vmax=0)
    for (row, col), value in np.ndenumerate(values):
        panel.text(
            col,
            row,
            f"{100 * value:.2f}",
            ha="center",
            va="center",
            size=8,
            color="white" if value > 0.1 else "black",
        )
    panel.set(
        xticks=range(4), yticks=range(4), xlabel="horizontal packet", ylabel="vertical packet"
    )
    panel.set_title(f"{name}: {100 * values.sum():.2f} % of Σ x²")
