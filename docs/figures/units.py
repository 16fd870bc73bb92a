"""Real parts of four atoms with the arrows of their frequencies."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

bank = dtwpt.PacketBank(3)
table = bank.atoms()
figure, panels = plt.subplots(1, 4, figsize=(7.2, 2.35), layout="constrained")
for panel, (sign, row, col) in zip(
    panels, ((1, 0, 3), (1, 2, 2), (1, 3, 0), (-1, 2, 2)), strict=True
):
    atom = table[(sign < 0) * 64 + 8 * row + col]
    picture = bank.atom(sign, row, col).real[30:-30, 30:-30]
    top = abs(picture).max()
    panel.imshow(picture, cmap="RdBu_r", vmin=-top, vmax=top)
    middle = (picture.shape[0] - 1) / 2
    theta = np.array([atom["theta_x"], atom["theta_y"]])
    tip = middle + 11 * theta / np.linalg.norm(theta)
    panel.annotate(
        "", tip, (middle, middle), arrowprops={"arrowstyle": "->", "lw": 2, "color": "black"}
    )
    panel.set(xticks=[], yticks=[])
    name = "sign +1" if sign > 0 else "sign −1"
    panel.set_title(
        f"{name}, row {row}, col {col}\n{atom['orientation']:.1f}°, "
        f"{atom['frequency']:.2f} rad/pixel",
        size=8,
    )
    for spine in panel.spines.values():
        spine.set_visible(False)
panels[0].set_xlabel("x →", loc="left", labelpad=2)
panels[0].set_ylabel("y\n↓", loc="top", rotation=0, labelpad=6)
