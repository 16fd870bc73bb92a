"""A layer's candidate filters in the frequency plane: which to use, and which to avoid."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dtwpt.invariance.design import Design
from dtwpt.plot.canvas import COLOURS, Place, Sheet, colour_bar
from dtwpt.plot.plane import draw_guides, label_axes

__all__ = ["design"]


def design(found: Design, ax: Place = None) -> Axes:
    """Draw a design: every candidate at its frequency, coloured by its predicted error.

    Discs with a number are the chosen filters, by rank; crosses are candidates to avoid, whose
    errors are above the design's limit. Those of the usual choice have a ring. A filter is drawn
    at its frequency and, without number, at the opposite one: to real images, the two are one.

    Parameters
    ----------
    found : Design
        From :func:`dtwpt.invariance.design`.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError
        If found is no design.

    Examples
    --------
    >>> import dtwpt.plot
    >>> from dtwpt.invariance import design
    >>> ax = dtwpt.plot.design(design(depth=2, budget=8))
    >>> ax.get_xlabel()
    'horizontal frequency (rad/pixel)'
    """
    if not isinstance(found, Design):
        raise TypeError(f"found must be a dtwpt.invariance.Design, got {type(found).__name__}")
    sheet = Sheet(ax, size=(6.2, 6.2))
    (axes,) = sheet.axes
    rows = found.table
    colour: dict[str, Any] = {
        "cmap": "viridis_r", "vmin": 0.0, "vmax": float(np.quantile(rows["error"], 0.9)),
    }  # fmt: skip
    axes.set_facecolor("0.96")
    draw_guides(axes, "0.55", sheet.wide)
    for sign in (1, -1):
        for mask, marker, size in (
            (rows["rank"] > 0, "o", 190),
            ((rows["rank"] == 0) & ~rows["avoid"], "o", 50),
            (rows["avoid"], "X", 60),
        ):
            part = rows[mask]
            if not len(part):
                continue
            shown = axes.scatter(
                sign * part["theta_x"], sign * part["theta_y"], c=part["error"], s=size,
                marker=marker, edgecolors="none", zorder=3, **colour,
            )  # fmt: skip
        ringed = rows[rows["usual"]]
        axes.scatter(
            sign * ringed["theta_x"], sign * ringed["theta_y"], s=260, facecolors="none",
            edgecolors=COLOURS[1], linewidths=1.3, zorder=4,
        )  # fmt: skip
    for row in rows[found.chosen]:
        axes.text(
            row["theta_x"], row["theta_y"], str(row["rank"]), ha="center", va="center",
            fontsize=7, color="white" if row["error"] > 0.5 * colour["vmax"] else "black", zorder=5,
        )  # fmt: skip
    label_axes(axes)
    best, usual = (rows["error"][which].mean() for which in (found.chosen, found.usual))
    axes.set_title(f"Mean error {best:.3f}; of the usual choice {usual:.3f}", fontsize=10)
    colour_bar(axes, shown, "predicted relative squared change of RMax", extend="max")
    if sheet.wide:
        _legend(axes, found)
    sheet.fit()
    return axes


def _legend(ax: Axes, found: Design) -> None:
    for marker, label, size in (
        ("o", f"chosen, with rank: {100 * found.captured:.0f} % of the energy", 120),
        ("X", f"avoid: error above {found.limit:.3f}", 45),
    ):
        ax.scatter([], [], size, marker=marker, color="0.45", label=label)
    ax.scatter(
        [], [], s=150, facecolors="none", edgecolors=COLOURS[1],
        label=f"usual choice: {100 * found.usual_captured:.0f} % of the energy",
    )  # fmt: skip
    ax.legend(
        fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2,
        handletextpad=0.2, columnspacing=0.9,
    )  # fmt: skip
