"""The frequency plane: cells at their place, angles and radii to read them by."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import as_numpy
from dtwpt.packets import PacketBank
from dtwpt.plot.canvas import Place, Room, Sheet, as_bank, colour_bar

__all__ = ["beyond", "draw_guides", "frequency_plane", "label_axes"]

_TICKS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * np.pi
_TICK_LABELS = ("\u2212π", "\u2212π/2", "0", "π/2", "π")


def frequency_plane(
    bank: PacketBank,
    values: ArrayLike,
    ax: Place = None,
    *,
    label: str = "",
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Draw one number per atom at the atom's place in the frequency plane.

    Each number colours two cells, the atom's own and the opposite one: to real images, the two
    are one filter. NaN leaves its cells grey. Rays give orientations, circles frequencies.

    Parameters
    ----------
    bank : PacketBank
    values : array_like of real numbers, shape (2 * 4**depth,)
        In the order of :meth:`dtwpt.PacketBank.atoms`.
    ax : matplotlib Axes, Figure or SubFigure, optional
        Where to draw; a new figure by default.
    label : str, default: ""
        Label of the colour bar.
    cmap : str, default: "viridis"
        Name of a matplotlib colour map. The default one, like "cividis", keeps its order in grey
        and to colour-blind readers.
    vmin, vmax : float, optional
        Ends of the colour scale; those of the values by default. Where values lie beyond, the
        colour bar ends in a point.

    Returns
    -------
    matplotlib Axes
        Both axes in rad/pixel, from -pi to pi; the vertical one points down, as rows do. The
        colour bar is ``ax.collections[0].colorbar``.

    Raises
    ------
    TypeError, ValueError
        If the bank is not one, the values are not real, not one per atom or infinite, ax is no
        Axes, or the colour map is unknown.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> bank = dtwpt.PacketBank(2)
    >>> ax = dtwpt.plot.frequency_plane(bank, bank.atoms()["analyticity"], label="analyticity")
    >>> ax.get_xlabel()
    'horizontal frequency (rad/pixel)'
    >>> ax.figure.savefig("analyticity.png")  # doctest: +SKIP
    """
    bank = as_bank(bank)
    numbers = _as_values(values, bank)
    sheet = Sheet(ax)
    (axes,) = sheet.axes
    count = 2**bank.depth
    atoms = bank.atoms()
    cells = np.full((2 * count, 2 * count), np.nan)
    cell_y = count + np.floor(atoms["theta_y"] * count / np.pi).astype(int)
    cell_x = count + np.floor(atoms["theta_x"] * count / np.pi).astype(int)
    cells[cell_y, cell_x] = numbers
    cells[2 * count - 1 - cell_y, 2 * count - 1 - cell_x] = numbers

    edges = np.linspace(-np.pi, np.pi, 2 * count + 1)
    axes.set_facecolor("0.85")
    known = np.ma.masked_invalid(cells)
    mesh = axes.pcolormesh(edges, edges, known, cmap=cmap, vmin=vmin, vmax=vmax)
    extend = beyond(numbers, vmin, vmax)
    colour_bar(axes, mesh, label, extend=extend)
    draw_guides(axes, "white", sheet.wide)
    label_axes(axes)
    sheet.fit()
    return axes


def beyond(numbers: NDArray[np.float64], vmin: float | None, vmax: float | None) -> str:
    """Return the ends of a colour bar to point, those that numbers lie beyond."""
    below = vmin is not None and bool((numbers < vmin).any())
    above = vmax is not None and bool((numbers > vmax).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]


def draw_guides(ax: Axes, colour: str, named: bool = True) -> None:
    """Draw rays every 30 degrees, circles at pi/2 and pi, and name them."""
    outline = [withStroke(linewidth=2.0, foreground="black" if colour == "white" else "white")]
    style: dict[str, Any] = {"color": colour, "linewidth": 0.6, "linestyle": (0, (1, 2.5))}
    for radius in (np.pi / 2, np.pi):
        ax.add_patch(Circle((0, 0), radius, fill=False, **style))
    for name, fraction in (("π/2", 0.5), ("π", 1.0)) if named else ():
        # Names stand where no ray passes, on the half that holds no angles.
        angle = np.radians(-105)
        ax.text(
            0.965 * fraction * np.pi * np.cos(angle),
            0.965 * fraction * np.pi * np.sin(angle),
            name,
            color=colour,
            fontsize=7,
            ha="center",
            va="center",
            path_effects=outline,
        )
    for degrees in range(0, 180, 30):
        direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        end = direction * np.pi / np.abs(direction).max()
        ax.plot([-end[0], end[0]], [-end[1], end[1]], **style)
        if not named:
            continue
        ax.text(
            0.9 * end[0],
            0.9 * end[1],
            f"{degrees}°",
            color=colour,
            fontsize=7,
            ha="center",
            va="center",
            path_effects=outline,
        )


def label_axes(ax: Axes, half: bool = False, room: Room | None = None) -> None:
    """Set limits, ticks and names; ``half``: only the lower half-plane, where atoms lie."""
    ax.set_aspect("equal")
    ax.set_xlim(-np.pi, np.pi)
    ax.set_ylim(np.pi, 0 if half else -np.pi)
    ax.set_xticks(_TICKS, _TICK_LABELS)
    shown = slice(2 if half else 0, None)
    ax.set_yticks(_TICKS[shown], _TICK_LABELS[shown])
    small = room is not None and not room.wide
    ax.tick_params(labelsize=8)
    if small:
        ax.tick_params(pad=1.5)
    names = ("horizontal", "vertical") if small else (
        "horizontal frequency (rad/pixel)", "vertical frequency (rad/pixel)"
    )  # fmt: skip
    ax.set_xlabel(names[0], fontsize=8.5)
    ax.set_ylabel(names[1], fontsize=8.5)


def _as_values(values: Any, bank: PacketBank) -> NDArray[np.float64]:
    numbers = as_numpy(values, "values")
    if numbers.dtype.kind not in "buif":
        raise TypeError(f"values must be real numbers, got dtype {numbers.dtype}")
    expected = (2 * 4**bank.depth,)
    if numbers.shape != expected:
        raise ValueError(
            f"values must have shape {expected}, one per atom of the bank, got {numbers.shape}"
        )
    if np.isinf(numbers).any():
        raise ValueError("values must be finite or NaN, got infinity")
    return numbers.astype(np.float64)
