"""Report on which filters a strided layer should use: design_report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dtwpt.plot
from dtwpt.invariance import design, estimate_spectrum, measure
from dtwpt.invariance.design import Design
from dtwpt.packets import PacketBank
from dtwpt.report.analysis import Crops, margin
from dtwpt.report.page import document, figure, images_row, settings_table, tiles_of
from dtwpt.report.pictures import Picture, Style, as_png

# Taps of the Gabor filters along an axis.
_SIZE = 11


def choose(
    stride: int,
    pool: int,
    shifts: Sequence[tuple[float, float]],
    spectrum: str = "pink",
    crops: Crops | None = None,
    progress: Callable[[], None] | None = None,
    **options: Any,
) -> tuple[Design, NDArray[np.float64] | None]:
    """Design a layer's filters, and measure the errors of all candidates if there are images.

    Parameters
    ----------
    stride, pool : int
    shifts : sequence of (float, float)
    spectrum : {"pink", "white"}
        Without images.
    crops : Crops, optional
        Images that give the spectrum, and on which errors are measured.
    progress : callable, optional
        Called after each image.
    **options
        depth, wavelet, size and budget of :func:`dtwpt.invariance.design`.

    Returns
    -------
    found : Design
    measured : ndarray, shape (candidates,), or None
        Relative squared change of RMax, mean over the shifts.
    """
    options.setdefault("size", _SIZE)
    if crops is None:
        return design(stride, pool, spectrum, shift=list(shifts), **options), None
    reach = int(np.ceil(np.abs(shifts).max())) + (pool - 1) * stride
    field = estimate_spectrum(crops.images, reach=reach)
    found = design(stride, pool, field, shift=list(shifts), **options)

    def images() -> Iterator[Any]:
        for image in crops.images:
            yield image
            if progress is not None:
                progress()

    table = measure(images(), found.candidates, list(shifts), pool // 2, stride=stride)
    return found, table["rmax_shift"].mean(0)


def least_crop(
    stride: int, pool: int, shifts: Sequence[tuple[float, float]], depth: int | None, wavelet: str
) -> tuple[int, int]:
    """Return the height and width that images must have for a design to be measured on them."""
    taps = _SIZE if depth is None else PacketBank(depth, wavelet).filters.shape[1]
    height, width = (taps + (pool - 1) * stride + margin(shifts, axis) for axis in (0, 1))
    return height, width


def describe_design(
    found: Design,
    shifts: Sequence[tuple[float, float]],
    depth: int | None,
    wavelet: str,
    spectrum: str,
    crops: Crops | None,
) -> list[tuple[str, str]]:
    """Return the settings of a design, in words."""
    count, taps = found.candidates.shape[:2]
    what = "Gabor filters" if depth is None else f"{wavelet} packets of depth {depth}"
    return [
        ("candidates", f"{count} {what}, {taps} x {taps} taps"),
        ("stride m", f"{found.stride} before pooling, {2 * found.stride} after it"),
        ("pooling window", f"{found.pool} x {found.pool} outputs"),
        ("shifts", f"{'; '.join(f'{y:g},{x:g}' for y, x in shifts)} (pixels down, right)"),
        ("power spectrum", f"{spectrum} noise" if crops is None else "the images' own"),
        *([] if crops is None else [images_row(crops)]),
    ]


def design_report(
    found: Design,
    measured: NDArray[np.float64] | None,
    settings: Sequence[tuple[str, str]],
    command: str,
    style: Style | None = None,
) -> dict[str, bytes]:
    """Return the files of a report on a design.

    Parameters
    ----------
    found : Design
    measured : ndarray, shape (candidates,), or None
    settings : sequence of (str, str)
        Names and values.
    command : str
        Command that reproduces the report.
    style : Style, optional
        Of the picture.

    Returns
    -------
    dict
        ``index.html``, ``design.png``, ``filters.csv`` with all candidates, and ``kernels.npy``,
        the chosen filters (n, h, w) by rank, real as a layer takes them.
    """
    style = style or Style()
    fig = style.figure(6.4, 6.6)
    ax = dtwpt.plot.design(found, fig)
    if not style.title:
        ax.set_title("")
    picture = Picture(
        "design.png",
        "Which filters to use, and which to avoid",
        "Each mark is a candidate at its place in the frequency plane (low frequencies in the "
        "middle), bright where its output changes little under the shifts. Discs with a number are "
        "the chosen filters, the most stable one first; crosses mark filters that this layer "
        "should avoid, for as much of the image can be seen without them. Rings mark the usual "
        "choice, which sees most of the image whatever the stability.",
        as_png(fig, style),
        round(100 * fig.get_figwidth()),
    )
    title = f"Filters for a layer of stride {found.stride}, pooling {found.pool} x {found.pool}"
    body = f"""{figure(picture)}
{_ranking(found, measured)}
{settings_table(settings, command)}
<h2>What the numbers are</h2>
<p>Errors are ratios of squared norms: how much a filter's max-pooled output changes when the
picture moves, over the output's own energy, mean over the shifts; 0 is perfect stability.
Predictions are those for a Gaussian field of the power spectrum above. Energy is the share of the
image that a linear decoder recovers from the outputs of all chosen filters.</p>
<p>All candidates are in <code>filters.csv</code>, the chosen kernels in
<code>kernels.npy</code>.</p>
"""
    kernels = io.BytesIO()
    np.save(kernels, found.kernels.real)
    return {
        "design.png": picture.png,
        "filters.csv": _csv(found, measured),
        "kernels.npy": kernels.getvalue(),
        "index.html": document(
            title, _verdict(found, measured), _lead(found), _tiles(found, measured), body
        ),
    }


def _verdict(found: Design, measured: NDArray[np.float64] | None) -> str:
    error = found.table["error"] if measured is None else measured
    chosen, usual = (float(error[which].mean()) for which in (found.chosen, found.usual))
    how = "predicted" if measured is None else "measured"
    return (
        f"The chosen filters change by {chosen:.3f} when the picture moves, {how}, those of the "
        f"usual choice by {usual:.3f}; they see {found.captured:.0%} of its energy, and those "
        f"{found.usual_captured:.0%}."
    )


def _lead(found: Design) -> str:
    avoided = int(found.table["avoid"].sum())
    return (
        f"{len(found.chosen)} of {len(found.table)} candidates are chosen: those whose largest "
        "error is the smallest among choices that see at least 95 % of the energy that the usual "
        f"choice sees. {avoided} are to be avoided: their predicted error is above "
        f"{found.limit:.3f}."
    )


def _tiles(found: Design, measured: NDArray[np.float64] | None) -> str:
    error = found.table["error"]
    tiles = []
    for kind, which, name in (("cmod", found.chosen, "chosen"), ("rmax", found.usual, "usual")):
        beside = "" if measured is None else f"; measured {measured[which].mean():.3f}"
        what = f"mean error of the {name} filters, predicted{beside}"
        tiles.append((kind, f"{error[which].mean():.3f}", what))
    tiles.append(
        (
            "",
            f"{found.captured:.0%}",
            f"of the image's energy is seen; by the usual choice {found.usual_captured:.0%}",
        )
    )
    low, high = found.bounds
    tiles.append(("", f"{low:.2f} to {high:.2f}", "frame bounds of the chosen filters"))
    return tiles_of(tiles)


def _ranking(found: Design, measured: NDArray[np.float64] | None) -> str:
    names = ["rank", "frequency (rad/pixel)", "orientation (degrees)", "predicted error"]
    names += ["measured"] if measured is not None else []
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ""
    for index in found.chosen:
        row = found.table[index]
        values = [str(row["rank"]), f"{row['frequency']:.2f}", f"{row['orientation']:.0f}"]
        values.append(f"{row['error']:.4f} \u00b1 {row['error_stderr']:.4f}")
        values += [f"{measured[index]:.4f}"] if measured is not None else []
        rows += "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>\n"
    return f"<h2>The chosen filters</h2>\n<table>\n<tr>{head}</tr>\n{rows}</table>"


def _csv(found: Design, measured: NDArray[np.float64] | None) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(found.table.dtype.names or ())
    writer.writerow(names + ["measured"] * (measured is not None))
    for index, row in enumerate(found.table):
        values = [
            repr(float(row[name])) if row[name].dtype.kind == "f" else str(int(row[name]))
            for name in names
        ]
        writer.writerow(values + ([] if measured is None else [repr(float(measured[index]))]))
    return text.getvalue().encode()
