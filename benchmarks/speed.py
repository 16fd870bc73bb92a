"""Time, memory and import time of the transform, as ratios measured side by side in one run.

    make benchmark

The contestants of a comparison take turns, round after round, so that whatever else the machine
does hits all of them; a ratio is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dtwpt


def stem() -> torch.nn.Module:
    """Return the first layers of a ResNet, which CMod stands in for."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(3, stride=2, padding=1),
    ).eval()


def dtcwt_of_pytorch_wavelets() -> Callable[[torch.Tensor], Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces the end of pkg_resources
            from pytorch_wavelets import DTCWTForward
    except ImportError:
        return None
    transform: Callable[[torch.Tensor], Any] = DTCWTForward(J=2)
    return transform


def take_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Return the seconds of each contestant in each round."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times) for name, times in seconds.items()}


def report(title: str, seconds: dict[str, Any], pairs: list[tuple[str, str, str]]) -> None:
    print(f"\n{title}")
    for name, times in seconds.items():
        low, middle, high = 1e3 * np.percentile(times, [25, 50, 75])
        print(f"  {name:<34}{middle:9.2f} ms   (quartiles {low:.2f} to {high:.2f})")
    for above, below, bar in pairs:
        ratio = np.median(seconds[above] / seconds[below])
        print(f"  {above} / {below} = {ratio:.3f}   (bar: {bar})")


def speed(rounds: int) -> None:
    network = stem()
    wavelets = dtcwt_of_pytorch_wavelets()
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(16, 3, 224, 224, generator=generator)
    small = torch.rand(256, 3, 32, 32, generator=generator)
    huge = torch.rand(1, 1, 4096, 4096, generator=generator)

    contestants: dict[str, Callable[[], Any]] = {
        "cmod2": lambda: dtwpt.cmod2(large),
        "stem": lambda: network(large),
        "cmod2, NumPy": lambda: dtwpt.cmod2(large.numpy()),
    }
    pairs = [("cmod2", "stem", "at most 0.30"), ("cmod2, NumPy", "cmod2", "at most 2")]
    if wavelets is not None:
        transform = wavelets
        contestants["DTCWTForward(J=2)"] = lambda: transform(large)
        pairs.append(("DTCWTForward(J=2)", "cmod2", "at least 9"))
    report("16 x 3 x 224 x 224, depth 2", take_turns(contestants, rounds), pairs)
    if wavelets is None:
        print("  pytorch_wavelets is not installed: no comparison with DTCWTForward")

    contestants = {
        "cmod2": lambda: dtwpt.cmod2(small),
        "stem": lambda: network(small),
        "cmod2, NumPy": lambda: dtwpt.cmod2(small.numpy()),
    }
    pairs = [("cmod2", "stem", "at most 0.40"), ("cmod2, NumPy", "cmod2", "at most 2")]
    report("256 x 3 x 32 x 32, depth 2", take_turns(contestants, rounds), pairs)

    contestants = {
        "1 x 1 x 4096 x 4096": lambda: dtwpt.cmod2(huge),
        "16 x 3 x 224 x 224": lambda: dtwpt.cmod2(large),
    }
    seconds = take_turns(contestants, max(rounds // 3, 3))
    per_pixel = {
        "huge, per pixel": seconds["1 x 1 x 4096 x 4096"] / huge.numel() * 1e6,
        "large, per pixel": seconds["16 x 3 x 224 x 224"] / large.numel() * 1e6,
    }
    report(
        "time per million pixels",
        per_pixel,
        [("huge, per pixel", "large, per pixel", "at most 2")],
    )


def memory() -> None:
    """Print the peak memory of one call, in a process of its own."""
    print("\npeak memory of cmod2, 4096 x 4096 float32, beyond its input")
    for kind in ("torch", "numpy"):
        result = subprocess.run(
            [sys.executable, __file__, "--memory-of", kind],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, output = (float(number) / 2**20 for number in result.stdout.split())
        print(f"  {kind:<6} {peak:7.0f} MiB, {peak - output:5.0f} beyond the output   (bar: 128)")


def memory_of(kind: str) -> None:
    x: Any = np.ones((4096, 4096), np.float32)
    if kind == "torch":
        x = torch.from_numpy(x)
    dtwpt.cmod2(x[:512, :512])  # libraries load and threads start before the measurement
    before = peak_memory()
    out = dtwpt.cmod2(x)
    print(peak_memory() - before, np.prod(out.shape) * 4)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def import_time(rounds: int) -> None:
    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    base = "import numpy, scipy"
    seconds = take_turns(
        {"dtwpt": lambda: run(f"{base}; import dtwpt"), "numpy and scipy": lambda: run(base)},
        rounds,
    )
    added = np.median(seconds["dtwpt"] - seconds["numpy and scipy"])
    print(f"\nimport dtwpt adds {added:.3f} s to numpy and scipy   (bar: 0.25)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each comparison")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--memory-of", choices=["torch", "numpy"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        memory_of(arguments.memory_of)
        return
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads ({torch.backends.cpu.get_cpu_capability()}), "
        f"NumPy {np.__version__}, Python {platform.python_version()}"
    )
    with torch.inference_mode():
        speed(arguments.rounds)
    memory()
    import_time(max(arguments.rounds // 3, 3))


if __name__ == "__main__":
    main()
