"""
Choice of filters for a layer
=============================

:func:`dtwpt.invariance.design` chooses filters for a layer with max pooling: those that change
least for the energy that they hold. :func:`dtwpt.plot.design` draws the choice.
"""

import dtwpt.plot
from dtwpt.invariance import design

ax = dtwpt.plot.design(design(depth=2, budget=8))
