"""Figures of packets, of their responses to an image, and of their stability under shifts.

Needs matplotlib: ``pip install "dtwpt[plot]"``. Every function returns its figure or axes, for the
caller to save or show; none touches matplotlib's global settings, backend or current figure.

In every picture the vertical axis points down, as rows do: a filter that lies in one direction
from the origin of the frequency plane has its waves running in that same direction on the screen.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "matplotlib":
        raise
    raise ImportError('dtwpt.plot needs matplotlib: pip install "dtwpt[plot]"') from None

from dtwpt.plot.atoms import filters
from dtwpt.plot.deformation import deformation
from dtwpt.plot.design import design
from dtwpt.plot.errors import invariance, prediction, shift_curve
from dtwpt.plot.images import maps, shift_change
from dtwpt.plot.layer import frequency_points, gain, gamma_map, kernels
from dtwpt.plot.plane import frequency_plane

__all__ = [
    "deformation",
    "design",
    "filters",
    "frequency_plane",
    "frequency_points",
    "gain",
    "gamma_map",
    "invariance",
    "kernels",
    "maps",
    "prediction",
    "shift_change",
    "shift_curve",
]
