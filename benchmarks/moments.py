"""How near the correction from moments comes, on photographs that it was not taken from.

    python benchmarks/moments.py

Measured errors of RMax over predicted ones, mean over the Gabor-like packets: predicted from the
spectra alone, and with the moments of four other photographs. Four ways to part eight photographs.
Saves the table as ``results/moments.txt``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from skimage import data

import dtwpt
from dtwpt.invariance import estimate_moments, measure, predict

RESULT = Path(__file__).parent / "results" / "moments.txt"
NAMES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
PARTS = (slice(4), slice(4, 8), slice(0, 8, 2), slice(1, 8, 2))
ERRORS = ("rmax_cmod", "rmax_shift", "rmax_shift_by_cmod")
SIZE = 257


def crops(name: str) -> list[NDArray[Any]]:
    """Two crops at most of a photograph in grey."""
    image = getattr(data, name)() / 255.0
    image = image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image
    step = SIZE - 2
    places = [
        (top, left)
        for top in range(0, image.shape[0] - SIZE + 1, step)
        for left in range(0, image.shape[1] - SIZE + 1, step)
    ]
    return [image[top : top + SIZE, left : left + SIZE] for top, left in places[:2]]


def main() -> None:
    lines = [f"{'depth':5}  {'moments of':40}" + "".join(f"{name:>22}" for name in ERRORS)]
    for depth in (2, 3):
        bank = dtwpt.PacketBank(depth)
        gabor = bank.atoms()["gabor"]
        for part in PARTS:
            seen = NAMES[part]
            fitted = [crop for name in seen for crop in crops(name)]
            judged = [crop for name in NAMES if name not in seen for crop in crops(name)]
            moments = estimate_moments(fitted, bank, 6 * 2 ** (depth - 1))
            measured = measure(judged, bank)
            plain = predict(bank, spectrum=judged)
            corrected = predict(bank, spectrum=judged, moments=moments)
            cells = []
            for name in ERRORS:
                found = measured[name][gabor].mean()
                before, after = (found / t[name][gabor].mean() for t in (plain, corrected))
                cells.append(f"{before:.2f} -> {after:.2f}")
            lines.append(
                f"{depth:5}  {', '.join(seen):40}" + "".join(f"{cell:>22}" for cell in cells)
            )
            print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
