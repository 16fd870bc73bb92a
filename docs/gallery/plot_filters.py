"""
Filters of a packet bank
========================

A bank of depth 2 has 32 filters, most of which look like Gabor filters: a wave under an envelope.
:func:`dtwpt.plot.filters` draws each at its place in the frequency plane.
"""

from matplotlib.figure import Figure

import dtwpt
import dtwpt.plot

fig = dtwpt.plot.filters(dtwpt.PacketBank(2))

# %%
# Deeper banks have more filters, which are longer and narrower in frequency. In small figures text
# shrinks, and legends are left out.

small = dtwpt.plot.filters(dtwpt.PacketBank(3), Figure(figsize=(5, 2.2)), title=False)
