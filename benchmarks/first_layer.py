"""The wavelet stem against the layers that it replaces: stability, time, bytes that must move.

    python benchmarks/first_layer.py            # on the CPU, and on a GPU if there is one

The contestants take turns, round after round, so that whatever else the machine does hits all of
them. A ratio on the CPU is that of the shortest times, which other programs disturb least; beside
it stands the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage import data
from torch import Tensor, nn

import dtwpt
from dtwpt.nn import CMod2d, DTCWPT2d, RMax2d, WaveletStem

CPU_BARS = {
    ("cmod, 0 free", "training"): "0.25",
    ("cmod, 0 free", "evaluation"): "0.15",
    ("cmod, 40 free", "training"): "0.75",
    ("cmod, 40 free", "evaluation"): "0.75",
}


def stems() -> dict[str, nn.Module]:
    """Return the first layers of a ResNet, first, and what may take their place."""
    return {
        "convolution": nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        ),
        "cmod, 0 free": WaveletStem(free_channels=0),
        "cmod, 40 free": WaveletStem(free_channels=40),
        "rmax, 40 free": WaveletStem(operator="rmax", free_channels=40),
    }


def seconds_of(run: Callable[[], Any], cuda: bool) -> float:
    if not cuda:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def take_turns(runs: dict[str, Callable[[], Any]], rounds: int, cuda: bool) -> dict[str, Any]:
    for run in runs.values():
        for _ in range(3 if cuda else 1):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds_of(run, cuda))
    return {name: np.array(values) for name, values in times.items()}


def step(module: nn.Module, x: Tensor, training: bool, dtype: torch.dtype) -> Callable[[], Any]:
    """Return a forward pass, or a forward and a backward pass."""

    def run() -> None:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            if not training:
                with torch.no_grad():
                    module(x)
                return
            out = module(x)
        module.zero_grad(set_to_none=True)
        out.backward(torch.ones_like(out))

    module.train(training)
    return run


def least_bytes(module: nn.Module, x: Tensor, dtype: torch.dtype) -> int:
    """Bytes of the input read once and of the output written once: no stem can move fewer."""
    with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        out = module(x)
    return int(x.nbytes + out.nbytes)


def on_cpu(rounds: int) -> None:
    x = torch.rand(16, 3, 224, 224)
    for training in (True, False):
        what = "training" if training else "evaluation"
        passes = "forward and backward" if training else "forward"
        runs = {name: step(m, x, training, torch.float32) for name, m in stems().items()}
        times = take_turns(runs, rounds, cuda=False)
        print(f"\n{passes}, 16x3x224x224, float32, {torch.get_num_threads()} threads")
        for name, values in times.items():
            low, middle, high = 1e3 * np.percentile(values, [25, 50, 75])
            line = f"  {name:<16}{middle:8.1f} ms   (quartiles {low:.1f} to {high:.1f})"
            if name != "convolution":
                shortest = values.min() / times["convolution"].min()
                ratio = np.median(values / times["convolution"])
                bar = CPU_BARS.get((name, what))
                line += f"   / convolution = {shortest:.2f}, median {ratio:.2f}"
                line += f"   (bar: {bar})" if bar else ""
            print(line)
    print("\ncost on one image of 224x224: parameters, multiply-accumulates")
    for name, module in stems().items():
        if isinstance(module, WaveletStem):
            macs = module.macs((224, 224))
        else:
            macs = module.get_parameter("0.weight").numel() * 112 * 112
        count = sum(parameter.numel() for parameter in module.parameters())
        print(f"  {name:<16}{count:8d}{macs / 1e6:10.1f} M")


def photographs() -> Tensor:
    """Return crops of 225 x 225 pixels in colour."""
    crops = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photograph = torch.from_numpy(getattr(data, name)() / 255.0).float().permute(2, 0, 1)
        for top, left in ((0, 0), (20, 100), (70, 200)):
            crops.append(photograph[:, top : top + 225, left : left + 225])
    return torch.stack(crops)


def gabor_kernels(rng: np.random.Generator, count: int, side: int = 7) -> Tensor:
    """Return kernels such as large networks learn, (count, 3, side, side), the same in each colour.

    Without mean, of random phase and orientation, and of 0.25 to 0.75 pi rad/pixel.
    """
    y, x = np.mgrid[:side, :side] - side // 2
    kernels = np.empty((count, 3, side, side), np.float32)
    for kernel in kernels:
        frequency, orientation = np.pi * rng.uniform(0.25, 0.75), np.pi * rng.uniform()
        phase, width = 2 * np.pi * rng.uniform(), rng.uniform(1.4, 2.2)
        along = x * np.cos(orientation) + y * np.sin(orientation)
        wave = np.exp(-(x**2 + y**2) / (2 * width**2)) * np.cos(frequency * along + phase)
        kernel[:] = wave - wave.mean()
    return torch.from_numpy(kernels)


def change(module: nn.Module, x: Tensor) -> float:
    """Relative squared change over one pixel, mean of the channels; away from the border."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the statistics of these images, and no others
    before, after = x[..., :224, :224], x[..., :224, 1:]
    with torch.no_grad():
        module.train()(before)
        module.eval()
        a, b = (module(z)[..., 5:-5, 5:-5] for z in (before, after))
    return float(((a - b).square().sum((0, 2, 3)) / a.square().sum((0, 2, 3))).mean())


def stability() -> None:
    x = photographs()
    convolution, gabor = (stems()["convolution"] for _ in range(2))
    gabor.get_parameter("0.weight").data = gabor_kernels(np.random.default_rng(0), 64)
    papers: Any = {"wavelet": "qshift_a", "mode": "zero", "colour": (0.9802, 1.3060, 0.7138)}
    contestants = {
        "cmod": WaveletStem(free_channels=0),
        "rmax, its twin": WaveletStem(operator="rmax", free_channels=0),
        "cmod, the papers' filters": WaveletStem(free_channels=0, **papers),
        "rmax, the papers' filters": WaveletStem(operator="rmax", free_channels=0, **papers),
        "cmod, mixed in sectors": WaveletStem(free_channels=0, groups="sector"),
        "cmod, mixed in octaves": WaveletStem(free_channels=0, groups="octave"),
        "convolution, Gabor kernels": gabor,
        "convolution, random kernels": convolution,
    }
    print(f"\nrelative squared change over one pixel, {len(x)} photographs, untrained")
    for name, module in contestants.items():
        print(f"  {name:<28}{change(module, x):.3f}")


def on_gpu(rounds: int, batch: int) -> None:
    device = torch.device("cuda")
    print(f"\n{torch.cuda.get_device_name()}, batch {batch}x3x224x224")
    x = torch.rand(batch, 3, 224, 224, device=device)
    for module in (CMod2d(), RMax2d(), DTCWPT2d()):
        with torch.no_grad():
            here, there = module(x[:2].cpu()), module.to(device)(x[:2]).cpu()
        worst = float((here - there).abs().max())
        print(f"  {type(module).__name__}: largest difference from the CPU {worst:.1e} (bar: 1e-4)")
    speed = _copy_speed(device)
    print(f"  copying moves {speed / 1e12:.2f} TB/s")
    for dtype in (torch.float32, torch.bfloat16):
        for compiled in (False, True):
            for training in (False, True):
                modules = {name: m.to(device) for name, m in stems().items()}
                least = {name: least_bytes(m, x, dtype) for name, m in modules.items()}
                if compiled:
                    for contestant in modules.values():
                        contestant.compile()
                runs = {name: step(m, x, training, dtype) for name, m in modules.items()}
                times = take_turns(runs, rounds, cuda=True)
                kind = f"{str(dtype).removeprefix('torch.')}, {'compiled' if compiled else 'eager'}"
                print(f"  {kind}, {'forward and backward' if training else 'forward'}")
                for name, values in times.items():
                    middle = np.median(values)
                    ratio = np.median(values / times["convolution"])
                    line = f"    {name:<16}{1e3 * middle:8.3f} ms   / convolution = {ratio:.2f}"
                    if not training:
                        line += f"   / bytes that must move = {middle * speed / least[name]:.1f}"
                    print(line)


def _copy_speed(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    x = torch.empty(2**28, device=device)
    y = torch.empty_like(x)
    best = min(seconds_of(lambda: y.copy_(x), cuda=True) for _ in range(10))
    return 2 * x.numel() * x.element_size() / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--batch", type=int, default=256, help="images on the GPU")
    parser.add_argument("--untimed", action="store_true", help="stability alone, no timings")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    # Remarks of the compiler on itself.
    warnings.filterwarnings("ignore", module="torch")
    print(
        f"dtwpt {dtwpt.__version__}, torch {torch.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores"
    )
    stability()
    if arguments.untimed:
        return
    on_cpu(arguments.rounds)
    if torch.cuda.is_available():
        on_gpu(arguments.rounds, arguments.batch)
    else:
        print("\nno GPU that torch can use: that part is left out")


if __name__ == "__main__":
    main()
