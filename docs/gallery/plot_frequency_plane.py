"""
One number for each packet
==========================

:func:`dtwpt.plot.frequency_plane` colours the cell of each packet. Here: the share of a packet's
energy that lies in its own quarter of the frequency plane. Packets around 0 and pi have less.
"""

import dtwpt
import dtwpt.plot

bank = dtwpt.PacketBank(3)
ax = dtwpt.plot.frequency_plane(bank, bank.atoms()["analyticity"], label="analyticity")
