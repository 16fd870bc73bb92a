"""A job that is killed over and over, and others that read its store meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dtwpt
from dtwpt.extract import extract, load
from tests.gated import GATED, running, wait_until

zarr = pytest.importorskip("zarr", reason="feature stores need zarr, hence Python 3.11")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "dtwpt.cli", "extract", "--progress", "none"]
COUNT = 600

# Loads the store all the time, and says so when what it sees is not a part of the truth.
READER = """
import glob, os, sys, time
import numpy as np
from dtwpt.extract import load
truth = np.load(sys.argv[2])
row_of = {str(name): row for row, name in enumerate(np.load(sys.argv[3]))}
loads = partial = 0
while True:
    stores = sorted(glob.glob(sys.argv[1]))
    if not stores:
        time.sleep(0.01)
        continue
    store = load(stores[-1])
    rows = [row_of[name] for name in store.files]
    if np.asarray(store.features).tobytes() != truth[rows].tobytes():
        print("half written", flush=True)
    if len(set(rows)) != len(rows) or len(rows) + len(store.waiting) != len(truth):
        print("lost or twice", flush=True)
    loads += 1
    partial += 0 < len(rows) < len(truth)
    with open(sys.argv[4] + ".new", "w") as file:  # for the test to count
        file.write(f"{loads} {partial}")
    os.replace(sys.argv[4] + ".new", sys.argv[4])
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills groups of processes")
@pytest.mark.parametrize(
    "kills",
    [
        5,
        # About a second each, and the jobs in between: minutes.
        pytest.param(50, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    make_images(folder, rng)
    table = extract(folder)
    np.save(tmp_path / "truth.npy", table.features)
    np.save(tmp_path / "files.npy", np.array(table.files))
    (tmp_path / "reader.py").write_text(READER)
    output = tmp_path / "00.zarr"
    command = [*COMMAND, str(folder), "-o"]
    names = ("*.zarr", "truth.npy", "files.npy", "loads")
    reader = subprocess.Popen(
        [sys.executable, "reader.py", *names],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stores = 0
    longest = 2.0  # seconds of a job, at first a guess
    try:
        kill_half_way(folder, output)
        done, half_way = 1, int(part_of(output))
        while done < kills:
            started = time.monotonic()
            with open(tmp_path / "said", "w") as said_to:
                process = subprocess.Popen(
                    [*command, output, "--workers", str(rng.integers(2, 4))],
                    env=ENVIRONMENT,
                    stdout=subprocess.DEVNULL,
                    stderr=said_to,
                    start_new_session=True,
                )
            try:
                process.wait(rng.uniform(0, longest))
                assert (process.returncode, (tmp_path / "said").read_text()) == (0, "")
                # Finished before it could be killed: looked at, and on with a new one.
                check(output, table.features, table.files)
                longest = time.monotonic() - started
                stores += 1
                output = tmp_path / f"{stores:02}.zarr"
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                if not stores:  # no job has come to its end yet
                    longest = min(longest * 1.2, 10.0)
                half_way += part_of(output)
        subprocess.run(
            [*command, output], env=ENVIRONMENT, check=True, timeout=600, capture_output=True
        )
        check(output, table.features, table.files)
        while reader.poll() is None and not (tmp_path / "loads").exists():
            time.sleep(0.01)
    finally:
        reader.kill()
        said, _ = reader.communicate()
    assert said == ""
    loads, partial = map(int, (tmp_path / "loads").read_text().split())
    print(f"{kills} kills, {half_way} with a store half full; {loads} loads, {partial} of a part")
    assert loads > 0
    assert half_way > 0
    # Nothing is left lying about: neither what was being written nor a store just begun.
    assert not list(tmp_path.rglob("*.partial"))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def make_images(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        name = GATED if number == COUNT - 1 else "photo"
        Image.fromarray(pixels).save(folder / f"{number:04}.{name}.jpg")


def kill_half_way(folder: Path, output: Path) -> None:
    """Start a job that waits forever for its last image, and kill it in the middle."""
    gated = [sys.executable, str(Path(__file__).with_name("gated.py"))]
    command = [*gated, "extract", folder, "-o", output, "--workers", "2"]
    with running(command, env=ENVIRONMENT) as process:
        wait_until(lambda: part_of(output), process)


def part_of(output: Path) -> bool:
    """Whether a store is there, and begun, and not complete."""
    with contextlib.suppress(FileNotFoundError):
        return 0 < len(load(output).files) < COUNT
    return False


def check(output: Path, features: np.ndarray, files: list[str]) -> None:
    store = load(output)
    assert store.files == files
    assert (store.skipped, store.waiting) == ([], [])
    assert np.asarray(store.features).tobytes() == features.tobytes()
