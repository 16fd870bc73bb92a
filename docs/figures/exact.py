"""The error of the adjoint alone, and of the inverse."""

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

n = 200
x = np.random.default_rng(0).normal(size=n)
c = dtwpt.dtcwpt(x, depth=2)
analysis = dtwpt.dtcwpt(np.eye(n), depth=2)  # the coefficients of every unit impulse
adjoint = np.einsum("nkp,kp->n", analysis.conj(), c).real
inverse = dtwpt.idtcwpt(c)

figure, axes = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
for y, name, colour in ((adjoint, "adjoint alone", "#d9730d"), (inverse, "inverse", "#1f5fa8")):
    axes.semilogy(np.where(y == x, np.nan, abs(y - x)), ".", ms=4, color=colour, label=name)
axes.set(xlabel="sample", ylabel="|error|", xlim=(-1, n))
axes.legend(loc="center")
