"""What all pictures share: colours, checks of arguments, figures that notebooks display."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from numpy.typing import NDArray

from dtwpt.arrays import as_numpy
from dtwpt.packets import PacketBank

__all__ = [
    "COLOURS",
    "GREY",
    "Room",
    "as_axes",
    "as_bank",
    "as_figure",
    "as_image",
    "as_panels",
    "blank",
    "finish",
]

#: Two colours that stay apart in grey and for colour-blind readers (Okabe and Ito's).
COLOURS = ("#0072B2", "#D55E00")
GREY = "#6b6b6b"


class _Figure(Figure):
    """A figure that pyplot does not know of, and that a notebook displays all the same.

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
    """How much text a figure has room for.

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
            ax.tick_params(labelsize=max(5.0, size * self._scale))
        ticks = {label for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)
                 for label in axis.get_ticklabels()}  # fmt: skip
        for text in set(fig.findobj(Text)) - ticks:
            text.set_fontsize(max(5.0, text.get_fontsize() * self._scale))


def as_axes(ax: Any) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    if ax is None:
        fig = _Figure(figsize=(5.2, 4.3), dpi=125)
        fig.subplots_adjust(left=0.13, right=0.9, bottom=0.12, top=0.93)
        return fig.add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes or None, got {type(ax).__name__}")
    return ax


def as_panels(ax: Any, count: int) -> NDArray[Any]:
    """Return ``ax`` as an array of ``count`` axes, new ones side by side by default."""
    if ax is None:
        fig = as_figure(None, (0.8 + 4.3 * count, 3.5))
        left = 0.65 / (0.8 + 4.3 * count)
        fig.subplots_adjust(left=left, right=0.985, bottom=0.145, top=0.915, wspace=0.09)
        return np.ravel(fig.subplots(1, count, sharey=True, squeeze=False))
    panels = np.array([ax] if isinstance(ax, Axes) else list(np.ravel(ax)), dtype=object)
    for panel in panels:
        if not isinstance(panel, Axes):
            raise TypeError(f"ax must be matplotlib Axes or None, got {type(panel).__name__}")
    if len(panels) != count:
        raise ValueError(f"ax must be one Axes for each of {count} panels, got {len(panels)}")
    return panels


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
