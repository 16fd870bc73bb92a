"""Figures of where max pooling fails in the frequency plane, and of a trained first layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import as_numpy
from dtwpt.checks import as_count
from dtwpt.invariance import gamma
from dtwpt.invariance.kernels import as_kernels
from dtwpt.packets import PacketBank
from dtwpt.plot.canvas import (
    COLOURS,
    GREY,
    Place,
    Sheet,
    as_bank,
    blank,
    colour_bar,
    finish,
)
from dtwpt.plot.plane import beyond, draw_guides, label_axes
from dtwpt.plot.tables import as_table, error_bars

__all__ = ["frequency_points", "gain", "gamma_map", "kernels"]

# Points along an axis of the map of gamma: its creases are sharp.
_POINTS = 361


def gamma_map(
    q: int = 1,
    stride: int | None = None,
    bank: PacketBank | None = None,
    ax: Place = None,
    *,
    cmap: str = "viridis",
) -> Axes:
    r"""Draw gamma over the whole frequency plane.

    Dark where max pooling of a wave's real part does the work of a modulus, bright where it
    cannot: the resonances at :math:`m\theta \in 2\pi Z^2` and the lines around them.

    Parameters
    ----------
    q : int, default: 1
        The pooling window is ``2 q + 1`` wide.
    stride : int, optional
        Subsampling m before max pooling; by default that of the bank, ``2**(depth - 1)``, or 2.
    bank : PacketBank, optional
        Whose atoms' centres to mark; every atom has two, as real images have two frequencies.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    cmap : str, default: "viridis"
        Name of a matplotlib colour map.

    Returns
    -------
    matplotlib Axes
        Both axes in rad/pixel, from -pi to pi; the vertical one points down, as rows do.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or value.

    See Also
    --------
    dtwpt.invariance.gamma : the numbers.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> ax = dtwpt.plot.gamma_map(bank=dtwpt.PacketBank(2))
    >>> ax.get_title()
    'What 3 x 3 pooling misses of a wave, stride 2'
    """
    if bank is not None:
        as_bank(bank)
    if stride is None:
        stride = 2 ** (bank.depth - 1) if bank is not None else 2
    axis = np.linspace(-np.pi, np.pi, _POINTS)
    theta = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    values = gamma(theta, stride, q)
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    # Sides of the picture lie half a point beyond its outermost points.
    half = (axis[1] - axis[0]) / 2
    end = np.pi + half
    drawn = axes.imshow(
        values, cmap=cmap, vmin=0, vmax=np.sqrt(1.5), extent=(-end, end, end, -end),
        interpolation="bilinear",
    )  # fmt: skip
    colour_bar(axes, drawn, "$\\gamma$ (share of the peak)")
    if bank is not None:
        atoms = bank.atoms()
        for side in (1, -1):
            axes.plot(
                side * atoms["theta_x"], side * atoms["theta_y"], "o", color="white",
                markersize=4.5 if bank.depth < 3 else 3, markeredgecolor="black",
                markeredgewidth=0.6,
            )  # fmt: skip
    label_axes(axes)
    side = 2 * as_count(q, "q") + 1
    axes.set_title(f"What {side} x {side} pooling misses of a wave, stride {stride}", fontsize=10)
    sheet.fit()
    return axes


def frequency_points(
    table: Any,
    values: ArrayLike,
    ax: Place = None,
    *,
    label: str = "",
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Draw one number per filter at the filter's place in the frequency plane.

    What :func:`frequency_plane` does for a bank, for filters that lie anywhere.

    Parameters
    ----------
    table : structured ndarray, shape (n,)
        With the columns ``theta_y`` and ``theta_x``, rad/pixel: from
        :func:`dtwpt.invariance.characterize`, :func:`dtwpt.invariance.predict` or
        :func:`dtwpt.invariance.measure`.
    values : array_like of real numbers, shape (n,)
        One a row of the table; those that are NaN are drawn grey.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    label : str, default: ""
        Label of the colour bar.
    cmap : str, default: "viridis"
        Name of a matplotlib colour map.
    vmin, vmax : float, optional
        Ends of the colour scale; those of the values by default. Where values lie beyond, the
        colour bar ends in a point.

    Returns
    -------
    matplotlib Axes
        Both axes in rad/pixel, from -pi to pi; the vertical one points down, as rows do.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape.

    Examples
    --------
    >>> import numpy as np, dtwpt.plot
    >>> from dtwpt.invariance import characterize
    >>> table = characterize(np.random.default_rng(0).normal(size=(8, 7, 7)))
    >>> ax = dtwpt.plot.frequency_points(table, table["gabor_likeness"])
    >>> ax.get_ylabel()
    'vertical frequency (rad/pixel)'
    """
    names = table.dtype.names if isinstance(table, np.ndarray) else None
    if names is None or not {"theta_y", "theta_x"} <= set(names) or table.ndim != 1:
        raise ValueError("table must be a structured array (n,) with columns theta_y and theta_x")
    numbers = _as_numbers(values, len(table), "values")
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    axes.set_facecolor("0.93")
    places = np.stack([table["theta_x"], table["theta_y"]], axis=1)
    x, y = np.concatenate([places, -places]).T
    known = np.tile(np.isfinite(numbers), 2)
    axes.scatter(x[~known], y[~known], c="0.75", s=34, edgecolors="0.25", linewidths=0.5, zorder=2)
    x, y = x[known], y[known]
    drawn = axes.scatter(
        x, y, c=np.tile(numbers, 2)[known], cmap=cmap, vmin=vmin,
        vmax=vmax, s=34, edgecolors="0.25", linewidths=0.5, plotnonfinite=True, zorder=3,
    )  # fmt: skip
    colour_bar(axes, drawn, label, extend=beyond(numbers, vmin, vmax))
    draw_guides(axes, "0.45", sheet.wide)
    label_axes(axes)
    sheet.fit()
    return axes


def kernels(
    values: Any,
    ax: Place = None,
    *,
    names: Any = None,
    marked: ArrayLike | None = None,
    columns: int = 8,
) -> Axes:
    """Draw a layer's kernels, in grey or in colour, as rows of tiles.

    Parameters
    ----------
    values : array_like or torch.Tensor, shape (n, h, w), (n, 1, h, w) or (n, 3, h, w)
        Real kernels; three input channels are red, green and blue. Each is scaled to its own
        largest value; 0 is mid-grey. Other numbers of channels are averaged.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    names : sequence of str, optional
        A name under each tile; its number by default.
    marked : array_like of bool, shape (n,), optional
        The kernels with a coloured frame.
    columns : int, default: 8
        Tiles a row.

    Returns
    -------
    matplotlib Axes
        Tile k is ``ax.images[k]``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or a kernel is zero or not finite.

    Examples
    --------
    >>> import numpy as np, dtwpt.plot
    >>> layer = np.random.default_rng(0).normal(size=(16, 3, 7, 7))
    >>> ax = dtwpt.plot.kernels(layer, marked=np.arange(16) < 4)
    >>> len(ax.images)
    16
    """
    tiles = _as_tiles(values)
    count = len(tiles)
    labels = [str(k) for k in range(count)] if names is None else [str(name) for name in names]
    frames = np.zeros(count, bool) if marked is None else as_numpy(marked, "marked").astype(bool)
    if len(labels) != count or frames.shape != (count,):
        raise ValueError(
            f"names and marked must be one for each of {count} kernels, got {len(labels)} and "
            f"{frames.shape}"
        )
    wide = as_count(columns, "columns")
    across, down = min(wide, count), -(-count // wide)
    sheet = Sheet(ax, size=(0.65 * across, 0.75 * down))
    (axes,) = sheet.axes
    for index, (tile, name, frame) in enumerate(zip(tiles, labels, frames, strict=True)):
        row, column = divmod(index, wide)
        axes.imshow(
            tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest",
            extent=(column + 0.06, column + 0.94, row + 0.78, row + 0.02),
        )  # fmt: skip
        axes.add_patch(
            Rectangle(
                (column + 0.06, row + 0.02), 0.88, 0.76, fill=False,
                edgecolor=COLOURS[1] if frame else "0.7", linewidth=2.0 if frame else 0.6,
            )
        )  # fmt: skip
        axes.text(
            column + 0.5, row + 0.89, name, ha="center", va="center", fontsize=7, color="0.15"
        )
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    axes.set_aspect(0.88 / 0.76)
    blank(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)
    sheet.fit()
    return axes


def gain(
    table: Any,
    likeness: ArrayLike | None = None,
    ax: Place = None,
    *,
    label: str = "Gabor-likeness",
    cmap: str = "viridis",
) -> Axes:
    """Draw how much CMod changes against how much RMax does, filter by filter.

    Below the line drawn, a complex modulus would be more stable than the layer's max pooling; the
    thin lines are those on which it changes a half, a quarter and an eighth as much.

    Parameters
    ----------
    table : structured ndarray, shape (filters,)
        From :func:`dtwpt.invariance.predict` or :func:`dtwpt.invariance.measure`, of one shift.
    likeness : array_like of real numbers, shape (filters,), optional
        From 0 to 1, for the points' colours.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    label : str, default: "Gabor-likeness"
        What the colours are.
    cmap : str, default: "viridis"
        Name of a matplotlib colour map.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape.

    Examples
    --------
    >>> import numpy as np, dtwpt.plot
    >>> from dtwpt.invariance import characterize, predict
    >>> layer = np.random.default_rng(0).normal(size=(4, 7, 7))
    >>> ax = dtwpt.plot.gain(predict(layer), characterize(layer)["gabor_likeness"])
    >>> ax.get_ylabel()
    'relative change of CMod'
    """
    rows = as_table(table, "table", dimensions=1, errors=("rmax_shift", "cmod_shift"))
    shades = None if likeness is None else _as_numbers(likeness, len(rows), "likeness")
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    x, y = rows["rmax_shift"], rows["cmod_shift"]
    x_bars, y_bars = error_bars(rows, "rmax_shift"), error_bars(rows, "cmod_shift")
    right = 1.06 * float(np.nanmax(x + x_bars)) or 1.0
    top = max(1.06 * float(np.nanmax(y + y_bars)), 0.55 * right)
    for part, name in ((1.0, "as much"), (0.5, "half"), (0.25, "1/4"), (0.125, "1/8")):
        axes.plot(
            [0, right], [0, part * right], color=GREY, linewidth=1.0 if part == 1 else 0.6,
            linestyle=(0, (4, 2)), zorder=1,
        )  # fmt: skip
        ends = (right, part * right) if part * right <= top else (top / part, top)
        if sheet.wide or part > 0.125:
            axes.annotate(
                name, ends, xytext=(2, 2), textcoords="offset points", fontsize=7.5, color=GREY
            )
    axes.errorbar(
        x, y, xerr=x_bars, yerr=y_bars, fmt="none", ecolor="0.6", elinewidth=0.7, zorder=2
    )
    drawn = axes.scatter(
        x, y, c=COLOURS[0] if shades is None else shades, cmap=None if shades is None else cmap,
        vmin=None if shades is None else 0, vmax=None if shades is None else 1, s=30,
        edgecolors="0.25", linewidths=0.5, zorder=3,
    )  # fmt: skip
    if shades is not None:
        colour_bar(axes, drawn, label, pad=0.17)
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)
    axes.set_xlabel("relative change of RMax", fontsize=8.5)
    axes.set_ylabel("relative change of CMod", fontsize=8.5)
    finish(axes)
    sheet.fit()
    return axes


def _as_numbers(values: Any, count: int, name: str) -> NDArray[np.float64]:
    numbers = as_numpy(values, name)
    if numbers.dtype.kind not in "buif":
        raise TypeError(f"{name} must be real numbers, got dtype {numbers.dtype}")
    if numbers.shape != (count,):
        raise ValueError(
            f"{name} must have shape ({count},), one a row of the table, got {numbers.shape}"
        )
    return numbers.astype(np.float64)


def _as_tiles(values: Any) -> list[NDArray[np.float64]]:
    shape = np.shape(values)
    if len(shape) == 4 and shape[1] == 3:
        # Checked channel by channel: a colour alone may be zero.
        planes = as_numpy(values, "kernels").astype(np.float64)
        if not np.isfinite(planes).all() or not planes.any(axis=(1, 2, 3)).all():
            raise ValueError("kernels must be finite and not zero")
        pictures = list(planes.transpose(0, 2, 3, 1))
    else:
        grey = as_kernels(values)
        if np.iscomplexobj(grey):
            raise TypeError("kernels must be real to be drawn")
        pictures = list(grey)
    return [0.5 + 0.5 * picture / np.abs(picture).max() for picture in pictures]
