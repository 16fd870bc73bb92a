"""gamma^2 over the frequency plane, with the frequencies of the packets."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

import dtwpt
from dtwpt.invariance import gamma

omega = np.linspace(-np.pi, np.pi, 401)
plane = np.stack(np.meshgrid(omega, omega, indexing="ij"), axis=-1)
figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
for axis, depth in zip(axes, (2, 3), strict=True):
    m = 2 ** (depth - 1)
    picture = axis.imshow(
        gamma(plane, m) ** 2,
        extent=(-np.pi, np.pi, np.pi, -np.pi),
        norm=LogNorm(7e-4, 1.5),
        cmap="viridis",
        interpolation="bilinear",
    )
    atoms = dtwpt.PacketBank(depth).atoms()
    atoms = atoms[~(atoms["boundary"] | atoms["lowpass"])]
    axis.plot(atoms["theta_x"], atoms["theta_y"], "o", ms=2.6, mfc="white", mec="black", mew=0.4)
    axis.set_title(f"J = {depth}, m = {m}")
    ticks, names = np.arange(-2, 3) * np.pi / 2, ["−π", "−π/2", "0", "π/2", "π"]
    axis.set_xticks(ticks, names)
    axis.set_yticks(ticks, names)
    axis.set_xlabel("$\\theta_x$ (rad/pixel)")
axes[0].set_ylabel("$\\theta_y$ (rad/pixel), down")
bar = figure.colorbar(picture, ax=axes, label="γ²", shrink=0.75, ticks=[0.001, 0.01, 0.1, 1])
bar.ax.set_yticklabels(["0.001", "0.01", "0.1", "1"])
