"""Energy of one packet, with tree 2 on either side of tree 1 in the first stage."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

wavelet = dtwpt.Wavelet("qshift_b")
(low_a, low_b), (high_a, high_b) = wavelet.low, wavelet.high


def upsampled(taps):
    out = np.zeros(2 * taps.size - 1)
    out[::2] = taps
    return out


# Packet 1 of depth 2: low-pass, then high-pass. Tree 1 starts with low_a; tree 2 with the same,
# moved by one sample.
first = np.convolve(np.pad(low_a, (1, 1)), upsampled(high_a))
later = np.convolve(np.pad(low_a, (2, 0)), upsampled(high_b))
earlier = np.convolve(np.pad(low_a, (0, 2)), upsampled(high_b))
psi = dtwpt.PacketBank(2).filters[1]

omega = np.linspace(-np.pi, np.pi, 2001)
response = np.exp(-1j * np.outer(np.arange(psi.size), omega))
figure, axes = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
for taps, name, colour, style in (
    (first, "tree 1 alone (real)", "0.55", ":"),
    ((first + 1j * earlier) / 2**0.5, "tree 2 moved the wrong way", "#d9730d", "--"),
    ((first + 1j * later) / 2**0.5, "tree 2 moved the right way", "#9cc2ea", "-"),
    (psi, "dtwpt.PacketBank(2).filters[1]", "#12365f", "--"),
):
    spectrum = abs(taps @ response) ** 2
    if spectrum[:1000].sum() > 0.9 * spectrum.sum():
        spectrum = spectrum[::-1]
    axes.plot(
        omega, spectrum, style, color=colour, lw=3 if colour == "#9cc2ea" else 1.3, label=name
    )
axes.set_xticks(
    np.arange(-4, 5) * np.pi / 4, ["−π", "−3π/4", "−π/2", "−π/4", "0", "π/4", "π/2", "3π/4", "π"]
)
axes.set(xlabel="frequency (rad/sample)", ylabel="energy", xlim=(-np.pi, np.pi), ylim=(0, None))
axes.grid(axis="x", color="0.9")
axes.legend(loc="upper left")
