"""
Rotations
=========

:func:`dtwpt.invariance.predict_deformation` does for rotations, scalings and shears what
``predict`` does for shifts. :func:`dtwpt.plot.deformation` draws one curve for each filter.
"""

import dtwpt
import dtwpt.plot
from dtwpt.invariance import predict_deformation, rotation

bank = dtwpt.PacketBank(2)
angles = [0, 1, 2, 4, 6, 8, 10]
table = predict_deformation(bank, [rotation(angle) for angle in angles])
panels = dtwpt.plot.deformation(angles, table[:, bank.atoms()["gabor"]])
