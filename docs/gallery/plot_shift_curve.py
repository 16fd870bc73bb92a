"""
Change against the length of the shift
======================================

The change of both operators against the length of the shift: :func:`dtwpt.plot.shift_curve`.
Outputs of a bank of depth 2 lie four pixels apart; from two pixels on the modulus changes as much
as max pooling.
"""

import dtwpt
import dtwpt.plot
from dtwpt.invariance import predict

bank = dtwpt.PacketBank(2)
shifts = [(0, length) for length in (0, 0.5, 1, 1.5, 2, 3, 4)]
table = predict(bank, shifts, spectrum="pink")[:, bank.atoms()["gabor"]]
ax = dtwpt.plot.shift_curve(table)
