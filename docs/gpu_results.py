"""Write docs/gpu-results.inc from benchmarks/results/gpu.json.

python docs/gpu_results.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def table(title: str, rows: list[list[str]], head: list[str]) -> list[str]:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in [head, *rows]:
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    return [*lines, ""]


def main() -> None:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks/results/gpu.json").read_text())
    machine, copy = found["machine"], found["copy"]["GB/s"]
    images = " x ".join(str(side) for side in machine["images"])
    errors = found["equality"]["errors"]
    exact = [e for name, e in errors.items() if "float32" in name and "fast" not in name]
    half = [e for name, e in errors.items() if "float16" in name]
    lines = [
        ".. Made by docs/gpu_results.py from benchmarks/results/gpu.json.",
        "",
        f"One run on {machine['device']}, torch {machine['torch']}, Triton {machine['triton']}, "
        f"{machine['date'][:10]}; {images} images; a copy moved {copy:.0f} GB/s, bytes read and "
        f"written. {len(errors)} comparisons with the reference in float64, of all modes, depths 1 "
        f"to 4 and small and odd sizes: the largest error is {max(exact):.1e} of the largest value "
        f"in float32 and {max(half):.1e} in float16 and bfloat16.",
        "",
    ]
    rows = [
        [name, f"{cell['ms']:.2f}", f"{cell['floor ms']:.2f}", f"{cell['ratio']:.1f}"]
        for name, cell in found["kernels"].items()
        if "ratio" in cell
    ]
    head = ["kernel", "ms", "floor (ms)", "ratio"]
    lines += table("Kernels", rows, head)
    rows = [
        [name, f"{cell['ms']:.2f}"]
        for part in ("functions", "stems")
        for group in [found[part]]
        for name, cell in group.items()
        if isinstance(cell, dict) and "ms" in cell
    ]
    lines += table("Functions, modules and first layers, milliseconds", rows, ["what", "ms"])
    (ROOT / "docs/gpu-results.inc").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
