"""A cosine moves to the right: the modulus stays, the phase falls."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

bank = dtwpt.PacketBank(3)
k, n = 2, 8
theta = bank.frequencies[k]
shifts = np.linspace(0, 8, 33)
x = np.cos(theta * (np.arange(128) - shifts[:, None]))
c = dtwpt.dtcwpt(x, depth=3, mode="periodic")[:, k, n]

figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6), layout="constrained")
taps = np.arange(bank.filters.shape[1])
left.plot(taps, bank.filters[k].real, color="#1f5fa8", lw=1.2, label="real part")
left.plot(taps, bank.filters[k].imag, color="#d9730d", lw=1.2, label="imaginary part")
left.set(xlim=(28, 66), xlabel="tap", title=f"filters[{k}] at depth 3")
left.legend()
phase = np.unwrap(np.angle(c))
right.plot(shifts, phase - phase[0], ".", color="#1f5fa8", label="phase of c − its first value")
right.plot(shifts, -theta * shifts, color="#1f5fa8", lw=0.8, label="−θ u")
right.plot(shifts, abs(c), color="#d9730d", label="|c|")
right.set(
    xlabel="shift u of the cosine (samples)", ylabel="phase (rad), |c|", title="its coefficient"
)
right.legend(loc="lower left")
