"""Time, memory and import time of the library, as ratios measured side by side in one run.

    make benchmark

The contestants of a comparison take turns, round after round, so that whatever else the machine
does hits all of them; a ratio is that of their shortest times. Writes ``results/cpu.json``. Ends
with an error that names the bars that were missed, if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dtwpt
import dtwpt.nn
from dtwpt.engine import cpu, native
from dtwpt.features import packet_features

RESULTS = Path(__file__).parent / "results" / "cpu.json"
LARGE, SMALL, HUGE = (16, 3, 224, 224), (256, 3, 32, 32), (4096, 4096)
MIB = 2**20

Contestants = dict[str, Callable[[], Any]]


class Report:
    """What was measured, and which bars were missed."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, dict[str, list[float]]] = {}
        self.bars: list[dict[str, Any]] = []

    def compare(self, title: str, contestants: Contestants, rounds: int) -> dict[str, float]:
        """Print and keep the times of contestants; return the shortest."""
        times = take_turns(contestants, rounds)
        print(f"\n{title}")
        self.milliseconds[title] = {}
        for name, seconds in times.items():
            shortest, median = 1e3 * min(seconds), 1e3 * float(np.median(seconds))
            print(f"  {name:<34}{shortest:9.2f} ms   (median {median:.2f})")
            self.milliseconds[title][name] = [round(shortest, 3), round(median, 3)]
        return {name: min(seconds) for name, seconds in times.items()}

    def bar(self, name: str, value: float, at_most: float) -> None:
        """Keep a value and whether it is within its bar."""
        met = bool(value <= at_most)
        self.bars.append({"name": name, "value": round(value, 4), "bar": at_most, "met": met})
        print(f"  {name} = {value:.3f}   (bar: {at_most}{'' if met else ', MISSED'})")

    @property
    def missed(self) -> list[str]:
        """Names of the bars that were missed."""
        return [bar["name"] for bar in self.bars if not bar["met"]]


def take_turns(contestants: Contestants, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for counts in [False] + [True] * rounds:
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if counts:
                seconds[name].append(time.perf_counter() - start)
    return seconds


# Contestants ------------------------------------------------------------------------------------


def stem() -> torch.nn.Module:
    """Return the first layers of a ResNet, which CMod stands in for."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(3, stride=2, padding=1),
    )


def dtcwt_of_pytorch_wavelets() -> Callable[[torch.Tensor], Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces the end of pkg_resources
            from pytorch_wavelets import DTCWTForward
    except ImportError:
        return None
    transform: Callable[[torch.Tensor], Any] = DTCWTForward(J=2)
    return transform


def images(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


# Comparisons ------------------------------------------------------------------------------------


def functions(report: Report, rounds: int, shape: tuple[int, ...], at_most: float) -> None:
    """Measure functions and modules, each with an output of its own."""
    size = " x ".join(map(str, shape))
    x, network, module = images(shape), stem().eval(), dtwpt.nn.CMod2d()
    array = x.numpy()
    contestants: Contestants = {
        "stem": lambda: network(x),
        "cmod2": lambda: dtwpt.cmod2(x),
        "cmod2, NumPy": lambda: dtwpt.cmod2(array),
        "CMod2d": lambda: module(x),
        "rmax2": lambda: dtwpt.rmax2(x),
        "mean": lambda: packet_features(x, pool="mean"),
        "cmod2, depth 3": lambda: dtwpt.cmod2(x, depth=3),
        "mean, depth 3": lambda: packet_features(x, depth=3, pool="mean"),
    }
    transform = dtcwt_of_pytorch_wavelets() if shape == LARGE else None
    if transform is not None:
        contestants["DTCWTForward(J=2)"] = lambda: transform(x)
    with torch.inference_mode():
        t = report.compare(size, contestants, rounds)
    report.bar(f"cmod2 / stem, {size}", t["cmod2"] / t["stem"], at_most)
    report.bar(f"cmod2 of NumPy / of torch, {size}", t["cmod2, NumPy"] / t["cmod2"], 1.15)
    report.bar(f"CMod2d / cmod2, {size}", t["CMod2d"] / t["cmod2"], 1.1)
    report.bar(f"rmax2 / cmod2, {size}", t["rmax2"] / t["cmod2"], 1.6)
    report.bar(f"mean features / cmod2, {size}", t["mean"] / t["cmod2"], 1)
    report.bar(
        f"mean features / cmod2, depth 3, {size}", t["mean, depth 3"] / t["cmod2, depth 3"], 1
    )


def training(report: Report, rounds: int, shape: tuple[int, ...]) -> None:
    size = " x ".join(map(str, shape))
    module, x = dtwpt.nn.CMod2d(), images(shape).requires_grad_()
    with torch.no_grad():
        g = torch.ones_like(module(x))
    contestants: Contestants = {
        "forward": lambda: module(x),
        "forward and backward": lambda: torch.autograd.grad(module(x), x, g),
    }
    t = report.compare(f"CMod2d, {size}", contestants, rounds)
    ratio = t["forward and backward"] / t["forward"]
    report.bar(f"CMod2d, forward and backward / forward, {size}", ratio, 3.5)


def stems(report: Report, rounds: int) -> None:
    """Measure WaveletStem in ResNet's place."""
    x = images(LARGE)
    networks = {
        "ResNet": stem(),
        "no free channels": dtwpt.nn.WaveletStem(free_channels=0),
        "40 free channels": dtwpt.nn.WaveletStem(free_channels=40),
    }
    bars = {"no free channels": (0.15, 0.25), "40 free channels": (0.75, 0.75)}

    def step(network: torch.nn.Module) -> None:
        network.zero_grad()
        network(x).sum().backward()

    def contestants(run: Callable[[torch.nn.Module], Any]) -> Contestants:
        return {name: lambda network=network: run(network) for name, network in networks.items()}  # type: ignore[misc]

    for network in networks.values():
        network.eval()
    with torch.inference_mode():
        forward = report.compare("stems, forward", contestants(lambda network: network(x)), rounds)
    for network in networks.values():
        network.train()
    trained = report.compare("stems, training step", contestants(step), rounds)
    for name, (at_most, at_most_trained) in bars.items():
        report.bar(f"stem, {name}, forward", forward[name] / forward["ResNet"], at_most)
        report.bar(f"stem, {name}, step", trained[name] / trained["ResNet"], at_most_trained)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    code = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def busy(report: Report, rounds: int) -> None:
    x, network = images(LARGE), stem().eval()
    contestants: Contestants = {"stem": lambda: network(x), "cmod2": lambda: dtwpt.cmod2(x)}
    with torch.inference_mode(), busy_cores():
        times = take_turns(contestants, rounds)
    # Here the usual time counts, not the luck of one round.
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    print("\nwith a busy process on each core")
    report.bar("cmod2 / stem on busy cores", medians["cmod2"] / medians["stem"], 0.20)


# Memory and imports, in processes of their own --------------------------------------------------

OF_CMOD2 = """
x = np.ones((4096, 4096), np.float32)
run = dtwpt.cmod2
run(x[:512, :512])  # libraries load before the measurement
"""
OF_INVERSE = """
x = dtwpt.dtcwpt(np.random.default_rng(0).normal(size=220500).astype(np.float32), 8)
run = lambda c: dtwpt.idtcwpt(c, 220500)
"""
MEASURE = """
import time
start, before = time.perf_counter(), peak()
out = run(x)
print(time.perf_counter() - start, peak() - before, out.nbytes)
"""
PEAK = """
from pathlib import Path
import numpy as np
import dtwpt
def peak():  # of the resident memory, in bytes (Linux)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
"""


def memory(report: Report) -> None:
    def measure(of: str) -> list[float]:
        code = [sys.executable, "-c", PEAK + of + MEASURE]
        result = subprocess.run(code, capture_output=True, text=True, check=True)
        return [float(number) for number in result.stdout.split()]

    print("\nmemory")
    _, peak, output = measure(OF_CMOD2)
    report.bar("cmod2, 4096 x 4096, MiB beyond its output", (peak - output) / MIB, 128)
    seconds, peak, _ = measure(OF_INVERSE)
    report.bar("inverse of 220500 samples at depth 8, seconds", seconds, 2)
    report.bar("inverse of 220500 samples at depth 8, MiB", peak / MIB, 300)


def imports(report: Report, rounds: int) -> None:
    def run(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    no_torch = "import sys; assert 'torch' not in sys.modules"
    contestants: Contestants = {
        "numpy": run("import numpy"),
        "dtwpt": run(f"import numpy, dtwpt; {no_torch}"),
        "torch": run("import torch"),
        "dtwpt.nn": run("import torch, dtwpt.nn"),
    }
    t = report.compare("imports", contestants, rounds)
    report.bar("seconds that dtwpt adds to numpy", t["dtwpt"] - t["numpy"], 0.1)
    report.bar("seconds that dtwpt.nn adds to torch", t["dtwpt.nn"] - t["torch"], 0.3)


# Run --------------------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": [round(load, 1) for load in os.getloadavg()],
        "engine": cpu.engine(),
        "instruction_set": native.info()["instruction_set"],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "dtwpt": dtwpt.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each comparison")
    parser.add_argument("--threads", type=int, default=2, help="threads of dtwpt and torch")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.set_num_threads(arguments.threads)
    os.environ["DTWPT_NUM_THREADS"] = str(arguments.threads)
    before = machine(arguments.threads)
    print(", ".join(f"{key} {value}" for key, value in before.items()))

    report = Report()
    functions(report, rounds, LARGE, 0.10)
    functions(report, rounds, SMALL, 0.25)
    training(report, rounds, LARGE)
    training(report, rounds, SMALL)
    stems(report, max(rounds // 2, 3))
    busy(report, max(rounds // 2, 3))
    with torch.inference_mode():
        huge = images(HUGE)
        report.compare("4096 x 4096", {"cmod2": lambda: dtwpt.cmod2(huge)}, max(rounds // 6, 3))
    memory(report)
    imports(report, max(rounds // 3, 3))

    arguments.output.parent.mkdir(exist_ok=True)
    times = {"machine": before, "bars": report.bars, "milliseconds": report.milliseconds}
    arguments.output.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
    if report.missed:
        sys.exit("missed: " + "; ".join(report.missed))


if __name__ == "__main__":
    main()
