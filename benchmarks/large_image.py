"""Maps of an image that is read tile by tile: memory, and time against the transform in memory.

    python benchmarks/large_image.py

It makes an image of noise, which compresses worst, in a temporary folder; with its maps it takes
2 to 3 GiB there. Tiles and the transform of an image in memory take turns, each in a process of its
own, so that whatever else the machine does hits both; the ratio is that of the quickest rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import dtwpt
from dtwpt.extract import tiles

IN_MEMORY = 4096
ROWS = 1024


def make(folder: Path, kind: str, dtype: str, side: int) -> Path:
    """Write an image of noise without having all of it in memory."""
    rng = np.random.default_rng(0)

    def band() -> NDArray[Any]:
        if dtype == "float32":
            return rng.random((ROWS, side), dtype=np.float32)
        return rng.integers(0, np.iinfo(dtype).max, (ROWS, side), dtype=dtype, endpoint=True)

    path = folder / f"image.{'tif' if kind in ('tiled', 'striped') else kind}"
    if kind in ("npy", "zarr"):
        shape, chunks = (side, side), (ROWS, ROWS)
        array: Any = (
            np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            if kind == "npy"
            else zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype)
        )
        for top in range(0, side, ROWS):
            array[top : top + ROWS] = band()
        return path
    if kind == "striped":
        data: Any = (  # of strips, tifffile takes one by one only those that are compressed already
            zlib.compress(strip.tobytes(), 1)
            for _ in range(0, side, ROWS)
            for strip in np.split(band(), ROWS // 16)
        )
        layout: dict[str, Any] = {"rowsperstrip": 16}
    else:
        data = (
            tile
            for _ in range(0, side, ROWS)
            for row in np.split(band(), ROWS // 256)
            for tile in np.split(row, side // 256, axis=1)
        )
        layout = {"tile": (256, 256)}
    tifffile.imwrite(
        path,
        data,
        shape=(side, side),
        dtype=dtype,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 1},
        **layout,
    )
    return path


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_memory() -> None:
    """Print the seconds of the transform in memory; in a process of its own, for its memory."""
    x = np.random.default_rng(0).random((IN_MEMORY, IN_MEMORY), dtype=np.float32)
    seconds, processor = [], []
    for _ in range(4):
        start, start_processor = time.perf_counter(), time.process_time()
        dtwpt.cmod2(x)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    print(json.dumps([min(seconds), min(processor)]))


def tiled(path: str, output: str, tile: int) -> None:
    """Print the seconds and the peak memory of tiles, the whole process."""
    start, start_processor = time.perf_counter(), time.process_time()
    maps = tiles(path, output, tile=tile)
    seconds, processor = time.perf_counter() - start, time.process_time() - start_processor
    print(json.dumps([seconds, processor, peak_memory(), maps.nbytes]))


def run(*args: Any) -> Any:
    command = [sys.executable, __file__, *map(str, args)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def check(path: Path, output: Path, kind: str) -> None:
    """Compare the first rows with the whole-image transform of more of the image."""
    if kind != "npy":
        return
    rows = 512
    image = np.array(np.load(path, mmap_mode="r")[: 2 * rows])
    with threadpool_limits(1, user_api="blas"):
        expected = dtwpt.cmod2(image)[..., : rows // 4, :]
    same = np.array_equal(zarr.open_array(output)[..., : rows // 4, :], expected)
    print(f"the first {rows} rows equal cmod2 in memory, bit for bit: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=["npy", "zarr", "tiled", "striped"], default="npy")
    parser.add_argument("--dtype", choices=["uint8", "uint16", "float32"], default="uint8")
    parser.add_argument("--side", type=int, default=16384, help="pixels, a multiple of 1024")
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to make the temporary folder")
    parser.add_argument("--run", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run is not None:
        if arguments.run:
            path, output, tile = arguments.run
            tiled(path, output, int(tile))
        else:
            in_memory()
        return
    if arguments.side % ROWS:
        parser.error(f"--side must be a multiple of {ROWS}")
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, NumPy "
        f"{np.__version__}, zarr {zarr.__version__}, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        side, maps = arguments.side, folder / "maps.zarr"
        image = make(folder, arguments.source, arguments.dtype, side)
        print(f"{side}x{side} {arguments.dtype}, {arguments.source}, CMod at depth 2")
        memory: list[tuple[float, float]] = []
        tiling: list[tuple[float, float]] = []
        peaks: list[int] = []
        for number in range(arguments.rounds):
            shutil.rmtree(maps, ignore_errors=True)
            memory.append(run("--run"))
            *times, peak, size = run("--run", image, maps, arguments.tile)
            tiling.append(times)
            peaks.append(peak)
            (seconds, processor), (whole, whole_processor) = tiling[-1], memory[-1]
            print(
                f"  round {number + 1}: {seconds:.2f} s (processor {processor:.2f} s), "
                f"{peak / 2**20:.0f} MiB; cmod2 in memory, {IN_MEMORY}x{IN_MEMORY}: {whole:.2f} s "
                f"(processor {whole_processor:.2f} s)",
                flush=True,
            )
        stored = sum(file.stat().st_size for file in maps.rglob("*") if file.is_file())
        check(image, maps, arguments.source)
        least, least_processor = (min(times) / side**2 * 1e9 for times in zip(*tiling, strict=True))
        whole, whole_processor = (
            min(times) / IN_MEMORY**2 * 1e9 for times in zip(*memory, strict=True)
        )
        print(f"maps: {size / 2**20:.0f} MiB, stored in {stored / 2**20:.0f} MiB")
        print(f"peak resident memory: {max(peaks) / 2**20:.0f} MiB   (bar: 1536)")
        print(
            f"time per pixel, reading, writing and syncing included: {least:.1f} ns tile by tile, "
            f"{whole:.1f} ns in memory, ratio {least / whole:.2f}   (bar: 1.3)"
        )
        print(
            f"processor time per pixel: {least_processor:.1f} ns tile by tile, "
            f"{whole_processor:.1f} ns in memory"
        )


if __name__ == "__main__":
    main()
