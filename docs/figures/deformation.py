"""Predicted error of each oriented packet against the angle of a rotation."""

import matplotlib.pyplot as plt
import numpy as np

import dtwpt
import dtwpt.plot
from dtwpt.invariance import predict_deformation, rotation

bank = dtwpt.PacketBank(2)
angles = np.arange(0, 11, 2)
table = predict_deformation(bank, [rotation(angle) for angle in angles])
_, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained", sharey=True)
dtwpt.plot.deformation(angles, table[:, bank.atoms()["gabor"]], ax=axes)
