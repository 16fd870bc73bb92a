"""The nominal cells of all atoms of depth 2 in the frequency plane."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Arc, Rectangle

import dtwpt

bank = dtwpt.PacketBank(2)
width = np.pi / 4
figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
for atom in bank.atoms():
    y, x = atom["theta_y"], atom["theta_x"]
    face = "#d5e5f6" if atom["sign"] > 0 else "#fbe3cd"
    if atom["boundary"]:
        face = "#eeeeee"
    corner = (x - width / 2, y - width / 2)
    axes.add_patch(Rectangle(corner, width, width, fc=face, ec="0.45", lw=0.8))
    label = f"{atom['sign']:+d}, {atom['row']}, {atom['col']}"
    axes.text(
        x,
        y,
        label.replace("-", "−"),
        ha="center",
        va="center",
        size=7.5,
        zorder=4,
        weight="bold" if atom["lowpass"] else None,
        bbox={"boxstyle": "square,pad=0.15", "fc": face, "ec": "none"},
    )
axes.add_patch(Rectangle((-np.pi, -np.pi / 2), 2 * np.pi, np.pi / 2, fc="white", ec="0.45", lw=0.8))
axes.text(
    0,
    -np.pi / 4,
    "mirror images: the conjugate coefficients of a real image",
    ha="center",
    va="center",
    size=8,
    color="0.35",
)

for sign, row, col in ((1, 1, 2), (-1, 2, 1)):
    atom = bank.atoms()[(sign < 0) * 16 + 4 * row + col]
    y, x, angle = atom["theta_y"], atom["theta_x"], atom["orientation"]
    colour = "#1f5fa8" if sign > 0 else "#b3540a"
    axes.annotate(
        "", (x * 0.9, y * 0.9), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6}
    )
    radius = 0.8 if sign > 0 else 0.66
    axes.add_patch(
        Arc((0, 0), 2 * radius, 2 * radius, theta1=0, theta2=angle, color=colour, lw=1.2)
    )
    place = (0.83, 0.13) if sign > 0 else (0.06, 0.8)
    axes.text(
        *place,
        f"{angle:.0f}°",
        color=colour,
        size=8,
        ha="center",
        va="center",
        zorder=5,
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85},
    )

ticks = np.arange(-4, 5)
names = ["−π", "−3π/4", "−π/2", "−π/4", "0", "π/4", "π/2", "3π/4", "π"]
axes.set_xticks(ticks * width, names)
axes.set_yticks(ticks[2:] * width, names[2:])
axes.set(
    xlim=(-np.pi, np.pi),
    ylim=(np.pi, -np.pi / 2),
    aspect="equal",
    xlabel="$\\omega_x$ (rad/pixel)",
    ylabel="$\\omega_y$ (rad/pixel), down",
)
