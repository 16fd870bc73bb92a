"""Poolings that are stable under shifts against max pooling: time, and cost in a ResNet-50.

    python benchmarks/pooling.py                # on the CPU, and on a GPU if there is one

Contestants take turns, round after round, so that whatever else the machine does hits all of them.
A ratio is that of the shortest times, which other programs disturb least; beside it stands the
median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dtwpt
from dtwpt.nn import (
    AdaptiveBlurPool2d,
    BlurPool2d,
    LearnedPolyphasePool2d,
    MixedPolyphasePool2d,
    PolyphasePool2d,
    SpectralPool2d,
    WaveletPool2d,
    downsampling_cost,
    replace_downsampling,
)

MAPS = (64, 112, 112)  # channels and size where a ResNet has its max pooling
NAMES = ("blur", "aps", "lps", "tips", "adaptive", "spectral", "wavelet", "average")


def poolings() -> dict[str, nn.Module]:
    """Return max pooling, first, and the others, each of stride 2 alone."""
    channels = MAPS[0]
    return {
        "MaxPool2d(3, 2, 1)": nn.MaxPool2d(3, 2, 1),
        "BlurPool2d": BlurPool2d(),
        "PolyphasePool2d": PolyphasePool2d(),
        "SpectralPool2d": SpectralPool2d(),
        "WaveletPool2d": WaveletPool2d(),
        "LearnedPolyphasePool2d": LearnedPolyphasePool2d(channels, hidden=8),
        "MixedPolyphasePool2d": MixedPolyphasePool2d(channels),
        "AdaptiveBlurPool2d": AdaptiveBlurPool2d(channels),
    }


def run_of(module: nn.Module, x: Tensor, training: bool, dtype: torch.dtype) -> Callable[[], Any]:
    """Return a forward pass, or a forward and a backward pass."""

    def run() -> None:
        mixed = torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32)
        with torch.set_grad_enabled(training), mixed:
            out = module(x.to(dtype))
        if training:
            torch.autograd.backward(out, torch.ones_like(out))

    module.train(training)
    return run


def seconds(run: Callable[[], Any], cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def overhead(batch: int, rounds: int, device: str, dtype: torch.dtype) -> None:
    x = torch.randn(batch, *MAPS, device=device).requires_grad_()
    for training in (False, True):
        runs = {
            name: run_of(module.to(device), x, training, dtype)
            for name, module in poolings().items()
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 3):
            for name, run in runs.items():
                spent = seconds(run, device == "cuda")
                if number >= 3:
                    times[name].append(spent)
        passes = "forward and backward" if training else "forward"
        print(f"\n{passes}, {batch} x {' x '.join(map(str, MAPS))}, {str(dtype)[6:]}, {device}")
        least = np.array(next(iter(times.values())))
        for name, values in times.items():
            own = np.array(values)
            ratio, median = own.min() / least.min(), np.median(own / least)
            print(f"  {name:<24}{1e3 * own.min():8.2f} ms   {ratio:6.2f} x   median {median:.2f} x")


def cost() -> None:
    from torchvision.models import resnet50

    print("\nResNet-50, one image of 224 x 224: parameters; multiply-accumulates; of the poolings")
    base = resnet50()
    before = downsampling_cost(base)
    print(f"  {'strided':<10}{before.parameters / 1e6:8.2f} M{before.macs / 1e9:8.2f} G")
    for name in NAMES:
        for stem in ("pool", "full"):
            after = downsampling_cost(replace_downsampling(base, name, stem=stem)[0])
            print(
                f"  {name:<10}{after.parameters / 1e6:8.2f} M{after.macs / 1e9:8.2f} G"
                f"{after.pool_macs / 1e9:8.2f} G   stem={stem!r}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no-cost", action="store_true", help="needs no torchvision")
    arguments = parser.parse_args()
    print(f"dtwpt {dtwpt.__version__}, torch {torch.__version__}, {platform.machine()}")
    print(f"{torch.get_num_threads()} threads")
    overhead(arguments.batch, arguments.rounds, "cpu", torch.float32)
    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}")
        for dtype in (torch.float32, torch.bfloat16):
            overhead(16 * arguments.batch, 5 * arguments.rounds, "cuda", dtype)
    if not arguments.no_cost:
        cost()


if __name__ == "__main__":
    main()
