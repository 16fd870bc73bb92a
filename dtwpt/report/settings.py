"""Settings and command line shown in a report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dtwpt.report.analysis import Analysis
from dtwpt.report.images import Crops

__all__ = ["describe", "images_row", "retell"]


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
            rows.append(("kernels", f"{_text(os.path.basename(kernels))}{named}"))
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
    words = ["dtwpt", "invariance", *map(_text, paths)]
    for name, value in options.items():
        if name == "images":
            continue
        if name == "shifts":
            for down, right in value:
                words += ["--shift", f"{down:g},{right:g}"]
        elif name == "output":
            words += ["-o", _text(value)]
        elif value is True:
            words.append(f"--{name}")
        else:
            size = "x".join(f"{side:g}" for side in value) if isinstance(value, tuple) else value
            words += [f"--{name}", _text(str(size))]
    return shlex.join(words)


def _text(name: str) -> str:
    """Return a file's name, which need not be valid Unicode, as text that is."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()
