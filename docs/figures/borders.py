"""How a signal of six samples goes on in the five modes."""

import matplotlib.pyplot as plt
import numpy as np

from dtwpt.engine.borders import MODES, source_index

x = np.array([1.0, 2.2, 2.6, 3.6, 3.2, 4.4])
positions = np.arange(-7, 13)
figure, panels = plt.subplots(
    5, 1, figsize=(7.2, 5), sharex=True, sharey=True, layout="constrained"
)
for panel, mode in zip(panels, MODES, strict=True):
    index = source_index(positions, x.size, mode)
    values = np.where(index >= 0, x[index], 0)
    inside = (positions >= 0) & (positions < x.size)
    panel.axvspan(-0.5, x.size - 0.5, color="#eaf1f9", lw=0)
    panel.vlines(positions, 0, values, color="0.75", lw=1)
    panel.plot(positions[inside], values[inside], "o", color="#1f5fa8", ms=5)
    panel.plot(positions[~inside], values[~inside], "o", mfc="white", mec="#d9730d", ms=5)
    panel.set(ylim=(-0.4, 5.4), yticks=[])
    panel.spines["left"].set_visible(False)
    panel.set_ylabel(mode, rotation=0, ha="right", va="center")
panels[-1].set_xticks(positions, positions)
panels[-1].set(xlabel="position")
