"""Bytes damaged in every file of every kind of output: right, a clear error, or silently wrong."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtwpt.extract import Settings, extract, extract_to_store, load, save, tiles

zarr = pytest.importorskip("zarr", reason="feature stores need zarr, hence Python 3.11")

pytestmark = pytest.mark.slow

Contents = dict[str, bytes]


def of_table(path: Path) -> Contents:
    table = load(path)
    rows = np.asarray(table.features)
    found = {file: row.tobytes() for file, row in zip(table.files, rows, strict=True)}
    return {**found, **{name: reason.encode() for name, reason in table.skipped}}


def of_maps(path: Path) -> Contents:
    return {"maps": zarr.open_array(path, mode="r")[:].tobytes()}


def make(kind: str, folder: Path) -> Path:
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    if kind == "tiles":
        np.save(images / "large.npy", rng.random((300, 2500), dtype=np.float32))
        tiles(images / "large.npy", folder / "a.zarr", tile=256)
        return folder / "a.zarr"
    for number in range(30):
        np.save(images / f"{number:02}.npy", rng.random((32, 32)))
    (images / "bad.png").write_text("not a picture")
    if kind == "store":
        extract_to_store(images, folder / "a.zarr", Settings(depth=1))
        return folder / "a.zarr"
    output = folder / f"a.{kind}"
    save(extract(images, Settings(depth=1), on_error="skip"), output)
    return output


def flip(content: bytearray, rng: np.random.Generator) -> None:
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)


def overwrite(content: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(len(content)))
    length = min(int(rng.integers(1, 100)), len(content) - place)
    content[place : place + length] = rng.bytes(length)


def cut_off(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content)) :]


def drop(content: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(len(content)))
    del content[place : place + int(rng.integers(1, 100))]


@pytest.mark.filterwarnings("ignore")  # Zarr's remarks on odd metadata
@pytest.mark.parametrize(
    ("kind", "read"),
    [("tiles", of_maps), *((kind, of_table) for kind in ("store", "npz", "npy", "csv", "parquet"))],
)
def test_no_damage_is_silent(tmp_path: Path, kind: str, read: Callable[[Path], Contents]) -> None:
    output = make(kind, tmp_path)
    expected = read(output)
    files = [path for path in tmp_path.glob(f"{output.name}*") if path.is_file()]
    files += [path for path in output.rglob("*") if path.is_file() and path.name != "lock"]
    outcomes: Counter[str] = Counter()
    wrong = []
    rng = np.random.default_rng(0)
    for file in files:
        good = file.read_bytes()
        for number in range(400):
            content = bytearray(good)
            damage = (flip, overwrite, cut_off, drop)[number % 4]
            damage(content, rng)
            file.write_bytes(content)
            try:
                outcome = "right" if read(output) == expected else "silent"
            except (OSError, ValueError):
                outcome = "refused"
            except Exception as error:  # Zarr has others of its own
                outcome = "refused" if kind == "tiles" else repr(error)
            outcomes[outcome] += 1
            if outcome not in ("right", "refused"):
                wrong.append(f"{file.relative_to(tmp_path)} {damage.__name__}: {outcome}")
        file.write_bytes(good)
    print(f"{kind}: {dict(outcomes)}")
    assert wrong == []
    shutil.rmtree(output, ignore_errors=True)
