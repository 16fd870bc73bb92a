"""Windows of the extended signal are the columns of one product."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

length, stride, windows = 10, 4, 4
figure, axes = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
total = (windows - 1) * stride + length
for position in range(total):
    edge = position < 3 or position >= total - 3
    axes.add_patch(Rectangle((position, 0), 1, 1, fc="#fbe3cd" if edge else "#d5e5f6", ec="white"))
axes.text(1.5, -0.5, "extension", ha="center", va="center", size=8, color="#b3540a")
axes.text(total - 1.5, -0.5, "extension", ha="center", va="center", size=8, color="#b3540a")
axes.text(
    total / 2,
    -0.5,
    "signal, as it lies in memory",
    ha="center",
    va="center",
    size=8,
    color="#1f5fa8",
)
for k in range(windows):
    y, start = 1.5 + 0.85 * k, k * stride
    axes.add_patch(Rectangle((start, y), length, 0.55, fc="white", ec="#1f5fa8", lw=1.2))
    axes.text(
        start + length / 2,
        y + 0.27,
        f"window {k}: L samples from {k} · stride",
        ha="center",
        va="center",
        size=7.5,
    )
x = total + 2.6
axes.text(total + 1.3, 3, "→", ha="center", va="center", size=16)
axes.add_patch(Rectangle((x, 1.5), 4.4, 3.1, fc="0.95", ec="0.4"))
axes.text(x + 2.2, 3.05, "taps\n2P × L", ha="center", va="center", size=9)
axes.text(x + 5.2, 3.05, "×", ha="center", va="center", size=12)
for k in range(windows):
    axes.add_patch(Rectangle((x + 6 + 0.8 * k, 1.5), 0.7, 3.1, fc="#d5e5f6", ec="#1f5fa8"))
axes.text(x + 7.6, 0.8, "windows\nL × N′", ha="center", va="center", size=8)
axes.set(xlim=(-0.3, x + 9.6), ylim=(-0.9, 5.1), aspect="auto")
axes.set_axis_off()
