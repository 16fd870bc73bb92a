"""
Frequencies that max pooling misses
===================================

:func:`dtwpt.plot.gamma_map` draws :func:`dtwpt.invariance.gamma`: dark where samples in a pooling
window catch a wave near its peak, bright where they may miss it. The dots are the packets of a
bank.
"""

import dtwpt
import dtwpt.plot

ax = dtwpt.plot.gamma_map(bank=dtwpt.PacketBank(2))
