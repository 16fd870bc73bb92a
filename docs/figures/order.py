"""The cascade of depth 3 over the bands of its packets, and the spectra of the packets."""

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

DEPTH = 3
bank = dtwpt.PacketBank(DEPTH)
count = 2**DEPTH

figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(7.2, 4.6), sharex=True, height_ratios=(1.25, 1), layout="constrained"
)
for level in range(DEPTH + 1):
    for node in range(2**level):
        x = (node + 0.5) / 2**level
        path = node ^ (node >> 1)  # the Gray code
        name = format(path, f"0{level}b").replace("0", "L").replace("1", "H") if level else "x"
        colour = "#1f5fa8" if name.endswith("L") else "#d9730d" if name.endswith("H") else "black"
        if level:
            parent = (node // 2 + 0.5) / 2 ** (level - 1)
            top.plot([parent, x], [1 - level, -level], color=colour, lw=1.2, zorder=1)
        top.text(
            x,
            -level,
            name,
            ha="center",
            va="center",
            color=colour,
            zorder=2,
            size=9,
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": colour, "lw": 0.9},
        )
for k in range(count):
    top.text((k + 0.5) / count, -DEPTH - 0.55, f"k = {k}", ha="center", va="center", size=8)
top.set(ylim=(-DEPTH - 0.8, 0.4))
top.set_axis_off()

omega = np.linspace(0, np.pi, 1025)
response = np.exp(-1j * np.outer(np.arange(bank.filters.shape[1]), omega))
for k, filter_ in enumerate(bank.filters):
    bottom.plot(omega / np.pi, abs(filter_ @ response), color=plt.cm.viridis(k / count), lw=1.3)
ticks = np.arange(count + 1) / count
bottom.set_xticks(ticks, ["0", "π/8", "π/4", "3π/8", "π/2", "5π/8", "3π/4", "7π/8", "π"])
bottom.set(xlim=(0, 1), ylim=(0, None), xlabel="frequency (rad/sample)", ylabel="|spectrum|")
bottom.grid(axis="x", color="0.85")
