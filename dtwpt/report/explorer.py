"""The interactive part of a report's page: kernel, maps and numbers of the filter pointed at.

Pictures of all filters are sheets of tiles, of which a style shows one; a short script moves them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

import dtwpt
from dtwpt.invariance import analytic_kernels
from dtwpt.invariance.filters import as_filters
from dtwpt.invariance.windows import Windows
from dtwpt.plot.atoms import atom_picture, atom_waves
from dtwpt.report.analysis import Analysis

__all__ = ["STYLE", "Explorer", "explorer"]

# Side of a map at most: it is no larger on the page.
_SIDE = 64
# Pixels of a packet's picture, by depth: there are many of a deep bank.
_POINTS = {2: 64, 3: 48, 4: 32}

STYLE = """
.explorer { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
.explorer svg { flex: 1 1 19rem; max-width: 26rem; width: 100%; touch-action: manipulation; }
.explorer svg text { font-size: .24px; fill: var(--soft); }
.explorer svg .axis { stroke: var(--line); stroke-width: .02; fill: none; }
.explorer svg circle { stroke: var(--page); stroke-width: .02; cursor: pointer; }
.explorer svg circle.on { stroke: var(--text); stroke-width: .07; }
.detail { flex: 1 1 19rem; }
.shots { display: grid; grid-template-columns: repeat(2, minmax(7rem, 10rem)); gap: .7rem; }
.shots figcaption { color: var(--soft); font-size: .85rem; }
.sheet { width: 100%; border: 1px solid var(--line); border-radius: 6px;
  background-repeat: no-repeat; image-rendering: pixelated; }
.explorer fieldset { border: 0; padding: 0; margin: 0 0 .6rem; flex-basis: 100%; }
.explorer label { margin-right: 1rem; }
"""

_SCRIPT = """
const data = DATA, rows = data.rows, svg = document.querySelector(".explorer svg");
const put = (name, value) => { document.getElementById(name).textContent = value; };
let chosen = data.first, by = "rmax";
function show(k) {
  chosen = (k + rows.length) % rows.length;
  for (const sheet of document.querySelectorAll(".sheet[data-columns]")) {
    const across = Number(sheet.dataset.columns), down = Number(sheet.dataset.rows);
    const part = (index, count) => count > 1 ? 100 * index / (count - 1) : 0;
    sheet.style.backgroundPosition =
      `${part(chosen % across, across)}% ${part(Math.floor(chosen / across), down)}%`;
  }
  for (const name of data.names) put("value-" + name, rows[chosen][name]);
  for (const dot of svg.querySelectorAll("circle")) {
    dot.classList.toggle("on", Number(dot.dataset.k) === chosen);
  }
}
function colour() {
  for (const dot of svg.querySelectorAll("circle")) dot.style.fill = rows[dot.dataset.k][by];
}
const point = event => { if (event.target.dataset.k) show(Number(event.target.dataset.k)); };
svg.addEventListener("pointerover", point);
svg.addEventListener("click", point);
svg.addEventListener("keydown", event => {
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (step) { event.preventDefault(); show(chosen + step); }
});
for (const radio of document.querySelectorAll("input[name=by]")) {
  radio.addEventListener("change", () => { by = radio.value; colour(); });
}
show(chosen);
"""


@dataclass(frozen=True)
class Explorer:
    """A part of the page, and the script that it needs."""

    html: str
    script: str

    @property
    def policy(self) -> str:
        """The source expression that allows the script, and no other."""
        digest = hashlib.sha256(self.script.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"


def explorer(analysis: Analysis) -> Explorer:
    """Return the part of the page in which filters are looked at one by one."""
    table, count = analysis.shown[0], len(analysis.filters)
    names = {"cmod_shift": "CMod", "rmax_shift": "RMax"}
    top = max(float(np.nanmax(table[name][analysis.kept])) for name in names) or 1.0
    shades = {
        name: [to_hex(colour) for colour in colormaps["viridis"](np.nan_to_num(table[name]) / top)]
        for name in names
    }
    first = int(np.nanargmax(np.where(analysis.kept, table["rmax_shift"], -1)))
    rows = [_numbers(analysis, k) for k in range(count)]
    data: dict[str, Any] = {
        "rows": [
            {**row, "rmax": shades["rmax_shift"][k], "cmod": shades["cmod_shift"][k]}
            for k, row in enumerate(rows)
        ],
        "names": list(rows[0]),
        "first": first,
    }
    shots = [_sheet(_kernels(analysis), "kernel (real part)", first)]
    image = _photograph(analysis)
    if image is not None:
        cmod, rmax = _maps(analysis, image)
        height, width = image.shape[-2:]
        shots.append(
            '<figure><div class="sheet" role="img" aria-label="photograph" style="'
            f"aspect-ratio:{width}/{height};background-size:100% 100%;"
            f'background-image:url({_url(_photo(image))})"></div>'
            "<figcaption>middle of the first image</figcaption></figure>"
        )
        shots.append(_sheet(cmod, "its CMod map", first))
        shots.append(_sheet(rmax, "its RMax map", first))
    numbers = "".join(
        f'<tr><th>{name}</th><td id="value-{name}">{value}</td></tr>'
        for name, value in rows[first].items()
    )
    html = f"""<h2>Filter by filter</h2>
<p>Each dot is a filter at its place in the frequency plane, brighter where its output changes more
under the shift. Point at one, tap it, or use the arrow keys.</p>
<div class="explorer">
<fieldset><label><input type="radio" name="by" value="rmax" checked/> change of RMax</label>
<label><input type="radio" name="by" value="cmod"/> change of CMod</label>
<span>0 (dark) to {top:.2g} (bright)</span></fieldset>
{_plane(analysis, shades["rmax_shift"], first)}
<div class="detail" aria-live="polite"><div class="shots">{"".join(shots)}</div>
<table>{numbers}</table></div>
</div>
"""
    # No "<" can end the script, whatever the data are.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Explorer(html, _SCRIPT.replace("DATA", text, 1))


def _numbers(analysis: Analysis, index: int) -> dict[str, str]:
    """Return the numbers of one filter for the page, by name."""
    row, about = analysis.shown[0][index], analysis.description[index]
    out = {
        "filter": str(analysis.filters[index]),
        "frequency": f"{about['frequency']:.2f} rad/pixel",
        "orientation": f"{about['orientation']:.0f}\u00b0",
        "CMod": _with_error(row, "cmod_shift"),
        "RMax": _with_error(row, "rmax_shift"),
        "gamma": f"{analysis.gamma[index]:.2f}",
        "kind": "Gabor-like" if analysis.gabor[index] else "not Gabor-like",
    }
    if analysis.measured is not None:
        predicted = analysis.predicted[0][index]
        out["predicted"] = f"CMod {predicted['cmod_shift']:.3g}, RMax {predicted['rmax_shift']:.3g}"
    return out


def _with_error(row: np.void, name: str) -> str:
    error = float(row[name + "_stderr"])
    return f"{row[name]:.3g}" + (f" \u00b1 {error:.2g}" if np.isfinite(error) and error else "")


def _plane(analysis: Analysis, shades: list[str], first: int) -> str:
    """Return the frequency plane: rows, and so the vertical axis, point down in SVG as well."""
    bank = analysis.bank
    radius = 0.1 if bank is None else 0.42 * np.pi / 2**bank.depth
    dots = []
    for index, row in enumerate(analysis.shown[0]):
        for side in (1, -1):
            chosen = ' class="on"' if index == first else ""
            dots.append(
                f'<circle{chosen} data-k="{index}" cx="{side * row["theta_x"]:.3f}" '
                f'cy="{side * row["theta_y"]:.3f}" r="{radius:.3f}" fill="{shades[index]}"/>'
            )
    return (
        '<svg viewBox="-3.5 -3.5 7 7.4" tabindex="0" role="img" '
        'aria-label="filters in the frequency plane">'
        '<path class="axis" d="M-3.142 0H3.142M0-3.142V3.142M-3.142-3.142H3.142V3.142H-3.142Z"/>'
        f"{''.join(dots)}"
        '<text x="-3.25" y="3.45">\u2212\u03c0</text><text x="3.05" y="3.45">\u03c0</text>'
        '<text x="0" y="3.75" text-anchor="middle">horizontal frequency (rad/pixel)</text></svg>'
    )


def _sheet(tiles: NDArray[np.uint8], caption: str, first: int) -> str:
    """Return a figure that shows one of some tiles (n, h, w) or (n, h, w, 3)."""
    count, height, width = tiles.shape[:3]
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    padded = np.zeros((across * down, *tiles.shape[1:]), np.uint8)
    padded[:count] = tiles
    grid = padded.reshape(down, across, *tiles.shape[1:]).swapaxes(1, 2)
    sheet = grid.reshape(down * height, across * width, *tiles.shape[3:])
    place = " ".join(
        f"{100 * index / (number - 1) if number > 1 else 0:.4f}%"
        for index, number in ((first % across, across), (first // across, down))
    )
    return (
        f'<figure><div class="sheet" role="img" aria-label="{caption}" data-columns="{across}" '
        f'data-rows="{down}" style="aspect-ratio:{width}/{height};'
        f"background-size:{100 * across}% {100 * down}%;background-position:{place};"
        f'background-image:url({_url(sheet)})"></div><figcaption>{caption}</figcaption></figure>'
    )


def _url(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _kernels(analysis: Analysis) -> NDArray[np.uint8]:
    """Return a picture of each filter, mid-grey where it is 0."""
    if analysis.bank is not None:
        waves = atom_waves(analysis.bank, _POINTS[analysis.bank.depth])
        tiles = np.stack([atom_picture(waves, atom) for atom in analysis.description])
    else:
        values = np.asarray(analysis.kernels, np.float64)
        colour = values.shape[1] == 3
        tiles = np.moveaxis(values, 1, -1) if colour else values.mean(axis=1)
        largest = np.abs(tiles).reshape(len(tiles), -1).max(axis=1)
        tiles = tiles / largest.reshape(-1, *(1,) * (tiles.ndim - 1))
    return np.round(127.5 * (1 + tiles)).astype(np.uint8)


def _photograph(analysis: Analysis) -> NDArray[np.float64] | None:
    """Return the middle of the first image, no larger than its maps need: (..., h, w)."""
    if analysis.crops is None:
        return None
    image = np.asarray(next(analysis.crops.images), np.float64)
    side = int(2 * analysis.stride * _SIDE)
    top, left = (max(length - side, 0) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def _maps(
    analysis: Analysis, image: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the CMod and RMax maps of all filters, each on its own scale."""
    bank = analysis.bank
    if analysis.layer is not None:
        windows = Windows(as_filters(analysis.layer))
        found = windows(image, windows.grid(image.shape), False)
        sheets = [found.cmod, found.rmax]
    elif bank is not None and analysis.q == 1:
        both = [compute(image, bank.depth, bank.wavelet) for compute in (dtwpt.cmod2, dtwpt.rmax2)]
        sheets = [maps.reshape(-1, *maps.shape[-2:]) for maps in both]
    else:
        each = [_outputs(image, kernel, analysis) for kernel in _complex_kernels(analysis)]
        sheets = [np.stack(maps) for maps in zip(*each, strict=True)]
    cmod, rmax = (np.stack([_grey(values) for values in maps]) for maps in sheets)
    return cmod, rmax


def _outputs(
    image: NDArray[np.float64], kernel: NDArray[np.complex128], analysis: Analysis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the modulus at stride 2 m, and the real part at stride m, pooled by 2."""
    m, window = int(analysis.stride), 2 * (analysis.q or 0) + 1
    pads = [(side // 2, side - side // 2) for side in kernel.shape]
    padded = np.pad(image, pads, mode="symmetric")
    spectrum = np.fft.fft2(padded) * np.fft.fft2(kernel, padded.shape).conj()
    response = np.fft.ifft2(spectrum)[: image.shape[0], : image.shape[1]]
    pooled = maximum_filter(response.real[::m, ::m], window)[::2, ::2]
    return np.abs(response[:: 2 * m, :: 2 * m]), pooled


def _complex_kernels(analysis: Analysis) -> Iterator[NDArray[np.complex128]]:
    if analysis.bank is not None:
        for atom in analysis.description:
            yield analysis.bank.atom(int(atom["sign"]), int(atom["row"]), int(atom["col"]))
    else:
        yield from analytic_kernels(analysis.kernels)


def _photo(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = float(image.min()), float(image.max())
    image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    return np.round(255 * (image - low) / ((high - low) or 1.0)).astype(np.uint8)


def _grey(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a picture, negative values black and the largest half per cent white."""
    white = max(float(np.quantile(values, 0.995)), 0.0) or 1.0
    # Square roots, as most coefficients of an image are small.
    return np.round(255 * np.sqrt(np.clip(values / white, 0, 1))).astype(np.uint8)
