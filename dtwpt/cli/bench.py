"""``dtwpt bench``."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import numpy as np

from dtwpt.cli.info import cpu_engine, gpu_engine
from dtwpt.cli.options import Size, depth_option
from dtwpt.cli.terminal import plural


@click.command()
@click.option(
    "--size", type=Size(), default="224", show_default=True, help="Side of an image, pixels."
)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images.")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@depth_option
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
def bench(size: Any, batch: int, channels: int, depth: int, rounds: int) -> None:
    """Time the operators on this machine, on float32 noise.

    The time is that of the fastest round, which other programs disturb least. Arrays are computed
    on the CPU; a GPU is measured too, where torch can use one.

    \b
    Examples:
      dtwpt bench
      dtwpt bench --size 4096 --batch 1 --channels 1 --depth 3
    """  # noqa: D301
    height, width = (size, size) if isinstance(size, int) else size
    shape = (batch, channels, height, width)
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    click.echo(f"{' x '.join(map(str, shape))} float32, depth {depth}, {plural(rounds, 'round')}")
    for place, images, wait in _places(x):
        click.echo(f"\n{place}\n{'':<16}{'ms':>10}{'images/s':>12}{'Mpixel/s':>12}")
        for name, run in _operators(depth).items():
            seconds = _shortest(partial(run, images), wait, rounds)
            rates = f"{batch / seconds:12.1f}{x.size / seconds / 1e6:12.1f}"
            click.echo(f"{name:<16}{1e3 * seconds:10.2f}{rates}")


def _operators(depth: int) -> dict[str, Callable[[Any], Any]]:
    from dtwpt.features import packet_features
    from dtwpt.transform import cmod2, dtcwpt2, rmax2

    return {
        "dtcwpt2": lambda x: dtcwpt2(x, depth, channel_axis=None),
        "cmod2": lambda x: cmod2(x, depth, channel_axis=None),
        "rmax2": lambda x: rmax2(x, depth, channel_axis=None),
        "mean features": lambda x: packet_features(x, depth, channel_axis=None),
    }


def _places(x: np.ndarray) -> Iterator[tuple[str, Any, Callable[[], None]]]:
    """Yield each processor, the images there, and how to wait for it."""
    yield f"CPU: {cpu_engine()}", x, lambda: None
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        yield f"GPU: {gpu_engine()}", torch.from_numpy(x).cuda(), torch.cuda.synchronize


def _shortest(run: Callable[[], Any], wait: Callable[[], None], rounds: int) -> float:
    """Return the shortest time in seconds, after a round that prepares filters and kernels."""
    run()
    wait()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)
