"""What a report says about how it was made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dtwpt.report.analysis import Analysis

__all__ = ["describe", "retell"]


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
            rows.append(("left out", f"kernels that do not answer grey images: {left_out}"))
    side = 2 * analysis.q + 1
    rows.append(("stride m", f"{analysis.stride} before pooling, {2 * analysis.stride} after it"))
    rows.append(("pooling window", f"{side} x {side} outputs (q = {analysis.q})"))
    shifts = [f"{row['shift_y']:g},{row['shift_x']:g}" for row in analysis.predicted[:, 0]]
    rows.append(("shifts", f"{'; '.join(shifts)} (pixels down, right)"))
    if analysis.crops is None:
        rows.append(("power spectrum", f"{analysis.spectrum} noise"))
    else:
        height, width = analysis.crops.size
        number = len(analysis.crops.files)
        one = "the middle of 1 image" if number == 1 else f"the middle of {number} images, each"
        rows.append(("images", f"{one} {height} x {width} pixels, in grey"))
        rows.append(("power spectrum", "the images' own"))
        if number == 1:
            rows.append(("standard errors", "none of the measurement: there is but one image"))
    return rows


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
