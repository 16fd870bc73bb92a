"""Change of CMod and RMax against the size of a deformation, filter by filter."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike, NDArray

from dtwpt.plot.canvas import Sheet, colour_bar, finish

__all__ = ["deformation"]

_TITLES = {"cmod": "CMod (complex modulus)", "rmax": "RMax (max pooling)"}


def deformation(
    sizes: ArrayLike,
    predicted: Any,
    measured: Any = None,
    ax: Any = None,
    *,
    label: str = "angle (degrees)",
) -> NDArray[Any]:
    """Draw errors against an angle or a scale, one curve a filter.

    One panel for CMod and one for RMax, with one vertical scale. Lines are predictions, coloured by
    the filter's frequency; dots are measurements.

    Parameters
    ----------
    sizes : array_like of float, shape (n,)
        Of the deformations: angles, scales, ...
    predicted : structured ndarray, shape (n, filters)
        From :func:`dtwpt.invariance.predict_deformation`, or some of its columns.
    measured : structured ndarray, shape (n, filters), optional
        From :func:`dtwpt.invariance.measure_deformation`, for the same maps and filters.
    ax : sequence of two matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    label : str, default: "angle (degrees)"
        Label of the axis of sizes.

    Returns
    -------
    ndarray of matplotlib Axes, shape (2,)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> from dtwpt.invariance import predict_deformation, rotation
    >>> angles = [0, 5, 10]
    >>> table = predict_deformation(dtwpt.PacketBank(2), [rotation(each) for each in angles])
    >>> cmod, rmax = dtwpt.plot.deformation(angles, table)
    >>> cmod.get_xlabel()
    'angle (degrees)'
    """
    along = np.asarray(sizes, dtype=np.float64)
    for name, table in (("predicted", predicted), ("measured", measured)):
        if table is not None and (np.ndim(table) != 2 or len(table) != along.size):
            raise ValueError(
                f"{name} must have shape ({along.size}, filters), one row a size, got "
                f"{np.shape(table)}"
            )
    sheet = Sheet(ax, 2, (9.4, 3.5))
    panels = sheet.axes
    scale = Normalize(float(predicted["frequency"].min()), float(predicted["frequency"].max()))
    colours = colormaps["viridis_r"](scale(predicted["frequency"][0]))
    top = 0.0
    for panel, name in zip(panels, ("cmod", "rmax"), strict=True):
        for index, colour in enumerate(colours):
            panel.plot(along, predicted[name][:, index], color=colour, linewidth=1.1)
            if measured is not None:
                panel.plot(
                    along, measured[name][:, index], "o", color=colour, markersize=3.6,
                    markeredgewidth=0,
                )  # fmt: skip
        for table in (predicted, measured):
            top = top if table is None else max(top, float(np.nanmax(table[name])))
        panel.set_title(_TITLES[name], fontsize=10)
        panel.set_xlabel(label, fontsize=8.5)
        finish(panel)
    for panel in panels:
        panel.set_ylim(0, 1.05 * top or 1.0)
    panels[0].set_ylabel("relative squared change", fontsize=8.5)
    colour_bar(
        panels[-1], ScalarMappable(scale, "viridis_r"), "frequency of the filter (rad/pixel)"
    )
    sheet.fit()
    return np.array(panels, dtype=object)
