"""Analyticity, stability and cost of the built-in wavelets, and of those that are optimised.

    python benchmarks/wavelets.py

Prints a table and saves it as ``results/wavelets.txt``. The transforms take turns, round after
round, so that whatever else the machine does hits all of them; a time is the shortest, of one
thread, relative to that of ``qshift_b``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import dtwpt
from dtwpt.engine import cpu
from dtwpt.invariance.design_wavelet import shift_change

RESULT = Path(__file__).parent / "results" / "wavelets.txt"
SIZE, ROUNDS, DEPTH = 256, 400, 2


def times() -> dict[str, float]:
    """Shortest time of each wavelet's transform of an image, processor seconds."""
    image = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    best = dict.fromkeys(dtwpt.wavelets(), np.inf)
    with cpu.threads(1):
        for _ in range(ROUNDS):
            for name in best:
                start = time.process_time()
                dtwpt.cmod2(image, DEPTH, name)
                best[name] = min(best[name], time.process_time() - start)
    return {str(name): seconds for name, seconds in best.items()}


def main() -> None:
    seconds = times()
    lines = [
        f"time: CMod of depth {DEPTH}, {SIZE} x {SIZE} pixels, float32, {cpu.engine()} engine, "
        "over that of qshift_b",
        f"{'':10}{'taps':>6}{'packet':>8}{'analyticity':>13}"
        f"{'change J=2':>12}{'J=3':>8}{'time':>7}",
    ]
    for name in dtwpt.wavelets():
        bank = dtwpt.PacketBank(DEPTH, name)
        gabor = bank.atoms()["gabor"]
        analyticity = bank.atoms()["analyticity"][gabor].min()
        change = [shift_change(name, depth) for depth in (2, 3)]
        lines.append(
            f"{name:10}{dtwpt.Wavelet(name).low.shape[1]:6}{bank.filters.shape[1]:8}"
            f"{analyticity:13.4f}{change[0]:12.4f}{change[1]:8.4f}"
            f"{seconds[name] / seconds['qshift_b']:7.2f}"
        )
    text = "\n".join(lines) + "\n"
    print(text, end="")
    RESULT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
