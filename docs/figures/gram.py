"""How far the Gram matrix of one axis is from the identity."""

# ruff: noqa: RUF001

import matplotlib.pyplot as plt
import numpy as np

import dtwpt

n = 122
figure, panels = plt.subplots(1, 3, figsize=(7.2, 2.7), layout="constrained")
for panel, mode in zip(panels, ("periodic", "symmetric", "zero"), strict=True):
    rows = dtwpt.dtcwpt(np.eye(n), depth=2, mode=mode).reshape(n, -1)
    gram = (rows @ rows.conj().T).real
    size = np.log10(np.maximum(abs(gram - np.eye(n)), 1e-8))
    picture = panel.imshow(size, vmin=-8, vmax=0, cmap="magma_r")
    panel.set_title(f"{mode}\ncondition of A: {np.sqrt(np.linalg.cond(gram)):.2f}")
    panel.set(xticks=[0, 121], yticks=[0, 121])
figure.colorbar(picture, ax=panels, label="log₁₀ |AᵀA − I|", shrink=0.85)
