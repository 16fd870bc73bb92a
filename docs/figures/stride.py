"""A smaller stride samples the same outputs more often."""

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

depth, k = 3, 2
t = np.arange(128)
theta = dtwpt.PacketBank(depth).frequencies[k]
x = np.exp(-(((t - 60) / 14) ** 2)) * np.cos(theta * t)

figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 3.4), sharex=True, layout="constrained")
top.plot(t, x, color="0.3", lw=1)
top.set(ylabel="signal")
for stride, style in (
    (1, {"ls": "-", "color": "0.6", "lw": 1.2}),
    (4, {"ls": "", "marker": "o", "ms": 4, "color": "#1f5fa8"}),
    (8, {"ls": "", "marker": "o", "ms": 9, "mfc": "none", "color": "#d9730d"}),
):
    c = dtwpt.dtcwpt(x, depth, stride=stride)
    n = np.arange(c.shape[-1])
    bottom.plot(
        stride * n + (stride - 1) / 2 - 0.5 * (stride == 1),
        abs(c[k]),
        label=f"stride {stride}",
        **style,
    )
bottom.set(xlim=(0, 127), ylim=(0, None), xlabel="sample", ylabel=f"|c[{k}]|")
bottom.legend()
