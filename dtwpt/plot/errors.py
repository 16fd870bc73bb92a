"""Shift errors: against orientation and frequency, predicted against measured, against the shift.

Tables are those of :func:`dtwpt.invariance.predict` and :func:`dtwpt.invariance.measure`.
"""

from __future__ import annotations

import operator as _operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from dtwpt.plot.canvas import COLOURS, GREY, Place, Sheet, finish
from dtwpt.plot.tables import as_error, as_table, error_bars
from dtwpt.text import shown

__all__ = ["ERROR_COLOURS", "invariance", "prediction", "shift_curve"]

#: One colour for each error, wherever it is drawn alone.
ERROR_COLOURS = {"cmod_shift": COLOURS[0], "rmax_shift": COLOURS[1], "rmax_cmod": "#5b4a8a"}

_TITLES = {
    "cmod_shift": "CMod (complex modulus)",
    "rmax_shift": "RMax (max pooling)",
    "rmax_cmod": "RMax against CMod",
}
_LABELS = {
    "cmod_shift": "relative change of CMod",
    "rmax_shift": "relative change of RMax",
    "rmax_cmod": "relative distance of RMax from CMod",
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Width of the cells whose filters' mean the curves go through, centred on its multiples: the
# directions 0, 45, 90 and 135 degrees are then treated alike.
_DEGREES, _RADIANS = 15.0, np.pi / 8
# The band of a shift curve leaves out a tenth of the filters on either side.
_SPREAD = (0.1, 0.9)


def invariance(
    table: Any,
    against: str = "orientation",
    ax: Place | Sequence[Axes] | NDArray[Any] = None,
    *,
    errors: str | Sequence[str] = ("cmod_shift", "rmax_shift"),
    bands: int = 3,
    scale: str = "log",
) -> NDArray[Any]:
    """Draw shift errors against the filters' orientation or frequency.

    One panel for each error, all with one vertical scale, so that CMod and RMax compare at a
    glance. Every filter is a point with its standard error. Curves are means over near filters,
    weighted by a Gaussian of 15 degrees or pi/8 rad/pixel: one curve for each band of frequencies
    (against orientation) or for each range of angles from the shift (against frequency).

    Parameters
    ----------
    table : structured ndarray, shape (filters,)
        Of one shift: from :func:`dtwpt.invariance.predict` or :func:`dtwpt.invariance.measure`,
        or some of its rows, such as those that are neither low-pass nor boundary.
    against : {"orientation", "frequency"}
    ax : matplotlib Axes, sequence of them, Figure or SubFigure, optional
        One for each error; a new figure by default.
    errors : str or sequence of str, default: ("cmod_shift", "rmax_shift")
        Among "cmod_shift", "rmax_shift", "rmax_cmod".
    bands : int, default: 3
        Curves a panel, 1 to 8: bands of equal width between the lowest and the highest frequency,
        or ranges of equal width between 0 and 90 degrees. One without filters is left out.
    scale : {"log", "linear"}
        Of the vertical axis. Errors of 0 have no place on a logarithmic one.

    Returns
    -------
    ndarray of matplotlib Axes, shape (errors,)

    Raises
    ------
    TypeError, ValueError
        If the table lacks a column, is of several shifts or has no finite value, or another
        argument is of the wrong type or value.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> from dtwpt.invariance import predict
    >>> bank = dtwpt.PacketBank(2)
    >>> atoms = bank.atoms()
    >>> table = predict(bank, spectrum="pink")[~(atoms["boundary"] | atoms["lowpass"])]
    >>> cmod, rmax = dtwpt.plot.invariance(table)
    >>> cmod.get_ylim() == rmax.get_ylim()
    True
    >>> _ = dtwpt.plot.invariance(table, against="frequency")
    """
    if against not in ("orientation", "frequency"):
        raise ValueError(f"against must be 'orientation' or 'frequency', got {shown(against)}")
    if scale not in ("log", "linear"):
        raise ValueError(f"scale must be 'log' or 'linear', got {shown(scale)}")
    names = _as_errors(errors)
    rows = as_table(table, "table", dimensions=1, errors=names)
    count = _as_bands(bands)
    sheet = Sheet(ax, len(names), (0.8 + 4.3 * len(names), 3.5))
    panels = sheet.axes

    direction = _direction(rows)
    if against == "orientation":
        groups = _frequency_bands(rows, count)
        width, heading = _DEGREES, "frequency (rad/pixel)"
    else:
        groups = _angle_ranges(rows, count, direction)
        width, heading = _RADIANS, "angle from the shift"
    colours = colormaps["viridis"](np.linspace(0.02, 0.78, max(len(groups), 2)))
    for panel, name in zip(panels, names, strict=True):
        for (label, members), colour, marker in zip(groups, colours, _MARKERS, strict=False):
            _draw_group(panel, rows[members], name, against, width, colour, marker, label)
        if against == "orientation":
            _mark_orientations(panel, direction, 30 if sheet.wide else 90)
        else:
            panel.set_xlabel("frequency of the filter (rad/pixel)", fontsize=8.5)
        panel.set_title(_TITLES[name], fontsize=10)
        finish(panel)
    _legend_of_groups(sheet, heading, len(groups))
    low, high = _vertical_range(rows, names, scale, 0.22 if sheet.wide else 0.04)
    for panel in panels:
        panel.set_yscale(scale)
        if scale == "log":
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_ylim(low, high)
    # Panels that the caller gave may stand far apart: each of those says what it shows.
    for panel in panels if sheet.given else panels[:1]:
        panel.set_ylabel("relative squared change", fontsize=8.5)
    sheet.fit()
    return np.array(panels, dtype=object)


def prediction(predicted: Any, measured: Any, error: str = "rmax_shift", ax: Place = None) -> Axes:
    """Draw measured errors against predicted ones, filter by filter.

    On the line drawn, both agree. Bars are standard errors; Pearson's correlation is written.

    Parameters
    ----------
    predicted, measured : structured ndarray, shape (filters,) or (n, filters)
        From :func:`dtwpt.invariance.predict` and :func:`dtwpt.invariance.measure`, of the same
        filters and shifts, row by row.
    error : {"rmax_shift", "cmod_shift", "rmax_cmod"}
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError, ValueError
        If a table lacks a column, the two are not of the same filters and shifts, have no finite
        pair of values, or another argument is of the wrong type or value.

    Examples
    --------
    >>> import numpy as np, dtwpt, dtwpt.plot
    >>> from dtwpt.invariance import measure, predict
    >>> bank = dtwpt.PacketBank(2)
    >>> noise = np.random.default_rng(0).normal(size=(6, 200, 200))
    >>> ax = dtwpt.plot.prediction(predict(bank), measure(noise, bank))
    >>> ax.texts[0].get_text().splitlines()[1]
    '32 filters'
    """
    as_error(error)
    rows = [
        as_table(table, name, errors=[error])
        for table, name in ((predicted, "predicted"), (measured, "measured"))
    ]
    if rows[0].shape != rows[1].shape or any(
        not np.allclose(rows[0][name], rows[1][name], rtol=0, atol=1e-9)
        for name in ("filter", "shift_y", "shift_x", "theta_y", "theta_x")
    ):
        raise ValueError(
            "predicted and measured must be of the same filters and shifts, row by row, got shapes "
            f"{rows[0].shape} and {rows[1].shape}"
        )
    both = np.isfinite(rows[0][error]) & np.isfinite(rows[1][error])
    x_rows, y_rows = (table[both] for table in rows)
    if not len(x_rows):
        raise ValueError(f"predicted and measured have no filter with both values of {error!r}")
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    x, y = x_rows[error], y_rows[error]
    x_bars, y_bars = error_bars(x_rows, error), error_bars(y_rows, error)
    top = 1.06 * float(max((x + x_bars).max(), (y + y_bars).max())) or 1.0
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.errorbar(
        x, y, xerr=x_bars, yerr=y_bars, fmt="o", markersize=4.2, color=ERROR_COLOURS[error],
        markeredgewidth=0, alpha=0.8, elinewidth=0.8, zorder=2,
    )  # fmt: skip
    axes.text(
        0.03, 0.97, f"Pearson r = {_pearson(x, y)}\n{len(x)} filters",
        transform=axes.transAxes, va="top", fontsize=9, linespacing=1.4,
    )  # fmt: skip
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_aspect("equal")
    axes.set_title(_LABELS[error][0].upper() + _LABELS[error][1:], fontsize=10)
    axes.set_xlabel("predicted", fontsize=8.5)
    axes.set_ylabel("measured", fontsize=8.5)
    finish(axes)
    sheet.fit()
    return axes


def shift_curve(
    predicted: Any = None,
    measured: Any = None,
    ax: Place = None,
    *,
    errors: str | Sequence[str] = ("cmod_shift", "rmax_shift"),
) -> Axes:
    """Draw the errors against the length of the shift.

    Means over the filters: predicted as lines, measured as points. Bands (whiskers, where both
    tables are given, of the measured) hold the middle eight tenths of the filters.

    Parameters
    ----------
    predicted, measured : structured ndarray, shape (n, filters), optional
        From :func:`dtwpt.invariance.predict` and :func:`dtwpt.invariance.measure`, for several
        shifts in one direction; at least one of the two. Their shifts need not be the same.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    errors : str or sequence of str, default: ("cmod_shift", "rmax_shift")
        Among "cmod_shift", "rmax_shift", "rmax_cmod".

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError, ValueError
        If no table is given, one lacks a column, is not of several shifts in one direction, or
        another argument is of the wrong type or value.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> from dtwpt.invariance import predict
    >>> table = predict(dtwpt.PacketBank(2), [(0, u) for u in (0, 1, 2, 4)], spectrum="pink")
    >>> ax = dtwpt.plot.shift_curve(table)
    >>> ax.get_xlabel()
    'length of the shift (pixels)'
    """
    names = _as_errors(errors)
    given = {"predicted": predicted, "measured": measured}
    tables = {
        which: as_table(table, which, dimensions=2, errors=names)
        for which, table in given.items()
        if table is not None
    }
    if not tables:
        raise ValueError("at least one of predicted and measured must be given")
    _check_one_direction(list(tables.values()))
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    top = 0.0
    for name in names:
        for which, table in tables.items():
            order = np.argsort(_lengths(table))
            length = _lengths(table)[order]
            mean, low, high = (values[order] for values in _summary(table[name]))
            colour = ERROR_COLOURS[name]
            if which == "predicted" or len(tables) == 1:
                axes.fill_between(length, low, high, color=colour, alpha=0.16, linewidth=0)
            if which == "predicted":
                axes.plot(length, mean, color=colour, linewidth=1.7)
            else:
                bars = np.stack([np.maximum(mean - low, 0), np.maximum(high - mean, 0)])
                axes.errorbar(
                    length, mean, yerr=bars if len(tables) == 2 else None, color=colour,
                    fmt="o" if name == "cmod_shift" else "^", markersize=6, elinewidth=0.8,
                    ecolor=to_rgba(colour, 0.45), markeredgecolor="white",
                    markeredgewidth=0.5, zorder=3,
                )  # fmt: skip
            top = max(top, float(np.nanmax(high)), float(np.nanmax(mean)))
    axes.set_xlim(left=0)
    room = 1.2 if sheet.wide else 1.05  # for the legend above the curves
    axes.set_ylim(0, room * top if top > 0 else 1.0)
    axes.set_xlabel("length of the shift (pixels)", fontsize=8.5)
    axes.set_ylabel("relative squared change", fontsize=8.5)
    finish(axes)
    _legend_of_curves(axes, names, list(tables), sheet.wide)
    sheet.fit()
    return axes


# Curves -----------------------------------------------------------------------------------------


def _as_errors(errors: Any) -> list[str]:
    names = [errors] if isinstance(errors, str) else list(errors)
    if not names:
        raise ValueError("errors must name at least one error")
    return [as_error(name) for name in names]


def _as_bands(bands: Any) -> int:
    try:
        count = _operator.index(bands)
    except TypeError:
        raise TypeError(f"bands must be an integer from 1 to 8, got {shown(bands)}") from None
    if not 1 <= count <= len(_MARKERS):
        raise ValueError(f"bands must be an integer from 1 to 8, got {count}")
    return count


def _frequency_bands(rows: np.ndarray, count: int) -> list[tuple[str, NDArray[np.bool_]]]:
    radius = rows["frequency"]
    edges = np.linspace(radius.min(), radius.max(), count + 1)
    # Filters of one frequency stay together, whichever side of an edge rounding puts them.
    band = np.digitize(radius - 1e-9, edges[1:-1])
    groups = []
    for index in range(count):
        members = band == index
        if members.any():
            ends = [f"{end:.2f}" for end in (radius[members].min(), radius[members].max())]
            groups.append(("\u2013".join(dict.fromkeys(ends)), members))
    return groups


def _angle_ranges(
    rows: np.ndarray, count: int, direction: float
) -> list[tuple[str, NDArray[np.bool_]]]:
    away = np.abs((rows["orientation"] - direction + 90) % 180 - 90)
    edges = np.linspace(0, 90, count + 1)
    index = np.minimum(np.digitize(away - 1e-9, edges[1:-1]), count - 1)
    return [
        (f"{edges[k]:.0f}\u2013{edges[k + 1]:.0f}°", index == k)
        for k in range(count)
        if (index == k).any()
    ]


def _vertical_range(
    rows: np.ndarray, names: list[str], scale: str, room: float
) -> tuple[float, float]:
    """Return the ends of the vertical axis, with room for the legend above the points."""
    values = np.concatenate([rows[name] for name in names])
    bars = np.concatenate([error_bars(rows, name) for name in names])
    high = float(np.nanmax(values + bars))
    if scale == "linear":
        return 0.0, (1.08 + room) * high if high > 0 else 1.0
    # What is nothing but rounding, after a shift by a whole period, say, would fill the axis.
    seen = values[np.isfinite(values) & (values > 1e-6 * high)]
    if not seen.size:
        return 0.1, 1.0
    low = float(seen.min()) / 1.3
    return low, high * (high / low) ** room


def _draw_group(
    ax: Axes,
    rows: np.ndarray,
    name: str,
    against: str,
    width: float,
    colour: Any,
    marker: str,
    label: str,
) -> None:
    ax.errorbar(
        rows[against], rows[name], yerr=error_bars(rows, name), fmt=marker, markersize=4.5,
        color=colour, markeredgewidth=0, elinewidth=0.9, label=label, zorder=3,
    )  # fmt: skip
    # A mean over near filters, not a line from one to the next, which may be unlike.
    known = rows[np.isfinite(rows[name])]
    if len(known) > 2:
        places = np.linspace(known[against].min(), known[against].max(), 91)
        weights = np.exp(-0.5 * ((places[:, None] - known[against]) / width) ** 2)
        means = weights @ known[name] / weights.sum(axis=1)
        ax.plot(places, means, color=colour, linewidth=1.1, alpha=0.75, zorder=2)


def _legend_of_groups(sheet: Sheet, title: str, count: int) -> None:
    """Above the points of each panel or, of small ones, once beside the last."""
    if sheet.wide:
        place: dict[str, Any] = {"loc": "upper center", "ncols": min(count, 4)}
    else:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        title = title.replace(" (", "\n(").replace(" from", "\nfrom")
    for panel in sheet.axes if sheet.wide else sheet.axes[-1:]:
        panel.legend(
            title=title, title_fontsize=8, fontsize=8, frameon=False, handletextpad=0.3,
            columnspacing=1.2, borderaxespad=0.1, **place,
        )  # fmt: skip


def _mark_orientations(ax: Axes, direction: float, step: int) -> None:
    ax.set_xlim(-4, 184)
    ax.set_xticks(range(0, 181, step), [f"{degrees}°" for degrees in range(0, 181, step)])
    for degrees in {direction, direction + 180, direction - 180}:
        if -1e-9 <= degrees <= 180 + 1e-9:
            ax.axvline(degrees, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    note = " (dotted: along the shift)" if step == 30 else ""
    ax.set_xlabel(f"orientation of the filter{note}", fontsize=8.5)


def _direction(rows: np.ndarray) -> float:
    """Direction of the shift, degrees in [0, 180), as orientations are counted."""
    moves = {(float(row["shift_y"]), float(row["shift_x"])) for row in rows}
    if len(moves) > 1:
        raise ValueError("table must be of one shift: of several, give one row, table[k]")
    ((down, right),) = moves
    return float(np.degrees(np.arctan2(down, right)) % 180)


# Against the length of the shift ----------------------------------------------------------------


def _lengths(table: np.ndarray) -> NDArray[np.float64]:
    return np.asarray(np.hypot(table["shift_y"][:, 0], table["shift_x"][:, 0]))


def _check_one_direction(tables: list[np.ndarray]) -> None:
    moves = np.concatenate(
        [np.stack([table["shift_y"][:, 0], table["shift_x"][:, 0]], axis=1) for table in tables]
    )
    longest = moves[np.argmax(np.hypot(*moves.T))]
    size = float(longest @ longest)
    across = moves @ np.array([longest[1], -longest[0]])
    if np.abs(across).max() > 1e-6 * size or (moves @ longest).min() < -1e-6 * size:
        raise ValueError("the shifts of predicted and measured must have one direction")


def _summary(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    if not np.isfinite(values).any(axis=1).all():
        raise ValueError("every shift must have a filter with a finite error")
    low, high = np.nanquantile(values, _SPREAD, axis=1)
    return np.nanmean(values, axis=1), low, high


def _legend_of_curves(ax: Axes, names: list[str], tables: list[str], wide: bool) -> None:
    handles = []
    for name in names:
        for which in tables:
            line = which == "predicted"
            marker = "o" if name == "cmod_shift" else "^"
            handles.append(
                Line2D(
                    [], [], color=ERROR_COLOURS[name], linewidth=1.7 if line else 0,
                    marker=None if line else marker, markersize=5,
                    label=f"{_TITLES[name].split(' (')[0]}, {which}",
                )
            )  # fmt: skip
    if wide:
        ax.legend(handles=handles, fontsize=8, frameon=False, loc="upper center", ncols=2)
    else:
        ax.legend(
            handles=handles, fontsize=8, frameon=False, loc="center left",
            bbox_to_anchor=(1.0, 0.5), handlelength=1.2,
        )  # fmt: skip


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return "undefined"
    return f"{np.corrcoef(x, y)[0, 1]:.3f}"
