"""Seconds that a feature store of many made-up rows takes to plan, load and go on with.

The images are empty files, which are listed and compared but never read. Run it on a disk in memory
(``--folder /dev/shm``) to leave out how long the disk takes to name them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dtwpt.extract import Settings, StoreWriter, load
from dtwpt.extract.extractor import Row, stamp_of
from dtwpt.extract.inputs import iterate_images

PER_FOLDER = 1000


def make_images(folder: Path, rows: int) -> None:
    for start in range(0, rows, PER_FOLDER):
        part = folder / f"{start // PER_FOLDER:06}"
        part.mkdir(parents=True)
        for number in range(start, min(start + PER_FOLDER, rows)):
            os.close(os.open(part / f"image-{number:09}.png", os.O_CREAT | os.O_WRONLY))


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, busy = time.perf_counter(), time.process_time()
    yield
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    print(f"{what:<34}{wall:8.2f} s, {busy:8.2f} s of this process", flush=True)


def plan(store: Path, folder: Path, then: Callable[[StoreWriter], Any] = lambda _: None) -> None:
    with StoreWriter(store, Settings()) as writer:
        writer.plan(iterate_images(folder))
        writer.counts()
        next(writer.waiting(), None)
        then(writer)


def finish(writer: StoreWriter) -> None:
    features = np.zeros(Settings().count((1, 1)), np.float32)
    for task in writer.waiting():
        features[0] = task.row % 1000
        writer.add(task.row, Row((1, 1), features), stamp_of(task.path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where to make the files [default: that of the system]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder, store = Path(name, "images"), Path(name, "features.zarr")
        make_images(folder, arguments.rows)
        print(f"{arguments.rows} rows")
        with timed("list the files"):
            for _ in iterate_images(folder):
                pass
        with timed("plan"):
            plan(store, folder)
        with timed("resume, all waiting"):
            plan(store, folder)
        plan(store, folder, finish)
        with timed("resume, all done"):
            plan(store, folder)
        with timed("load"):
            loaded = load(store)
        with timed("read 1,000 rows"):
            loaded.features[:: arguments.rows // 1000]
        with timed("name all files"):
            assert len(loaded.files) == arguments.rows


if __name__ == "__main__":
    main()
