"""The page of a report, one self-contained HTML file, and the settings that it lists."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

import dtwpt
from dtwpt.invariance.kernels import DC_MOST, LIKENESS_LEAST
from dtwpt.report.analysis import Analysis, Crops
from dtwpt.report.explorer import STYLE, Explorer, explorer
from dtwpt.report.folder import MARK
from dtwpt.report.pictures import Picture

__all__ = [
    "describe",
    "document",
    "figure",
    "images_row",
    "page",
    "retell",
    "settings_table",
    "tiles_of",
]

# Maximum number of image files named on the page.
_FILES_SHOWN = 200

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5d666f; --line: #dfe3e6;
  --page: #ffffff; --card: #f5f7f8; --cmod: #0072b2; --rmax: #b84f00; }
@media (prefers-color-scheme: dark) { :root { --text: #e8eaec; --soft: #a4adb5; --line: #353b41;
  --page: #15181b; --card: #1e2226; --cmod: #58b4ec; --rmax: #ff9350; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; color: var(--text);
  background: var(--page); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .3rem; }
p { margin: .3rem 0 .9rem; max-width: 48rem; }
.lead { font-size: 1.08rem; color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.6rem 0; }
.tile { flex: 1 1 13rem; background: var(--card); border-radius: 10px; padding: .9rem 1.1rem; }
.tile b { display: block; font-size: 1.75rem; line-height: 1.25; font-weight: 650; }
.tile span { color: var(--soft); font-size: .9rem; }
.cmod { color: var(--cmod); } .rmax { color: var(--rmax); }
figure { margin: .4rem 0 0; }
.frame img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.verdict { font-size: 1.3rem; line-height: 1.4; margin: 1rem 0; }
.frame { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: .8rem;
  overflow-x: auto; }
@media (prefers-color-scheme: dark) { .frame { filter: brightness(.85); } }
.frame a { display: block; }
a { color: var(--cmod); }
table { border-collapse: collapse; font-size: .93rem; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .32rem 1.4rem .32rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
code { font: .88em ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
details { font-size: .93rem; } summary { cursor: pointer; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
@media print { body { max-width: none; } figure, .tile { break-inside: avoid; } }
"""


def page(
    analysis: Analysis,
    pictures: Sequence[Picture],
    settings: Sequence[tuple[str, str]],
    command: str,
) -> bytes:
    """Return the page.

    Parameters
    ----------
    analysis : Analysis
    pictures : sequence of Picture
    settings : sequence of (str, str)
        Names and values.
    command : str
        Command that reproduces the report.

    Returns
    -------
    bytes
        UTF-8. The same arguments give the same bytes: there is no date in it.
    """
    look = explorer(analysis)
    links = ", ".join(f'<a href="{picture.name}">{picture.name}</a>' for picture in pictures)
    body = f"""<p>All numbers: <a href="filters.csv">filters.csv</a>. Pictures:
{links}.</p>
{look.html}{"".join(figure(picture) for picture in pictures)}
{settings_table(settings, command)}
{_files(analysis)}
<h2>Definitions</h2>
<p>Changes are ratios of squared norms: how much an operator's output differs between the picture
and the picture moved, over the output's own energy; 0 is perfect stability.
The table also has RMax's change over CMod's energy, which the bounds of the theory are about.
{escape(_operators(analysis))} Predictions are those for a Gaussian field of the
power spectrum above. {escape(_likeness(analysis))}</p>
<p>All filters and shifts, with standard errors, are in <a href="filters.csv">filters.csv</a>.</p>
"""
    return document(
        _title(analysis), _verdict(analysis), _lead(analysis), _tiles(analysis), body, look
    )


def document(
    title: str, verdict: str, lead: str, tiles: str, body: str, look: Explorer | None = None
) -> bytes:
    """Return a page: the first three are text, tiles and body are HTML; with look's script."""
    policy = "" if look is None else f"; script-src {look.policy}"
    script = "" if look is None else f"<script>{look.script}</script>\n"
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}{escape(dtwpt.__version__)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{policy}">
<title>{escape(title)}</title>
<style>{_STYLE}{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="verdict">{escape(verdict)}</p>
<p class="lead">{escape(lead)}</p>
{tiles}
{body}<footer>dtwpt {escape(dtwpt.__version__)}. After H. Leterme, K. Polisano, V. Perrier and
K. Alahari, arXiv 2209.11740.</footer>
{script}</body>
</html>
"""
    return text.encode()


def settings_table(settings: Sequence[tuple[str, str]], command: str) -> str:
    """Return the part of a page on how it was made."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in settings
    )
    return f"""<h2>Settings</h2>
<table>
{rows}<tr><th>made by</th><td>dtwpt {escape(dtwpt.__version__)}</td></tr>
<tr><th>command</th><td><code>{escape(command)}</code></td></tr>
</table>"""


def _operators(analysis: Analysis) -> str:
    if analysis.layer is not None:
        return (
            "RMax stands for the layer's output, with bias, ReLU and pooling; CMod for its twin, "
            "the modulus of the analytic kernel's output in the middle of the window, with the "
            "same bias and ReLU."
        )
    return (
        "RMax is the filter's real output at stride m, max-pooled with stride 2; CMod is the "
        "modulus of the complex output at stride 2 m."
    )


def _title(analysis: Analysis) -> str:
    if analysis.bank is not None:
        return f"Shift invariance of wavelet packets, depth {analysis.bank.depth}"
    return "Shift invariance of a first layer"


def _verdict(analysis: Analysis) -> str:
    """Say in two sentences which operator is more stable, by how much, and how far."""
    table = analysis.shown[0][analysis.kept]
    cmod, rmax = (float(np.nanmean(table[name])) for name in ("cmod_shift", "rmax_shift"))
    how = "predicted" if analysis.measured is None else "measured"
    move = _pixels(table["shift_y"][0], table["shift_x"][0])
    numbers = f"{cmod:.3g} against {rmax:.3g}, {how}"
    if max(cmod, rmax) <= 1.1 * min(cmod, rmax):
        first = f"A shift by {move} changes CMod and RMax about equally ({numbers})."
    elif cmod < rmax:
        times = f"{rmax / cmod:.1f} times " if cmod > 0 else ""
        first = f"A shift by {move} changes CMod {times}less than RMax ({numbers})."
    else:
        times = f"{cmod / rmax:.1f} times " if rmax > 0 else ""
        first = f"A shift by {move} changes RMax {times}less than CMod ({numbers})."
    curve = analysis.curve_predicted if analysis.measured is None else analysis.curve_measured
    if curve is None:
        return first
    lengths = np.hypot(curve["shift_y"][:, 0], curve["shift_x"][:, 0])
    order = np.argsort(lengths)
    means = [np.nanmean(curve[name], axis=1)[order] for name in ("cmod_shift", "rmax_shift")]
    moved = lengths[order] > 0
    ahead = (means[0] < means[1])[moved]
    count = int(np.argmin(ahead)) if not ahead.all() else len(ahead)
    if not count:
        return first
    farthest = float(lengths[order][moved][count - 1])
    unit = "pixel" if farthest == 1 else "pixels"
    end = ", the longest shift looked at" if ahead.all() else ""
    return f"{first} CMod stays the more stable one up to {farthest:.3g} {unit}{end}."


def _lead(analysis: Analysis) -> str:
    row = analysis.predicted[0, 0]
    move = _pixels(row["shift_y"], row["shift_x"])
    where = (
        f"in theory, for {analysis.spectrum} noise"
        if analysis.crops is None
        else f"on {_count(len(analysis.crops.files), 'image')}, beside the prediction from "
        f"{'their' if len(analysis.crops.files) > 1 else 'its'} power spectra"
    )
    more = " Further shifts are in the table." if len(analysis.predicted) > 1 else ""
    return (
        f"How much each filter's output changes when the picture moves by {move}, {where}. "
        f"The pictures compare a complex modulus (CMod) with max pooling (RMax).{more}"
    )


def _tiles(analysis: Analysis) -> str:
    kept = analysis.kept
    table = analysis.shown[0][kept]
    cmod, rmax = (float(np.nanmean(table[name])) for name in ("cmod_shift", "rmax_shift"))
    source = "predicted" if analysis.measured is None else "measured"
    beside = {"cmod_shift": "", "rmax_shift": ""}
    if analysis.measured is not None:
        for name in beside:
            beside[name] = f"; predicted {np.nanmean(analysis.predicted[0][kept][name]):.3g}"
    tiles = [
        ("cmod", f"{cmod:.3g}", f"mean change of CMod, {source}{beside['cmod_shift']}"),
        ("rmax", f"{rmax:.3g}", f"mean change of RMax, {source}{beside['rmax_shift']}"),
    ]
    if cmod > 0 and rmax > 0:
        # Which of the two is the more stable one depends on the shift and the filters.
        ratio, name, other = (
            (rmax / cmod, "RMax", "CMod") if rmax >= cmod else (cmod / rmax, "CMod", "RMax")
        )
        tiles.append(("", f"{ratio:.1f}\u00d7", f"as much change in {name} as in {other}"))
    of = "Gabor-like" if analysis.gabor.any() else "none is Gabor-like: means are of all"
    tiles.append(("", f"{analysis.gabor.sum()} of {len(kept)}", f"filters, {of}"))
    return tiles_of(tiles)


def tiles_of(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Return tiles as HTML: the class of each, its value, and what it is."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b class="{kind}">{escape(value)}</b><span>{escape(what)}</span>'
            "</div>"
            for kind, value, what in tiles
        )
        + "</div>"
    )


def figure(picture: Picture) -> str:
    """Return a picture with its title and how to read it, as HTML."""
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f"<h2>{escape(picture.title)}</h2>\n<p>{escape(picture.reading)}</p>\n"
        f'<figure class="frame"><a href="{picture.name}"><img alt="{escape(picture.title)}" '
        # Text stays readable on a phone, where the picture scrolls sideways in its frame.
        f'width="{picture.width}" style="min-width:{round(0.75 * picture.width)}px" '
        f'src="data:image/png;base64,{data}"></a></figure>\n'
    )


def _files(analysis: Analysis) -> str:
    if analysis.crops is None:
        return ""
    files = analysis.crops.files
    items = "".join(f"<div>{escape(_printable(file))}</div>" for file in files[:_FILES_SHOWN])
    more = f"<div>and {len(files) - _FILES_SHOWN} more</div>" if len(files) > _FILES_SHOWN else ""
    return f"<details><summary>{_count(len(files), 'image')}</summary>{items}{more}</details>\n"


def _likeness(analysis: Analysis) -> str:
    if analysis.bank is not None:
        return (
            "Gabor-like packets are those that neither carry the mean (the low-pass one) nor touch "
            "the highest band along an axis: only these are one-sided in frequency."
        )
    return (
        f"A kernel is called Gabor-like if at least {LIKENESS_LEAST:.0%} of its energy lies in one "
        f"square window of side \u03c0/m of the frequency plane, and its squared response to a "
        f"constant is at most {DC_MOST:.0%} of that to the wave which it answers most. "
        + (
            "Energies are summed over the input channels."
            if analysis.layer is not None
            else "Kernels of several input channels are averaged over these, as grey images see "
            "them."
        )
    )


def _pixels(down: float, right: float) -> str:
    parts = []
    for distance, forth, back in ((down, "down", "up"), (right, "to the right", "to the left")):
        if distance:
            unit = "pixel" if abs(distance) == 1 else "pixels"
            parts.append(f"{abs(distance):g} {unit} {forth if distance > 0 else back}")
    return " and ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _printable(name: str) -> str:
    """Return a file's name, which need not be valid Unicode, as text that is."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


# Settings and command line ------------------------------------------------------------------------


def describe(
    analysis: Analysis, kernels: str | None = None, key: str | None = None
) -> list[tuple[str, str]]:
    """Return the settings of a report, in words."""
    rows = []
    if analysis.bank is not None:
        count = len(analysis.filters)
        rows.append(("filters", f"{count} wavelet packets of depth {analysis.bank.depth}"))
        rows.append(("wavelet", analysis.bank.wavelet.name))
    elif analysis.kernels is not None:
        count, channels, height, width = analysis.kernels.shape
        rows.append(
            ("filters", f"{count} kernels of {channels} x {height} x {width} (channels, size)")
        )
        if kernels is not None:
            named = f", {key}" if key else ""
            rows.append(("kernels", f"{_printable(os.path.basename(kernels))}{named}"))
        if analysis.blank:
            left_out = ", ".join(map(str, analysis.blank))
            what = "any images" if analysis.layer is not None else "grey images"
            rows.append(("left out", f"kernels that do not answer {what}: {left_out}"))
    m, layer = analysis.stride, analysis.layer
    further = 2 if layer is None else layer.pool_stride
    rows.append(("stride m", f"{m:g} before pooling, {further * m:g} after it"))
    if layer is None:
        side = 2 * (analysis.q or 0) + 1
        rows.append(("pooling window", f"{side} x {side} outputs (q = {analysis.q})"))
    else:
        parts = ["bias"] * (layer.bias is not None) + ["ReLU"] * layer.relu
        parts.append(f"maximum over {layer.window} x {layer.window}")
        if len(layer.blur) > 1:
            weights = ", ".join(f"{weight:g}" for weight in layer.blur)
            parts.append(f"mean with the weights {weights} along each axis")
        rows.append(("layer", "; ".join(parts)))
    shifts = [f"{row['shift_y']:g},{row['shift_x']:g}" for row in analysis.predicted[:, 0]]
    rows.append(("shifts", f"{'; '.join(shifts)} (pixels down, right)"))
    if analysis.crops is None:
        rows.append(("power spectrum", f"{analysis.spectrum} noise"))
    else:
        rows.append(images_row(analysis.crops))
        rows.append(("power spectrum", "the images' own"))
        if len(analysis.crops.files) == 1:
            rows.append(("standard errors", "none of the measurement: there is but one image"))
    return rows


def images_row(crops: Crops) -> tuple[str, str]:
    """Return the setting that tells of the images."""
    height, width = crops.size
    number = len(crops.files)
    one = "the middle of 1 image" if number == 1 else f"the middle of {number} images, each"
    return "images", f"{one} {height} x {width} pixels, in {'colour' if crops.colour else 'grey'}"


def retell(paths: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return the command line that makes a report again."""
    words = ["dtwpt", "invariance", *map(_printable, paths)]
    for name, value in options.items():
        if name == "images":
            continue
        if name == "shifts":
            for down, right in value:
                words += ["--shift", f"{down:g},{right:g}"]
        elif name == "output":
            words += ["-o", _printable(value)]
        elif value is True:
            words.append(f"--{name}")
        else:
            size = "x".join(f"{side:g}" for side in value) if isinstance(value, tuple) else value
            words += [f"--{name}", _printable(str(size))]
    return shlex.join(words)
