"""A layer's candidate filters in the frequency plane: which to use, and which to avoid."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dtwpt.invariance.design import Design
from dtwpt.plot.canvas import COLOURS, as_axes, as_figure
from dtwpt.plot.plane import draw_guides, label_axes

__all__ = ["design"]


def design(found: Design, ax: Axes | None = None) -> Axes:
    """Draw a design: every candidate at its frequency, coloured by its predicted error.

    Discs with a number are the chosen filters, by rank; crosses are candidates to avoid, whose
    errors are above the design's limit. Those of the usual choice have a ring. A filter is drawn
    at its frequency and, without number, at the opposite one: to real images, the two are one.

    Parameters
    ----------
    found : Design
        From :func:`dtwpt.invariance.design`.
    ax : matplotlib Axes, optional
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
    if ax is None:
        fig = as_figure(None, (6.2, 6.2))
        fig.subplots_adjust(left=0.11, right=0.88, bottom=0.19, top=0.93)
        ax = fig.add_subplot()
    ax = as_axes(ax)
    rows = found.table
    colour: dict[str, Any] = {
        "cmap": "viridis_r", "vmin": 0.0, "vmax": float(np.quantile(rows["error"], 0.9)),
    }  # fmt: skip
    ax.set_facecolor("0.96")
    draw_guides(ax, "0.55")
    for sign in (1, -1):
        for mask, marker, size in (
            (rows["rank"] > 0, "o", 190),
            ((rows["rank"] == 0) & ~rows["avoid"], "o", 50),
            (rows["avoid"], "X", 60),
        ):
            part = rows[mask]
            if not len(part):
                continue
            shown = ax.scatter(
                sign * part["theta_x"], sign * part["theta_y"], c=part["error"], s=size,
                marker=marker, edgecolors="none", zorder=3, **colour,
            )  # fmt: skip
        ringed = rows[rows["usual"]]
        ax.scatter(
            sign * ringed["theta_x"], sign * ringed["theta_y"], s=260, facecolors="none",
            edgecolors=COLOURS[1], linewidths=1.3, zorder=4,
        )  # fmt: skip
    for row in rows[found.chosen]:
        ax.text(
            row["theta_x"], row["theta_y"], str(row["rank"]), ha="center", va="center",
            fontsize=7, color="white" if row["error"] > 0.5 * colour["vmax"] else "black", zorder=5,
        )  # fmt: skip
    label_axes(ax)
    best, usual = (rows["error"][which].mean() for which in (found.chosen, found.usual))
    ax.set_title(f"Mean error {best:.3f}; of the usual choice {usual:.3f}", fontsize=10)
    ax.figure.colorbar(
        shown, ax=ax, fraction=0.046, pad=0.04, extend="max",
        label="predicted relative squared change of RMax, for a pixel",
    )  # fmt: skip
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
    return ax
