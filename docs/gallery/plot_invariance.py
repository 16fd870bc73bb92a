"""
Stability against orientation
=============================

:func:`dtwpt.invariance.predict` tells from a power spectrum how much a shift changes the outputs
of each filter; :func:`dtwpt.plot.invariance` draws it against the filters' orientation or
frequency.
"""

import dtwpt
import dtwpt.plot
from dtwpt.invariance import predict

bank = dtwpt.PacketBank(3)
table = predict(bank, shift=(0, 1), spectrum="pink")[bank.atoms()["gabor"]]
panels = dtwpt.plot.invariance(table)

# %%
# The same filters against their frequency:

others = dtwpt.plot.invariance(table, against="frequency")
