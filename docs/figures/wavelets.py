import matplotlib.pyplot as plt
import numpy as np

import dtwpt

names = dtwpt.wavelets()
size = (1.25 * len(names), 3.4)
fig, axes = plt.subplots(2, len(names), figsize=size, sharey="row", layout="constrained")
omega = np.linspace(-np.pi, np.pi, 1025)
for (top, bottom), name in zip(axes.T, names, strict=True):
    packet = dtwpt.PacketBank(2, name).filters[1]
    n = np.arange(len(packet))
    centre = np.sum(n * np.abs(packet) ** 2) / np.sum(np.abs(packet) ** 2)
    top.plot(n - centre, packet.real, linewidth=1, label="real")
    top.plot(n - centre, packet.imag, linewidth=1, label="imaginary")
    top.set_title(name, fontsize=8)
    top.set_xlim(-20, 20)
    spectrum = np.abs(np.exp(-1j * np.outer(omega, n)) @ packet) ** 2
    bottom.plot(omega, spectrum / spectrum.max(), linewidth=1)
    bottom.set_xticks([-np.pi, 0, np.pi], ["\u2212π", "0", "π"])
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
for ax in axes[0, 1::3]:
    ax.set_xlabel("pixels from the centre")
for ax in axes[1, 1::3]:
    ax.set_xlabel("frequency (rad/pixel)")
axes[1, 0].set_ylabel("energy")
