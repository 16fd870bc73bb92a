"""Nine samples of a wave in a pooling window: their phases, and how close the best comes to 1."""

import matplotlib.pyplot as plt
import numpy as np

reach = np.arange(-1, 2)
theta = np.linspace(0, 2 * np.pi, 1201)
figure, axes = plt.subplots(2, 2, figsize=(7.2, 3.9), width_ratios=(1, 3.2), layout="constrained")
for (circle, curves), omega in zip(axes, ((1.15, 2.45), (0.25, 0.45)), strict=True):
    phases = np.sort((omega[0] * reach[:, None] + omega[1] * reach).ravel() % (2 * np.pi))
    circle.add_patch(plt.Circle((0, 0), 1, fill=False, ec="0.6"))
    circle.plot(np.cos(phases), -np.sin(phases), "o", color="#D55E00", ms=4)
    gaps = np.diff(np.append(phases, phases[0] + 2 * np.pi))
    widest = gaps.argmax()
    arc = phases[widest] + np.linspace(0, gaps[widest], 100)
    circle.plot(0.8 * np.cos(arc), -0.8 * np.sin(arc), color="#0072B2", lw=1.2)
    middle = arc.mean()
    circle.text(
        0.5 * np.cos(middle), -0.5 * np.sin(middle), "δ", color="#0072B2", ha="center", va="center"
    )
    circle.set(xlim=(-1.2, 1.2), ylim=(1.2, -1.2), aspect="equal")
    circle.set_title(f"ω = ({omega[0]}, {omega[1]})")
    circle.set_axis_off()
    waves = np.cos(theta - phases[:, None])
    curves.plot(theta, waves.T, color="0.75", lw=0.6)
    best = waves.max(axis=0)
    curves.fill_between(theta, best, 1, color="#D55E00", alpha=0.25, lw=0)
    curves.plot(theta, best, color="#D55E00", lw=1.4)
    curves.axhline(1, color="0.3", lw=0.8)
    squared = 1.5 + np.sum(np.sin(gaps) - 8 * np.sin(gaps / 2)) / (4 * np.pi)
    curves.set_title(f"γ² = {squared:.4f}")
    curves.set(xlim=(0, 2 * np.pi), ylim=(-1.05, 1.15), yticks=[-1, 0, 1])
    curves.set_xticks(np.arange(5) * np.pi / 2, ["0", "π/2", "π", "3π/2", "2π"])
axes[1, 1].set_xlabel("phase of the wave in the middle of the window, Θ")
