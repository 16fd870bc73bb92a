"""The packets of depth 2 that a design chooses for stride 2, and those to avoid."""

import matplotlib.pyplot as plt

import dtwpt.plot
from dtwpt.invariance import design

_, axes = plt.subplots(figsize=(6.8, 5.2), layout="constrained")
dtwpt.plot.design(design(stride=2, pool=3, spectrum="pink", depth=2, budget=12), axes)
