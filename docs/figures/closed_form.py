"""The shift error of CMod against the correlation, by the closed form and by simulation."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

from dtwpt.invariance import cmod_shift_closed_form

rng = np.random.default_rng(0)
z, w = rng.normal(size=(2, 1_000_000, 2)) @ [1, 1j]
correlation = np.linspace(0, 1, 11)
simulated = [
    np.mean((abs(z) - abs(r * z + np.sqrt(1 - r**2) * w)) ** 2) / np.mean(abs(z) ** 2)
    for r in correlation
]
figure, axis = plt.subplots(figsize=(4.6, 2.7), layout="constrained")
fine = np.linspace(0, 1, 201)
axis.plot(fine, cmod_shift_closed_form(fine), color="#0072B2", label="closed form")
axis.plot(correlation, simulated, "o", ms=4, color="#D55E00", label="1 000 000 simulated pairs")
axis.axhline(2 - np.pi / 2, color="0.6", lw=0.8, ls=":")
axis.text(0.98, 2 - np.pi / 2 + 0.008, "2 − π/2", ha="right", color="0.3")
axis.set(
    xlim=(0, 1),
    ylim=(0, 0.48),
    xlabel="|r|",
    ylabel="E (|Z'| − |Z|)² / E |Z|²",
)
axis.legend(loc="lower left")
