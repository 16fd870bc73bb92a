"""Figures of the operators' maps of an image, and of their change under a shift."""

from __future__ import annotations

import operator as _operator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from dtwpt.features import OPERATORS
from dtwpt.packets import PacketBank
from dtwpt.plot.atoms import atom_picture, atom_waves, cell_corner, gabor_like, selection
from dtwpt.plot.canvas import COLOURS, GREY, Room, as_figure, as_image, blank
from dtwpt.plot.plane import label_axes
from dtwpt.text import shown
from dtwpt.wavelets import Wavelet

__all__ = ["maps", "shift_change"]

_NAMES = {"cmod": "CMod", "rmax": "RMax"}
_SIZE_OF_MAPS, _SIZE_OF_CHANGE = (9.6, 3.9), (9.6, 4.4)  # inches
_MEANINGS = {"cmod": "complex modulus", "rmax": "max-pooled real part"}


def maps(
    x: ArrayLike,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    operator: str = "cmod",
    mode: str = "symmetric",
    *,
    fig: Figure | SubFigure | None = None,
) -> Figure:
    """Draw an image beside the maps that an operator makes of it.

    Each map lies where its filter lies in the frequency plane: the low-pass at the top, in the
    middle; the farther from there, the finer the detail that the map answers to. The filter is
    in the map's corner, but not at depth 3; frames tell the sign. Of banks deeper than 3, only
    one map in every square of ``2**(depth - 2)`` cells a side is drawn.

    Parameters
    ----------
    x : array_like, shape (H, W)
        A grey image, as for :func:`dtwpt.cmod2`.
    depth : int, default: 2
    wavelet : str or Wavelet, default: "qshift_b"
    operator : {"cmod", "rmax"}
        :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2`.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    fig : matplotlib Figure or SubFigure, optional
        Where to draw, about 2.4 times as wide as high; a new one by default. Small ones go
        without notes.

    Returns
    -------
    matplotlib Figure or SubFigure

    Raises
    ------
    TypeError, ValueError
        If x is not one finite real image, fig no Figure, or another argument of the wrong type
        or value.

    Notes
    -----
    Each map has its own scale, from 0 (black) to the 99.5 % quantile of its values (white), by
    their square roots: most of an image's coefficients are small.

    Examples
    --------
    >>> import numpy as np, dtwpt.plot
    >>> waves = np.sin(0.9 * np.hypot(*np.mgrid[-32:32, -32:32]))
    >>> fig = dtwpt.plot.maps(waves)
    >>> [ax.get_title() for ax in fig.axes if ax.get_title()]
    ['Image, 64 x 64', 'Its 32 CMod maps, 16 x 16 each, placed by frequency']
    >>> fig.savefig("maps.png")  # doctest: +SKIP
    """
    image = as_image(x, "x")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(
            f"unknown operator {shown(operator)}; known operators: {', '.join(OPERATORS)}"
        )
    bank = PacketBank(depth, wavelet)
    values = np.asarray(OPERATORS[operator](image, bank.depth, bank.wavelet, mode))
    fig = as_figure(fig, _SIZE_OF_MAPS)
    room = Room(fig, _SIZE_OF_MAPS)
    grid = fig.add_gridspec(
        1, 2, width_ratios=(1, 2.6), left=0.01, right=0.985, top=0.9,
        bottom=0.125 if room.wide else 0.24, wspace=0.105 if room.wide else 0.2,
    )  # fmt: skip
    column = grid[0].subgridspec(2, 1, height_ratios=(2.25, 1), hspace=0)
    left, note, right = (fig.add_subplot(cell) for cell in (column[0], column[1], grid[1]))
    _draw_image(left, image)
    left.set_anchor("N")
    left.set_title(f"Image, {image.shape[0]} x {image.shape[1]}", fontsize=10)

    chosen, step = selection(bank)
    drawn = f"{f'{len(chosen)} of its' if step > 1 else 'Its'} {2 * 4**bank.depth}"
    size = f", {values.shape[-2]} x {values.shape[-1]} each, placed by frequency"
    right.set_title(f"{drawn} {_NAMES[operator]} maps{size if room.wide else ''}", fontsize=10)
    _draw_maps(right, bank, values, chosen, step, room)
    note.set_axis_off()
    if not room.wide:
        room.fit(fig)
        return fig
    waves = "drawn in its corner" if _is_roomy(bank, step) else "of its frequency"
    note.text(
        0.5,
        0.82,
        f"The {_MEANINGS[operator]} of each\n"
        "filter's output: bright where the\n"
        f"image has the waves\n{waves},\n"
        "coarse near 0, fine towards π.\n"
        "Each map has its own scale.",
        fontsize=8,
        color="0.2",
        ha="center",
        va="top",
        linespacing=1.4,
    )
    room.fit(fig)
    return fig


def shift_change(
    image: ArrayLike,
    shift: tuple[int, int] = (0, 1),
    depth: int = 3,
    wavelet: str | Wavelet = "qshift_b",
    mode: str = "symmetric",
    *,
    packet: tuple[int, int, int] | None = None,
    fig: Figure | SubFigure | None = None,
) -> Figure:
    """Draw what a shift of the image does to its CMod and to its RMax features.

    Both operators before and after, with the difference, for one packet, all on one colour scale;
    beside them, the relative change ``sum((after - before)**2) / sum(before**2)`` of each packet.

    Parameters
    ----------
    image : array_like, shape (H, W)
        A grey image, as for :func:`dtwpt.cmod2`. Two crops of it are compared, of size
        ``(H - abs(dy), W - abs(dx))``: there is no wrap-around and no padding.
    shift : (int, int), default: (0, 1)
        How far (dy, dx) the picture moves, pixels: down and to the right.
    depth : int, default: 3
    wavelet : str or Wavelet, default: "qshift_b"
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    packet : (int, int, int), optional
        Sign, vertical and horizontal packet to draw. By default the most typical one: of the
        Gabor-like packets, that whose two relative changes are closest to their means.
    fig : matplotlib Figure or SubFigure, optional
        Where to draw, about 2.4 times as wide as high; a new one by default. Small ones go
        without notes.

    Returns
    -------
    matplotlib Figure or SubFigure

    Raises
    ------
    TypeError, ValueError, IndexError
        If the image is not one finite real image, constant, or no larger than the shift; if the
        packet is not in the bank; or another argument is of the wrong type or value.

    Notes
    -----
    Means are over Gabor-like packets: neither the low-pass nor in the last band, around pi.
    Packets in which the image has no energy, within rounding, are left out.

    Examples
    --------
    >>> import numpy as np, dtwpt.plot
    >>> image = np.random.default_rng(0).normal(size=(64, 65))
    >>> fig = dtwpt.plot.shift_change(image, shift=(0, 1), depth=2)
    >>> fig.axes[0].get_title()
    'Image, 64 x 64'
    >>> fig.savefig("shift.png")  # doctest: +SKIP
    """
    whole = as_image(image, "image")
    offset = _as_shift(shift, whole.shape)
    if whole.min() == whole.max():
        raise ValueError("image must not be constant: it has no features to change")
    bank = PacketBank(depth, wavelet)
    atoms = bank.atoms()
    place = None if packet is None else _as_place(packet, bank)
    before, after = _shifted_pair(whole, offset)
    pairs = {
        name: [
            np.asarray(compute(crop, bank.depth, bank.wavelet, mode)) for crop in (before, after)
        ]
        for name, compute in OPERATORS.items()
    }
    changes = {name: _relative_change(*pair) for name, pair in pairs.items()}
    gabor = ~(atoms["boundary"] | atoms["lowpass"])
    gabor = gabor if gabor.any() else ~atoms["lowpass"]  # a bank of depth 1 has boundaries only
    means = {name: float(np.nanmean(change[gabor])) for name, change in changes.items()}
    if place is None:
        distance = sum(np.abs(np.log((changes[k] + 1e-12) / (means[k] + 1e-12))) for k in changes)
        place = int(np.nanargmin(np.where(gabor, distance, np.nan)))

    fig = as_figure(fig, _SIZE_OF_CHANGE)
    room = Room(fig, _SIZE_OF_CHANGE)
    sides = {"top": 0.865, "bottom": 0.175} if room.wide else {"top": 0.83, "bottom": 0.22}
    inputs = fig.add_gridspec(2, 1, left=0.012, right=0.165, hspace=0.42, **sides)
    middle = fig.add_gridspec(
        2, 4, width_ratios=(1, 1, 1, 0.07), left=0.205, right=0.67 if room.wide else 0.63,
        hspace=0.2, wspace=0.07, **sides,
    )  # fmt: skip
    right = fig.add_gridspec(1, 1, left=0.765, right=0.975, **sides)
    words = _in_words(offset)
    fig.suptitle(
        f"What moving the picture by {words} does to its features" if room.wide else words,
        y=0.98 if room.wide else 0.995,
        fontsize=11,
    )
    photograph = fig.add_subplot(inputs[0])
    _draw_image(photograph, before)
    photograph.set_title(f"Image, {before.shape[0]} x {before.shape[1]}", fontsize=9)
    _draw_atom(fig.add_subplot(inputs[1]), bank, atoms[place])
    if room.wide:
        fig.text(
            0.5,
            0.025,
            "Relative change of a packet: sum of (after \u2212 before)² over sum of before². "
            "Dashed: means. The six maps share one colour scale.",
            ha="center",
            fontsize=8,
            color="0.2",
        )
    _draw_pairs(fig, middle, pairs, place, changes)
    _draw_changes(fig.add_subplot(right[0]), atoms, changes, gabor, means)
    if not room.wide:
        _shorten(fig)
    room.fit(fig)
    return fig


def _shorten(fig: Figure) -> None:
    """Write less into a small figure."""
    photograph, atom, *panels, changes = fig.axes
    photograph.set_title("Image")
    atom.set_title("Filter")
    for ax in (atom, *panels):
        ax.set_xlabel("")
    changes.set_title("Relative change")
    changes.set_xlabel("rad/pixel", labelpad=1)
    changes.set_ylim(top=1.35 * changes.get_ylim()[1])
    for ax in fig.axes:
        ax.tick_params(pad=1.5, length=2)
        ax.set_title(ax.get_title(), pad=2)
    for text in fig.findobj(Text):
        text.set_text(text.get_text().replace(", mean", ""))


def _draw_image(ax: Axes, image: NDArray[Any]) -> None:
    ax.imshow(image, cmap="gray", interpolation="antialiased")
    blank(ax)


def _draw_maps(
    ax: Axes, bank: PacketBank, values: NDArray[Any], chosen: np.ndarray, step: int, room: Room
) -> None:
    width = np.pi / 2**bank.depth
    side = step * width
    waves = atom_waves(bank, 40)
    icon = 0.28 * side
    roomy = _is_roomy(bank, step)
    shape = values.shape[-2:]
    for atom in chosen:
        left, top = cell_corner(atom, step, width)
        values_here = values[0 if atom["sign"] > 0 else 1, atom["row"], atom["col"]]
        white = float(np.quantile(values_here, 0.995))
        gap = 0.03 * side
        corner = (left + gap, top + gap)
        down, right = (0.94 * side * length / max(shape) for length in shape)
        ax.imshow(
            values_here,
            cmap="gray",
            norm=PowerNorm(0.5, vmin=0.0, vmax=white if white > 0 else 1.0, clip=True),
            extent=(corner[0], corner[0] + right, corner[1] + down, corner[1]),
            interpolation="antialiased",
        )
        colour = COLOURS[0 if atom["sign"] > 0 else 1] if gabor_like(atom) else "0.75"
        frame = (right, down)
        if roomy:
            frame = (icon, icon)
            ax.imshow(
                atom_picture(waves, atom),
                cmap="gray",
                vmin=-1,
                vmax=1,
                extent=(corner[0], corner[0] + icon, corner[1] + icon, corner[1]),
                interpolation="bilinear",
                zorder=3,
            )
        ax.add_patch(
            Rectangle(corner, *frame, fill=False, edgecolor=colour, linewidth=0.9, zorder=4)
        )
    label_axes(ax, half=True, room=room)
    ax.set_anchor("N")


def _is_roomy(bank: PacketBank, step: int) -> bool:
    """Tell whether the filter can be seen in the corner of its map."""
    return bool(2**bank.depth <= 4 * step)


def _draw_atom(ax: Axes, bank: PacketBank, atom: np.void) -> None:
    ax.imshow(
        atom_picture(atom_waves(bank, 96), atom), cmap="gray", vmin=-1, vmax=1,
        interpolation="bilinear",
    )  # fmt: skip
    blank(ax)
    ax.set_title("Filter drawn", fontsize=9)
    ax.set_xlabel(f"{atom['frequency']:.2f} rad/pixel, {atom['orientation']:.0f}°", fontsize=8)


def _draw_pairs(
    fig: Figure,
    grid: GridSpec,
    pairs: dict[str, list[NDArray[Any]]],
    packet: int,
    changes: dict[str, NDArray[np.float64]],
) -> None:
    rows = {name: [_packet_map(values, packet) for values in pair] for name, pair in pairs.items()}
    # The few largest values are cut off, or they would leave the rest in the dark.
    top = float(np.quantile(np.stack([values for row in rows.values() for values in row]), 0.997))
    images: list[AxesImage] = []
    for index, (name, (before, after)) in enumerate(rows.items()):
        panels = (("before", before), ("after", after), ("|difference|", np.abs(after - before)))
        for column, (title, values) in enumerate(panels):
            ax = fig.add_subplot(grid[index, column])
            images.append(
                ax.imshow(values, cmap="viridis", vmin=0.0, vmax=top, interpolation="nearest")
            )
            blank(ax)
            if index == 0:
                ax.set_title(title, fontsize=9)
            if column == 0:
                ax.set_ylabel(_NAMES[name], fontsize=10, color=COLOURS[index], fontweight="bold")
            if column == 2:
                ax.set_xlabel(f"relative change {changes[name][packet]:.3f}", fontsize=8)
    bar = fig.colorbar(images[-1], cax=fig.add_subplot(grid[:, 3]), extend="max")
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=7)


def _draw_changes(
    ax: Axes,
    atoms: np.ndarray,
    changes: dict[str, NDArray[np.float64]],
    gabor: NDArray[np.bool_],
    means: dict[str, float],
) -> None:
    for name, colour, marker in zip(changes, COLOURS, ("o", "^"), strict=True):
        ax.scatter(
            atoms["frequency"][gabor],
            changes[name][gabor],
            s=13,
            marker=marker,
            facecolor=colour,
            linewidth=0,
            alpha=0.75,
            label=f"{_NAMES[name]}, mean {means[name]:.3f}",
        )
        ax.axhline(means[name], color=colour, linewidth=1, linestyle=(0, (4, 2)))
    ax.set_title(f"Relative change of {gabor.sum()} packets", fontsize=9)
    ax.set_xlabel("frequency of the filter (rad/pixel)", fontsize=8)
    largest = max(float(np.nanmax(change[gabor])) for change in changes.values())
    ax.set_ylim(0, 1.25 * largest if largest > 0 else 1.0)  # room for the legend above the points
    ax.tick_params(labelsize=7.5)
    for spine in ("top", "right"):
        ax.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        ax.spines[spine].set_color(GREY)
    ax.legend(fontsize=8, frameon=False, loc="upper left", borderaxespad=0.1, handletextpad=0.2)


def _packet_map(values: NDArray[Any], packet: int) -> NDArray[Any]:
    flat: NDArray[Any] = values.reshape(-1, *values.shape[-2:])[packet]
    return flat


def _relative_change(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    """Squared change of each map over its energy; NaN where there is none but rounding."""
    tiny = 100 * float(np.finfo(before.dtype).eps)
    energy = np.sum(np.square(before, dtype=np.float64), axis=(-2, -1)).ravel()
    change = np.sum(np.square(after - before, dtype=np.float64), axis=(-2, -1)).ravel()
    ratio = np.full(energy.shape, np.nan)
    np.divide(change, energy, out=ratio, where=energy > tiny**2 * energy.sum())
    return ratio


def _shifted_pair(
    image: NDArray[Any], offset: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Crops before and after: the second sees the first's content ``offset`` further on."""
    before, after = [], []
    for distance, length in zip(offset, image.shape, strict=True):
        size = length - abs(distance)
        start = max(distance, 0)
        before.append(slice(start, start + size))
        after.append(slice(start - distance, start - distance + size))
    return image[tuple(before)], image[tuple(after)]


def _as_shift(shift: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    try:
        down, right = (_operator.index(distance) for distance in shift)
    except (TypeError, ValueError):
        raise TypeError(f"shift must be a pair (dy, dx) of integers, got {shown(shift)}") from None
    if (down, right) == (0, 0) or abs(down) >= shape[0] or abs(right) >= shape[1]:
        raise ValueError(
            f"shift must be other than (0, 0) and smaller than the image, {shape}, "
            f"got {(down, right)}"
        )
    return down, right


def _as_place(packet: Any, bank: PacketBank) -> int:
    try:
        sign, row, col = packet
    except (TypeError, ValueError):
        raise TypeError(f"packet must be (sign, row, col) or None, got {shown(packet)}") from None
    bank.atom(sign, row, col)  # raises if there is no such atom
    count = 2**bank.depth
    return int((0 if sign == 1 else count**2) + row * count + col)


def _in_words(offset: tuple[int, int]) -> str:
    """Say how the picture moves: "1 pixel to the right"."""
    parts = []
    for distance, (forth, back) in zip(
        offset, (("down", "up"), ("to the right", "to the left")), strict=True
    ):
        if distance:
            unit = "pixel" if abs(distance) == 1 else "pixels"
            parts.append(f"{abs(distance)} {unit} {forth if distance > 0 else back}")
    return " and ".join(parts)
