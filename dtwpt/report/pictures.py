"""The pictures of a report, each with two sentences on how to read it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

import dtwpt
import dtwpt.plot
from dtwpt.plot.canvas import as_figure
from dtwpt.report.analysis import Analysis

__all__ = ["Picture", "Style", "as_png", "draw"]


@dataclass(frozen=True)
class Picture:
    """A PNG file, what it shows, how to read it, and its width on a page in pixels."""

    name: str
    title: str
    reading: str
    png: bytes
    width: int


@dataclass(frozen=True)
class Style:
    """How pictures are drawn.

    Attributes
    ----------
    dpi : float, default: 160
        Pixels in an inch.
    size : (float,) or (float, float), optional
        Width in inches, heights being in proportion; or width and height. By default each
        picture has its own.
    title : bool, default: True
        Whether to write headings. Names of panels, which tell them apart, always stand.
    """

    dpi: float = 160
    size: tuple[float, ...] | None = None
    title: bool = True

    def figure(self, width: float, height: float) -> Figure:
        """Return a new figure, of this size unless another is asked for."""
        if self.size is None:
            return as_figure(None, (width, height))
        if len(self.size) == 1:
            return as_figure(None, (self.size[0], self.size[0] * height / width))
        return as_figure(None, (self.size[0], self.size[1]))


def draw(analysis: Analysis, style: Style | None = None) -> list[Picture]:
    """Draw all pictures that an analysis gives."""
    style = style or Style()
    order: list[Callable[[Analysis, Style], tuple[str, str, str, Figure]]] = [
        _plane, _orientation, _frequency, _shift,
    ]  # fmt: skip
    if analysis.q is not None:
        order.append(_gamma)
    if analysis.measured is not None:
        order.insert(3, _prediction)
    if analysis.kernels is not None:
        order[:0] = [_kernels, _gain]
    return [
        Picture(name, title, reading, as_png(figure, style), round(100 * figure.get_figwidth()))
        for name, title, reading, figure in (make(analysis, style) for make in order)
    ]


def as_png(figure: Figure, style: Style) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=style.dpi, metadata={"Software": f"dtwpt {dtwpt.__version__}"}
    )
    return buffer.getvalue()


def _source(analysis: Analysis) -> str:
    return "predicted" if analysis.measured is None else "measured"


def _which(analysis: Analysis) -> str:
    if not analysis.gabor.any():
        return f"all {len(analysis.gabor)} filters (none is Gabor-like)"
    return f"the {analysis.gabor.sum()} Gabor-like filters of {len(analysis.gabor)}"


def _kernels(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    values = analysis.kernels
    if values is None:
        raise ValueError("there are no kernels")
    table = analysis.shown[0]
    order = np.argsort(-table["rmax_shift"], kind="stable")
    columns = 10
    rows = -(-len(order) // columns)
    fig = style.figure(9.6, 0.3 + rows * 9.4 / columns * 0.88 / 0.76)
    names = [
        f"{analysis.filters[k]}: {table['rmax_shift'][k]:.2f} \u2192 {table['cmod_shift'][k]:.2f}"
        for k in order
    ]
    dtwpt.plot.kernels(
        values[order], fig, names=names, marked=analysis.gabor[order], columns=columns
    )
    return (
        "kernels.png",
        "The kernels, the least stable first",
        "Under each kernel stand its number and how much its output changes under the shift, "
        f"{_source(analysis)}: with max pooling \u2192 with a complex modulus. A frame marks the "
        "kernels that are Gabor-like, those for which a modulus can stand in.",
        fig,
    )


def _gain(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(7.2, 4.4)
    dtwpt.plot.gain(analysis.shown[0], analysis.description["gabor_likeness"], fig)
    return (
        "gain.png",
        "Complex modulus against max pooling, kernel by kernel",
        f"Each point is a kernel, {_source(analysis)}: across, how much max pooling's output "
        "changes; upwards, how much that of a complex modulus would. The farther below the line "
        "1, the more is gained, and bright points are the kernels that lend themselves to it.",
        fig,
    )


def _plane(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    table = analysis.shown[0]
    fig = style.figure(9.6, 3.9)
    fig.set_layout_engine("constrained")
    axes = fig.subplots(1, 2)
    errors = ("cmod_shift", "rmax_shift")
    most = max(float(np.nanmax(table[error])) for error in errors)
    # One scale for both; the low-pass and the packets at the border must not set it.
    inner = analysis.kept
    top = max(float(np.nanmax(table[error][inner])) for error in errors)
    for ax, error, title in zip(axes, errors, ("CMod", "RMax"), strict=True):
        if analysis.bank is not None:
            dtwpt.plot.frequency_plane(
                analysis.bank, table[error], ax, vmin=0, vmax=top, label="relative change"
            )
        else:
            dtwpt.plot.frequency_points(
                table, table[error], ax, vmin=0, vmax=top, label="relative change"
            )
        ax.set_title(f"{title}, {_source(analysis)}", fontsize=10)
    what = "cell" if analysis.bank is not None else "point"
    return (
        "plane.png",
        "Stability in the frequency plane",
        f"Each {what} is a filter at its place in the frequency plane (low frequencies in the "
        "middle), dark where its output hardly changes under the shift. Both panels have one "
        "colour scale, so the darker one is the more stable operator"
        + ("." if top >= most else "; a few outputs change more than it shows."),
        fig,
    )


def _orientation(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(9.4, 3.5)
    dtwpt.plot.invariance(analysis.shown[0][analysis.kept], ax=fig)
    return (
        "orientation.png",
        "Stability against orientation",
        "Each point is a filter, with its standard error; curves join filters of one band of "
        "frequencies, and the dotted lines mark waves that run along the shift. Both panels have "
        f"one logarithmic scale, and show {_which(analysis)}, {_source(analysis)}.",
        fig,
    )


def _frequency(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(9.4, 3.5)
    dtwpt.plot.invariance(analysis.shown[0][analysis.kept], "frequency", fig)
    return (
        "frequency.png",
        "Stability against frequency",
        "The same filters against their frequency, with one curve for each range of angles between "
        "a filter's waves and the shift. Where a curve of RMax peaks, the steps of its pooling "
        "window fall in with the wave's period.",
        fig,
    )


def _prediction(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(9.6, 3.6)
    fig.set_layout_engine("constrained")
    axes = fig.subplots(1, 3)
    if analysis.measured is None:
        raise ValueError("nothing was measured")
    kept = analysis.kept
    for ax, error in zip(axes, ("cmod_shift", "rmax_shift", "rmax_cmod"), strict=True):
        dtwpt.plot.prediction(analysis.predicted[0][kept], analysis.measured[0][kept], error, ax)
    return (
        "prediction.png",
        "Prediction against measurement",
        "Each point is a filter: across, what the images' power spectra alone predict; upwards, "
        "what was measured on the images, with standard errors. On the dashed line both agree; a "
        "high correlation means that theory ranks the filters rightly, even where the points leave "
        "the line, as photographs are no Gaussian fields.",
        fig,
    )


def _shift(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(7.2, 3.9)
    ax = dtwpt.plot.shift_curve(analysis.curve_predicted, analysis.curve_measured, fig)
    step = analysis.stride * (2 if analysis.layer is None else analysis.layer.pool_stride)
    ax.axvline(step, ymax=0.82, color="0.5", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    return (
        "shift.png",
        "Stability against the length of the shift",
        f"Mean over {_which(analysis)} against the length of the shift, in the first shift's "
        f"direction; bands{'' if analysis.measured is None else ' and bars'} hold eight tenths of "
        f"the filters. Outputs lie {step:g} pixels apart (dotted) and are compared place by place: "
        "what counts for stability is the rise well before that, as beyond it the picture's "
        "content has moved on to the next output.",
        fig,
    )


def _gamma(analysis: Analysis, style: Style) -> tuple[str, str, str, Figure]:
    fig = style.figure(5.6, 4.4)
    ax = dtwpt.plot.gamma_map(analysis.q or 0, int(analysis.stride), analysis.bank, fig)
    if not style.title:
        ax.set_title("")
    if analysis.bank is None:
        chosen = analysis.description[analysis.kept]
        for side in (1, -1):
            ax.plot(
                side * chosen["theta_x"], side * chosen["theta_y"], "o", color="white",
                markersize=4, markeredgecolor="black", markeredgewidth=0.6,
            )  # fmt: skip
    return (
        "gamma.png",
        "Frequencies that max pooling misses",
        "Dark: the samples in a pooling window catch a wave of that frequency near its peak, "
        "whatever its phase, so max pooling does the work of a modulus; bright: they may miss it "
        "altogether. The dots are the filters"
        + ("." if analysis.bank is not None or not analysis.gabor.any() else " (Gabor-like ones)."),
        fig,
    )
