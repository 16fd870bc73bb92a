"""Kills, failing calls and power cuts at every call that changes a file, for every kind of output.

``faults.c`` counts the calls, kills the process at one of them or has it fail, and writes all of
them down, from which :mod:`tests.attack.disk` replays power cuts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtwpt
from dtwpt.extract import Settings, extract, extract_to_store, load, save, tiles
from dtwpt.report.folder import MARK, write_report
from tests.attack.disk import Disk, operations

zarr = pytest.importorskip("zarr", reason="feature stores need zarr, hence Python 3.11")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dtwpt.extract.store.manifest.StoreWarning"),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a compiler"
    ),
]

SETTINGS = Settings(depth=1)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}
KINDS = ("npz", "npy", "csv", "parquet", "store", "restart", "tiles", "retiles", "report")
NAMES = {"store": "a.zarr", "restart": "a.zarr", "tiles": "a.zarr", "retiles": "a.zarr"}
# Outputs that consist of two files: one may be there without the other.
IN_TWO = ("npy", "csv")
# Calls at which a file system is taken away, of those of each kind.
MOMENTS = 12
RNG = np.random.default_rng(0)
# One shard holds so many rows: runs write to several, old and new ones.
CODE = """
import sys
from dtwpt.extract.store import writer
writer._SHARD_BYTES = 4 * 8 * 4
from tests.attack import test_faults
test_faults.job(*sys.argv[1:])
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def page(images: str) -> dict[str, bytes]:
    """Return a report that tells images from others."""
    total = sum(float(np.load(path).sum()) for path in sorted(Path(images).glob("*.npy")))
    return {"index.html": f"{MARK}{total}".encode(), "filters.csv": str(total).encode() * 1000}


def job(kind: str, images: str, output: str) -> None:
    """Do what is interrupted."""
    if kind in ("store", "restart"):
        extract_to_store(images, output, SETTINGS, restart=kind == "restart")
    elif kind in ("tiles", "retiles"):
        large = os.path.join(images, "large.npy")
        tiles(large, output, tile=64, workers=1, overwrite=kind == "retiles")
    elif kind == "report":
        write_report(output, page(images))
    else:
        save(extract(images, SETTINGS), output)


class Attack:
    """An output as an earlier run has left it, and what a run makes of it that is interrupted."""

    def __init__(self, kind: str, tmp_path: Path, faults: Path) -> None:
        self.kind, self._tmp_path, self._faults = kind, tmp_path, faults
        self.images, self.before = tmp_path / "images", tmp_path / "before"
        self.name = NAMES.get(kind, f"a.{kind}")
        self.images.mkdir()
        self.before.mkdir()
        rng = np.random.default_rng(0)
        maps = kind in ("tiles", "retiles")
        for number in range(1 if maps else 8):
            np.save(self.images / f"{number}.npy", rng.random((32, 32)))
        shape = (300, 4200) if kind == "tiles" else (300, 2100)
        if maps:
            np.save(self.images / "large.npy", rng.random(shape, dtype=np.float32))
        if kind != "tiles":
            job(kind, str(self.images), str(self.before / self.name))
        self.states = [self.truth()]
        if kind == "retiles":
            np.save(self.images / "large.npy", rng.random(shape, dtype=np.float32))
        elif kind != "tiles":
            np.save(self.images / "3.npy", rng.random((32, 32)))
            for number in range(8, 14):
                np.save(self.images / f"{number}.npy", rng.random((32, 32)))
        if kind != "tiles":
            self.states.append(self.truth())

    def truth(self) -> dict[str, list[float]]:
        if self.kind == "report":
            return {name: list(content) for name, content in page(str(self.images)).items()}
        if self.kind in ("tiles", "retiles"):
            maps = dtwpt.cmod2(np.load(self.images / "large.npy"), 2)
            return {"maps": np.asarray(maps, np.float32).ravel().tolist()}
        table = extract(self.images, SETTINGS)
        return dict(zip(table.files, table.features.tolist(), strict=True))

    def run(self, folder: Path, **faults: Any) -> int:
        environment = {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()}
        return subprocess.run(
            [sys.executable, "-c", CODE, self.kind, self.images, folder / self.name],
            env={
                **ENVIRONMENT,
                "LD_PRELOAD": str(self._faults),
                "FAULT_ROOT": str(folder),
                **environment,
            },
            capture_output=True,
            check=False,
        ).returncode

    def take_away(self, folder: Path) -> int:
        """Shut the file system of a folder down at once."""
        environment = {"LD_PRELOAD": str(self._faults), "FAULT_ROOT": str(folder), "FAULT_AT": "0"}
        return subprocess.run(
            ["touch", folder / "too late"],
            env={**os.environ, **environment, "FAULT_AWAY": "1"},
            capture_output=True,
            check=False,
        ).returncode

    def found(self, folder: Path) -> dict[str, list[float]] | None:
        """Return what is there; None if it is not, or says that it is damaged."""
        output = folder / self.name
        try:
            if self.kind == "report":
                return {path.name: list(path.read_bytes()) for path in output.iterdir()}
            if self.kind in ("tiles", "retiles"):
                return {"maps": zarr.open_array(output, mode="r")[:].ravel().tolist()}
            table = load(output)
            return dict(zip(table.files, np.asarray(table.features).tolist(), strict=True))
        except (OSError, ValueError):
            return None

    def check(self, folder: Path, *, whole: bool = False, may_be_refused: bool = False) -> None:
        """Check that nothing is wrong or lost, and that the next run completes it."""
        found = self.found(folder)
        if self.kind == "store":
            assert found is not None
            old, new = self.states
            for name, values in found.items():
                assert values in (old.get(name), new[name])
            # What was done and has not changed is done still.
            assert {name for name in old if old[name] == new[name]} <= set(found)
        elif self.kind == "restart":
            # The old one, or the new one as far as it is; neither for the moment between them.
            old, new = self.states
            if found is not None and found != old:
                assert all(values == new[name] for name, values in found.items())
        elif self.kind in ("tiles", "retiles", "report"):
            assert found in (None, *self.states)
        else:
            assert found in self.states or (found is None and may_be_refused)
        if whole:
            assert found == self.states[-1]
        job(
            "store" if self.kind == "restart" else self.kind,
            str(self.images),
            str(folder / self.name),
        )
        assert self.found(folder) == self.states[-1]
        beside = {self.name, f"{self.name}.json"} if self.kind in IN_TWO else {self.name}
        assert {path.name for path in folder.iterdir()} == beside
        assert not list(folder.rglob("*.partial"))


@pytest.fixture(params=KINDS)
def attack(request: pytest.FixtureRequest, tmp_path: Path, faults: Path) -> Attack:
    return Attack(request.param, tmp_path, faults)


def logged(attack: Attack, tmp_path: Path) -> list[Any]:
    shutil.copytree(attack.before, tmp_path / "work")
    assert attack.run(tmp_path / "work", log=tmp_path / "log") == 0
    attack.check(tmp_path / "work", whole=True)
    shutil.rmtree(tmp_path / "work")
    found = list(operations(tmp_path / "log"))
    assert len(found) > 5
    return found


@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
def test_at_every_call(attack: Attack, tmp_path: Path, fault: str) -> None:
    count = len(logged(attack, tmp_path))
    options = {} if fault == "kill" else {"errno": getattr(errno, fault)}
    ended: dict[int, int] = {}
    for at in range(count):
        work = tmp_path / f"work{at}"
        shutil.copytree(attack.before, work)
        code = attack.run(work, at=at, **options)
        ended[code] = ended.get(code, 0) + 1
        attack.check(work, may_be_refused=attack.kind in IN_TWO)
        shutil.rmtree(work)
    print(f"{attack.kind}, {fault}: {count} calls, exit statuses {ended}")
    assert set(ended) <= ({-9} if fault == "kill" else {0, 1})


@pytest.mark.parametrize("kept", ["synced", "some"])
def test_power_cuts(attack: Attack, tmp_path: Path, kept: str) -> None:
    rng = np.random.default_rng(0) if kept == "some" else None
    found = logged(attack, tmp_path)
    disk = Disk(attack.before)

    for number, operation in enumerate(found):
        disk.do(operation)
        work = tmp_path / f"work{number}"
        disk.cut(work, rng)
        # After the last one it is said to be done.
        attack.check(work, whole=number == len(found) - 1, may_be_refused=attack.kind in IN_TWO)
        shutil.rmtree(work)
    print(f"{attack.kind}, {kept}: {len(found)} power cuts")


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def can_mount(image: Path, folder: Path) -> bool:
    try:
        with mounted(image, folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_a_file_system_that_is_taken_away(attack: Attack, tmp_path: Path, system: str) -> None:
    image, folder = tmp_path / "image", tmp_path / "mounted"
    work = folder / "work"
    folder.mkdir()
    if shutil.which(f"mkfs.{system}") is None:
        pytest.skip(f"needs mkfs.{system}")

    def fresh() -> None:
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(400 << 20)
        subprocess.run([f"mkfs.{system}", "-q", image], check=True)

    fresh()
    if not can_mount(image, folder):
        pytest.skip("may not mount a file system, or has no loop device")
    count = len(logged(attack, tmp_path))
    ended: dict[int, int] = {}
    for at in [*sorted(RNG.choice(count, min(count, MOMENTS), replace=False)), None]:
        fresh()
        with mounted(image, folder):
            shutil.copytree(attack.before, work)
            subprocess.run(["sync", "-f", work], check=True)
            code = attack.run(work, **({} if at is None else {"at": at, "away": 1}))
            if at is None:  # said to be done
                assert code == 0
                assert attack.take_away(work) == 1
        ended[code] = ended.get(code, 0) + 1
        with mounted(image, folder):  # its journal is played back
            attack.check(work, whole=at is None, may_be_refused=attack.kind in IN_TWO)
    print(f"{attack.kind}, {system}: {sum(ended.values())} of {count} calls, exit statuses {ended}")
    assert set(ended) <= {0, 1}
