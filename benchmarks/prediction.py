"""Time of a prediction with all that it offers, for the packets of depth 3 and for a layer.

    python benchmarks/prediction.py

128 packets, and 64 kernels of a trained layer: with the spectra of photographs, a correction from
their moments, and standard errors on all numbers. Seconds are of the processor, summed over
threads, to which no other program on the machine adds; on a quiet one the clock shows no more. Ends
with an error if a prediction takes longer than the bar.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from skimage import data

import dtwpt
from dtwpt.invariance import Layer, estimate_moments, estimate_spectrum, predict

BAR = 10.0
LAYER = Path(__file__).parents[1] / "examples" / "data" / "open_nsfw_stem.npz"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SIZE = 257


def main() -> None:
    colours = [getattr(data, name)()[:SIZE, :SIZE] / 255.0 for name in PHOTOGRAPHS]
    images = [image @ [0.299, 0.587, 0.114] for image in colours]
    layer = Layer.load(LAYER)
    energy = np.square(layer.filters.mean(1)).sum((1, 2))
    kernels = np.concatenate([layer.filters[energy > 0], layer.filters[:64]])[:64]
    late = []
    for title, filters, reach in (
        ("128 packets of depth 3", dtwpt.PacketBank(3), 24),
        ("64 kernels of 7 x 7", kernels, 12),
    ):
        start = time.process_time()
        moments = estimate_moments(images, filters, reach)
        middle = time.process_time()
        spectrum = estimate_spectrum(images, reach=reach)
        table = predict(filters, (0, 1), spectrum=spectrum, moments=moments)
        end = time.process_time()
        worst = max(
            float(np.nanmedian(table[name + "_stderr"] / table[name]))
            for name in ("rmax_cmod", "rmax_shift", "cmod_shift")
        )
        print(
            f"{title}: predicted in {end - middle:.1f} s, moments in {middle - start:.1f} s; "
            f"standard errors {100 * worst:.1f} % at the median"
        )
        if end - middle > BAR:
            late.append(title)
    if late:
        sys.exit(f"over {BAR:g} s: {', '.join(late)}")


if __name__ == "__main__":
    main()
