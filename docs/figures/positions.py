"""Where coefficients sit, and where the packets of one coefficient sit around it."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import dtwpt

bank = dtwpt.PacketBank(2)
offsets = bank.atoms()["offset_x"][:4]  # sign +1, vertical packet 0, horizontal packets 0 to 3
length = bank.filters.shape[1]
stride, n = 4, 3
centre = stride * n + (stride - 1) / 2

figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(7.2, 3.9), sharex=True, height_ratios=(1, 1.7), layout="constrained"
)
for pixel in range(28):
    top.add_patch(Rectangle((pixel - 0.5, 0), 1, 1, fc="0.93", ec="0.6", lw=0.7))
    top.text(pixel, 0.5, pixel, ha="center", va="center", size=6.5, color="0.4")
for y, step, last in ((2.9, 4, 6), (2.1, 2, 13), (1.3, 1, 27)):
    positions = step * np.arange(last + 1) + (step - 1) / 2 - (0.5 if step == 1 else 0)
    top.plot(positions, np.full(last + 1, y), "o", ms=4, color="#1f5fa8")
    top.plot(positions[0], y, "o", ms=4.5, color="#d9730d")
    top.text(-1.2, y, f"stride {step}", ha="right", va="center", size=8)
top.text(-1.2, 0.5, "pixels", ha="right", va="center", size=8)
top.set(ylim=(-0.1, 3.2))
top.set_axis_off()

pixels = centre + np.arange(length) - (length - 1) / 2
for k, filter_ in enumerate(bank.filters):
    colour = plt.cm.viridis(k / 4)
    bottom.plot(
        pixels,
        abs(filter_) ** 2,
        ".-",
        color=colour,
        lw=1.2,
        ms=4,
        label=f"packet {k}: offset {offsets[k]:+.2f}".replace("-", "−"),
    )
    bottom.plot(centre + offsets[k], -0.01, "^", color=colour, ms=6, clip_on=False)
bottom.axvline(centre, color="#1f5fa8", lw=1, ls="--")
bottom.text(
    centre + 0.2, 0.262, f"stride 4, n = {n}: 4 n + 1.5 = {centre}", color="#1f5fa8", size=8
)
bottom.set(xlim=(-0.6, 27.6), ylim=(-0.01, 0.28), xlabel="pixel", ylabel="|packet|²")
bottom.legend(loc="upper left")
