"""Shared parts of all figures: colours, checks of arguments, display in notebooks."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from dtwpt.arrays import as_numpy
from dtwpt.packets import PacketBank

__all__ = [
    "COLOURS",
    "GREY",
    "Place",
    "Room",
    "Sheet",
    "as_bank",
    "as_figure",
    "as_image",
    "blank",
    "colour_bar",
    "finish",
]

#: Two colours that are distinct in grey and for colour-blind readers (Okabe and Ito's).
COLOURS = ("#0072B2", "#D55E00")
GREY = "#6b6b6b"
#: Where a picture of one panel may be drawn: None, in a new figure.
Place: TypeAlias = Axes | Figure | SubFigure | None
_SMALLEST = 5.0  # smallest text, points


class _Figure(Figure):
    """A figure that is not managed by pyplot, and that a notebook can still display.

    Made without pyplot it needs no closing, is displayed once, and chooses no backend.
    """

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save with fonts that editors and publishers accept: TrueType, not Type 3."""
        with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def as_figure(fig: Any, size: tuple[float, float]) -> Figure:
    """Return ``fig``, or a new figure of that size in inches."""
    if fig is None:
        return _Figure(figsize=size, dpi=125)
    figure: Figure = fig  # or a part of one, in which everything is drawn alike
    if not isinstance(fig, (Figure, SubFigure)):
        raise TypeError(
            f"fig must be a matplotlib Figure, SubFigure or None, got {type(fig).__name__}"
        )
    return figure


class Room:
    """The text size and the room for text of a figure.

    Attributes
    ----------
    wide : bool
        Whether there is room for legends and captions beside the panels.
    """

    def __init__(self, fig: Figure, size: tuple[float, float]) -> None:
        width, height = fig.bbox.width / fig.dpi, fig.bbox.height / fig.dpi
        share = min(width / size[0], height / size[1])
        self.wide = share > 0.66
        # Text shrinks less than panels do.
        self._scale = min(share**0.75, 1.0)

    def fit(self, fig: Figure) -> None:
        """Make text smaller in a small figure, but not below 5 points."""
        for ax in fig.axes:
            size = ax.xaxis.get_tick_params().get("labelsize", 8)
            ax.tick_params(labelsize=max(_SMALLEST, size * self._scale))
        ticks = {label for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)
                 for label in axis.get_ticklabels()}  # fmt: skip
        for text in set(fig.findobj(Text)) - ticks:
            text.set_fontsize(max(_SMALLEST, text.get_fontsize() * self._scale))


class Sheet:
    """Axes side by side, whose text and marks are sized by the space there is.

    Draw on :attr:`axes`, then call :meth:`fit`. Axes that the caller made stay where they are; in
    a figure of our own, or a given one, they are placed so that all text lies inside.

    Parameters
    ----------
    where : None, Axes, Figure, SubFigure or sequence of Axes
    count : int, default: 1
        Number of axes, which share the vertical scale.
    size : (float, float), default: (5.2, 4.3)
        Inches at which text has its full size; that of a new figure.

    Attributes
    ----------
    axes : list of Axes
    given : bool
        Whether the caller made the axes.
    wide : bool
        Whether there is room for legends and notes.
    """

    def __init__(self, where: Any, count: int = 1, size: tuple[float, float] = (5.2, 4.3)) -> None:
        self.given = not (where is None or isinstance(where, (Figure, SubFigure)))
        if self.given:
            self.axes = _as_given(where, count)
            box = self.axes[0].bbox
            dpi = self.axes[0].figure.dpi
            # What margins with labels leave of the size.
            needs = (max(size[0] - 1.1, 0.7 * size[0]) / count, max(size[1] - 0.8, 0.7 * size[1]))
            share = min(box.width / dpi / needs[0], box.height / dpi / needs[1])
            share /= 0.8  # labels may take more of a figure than in one of our own
        else:
            fig = as_figure(where, size)
            width = 0.8 / count
            self.axes = [fig.add_axes((0.1, 0.1, width, 0.8))]
            for index in range(1, count):
                place = (0.1 + index * width, 0.1, width, 0.8)
                self.axes.append(fig.add_axes(place, sharey=self.axes[0]))
                self.axes[-1].tick_params(labelleft=False)
            inches = (fig.bbox.width / fig.dpi, fig.bbox.height / fig.dpi)
            share = min(inches[0] / size[0], inches[1] / size[1])
        self.wide = share > 0.66
        self._scale = float(min(share**0.5, 1.0))
        self._before = {mark for ax in self.axes for mark in ax.findobj()}

    def fit(self) -> None:
        """Make text and marks smaller where there is little space, then place the axes."""
        for ax in self.axes:
            for each in (ax, *ax.child_axes):
                size = each.yaxis.get_tick_params().get("labelsize", 8.0)
                each.tick_params(labelsize=self._text(size))
                if not self.wide:
                    each.tick_params(pad=1.5, length=2)
                for text in (each.title, each.xaxis.label, each.yaxis.label):
                    text.set_fontsize(self._text(text.get_fontsize()))
            for mark in set(ax.findobj()) - self._before:
                if isinstance(mark, Text) and mark in ax.texts:
                    mark.set_fontsize(self._text(mark.get_fontsize()))
                elif isinstance(mark, Line2D) and mark in ax.lines:
                    mark.set_markersize(mark.get_markersize() * self._scale)
                elif isinstance(mark, PathCollection) and mark in ax.collections:
                    mark.set_sizes(mark.get_sizes() * self._scale**2)
            legend = ax.get_legend()
            if legend is not None:
                for text in (legend.get_title(), *legend.get_texts()):
                    text.set_fontsize(self._text(text.get_fontsize()))
        if not self.given:
            self._place()

    def _text(self, size: float | str) -> float:
        return max(_SMALLEST, float(size) * self._scale)

    def _place(self) -> None:
        fig = self.axes[0].figure
        edge = 0.06 * fig.dpi  # pixels that stay empty
        count = len(self.axes)
        for _ in range(2):  # as ticks change with the size
            sides = [_beyond_box(ax) for ax in self.axes]
            left, right = sides[0][0] + edge, sides[-1][2] + edge
            bottom, top = (max(side[k] for side in sides) + edge for k in (1, 3))
            gap = max((a[2] + b[0] for a, b in pairwise(sides)), default=0) + 2 * edge
            width = (fig.bbox.width - left - right - (count - 1) * gap) / count
            height = fig.bbox.height - bottom - top
            for index, ax in enumerate(self.axes):
                x, y, across, up = left + index * (width + gap), bottom, width, height
                whole = fig.bbox
                ax.set_position(
                    (x / whole.width, y / whole.height, across / whole.width, up / whole.height)
                )
        for ax in self.axes:
            room = fig.bbox.width / count if count > 1 else fig.bbox.width - 2 * edge
            for text in (ax.title, ax.xaxis.label):
                wide = text.get_window_extent().width
                if wide > room:
                    text.set_fontsize(max(_SMALLEST, float(text.get_fontsize()) * room / wide))


def _as_given(where: Any, count: int) -> list[Axes]:
    axes = [where] if isinstance(where, Axes) else list(np.ravel(where))
    for ax in axes:
        if not isinstance(ax, Axes):
            raise TypeError(
                f"ax must be matplotlib Axes, a Figure or SubFigure, or None, got "
                f"{type(ax).__name__}"
            )
    if len(axes) != count:
        raise ValueError(f"ax must be one Axes for each of {count} panels, got {len(axes)}")
    return axes


def _beyond_box(ax: Axes) -> tuple[float, float, float, float]:
    """Return how far labels reach beyond an axes' box: left, below, right, above; in pixels."""
    ax.apply_aspect()
    box, all_of_it = ax.get_window_extent(), ax.get_tightbbox(for_layout_only=True)
    if all_of_it is None:
        return 0.0, 0.0, 0.0, 0.0
    return (
        max(box.x0 - all_of_it.x0, 0.0),
        max(box.y0 - all_of_it.y0, 0.0),
        max(all_of_it.x1 - box.x1, 0.0),
        max(all_of_it.y1 - box.y1, 0.0),
    )


def colour_bar(
    ax: Axes, drawn: Any, label: str, *, pad: float = 0.04, extend: str = "neither"
) -> None:
    """Add a colour bar beside ``ax``, as high as what is drawn there."""
    # Axes within axes: they follow the box of a picture with a fixed aspect.
    place = ax.inset_axes((1 + pad, 0, 0.046, 1))
    bar = ax.figure.colorbar(drawn, cax=place, extend=extend)
    bar.set_label(label, fontsize=8.5)
    place.tick_params(labelsize=8)


def as_bank(bank: Any) -> PacketBank:
    """Return ``bank`` if it is one."""
    if not isinstance(bank, PacketBank):
        raise TypeError(f"bank must be a dtwpt.PacketBank, got {type(bank).__name__}")
    return bank


def as_image(x: Any, name: str) -> NDArray[Any]:
    """Return one greyscale image as a finite real array."""
    image = as_numpy(x, name)
    if image.dtype.kind not in "buif":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {image.dtype}")
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"{name} must be one grey image of shape (H, W), got shape {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return image.astype(np.float32) if image.dtype == np.float16 else image


def blank(ax: Axes) -> None:
    """Leave the frame of an image, without ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(GREY)
        spine.set_linewidth(0.6)


def finish(ax: Axes) -> None:
    """Give a diagram its ticks and its frame: only the two axes."""
    ax.tick_params(labelsize=8)
    for spine in ("top", "right"):
        ax.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        ax.spines[spine].set_color(GREY)
