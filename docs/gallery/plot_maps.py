"""
Maps of a photograph
====================

:func:`dtwpt.plot.maps` draws the map of each packet where the packet lies in the frequency plane.
"""

from sklearn.datasets import load_sample_image

import dtwpt.plot

photograph = load_sample_image("china.jpg").mean(axis=-1)[60:360, 170:470]
fig = dtwpt.plot.maps(photograph)

# %%
# RMax, the max pooling of the real part, of the same packets:

other = dtwpt.plot.maps(photograph, operator="rmax")
