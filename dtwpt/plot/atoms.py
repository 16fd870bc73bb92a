"""The filters themselves: in space, beside their place in the frequency plane."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from dtwpt.packets import PacketBank
from dtwpt.plot.canvas import COLOURS, GREY, Room, as_bank, as_figure
from dtwpt.plot.plane import draw_guides, label_axes

__all__ = ["atom_picture", "atom_waves", "filters", "selection"]

# More packets along an axis than _ALL, and a tile of a montage is too small to see into; then
# _SOME a quarter plane's side have tiles large enough for the finest waves.
_ALL, _SOME = 8, 4
_WIDEST = 20.0  # pixels from the centre of an atom: more, and its waves are too fine to print
_BOUNDARY = "0.87"
#: Inches of a new figure.
SIZE = (9.6, 4.0)


def filters(
    bank: PacketBank, fig: Figure | SubFigure | None = None, *, title: bool = True
) -> Figure:
    """Draw the atoms of a bank in space, beside their tiling of the frequency plane.

    Left, the real part of each atom, at the atom's place in the half-plane of frequencies: the
    farther from the origin (top, middle), the finer the waves, which run in the direction seen
    from there. Right, the whole plane, with the area in which each atom's energy spectrum exceeds
    half its peak. Of banks deeper than 3, only one atom in every square of ``2**(depth - 2)``
    cells a side is drawn, so that they stay legible; title and caption say so.

    Parameters
    ----------
    bank : PacketBank
    fig : matplotlib Figure or SubFigure, optional
        Where to draw, about twice as wide as high; a new one by default. Small ones go without
        legend and caption.
    title : bool, default: True
        Whether to write headings and the caption.

    Returns
    -------
    matplotlib Figure or SubFigure

    Raises
    ------
    TypeError
        If the bank is not one, or fig is no Figure.

    Notes
    -----
    Atoms are interpolated between their pixels (exactly, as the band-limited functions that they
    sample), cut off where their envelopes end or 20 pixels from their centres, and each scaled to
    its own maximum.

    Examples
    --------
    >>> import dtwpt, dtwpt.plot
    >>> fig = dtwpt.plot.filters(dtwpt.PacketBank(2))
    >>> [ax.get_title() for ax in fig.axes][0]
    'All 32 filters in space (real part)'
    >>> fig.savefig("filters.png")  # doctest: +SKIP
    """
    bank = as_bank(bank)
    fig = as_figure(fig, SIZE)
    room = Room(fig, SIZE)
    bottom = (0.25 if title else 0.21) if room.wide else 0.2
    grid = fig.add_gridspec(
        1, 2, width_ratios=(2, 1), left=0.055 if room.wide else 0.12, right=0.985, bottom=bottom,
        top=0.9 if title else 0.97, wspace=0.16 if room.wide else 0.3,
    )  # fmt: skip
    left, right = fig.add_subplot(grid[0]), fig.add_subplot(grid[1])
    chosen, step = selection(bank)
    _draw_montage(left, bank, chosen, step, room)
    _draw_tiling(right, bank, chosen, room)
    total = 2 * 4**bank.depth
    which = f"{f'{len(chosen)} of the' if step > 1 else 'All'} {total} filters"
    if title:
        left.set_title(f"{which} in space (real part)" if room.wide else which, fontsize=10)
        where = "Position in the frequency plane" if room.wide else "in frequency"
        right.set_title(where, fontsize=10)
    if not room.wide:
        room.fit(fig)
        return fig
    handles = [
        Patch(facecolor=f"{COLOURS[0]}52", edgecolor=COLOURS[0], label="sign +1"),
        Patch(facecolor=f"{COLOURS[1]}52", edgecolor=COLOURS[1], label="sign \u22121"),
        Patch(
            facecolor="white",
            edgecolor=GREY,
            linestyle=(0, (2, 1.5)),
            label="the same filters, conjugated",
        ),
        Patch(facecolor=_BOUNDARY, edgecolor="none", label="around 0 or π: not one-sided"),
    ]
    fig.legend(
        handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False,
        bbox_to_anchor=(0.5, 0.05 if title else 0.0), handlelength=1.8, columnspacing=2.2,
    )  # fmt: skip
    if title:
        shown = f" Drawn: one atom in every square of {step} x {step} cells." if step > 1 else ""
        fig.text(
            0.5,
            0.02,
            f"Depth {bank.depth}, wavelet {bank.wavelet.name}. Areas: where a filter has more than "
            f"half of its peak energy.{shown}",
            ha="center",
            fontsize=8,
            color="0.25",
        )
    room.fit(fig)
    return fig


def selection(bank: PacketBank) -> tuple[np.ndarray, int]:
    """Return the atoms to draw, and the side in cells of the square that each stands for."""
    atoms = bank.atoms()
    count = 2**bank.depth
    step = 1 if count <= _ALL else count // _SOME
    middle = (step - 1) // 2
    kept = (atoms["row"] % step == middle) & (atoms["col"] % step == middle)
    return atoms[kept], step


def atom_waves(bank: PacketBank, points: int) -> NDArray[np.complex128]:
    """Packets of one axis, interpolated at ``points`` places around their envelopes' centres.

    Returns shape (2**depth, points); one window for all, as wide as the widest envelope within
    reason.
    """
    filters = bank.filters
    taps = np.arange(filters.shape[1])
    envelope = np.abs(filters) ** 2
    envelope = envelope / envelope.sum(axis=1, keepdims=True)
    centre = envelope @ taps
    spread = np.sqrt(np.sum(envelope * (taps - centre[:, None]) ** 2, axis=1))
    window = np.linspace(-1, 1, points) * np.clip(2.6 * spread.max(), 2.0, _WIDEST)
    places = centre[:, None] + window
    waves: NDArray[np.complex128] = np.einsum(
        "kpn,kn->kp", np.sinc(places[:, :, None] - taps), filters
    )
    return waves


def atom_picture(waves: NDArray[np.complex128], atom: np.void) -> NDArray[np.float64]:
    """Real part of one atom on the places of :func:`atom_waves`, largest value 1."""
    across = waves[atom["col"]] if atom["sign"] > 0 else waves[atom["col"]].conj()
    picture = np.outer(waves[atom["row"]], across).real
    return np.asarray(picture / np.abs(picture).max(), np.float64)


def cell_corner(atom: np.void, step: int, width: float) -> tuple[float, float]:
    """Left and upper end, rad/pixel, of the square of cells that an atom stands for."""
    col = atom["col"] // step * step
    left = col if atom["sign"] > 0 else -col - step
    return left * width, atom["row"] // step * step * width


def gabor_like(atom: np.void) -> bool:
    return not (atom["boundary"] or atom["lowpass"])


def _draw_montage(ax: Axes, bank: PacketBank, chosen: np.ndarray, step: int, room: Room) -> None:
    width = np.pi / 2**bank.depth
    side = step * width
    waves = atom_waves(bank, 96)
    roomy = room.wide and 2**bank.depth // step <= 4
    for atom in chosen:
        left, top = cell_corner(atom, step, width)
        plain = gabor_like(atom)
        ax.add_patch(
            Rectangle((left, top), side, side, facecolor="white" if plain else _BOUNDARY, zorder=0)
        )
        gap = 0.05 * side
        name = 0.13 * side if roomy else 0.0
        inset = gap + name / 2
        ax.imshow(
            atom_picture(waves, atom),
            cmap="gray",
            vmin=-1,
            vmax=1,
            extent=(left + inset, left + side - inset, top + side - gap - name, top + gap),
            interpolation="antialiased",
            zorder=1,
        )
        if roomy:
            ax.text(
                left + side / 2,
                top + side - 0.085 * side,
                "low-pass" if atom["lowpass"] else f"{atom['orientation']:.0f}°",
                ha="center",
                va="center",
                fontsize=6.5,
                color=COLOURS[0] if atom["sign"] > 0 else COLOURS[1],
            )
    label_axes(ax, half=True, room=room)
    ax.axvline(0, color=GREY, linewidth=0.8)


def _draw_tiling(ax: Axes, bank: PacketBank, chosen: np.ndarray, room: Room) -> None:
    count = 2**bank.depth
    width = np.pi / count
    for atom in bank.atoms():
        if not gabor_like(atom):
            left, top = cell_corner(atom, 1, width)
            for corner in ((left, top), (-left - width, -top - width)):
                ax.add_patch(Rectangle(corner, width, width, facecolor=_BOUNDARY, linewidth=0))
    edges = np.linspace(-np.pi, np.pi, 2 * count + 1)
    ends = [-np.pi, np.pi]
    grid = [[(x, ends[0]), (x, ends[1])] for x in edges]
    grid += [[(ends[0], y), (ends[1], y)] for y in edges]
    ax.add_collection(LineCollection(grid, colors="0.72", linewidths=0.5))

    omega = np.linspace(-np.pi, np.pi, 64 * count + 1)
    phases = np.exp(-1j * np.outer(np.arange(bank.filters.shape[1]), omega))
    energy = np.abs(bank.filters @ phases) ** 2
    energy /= energy.max(axis=1, keepdims=True)
    for sign, colour in zip((1, -1), COLOURS, strict=True):
        lines: list[NDArray[np.float64]] = []
        areas: list[NDArray[np.float64]] = []
        for atom in chosen[chosen["sign"] == sign]:
            contour = _half_peak(omega, energy[atom["row"]], energy[atom["col"]][::sign])
            lines += contour[0]
            areas += contour[1]
        thin = 0.9 if count < _ALL else 0.6
        for direction, opacity, dashes in ((1, 0.32, "solid"), (-1, 0.1, (0, (2, 1.5)))):
            ax.add_collection(
                PolyCollection(
                    [direction * area for area in areas],
                    facecolors=colour,
                    alpha=opacity,
                    linewidths=0,
                )
            )
            ax.add_collection(
                LineCollection(
                    [direction * line for line in lines],
                    colors=colour,
                    linewidths=thin,
                    linestyles=[dashes],
                )
            )
    if room.wide:
        draw_guides(ax, "0.2")
    label_axes(ax, room=room)


def _half_peak(
    omega: NDArray[np.float64], vertical: NDArray[np.float64], horizontal: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Lines on which the product of two spectra is one half, areas in which it is more."""
    # Only where both factors can reach it: the rest of the plane costs most of the time.
    rows, cols = (np.flatnonzero(spectrum >= 0.4) for spectrum in (vertical, horizontal))
    y = slice(max(rows[0] - 1, 0), rows[-1] + 2)
    x = slice(max(cols[0] - 1, 0), cols[-1] + 2)
    generator = contour_generator(
        x=omega[x], y=omega[y], z=np.outer(vertical[y], horizontal[x]),
        line_type="Separate", fill_type="OuterOffset",
    )  # fmt: skip
    lines = [np.asarray(line) for line in generator.lines(0.5)]
    areas = [np.asarray(area) for area in generator.filled(0.5, 2.0)[0]]
    return lines, areas
