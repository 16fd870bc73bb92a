import matplotlib.pyplot as plt
import numpy as np

import dtwpt

names = dtwpt.wavelets()
rows = -(-len(names) // 3)
fig, axes = plt.subplots(rows, 3, figsize=(9.0, 2.0 * rows), layout="constrained")
omega = np.linspace(-np.pi, np.pi, 241)
for ax, name in zip(axes.flat, names, strict=False):
    filters = dtwpt.PacketBank(2, name).filters
    energy = np.abs(filters @ np.exp(-1j * np.outer(np.arange(filters.shape[1]), omega))) ** 2
    energy /= energy.max(axis=1, keepdims=True)
    for vertical in energy:
        for horizontal in energy:
            for across, colour in ((horizontal, "#0072B2"), (horizontal[::-1], "#D55E00")):
                ax.contour(
                    omega, omega, np.outer(vertical, across), [0.5], colors=colour, linewidths=0.9
                )
    ax.set_title(name)
    ax.set_aspect("equal")
    ax.set_xlim(-np.pi, np.pi)
    ax.set_ylim(np.pi, 0)
    ax.set_xticks([-np.pi, 0, np.pi], ["\u2212π", "0", "π"])
    ax.set_yticks([0, np.pi], ["0", "π"])
