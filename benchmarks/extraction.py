"""Throughput of an extraction against decoding alone, and its memory for few and many images.

Prints the machine, rates, their ratio, and peak memory. Processes that only decode do so with the
code of the extraction: in a pool as it starts, and in one that keeps the memory of freed images, as
the extraction's do. The kinds of run alternate, and of each the quickest counts, as other work on
the machine only ever slows them down.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from dtwpt.extract import Settings, find_images
from dtwpt.extract.extractor import image_of
from dtwpt.extract.memory import keep_freed_memory
from dtwpt.extract.run.pipeline import Reading, stream
from dtwpt.extract.run.workers import Task

SETTINGS = Settings()
# Of a run, images until all processes are at work are not timed.
WARM_UP = 100


def write_photographs(folder: Path, count: int, side: int, suffix: str = ".jpg") -> None:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    photographs = [getattr(data, name)() for name in names]
    rng = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(rng.integers(length - side + 1)) for length in photograph.shape[:2])
        crop = photograph[top : top + side, left : left + side]
        Image.fromarray(crop).save(folder / f"{number:06}{suffix}", quality=90)


def decode(path: str) -> None:
    image_of(path, SETTINGS)


def decoding_rate(files: list[str], workers: int, initializer: Callable[[], None] | None) -> float:
    with multiprocessing.get_context("spawn").Pool(workers, initializer) as pool:
        pool.map(decode, files[:WARM_UP], chunksize=4)
        started = time.perf_counter()
        for _ in pool.imap(decode, files[WARM_UP:], chunksize=16):
            pass
        return (len(files) - WARM_UP) / (time.perf_counter() - started)


def extraction_rate(files: list[str], workers: int) -> float:
    """Images a second with so many processes that decode and transform."""
    started = 0.0
    tasks = (Task(row, path) for row, path in enumerate(files))
    for done, _ in enumerate(stream(tasks, Reading(SETTINGS), workers)):
        if done == WARM_UP:
            started = time.perf_counter()
    return (len(files) - 1 - WARM_UP) / (time.perf_counter() - started)


def peak_memory(folder: Path, output: Path) -> int:
    """Bytes of resident memory, at most, of the process that transforms and writes."""
    code = (
        "import resource, sys\n"
        "from dtwpt.extract import extract_to_store\n"
        "if __name__ == '__main__':\n"
        "    extract_to_store(sys.argv[1], sys.argv[2], workers=2)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    script = output.with_suffix(".py")
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(output)],
        check=True,
        capture_output=True,
        text=True,
    )
    return 1024 * int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500, help="photographs for the rates")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--suffix", default=".jpg", choices=[".jpg", ".png"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--few", type=int, default=2000, help="images for the memory")
    parser.add_argument("--many", type=int, default=20_000)
    arguments = parser.parse_args()
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photographs")
        folder.mkdir()
        write_photographs(folder, arguments.images, arguments.side, arguments.suffix)
        files = find_images(folder)
        for workers in arguments.workers:
            decoding, keeping, extraction = 0.0, 0.0, 0.0
            for _ in range(arguments.repeats):
                decoding = max(decoding, decoding_rate(files, workers, None))
                keeping = max(keeping, decoding_rate(files, workers, keep_freed_memory))
                extraction = max(extraction, extraction_rate(files, workers))
            print(
                f"{workers} processes, {arguments.side}x{arguments.side} {arguments.suffix}: "
                f"extraction {extraction:.0f} images/s; decoding alone {decoding:.0f}, ratio "
                f"{extraction / decoding:.2f}; keeping memory {keeping:.0f}, ratio "
                f"{extraction / keeping:.2f}",
                flush=True,
            )
        peaks = []
        for count in (arguments.few, arguments.many):
            folder = Path(name, f"memory{count}")
            folder.mkdir()
            write_photographs(folder, min(count, 500), 96)
            for number in range(500, count):
                os.link(folder / f"{number % 500:06}.jpg", folder / f"{number:06}.jpg")
            peaks.append(peak_memory(folder, Path(name, f"{count}.zarr")))
        few, many = (peak / 2**20 for peak in peaks)
        print(
            f"peak memory: {arguments.few} images {few:.0f} MiB, {arguments.many} images "
            f"{many:.0f} MiB, ratio {many / few:.3f}"
        )


if __name__ == "__main__":
    main()
