"""The feature store: what it holds whatever happened to the runs that filled it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import dtwpt
from dtwpt.cli import cli
from dtwpt.extract import (
    FeatureExtractor,
    FeatureTable,
    ImageError,
    Settings,
    StoreBusyError,
    WorkerError,
    extract,
    extract_to_store,
    find_images,
    load,
    load_settings,
    save,
    tiles,
)

zarr = pytest.importorskip("zarr", reason="feature stores need zarr, hence Python 3.11")

from dtwpt.extract import FeatureStore, StoreWriter  # noqa: E402
from dtwpt.extract import extractor as extracting  # noqa: E402
from dtwpt.extract.extractor import Stamp, features_of, image_of  # noqa: E402
from dtwpt.extract.run import workers as working  # noqa: E402
from dtwpt.extract.store import reader as opening  # noqa: E402
from dtwpt.extract.store import writer as writing  # noqa: E402
from dtwpt.extract.store.chunks import DurableStore, SteadyStore  # noqa: E402
from dtwpt.extract.store.manifest import State, StoreWarning  # noqa: E402
from tests.gated import has_features, running, wait_until  # noqa: E402

RNG = np.random.default_rng(0)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of three sizes, found in another order than that of their paths."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        pixels = RNG.integers(0, 256, (32 + number % 3, 36), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.{('png', 'bmp')[number % 2]}")
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read in this process, as they are."""

    names: list[str] = []

    def counted(path: str, settings: Settings) -> NDArray[np.float32]:
        names.append(os.path.basename(path))
        return image_of(path, settings)

    monkeypatch.setattr("dtwpt.extract.extractor.image_of", counted)
    return names


def expected(paths: list[str], settings: Settings | None = None) -> NDArray[np.float32]:
    return extract(sorted(paths), settings).features


# What it holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_same_whatever_workers_and_order(folder: Path, tmp_path: Path, workers: int) -> None:
    files = find_images(folder)
    calls: list[tuple[int, int]] = []
    store = extract_to_store(
        files[::-1],
        tmp_path / "a.zarr",
        Settings(pool=2),
        workers=workers,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 40) for done in range(41)]
    assert store.files == sorted(files)
    assert (store.skipped, store.waiting) == ([], [])
    table = extract(sorted(files), Settings(pool=2))
    assert np.asarray(store.features).tobytes() == table.features.tobytes()
    assert store.feature_names == table.feature_names
    assert store.settings == table.settings == load_settings(store.path)[0]
    assert store.made_by == table.made_by


def test_several_depths_and_statistics_take_one_reading(
    folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    """And have the columns of runs of one depth and statistic each, bit for bit."""
    names = ("mean", "std", "max")
    settings = Settings(depth=(2, 1), pool=names)
    for _ in range(2):  # the second time there is nothing to do
        store = extract_to_store(folder, tmp_path / "a.zarr", settings)
        assert len(decoded) == 40
    assert store.settings == load_settings(store.path)[0] == settings
    table = extract(folder, settings)
    assert len(decoded) == 80
    assert table.features.tobytes() == store.features[:].tobytes()
    columns = dict(zip(store.feature_names, store.features[:].T, strict=True))
    for depth in (2, 1):
        for name in names:
            one = extract(folder, Settings(depth=depth, pool=name))
            for column, values in zip(one.feature_names, one.features.T, strict=True):
                np.testing.assert_array_equal(columns.pop(f"d{depth}_{column}"), values)
    assert not columns


def test_any_reader_of_zarr_gets_along(folder: Path, tmp_path: Path) -> None:
    store = extract_to_store(folder, tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "a.zarr", mode="r")
        names = {name for name, _ in group.members(max_depth=None)}
    assert names == {"features", "manifest"}
    assert group.attrs["settings"] == Settings().to_dict()
    array = group["features"]
    assert array.attrs["feature_names"] == store.feature_names
    np.testing.assert_array_equal(array[:], store.features[:])
    assert (array.metadata.zarr_format, array.shards is None) == (3, False)


def test_xarray_opens_it(folder: Path, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    store = extract_to_store(folder, tmp_path / "a.zarr")
    with xarray.open_zarr(tmp_path / "a.zarr", consolidated=False) as opened:
        assert opened["features"].dims == ("image", "feature")
        assert opened["features"].chunks is not None  # by dask
        np.testing.assert_array_equal(opened["features"].values, store.features[:])


def test_what_is_gone_can_be_forgotten(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    output = tmp_path / "a.zarr"
    (folder / "40.png").write_text("no image")
    before = extract_to_store(folder, output)
    features = before.features[:]
    shutil.copytree(folder, tmp_path / "moved")
    for name in ("05.bmp", "07.bmp", "40.png"):
        (folder / name).unlink()
    rest = [path for path in before.files if path[-6:-4] not in ("05", "07")]
    assert extract_to_store(folder, output).files == before.files
    decoded.clear()
    # What is merely not given stays.
    store = extract_to_store(folder / "00.png", output, prune=True)
    assert (store.files, store.skipped, store.waiting) == (rest, [], [])
    assert before.features[:].tobytes() == features.tobytes()  # loaded earlier
    assert decoded == []
    np.testing.assert_array_equal(load(output, verify=True).features[:], expected(rest))
    decoded.clear()
    shutil.copy(tmp_path / "moved" / "05.bmp", folder)
    store = extract_to_store(folder, output, prune=True)
    assert (decoded, len(store.files)) == (["05.bmp"], 39)
    np.testing.assert_array_equal(store.features[:], expected(store.files))
    assert repr(store).endswith("39 images x 32 features, 0 skipped, 0 waiting>")


def test_labels(folder: Path, tmp_path: Path) -> None:
    (folder / "café").mkdir()
    shutil.move(folder / "39.bmp", folder / "café")
    output = tmp_path / "a.zarr"
    assert extract_to_store([folder / "00.png", folder / "01.bmp"], output).labels is None
    store = extract_to_store(folder, output, labels="folder")
    assert store.labels == ["images"] * 39 + ["café"]
    assert store.labels == extract(folder, labels="folder").labels
    (tmp_path / "labels.csv").write_text('file,label\n00.png,"a, b"\ncafé/39.bmp,c\n')
    store = extract_to_store(folder, output, labels=tmp_path / "labels.csv")
    assert store.labels == ["a, b"] + [""] * 38 + ["c"]
    assert load(output).to_pandas().loc[str(folder / "00.png"), "label"] == "a, b"
    assert extract_to_store(folder, output).labels == store.labels  # those of earlier runs stay
    named = {str(folder / "01.bmp"): "d"}
    assert extract(folder / "01.bmp", labels=named).labels == ["d"]
    with sqlite3.connect(output / "manifest" / "manifest.sqlite") as database:
        database.execute("UPDATE labels SET label = 'e' WHERE row = 0")
    database.close()
    with pytest.raises(ValueError, match="label of row 0 has been changed"):
        load(output).labels  # noqa: B018
    for text, message in (
        ("file\n00.png\n", "columns file and label"),
        ("file,label\n00.png,a\n./00.png,b\n", "both 'a' and 'b'"),
    ):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            extract(folder, labels=tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="labels must be"):
        extract(folder, labels="folders")


def test_a_row_by_the_name_of_its_file(folder: Path, tmp_path: Path) -> None:
    store = extract_to_store(folder, tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.row(folder / "07.bmp"), store.features[7])
    with pytest.raises(KeyError, match="no features of"):
        store.row("07.bmp")


def test_lazy_features_are_indexed_like_an_array(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_SHARD_BYTES", 4 * 8 * 4 * 8)  # 8 rows: several shards
    monkeypatch.setattr(writing, "_CHUNKS_PER_SHARD", 4)
    (folder / "bad.png").write_text("not a picture")
    features = extract_to_store(folder, tmp_path / "a.zarr", Settings(depth=2)).features
    array = expected([str(path) for path in folder.iterdir() if path.name != "bad.png"])
    assert (features.shape, features.dtype.name, len(features)) == ((40, 32), "float32", 40)
    mask = RNG.random(40) < 0.3
    indices: list[Any] = [
        *(0, -1, slice(None), slice(3, 30, 4), slice(None, None, -1), slice(5, 5), [7, 1, 1, 39]),
        *(mask, np.flatnonzero(mask), ..., (2, 3), (slice(2, 9), slice(1, 4)), ([1, 12], ...)),
        (slice(None), 5),
    ]
    for index in indices:
        np.testing.assert_array_equal(features[index], array[index])
    np.testing.assert_array_equal(list(features), array)
    assert np.asarray(features, dtype=np.float64).dtype == np.float64
    indices = [
        *(([7, 1, 1], [2, 0, 31]), ([3, 9], [4]), (mask, np.flatnonzero(mask) % 32), (..., 3)),
        *((2, [1, 2]), (slice(2, 9), [5, 1]), (..., [3], [4]), (slice(5, 5), 3), ([], 3)),
        *((3, ..., 4), (), (np.int64(3), np.arange(32) % 2 == 0)),
    ]
    copy = pickle.loads(pickle.dumps(features))
    for index in indices:
        np.testing.assert_array_equal(features[index], array[index])
        np.testing.assert_array_equal(copy[index], array[index])
    for index in (40, [0, 40], "a", None, (3, None), True, 1.0, (0, 0, 0), (0, 32), mask[:9]):
        with pytest.raises(IndexError):
            features[index]
    for index in (np.ix_([0, 1], [2, 3]), np.array([[0, 1]]), array > 1, ([0, 1, 2], [0, 1])):
        with pytest.raises(IndexError, match=r"one axis|index the rows, then the columns"):
            features[index]


def test_whole_maps_need_one_size_which_the_first_image_decides(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "00.aaa.png").write_text("not a picture")
    settings = Settings(depth=1, pool="none")
    for workers in (1, 3):
        output = tmp_path / f"{workers}.zarr"
        store = extract_to_store(folder, output, settings, workers=workers)
        sizes = [int(Path(name).name[:2]) % 3 for name in store.files]
        assert set(sizes) == {0}
        assert len(store.skipped) == 40 - len(sizes) + 1
        assert "33x36 pixels, but the first one has 32x36" in store.skipped[1].reason
        np.testing.assert_array_equal(store.features[:], expected(store.files, settings))
        assert store.feature_names == settings.names((32, 36))
    only = extract_to_store(folder / "00.aaa.png", tmp_path / "none.zarr", settings)
    assert (only.features.shape, len(only.skipped)) == ((0, 0), 1)


# Going on ---------------------------------------------------------------------------------------


def test_nothing_is_done_twice(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    output = tmp_path / "a.zarr"
    bad = folder / "20.bad.png"
    bad.write_text("not a picture")
    some = find_images(folder)[10:30]
    with pytest.raises(ImageError, match=r"20\.bad"):
        extract_to_store(some, output, on_error="stop")
    partial = load(output)
    assert isinstance(partial, FeatureStore)
    assert len(partial.files) == 10
    assert partial.waiting == some[10:]
    np.testing.assert_array_equal(partial.features[:], expected(partial.files))

    # What was waiting is done, too, and what is new is added, in any order.
    store = extract_to_store(find_images(folder)[:5], output)
    assert len(store.files) == 24
    assert [Path(name).name for name, _ in store.skipped] == ["20.bad.png"]
    assert store.waiting == []
    decoded.clear()
    extract_to_store(folder, output)
    assert len(decoded) == 16
    decoded.clear()
    calls: list[tuple[int, int]] = []
    store = extract_to_store(
        folder, output, workers=1, progress=lambda done, total: calls.append((done, total))
    )
    assert (decoded, calls) == ([], [(41, 41)])
    np.testing.assert_array_equal(store.features[:], expected(store.files))

    # Changed files, one of them mended, one lost.
    Image.fromarray(np.full((40, 40), 99, np.uint8)).save(folder / "03.bmp")
    shutil.copy(folder / "04.png", bad)
    (folder / "05.bmp").unlink()
    decoded.clear()
    store = extract_to_store(folder, output)
    assert sorted(decoded) == ["03.bmp", "20.bad.png"]  # by row: the order they were added in
    assert store.files == sorted([*find_images(folder), str(folder / "05.bmp")])
    assert store.skipped == []
    row = store.files.index(str(bad))
    np.testing.assert_array_equal(store.features[row], features_of(str(bad), Settings()).features)

    decoded.clear()
    bad.write_text("not a picture again")
    extract_to_store(folder, output)
    assert len(extract_to_store(folder, output).skipped) == 1
    assert decoded == ["20.bad.png"]
    extract_to_store(folder, output, retry_skipped=True)
    assert decoded == ["20.bad.png"] * 2


def test_other_versions_that_go_on_are_written_down(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.zarr"
    first = extract_to_store(folder, output)
    assert first.continued_by == []
    now = {**first.made_by, "numpy": "99"}
    monkeypatch.setattr(writing, "versions", lambda device: now)
    with pytest.warns(StoreWarning, match=r"begun with numpy .*, now 99"):
        extract_to_store(folder, output)
    store = extract_to_store(folder, output)  # told once
    assert (store.made_by, store.continued_by) == (first.made_by, [now])
    np.testing.assert_array_equal(first.features[:], store.features[:])


def test_contents_tell_where_times_do_not(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    path = folder / "06.png"
    for check, again in (("time", []), ("hash", ["06.png"])):
        output = tmp_path / f"{check}.zarr"
        extract_to_store(folder, output, check=check)
        decoded.clear()
        status = path.stat()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1  # of the last checksum, which nobody looks at
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        extract_to_store(folder, output, check=check)
        assert decoded == again
        decoded.clear()
        for name in find_images(folder):
            os.utime(name)
        extract_to_store(folder, output, check=check)
        assert len(decoded) == (40 if check == "time" else 0)
    # Hashes are asked for when the store has none yet.
    extract_to_store(folder, tmp_path / "time.zarr", check="hash")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    decoded.clear()
    extract_to_store(folder, tmp_path / "time.zarr", check="hash")
    assert decoded == ["06.png"]


def test_no_time_of_a_file_stops_a_job(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    times = (2**63 - 1, 2**63, 2**63 + 1, -(2**63))
    for time_ns, name in zip(times, find_images(folder), strict=False):
        with contextlib.suppress(OverflowError, OSError):  # not every file system has them
            os.utime(name, ns=(0, time_ns))
    output = tmp_path / "a.zarr"
    assert len(extract_to_store(folder, output).files) == 40
    decoded.clear()
    extract_to_store(folder, output)
    assert decoded == []
    os.utime(folder / "01.bmp", ns=(0, 2**63 + 10**9))
    extract_to_store(folder, output)
    assert decoded == ["01.bmp"]


def test_what_was_done_again_since_loading_is_said(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.zarr"
    lazy = extract_to_store(folder, output)
    whole = np.asarray(lazy.features)
    Image.fromarray(np.full((40, 40), 99, np.uint8)).save(folder / "03.bmp")
    with StoreWriter(output, Settings()) as writer:
        writer.plan(find_images(folder))
        np.testing.assert_array_equal(lazy.features[:], whole)  # not yet
    extract_to_store(folder, output)
    with pytest.raises(
        OSError, match=r"03\.bmp' was recomputed since .* was loaded: load it again"
    ):
        lazy.features[:]
    np.testing.assert_array_equal(lazy.features[4:], whole[4:])
    assert len(load(output).features[:]) == 40
    for index in range(2):
        output.rename(tmp_path / f"elsewhere{index}")
        with pytest.raises(OSError, match=r"a\.zarr' was deleted or moved since it was loaded"):
            lazy.features[7:]
        (tmp_path / f"elsewhere{index}").rename(output)


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_permissions_stay(folder: Path, tmp_path: Path, mode: int) -> None:
    output = tmp_path / "a.zarr"
    extract_to_store(folder, output)
    (tmp_path / "usual").mkdir()
    assert output.stat().st_mode == (tmp_path / "usual").stat().st_mode
    shard = output / "features" / "c" / "0" / "0"
    shard.chmod(0o600)
    os.utime(folder / "03.bmp", (0, 0))
    extract_to_store(folder, output)
    assert stat.S_IMODE(shard.stat().st_mode) == 0o600
    output.chmod(mode)
    extract_to_store(folder, output, restart=True)
    assert stat.S_IMODE(output.stat().st_mode) == mode


def test_nobody_puts_anything_into_a_store_that_begins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = StoreWriter._lock

    def lock(self: StoreWriter, path: str) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode))
        real(self, path)

    monkeypatch.setattr(StoreWriter, "_lock", lock)
    before = os.umask(0)
    try:
        extract_to_store(folder, tmp_path / "a.zarr")
    finally:
        os.umask(before)
    assert modes == [0o700]
    assert stat.S_IMODE((tmp_path / "a.zarr").stat().st_mode) == 0o777


def test_a_power_cut_right_after_a_commit_loses_nothing(folder: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.zarr", Settings()) as writer:
        writer.plan(find_images(folder))
        (level,) = writer._open_manifest._database.execute("PRAGMA synchronous").fetchone()
    assert level == 3  # EXTRA: the folder is synced once the journal is gone


def test_comparing_files_holds_nobody_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.zarr"
    extract_to_store(folder, output)
    manifest = output / "manifest" / "manifest.sqlite"
    read: list[str] = []

    def stamp_of(path: str, contents: bool = False) -> Stamp:
        with contextlib.closing(sqlite3.connect(manifest, timeout=0)) as database:
            database.execute("BEGIN EXCLUSIVE")  # nobody else has it, not even to write
            database.execute("ROLLBACK")
        if contents:
            read.append(path)
            if len(read) == 30:
                raise KeyboardInterrupt
        return extracting.stamp_of(path, contents)

    monkeypatch.setattr("dtwpt.extract.store.manifest.stamp_of", stamp_of)
    monkeypatch.setattr("dtwpt.extract.store.manifest._COMPARED", 0, raising=False)
    with pytest.raises(KeyboardInterrupt):
        extract_to_store(folder, output, check="hash")
    # What has been hashed until then is kept.
    with contextlib.closing(sqlite3.connect(manifest)) as database:
        (count,) = database.execute("SELECT count(sha256) FROM inputs").fetchone()
    assert count == 29


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_a_thread_reads(folder: Path, tmp_path: Path) -> None:
    store = extract_to_store(folder, tmp_path / "a.zarr")
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.features._store.steady():
            inside.set()
            leave.wait(600)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(600)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = int(store.features[:].shape != (40, 32))
        os._exit(status)
    try:
        deadline = time.monotonic() + 60
        while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        leave.set()
        thread.join()
        if found == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert found == (child, 0)


def test_restart_replaces_the_old_store_once_the_new_one_has_begun(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.zarr"
    old = extract_to_store(folder, output)
    with pytest.raises(ValueError, match="with depth 2, not 1, pool 'mean', not 2"):
        extract_to_store(folder, output, Settings(depth=1, pool=2))
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="with device 'numpy', not 'cpu'"):
        extract_to_store(folder, output, device="cpu")
    with pytest.raises(FileNotFoundError):
        extract_to_store(tmp_path / "nowhere", output, Settings(depth=1), restart=True)
    assert len(load(output).files) == 40
    new = extract_to_store(folder, output, Settings(depth=1), restart=True)
    assert new.features.shape == (40, 8)
    with pytest.raises(OSError, match="replaced by another one"):
        old.features[0]
    # Killed between the two steps of the exchange: the next run puts the old one back.
    output.rename(tmp_path / ".a.zarr.01234567.old")
    # Names that are not what a run gives are somebody's own.
    for name in (".a.zarr.before-paper.old", ".a.zarr.0123.new", ".a.zarr.89abcdef.gone"):
        (tmp_path / name / "manifest").mkdir(parents=True)
        (tmp_path / name / "manifest" / "lock").touch()
        (tmp_path / name / "thesis.txt").touch()
    assert len(extract_to_store(folder / "00.png", output, Settings(depth=1)).files) == 40
    # Half deleted, it is never taken for a store again.
    shutil.copytree(output, tmp_path / ".a.zarr.01234567.gone")
    (tmp_path / ".a.zarr.01234567.gone" / "zarr.json").unlink()
    extract_to_store(folder, output, Settings(depth=1))
    assert not (tmp_path / ".a.zarr.01234567.gone").exists()
    theirs = sorted(path for path in tmp_path.iterdir() if path.name.startswith("."))
    assert len(theirs) == 3
    for path in theirs:
        assert (path / "thesis.txt").exists()
        shutil.rmtree(path)
    # Killed while it was making the new one: before there was a lock, and at each zarr.json.
    (tmp_path / ".dtwpt-0123456789abcdef.tmp" / "manifest").mkdir(parents=True)
    begun = tmp_path / ".a.zarr.01234567.new"
    # A power cut may keep a name without what was in it, or the old one's name without its end.
    replaced = tmp_path / ".a.zarr.01234567.old"
    (replaced / "manifest").mkdir(parents=True)
    begun.mkdir()
    extract_to_store(folder, output, Settings(depth=1))
    assert not begun.exists()
    assert not replaced.exists()
    for name in ("zarr.json.0123456789abcdef.partial", f"zarr.{'0' * 32}.partial"):
        (begun / "manifest").mkdir(parents=True)
        (begun / "manifest" / "lock").touch()
        (begun / name).touch()
        (output / name).touch()
        extract_to_store(folder, output, Settings(depth=1), restart=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "images"]
    (output / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"also holds 'thesis\.txt'"):
        extract_to_store(folder, output, restart=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "images"]


def test_a_loaded_store_never_shows_another_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.zarr"
    files = find_images(folder)
    extract_to_store(files[:8], output)
    lazy, copied = load(output), load(output)
    assert copied.files == files[:8]
    monkeypatch.chdir(tmp_path)
    relative = load("a.zarr")
    monkeypatch.chdir("/")
    assert relative.features[:].shape == (8, 32)

    # Replaced between the manifest and the array.
    real = opening._stored_layout
    swaps = [files[20:23]]

    def swap(path: str, settings: Settings) -> opening.StoredLayout | None:
        if swaps:
            extract_to_store(swaps.pop(), output, restart=True)
        return real(path, settings)

    monkeypatch.setattr(opening, "_stored_layout", swap)
    store = load(output)
    assert isinstance(store, FeatureStore)
    assert store.files == files[20:23]
    np.testing.assert_array_equal(store.features[:], expected(files[20:23]))
    for stale in (lambda: lazy.files, lambda: lazy.features[0], lambda: copied.features[:]):
        with pytest.raises(OSError, match="replaced by another one: load it again"):
            stale()
    # Between the two steps of the exchange there is none.
    away = tmp_path / ".a.zarr.00000000.old"
    output.rename(away)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            away.rename(output)

    monkeypatch.setattr(opening, "time", SimpleNamespace(sleep=sleep))
    assert len(load(output).files) == 3
    assert len(pauses) == 3


# What is not ours, and what is damaged -----------------------------------------------------------


def newer(output: Path) -> None:
    zarr.open_group(output).update_attributes({"version": 99})


def garbled(output: Path) -> None:
    zarr.open_group(output).update_attributes({"settings": 3})


def torn(output: Path) -> None:
    manifest = output / "manifest" / "manifest.sqlite"
    manifest.write_bytes(b"\0" * 100 + manifest.read_bytes()[100:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (newer, "newer dtwpt: version 99"),
        (torn, "manifest of .* is damaged"),
        (lambda output: (output / "manifest/manifest.sqlite").unlink(), "manifest of .* unable"),
        (garbled, "store .* is damaged"),
    ],
)
def test_damage_is_refused_until_it_begins_anew(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    output = tmp_path / "a.zarr"
    extract_to_store(folder, output)
    spoil(output)
    with pytest.raises((OSError, ValueError), match=message):
        load(output)
    with pytest.raises((OSError, ValueError), match=message):
        extract_to_store(folder, output)
    assert len(extract_to_store(folder, output, restart=True).files) == 40


@pytest.mark.filterwarnings("ignore::dtwpt.extract.store.manifest.StoreWarning")
@pytest.mark.parametrize("part", ["zarr.json", "features/zarr.json", "manifest/manifest.sqlite"])
def test_fuzzed_files_are_refused_or_do_no_harm(folder: Path, tmp_path: Path, part: str) -> None:
    (folder / "bad.png").write_text("not a picture")
    settings = Settings(depth=1, pool=2)
    output, whole = tmp_path / "a.zarr", tmp_path / "whole"
    expected = contents(extract_to_store(folder, whole.with_suffix(".zarr"), settings))
    whole.with_suffix(".zarr").rename(whole)
    good = (whole / part).read_bytes()
    meant = np.flatnonzero(np.frombuffer(good, np.uint8))
    refused = 0
    rng = np.random.default_rng(0)
    for number in range(40):
        fuzzed = bytearray(good)
        place = int(rng.choice(meant))
        if number == 0:
            fuzzed.clear()
        elif number % 4 == 0:
            del fuzzed[place:]
        elif number % 4 == 1:
            fuzzed[place] ^= 1 << rng.integers(8)
        elif number % 4 == 2:
            fuzzed[place] = ord(rng.choice(list('0123456789abc"{}[]:, ')))
        else:
            fuzzed[place : place + 50] = rng.bytes(50)
        shutil.copytree(whole, output)
        (output / part).write_bytes(fuzzed)
        for use in (load, lambda path: extract_to_store(folder, path, settings)):
            try:
                found = contents(use(output))
            except (OSError, ValueError) as error:
                said = str(error)
            else:
                said = ""
                assert found == expected
            assert said == "" or re.fullmatch(r".*a\.zarr'.+", said)  # a line that names it
            refused += bool(said)
        shutil.rmtree(output)
    assert refused > (20 if part.endswith(".sqlite") else 40)  # of 80
    shutil.copytree(whole, output)
    (output / part).write_bytes(b"")
    again = extract_to_store(folder, output, settings, restart=True)
    assert contents(again) == expected


def contents(store: FeatureStore | FeatureTable) -> tuple[Any, ...]:
    about = (store.files, store.skipped, store.waiting, store.feature_names, store.settings)
    return (*about, np.asarray(store.features).tobytes())


def test_stores_of_before_the_checksums(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.zarr"
    settings = Settings(depth=1, pool="none", crop=32)
    files = find_images(folder)
    extract_to_store(files[:10], output, settings)
    for part in (".", "features"):
        attributes = zarr.open(output / part).attrs
        attributes.put({name: attributes[name] for name in attributes if name != "checksum"})
    zarr.open(output).update_attributes({"version": 1})
    zarr.open(output / "features").update_attributes({"feature_names": settings.names((32, 32))})
    with contextlib.closing(sqlite3.connect(output / "manifest/manifest.sqlite")) as database:
        for change in ("inputs DROP features_sum", "inputs DROP row_sum", "store RENAME TO other"):
            database.execute(f"ALTER TABLE {change}")
    for verify in (False, True):
        store = load(output, verify=verify)
        np.testing.assert_array_equal(store.features[:], expected(store.files, settings))
    shutil.copytree(output, tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "b.zarr" / "features")
    with StoreWriter(output, settings) as writer:  # which takes the checksums
        assert writer.counts()[State.DONE] == 10
    assert zarr.open(output).attrs["version"] == 2
    assert load(output, verify=True).files == files[:10]
    for path in (output, tmp_path / "b.zarr"):
        store = extract_to_store(folder, path, settings)
        np.testing.assert_array_equal(store.features[:], expected(files, settings))


def test_names_of_whole_maps_are_not_stored(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.random((256, 250)))
    settings = Settings(pool="none")
    store = extract_to_store(tmp_path / "a.npy", tmp_path / "a.zarr", settings)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "a.zarr").rglob("*.json")}
    assert max(sizes.values()) < 10_000
    assert "feature_names" not in vars(store)  # until it is asked for
    assert store.feature_names == settings.names((256, 250))
    assert store.features.shape == (1, len(store.feature_names))


def test_rows_that_are_lost_are_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(writing, "_SHARD_BYTES", 4 * 8 * 32)  # 8 rows
    output = tmp_path / "a.zarr"
    whole = np.asarray(extract_to_store(folder, output).features)
    shard = output / "features" / "c" / "1" / "0"

    def flip() -> None:
        content = bytearray(shard.read_bytes())
        content[len(content) // 3] ^= 255
        shard.write_bytes(content)

    def flip_and_touch() -> None:
        flip()
        os.utime(folder / "12.png", (0, 0))

    cases: list[tuple[Callable[[], Any], str, int, dict[str, Any]]] = [
        (shard.unlink, r"features/c/1/0 lacks rows", 8, {}),
        (lambda: shutil.rmtree(output / "features" / "c"), "features/c/0/0 lacks", 40, {}),
        (lambda: shutil.rmtree(output / "features"), "features/zarr.json is missing", 40, {}),
        ((output / "features" / "zarr.json").unlink, "features/zarr.json is missing", 40, {}),
        # One chunk, of one row here.
        (flip, "features/c/1/0: ", 1, {"check": "hash"}),
        (lambda: shard.write_bytes(b""), "features/c/1/0", 8, {"check": "hash"}),
        # Found anyway, as the shard has to be written to.
        (flip_and_touch, "features/c/1/0: ", 2, {}),
    ]
    for spoil, message, count, options in cases:
        spoil()
        with pytest.raises(ValueError, match=rf"a\.zarr' is damaged: {message}.*--check hash"):
            load(output).features[:]
        decoded.clear()
        with pytest.warns(StoreWarning, match="are done again"):
            extract_to_store(folder, output, **options)
        assert len(decoded) == count
        np.testing.assert_array_equal(load(output).features[:], whole)
        extract_to_store(folder, output, check="hash")
    (output / "features" / "zarr.json").write_text("{")
    for use in (load, lambda path: extract_to_store(folder, path)):
        message = r"a\.zarr' is damaged: features/zarr\.json: .*\(put back a copy .* --restart\)$"
        with pytest.raises(ValueError, match=message):
            use(output)


def test_no_damage_stops_a_store_for_good(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(writing, "_SHARD_BYTES", 4 * 8 * 32)  # 8 rows
    output = tmp_path / "a.zarr"
    whole = np.asarray(extract_to_store(folder, output).features)
    shard = output / "features" / "c" / "1" / "0"
    good = shard.read_bytes()

    def spoil(place: int) -> None:
        content = bytearray(good)
        content[place] ^= 255
        shard.write_bytes(content)

    def mended() -> None:
        store = extract_to_store(folder, output)
        np.testing.assert_array_equal(store.features[:], whole)
        assert load(output, verify=True).waiting == []

    # Every row of it waits: there is none to mend, but what is there cannot be written beside.
    for place in (len(good) // 3, -1):
        spoil(place)
        for path in folder.iterdir():
            os.utime(path, (0, place + 999))
        mended()
    # Chunks outside the rows that are done.
    spoil(len(good) // 3)
    for number in range(8, 15):
        (file,) = folder.glob(f"{number:02}.*")
        os.utime(file, (0, 0))
    mended()
    # Killed between taking its rows up again and removing it.
    spoil(-1)
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "_replace_shard", lambda *_: os.kill(os.getpid(), 9))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                extract_to_store(folder, output, check="hash")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 9
    assert len(load(output).waiting) == 8
    decoded.clear()
    mended()
    assert len(decoded) == 8
    # What can be read of a damaged shard stays, also where the images are gone.
    spoil(len(good) // 3)
    for number in range(8, 16):
        (file,) = folder.glob(f"{number:02}.*")
        file.rename(tmp_path / file.name)
    with pytest.warns(StoreWarning, match="1 images that were done"):
        store = extract_to_store(folder, output, check="hash")
    assert (len(store.files), len(store.skipped)) == (39, 1)
    np.testing.assert_array_equal(store.features[:], np.delete(whole, 10, axis=0))


def test_parts_of_different_states_are_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(writing, "_SHARD_BYTES", 4 * 8 * 32)  # 8 rows
    output = tmp_path / "a.zarr"
    whole = np.asarray(extract_to_store(folder, output).features)
    manifest = output / "manifest" / "manifest.sqlite"
    shards = [output / "features" / "c" / str(number) / "0" for number in (1, 2)]
    other = r"has other features than those of '.*' \(extract again with --check hash"

    def noticed(message: str, count: int) -> None:
        with pytest.raises(ValueError, match=message):
            load(output).features[:]
        with pytest.raises(ValueError, match=message):
            load(output, verify=True)
        decoded.clear()
        with pytest.warns(StoreWarning, match="are done again"):
            store = extract_to_store(folder, output, check="hash")
        assert len(decoded) == count
        np.testing.assert_array_equal(store.features[:], whole)

    # Exchanged.
    contents = [shard.read_bytes() for shard in shards]
    for shard, content in zip(shards, contents[::-1], strict=True):
        shard.write_bytes(content)
    noticed(other, 16)
    # An older shard beside a newer manifest.
    Image.fromarray(np.full((40, 40), 99, np.uint8)).save(folder / "10.png")
    whole = np.asarray(extract_to_store(folder, output).features)
    shards[0].write_bytes(contents[0])
    noticed(other, 1)
    # A manifest from before a restart.
    before = manifest.read_bytes()
    extract_to_store(folder, output, restart=True)
    manifest.write_bytes(before)
    for use in (load, lambda path: extract_to_store(folder, path)):
        with pytest.raises(
            ValueError, match=r"manifest of .* damaged: it is that of another store"
        ):
            use(output)


@pytest.mark.filterwarnings("ignore::dtwpt.extract.store.manifest.StoreWarning")
def test_flipped_bits_of_a_manifest_never_move_features(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_text("not a picture")
    settings = Settings(depth=1)
    output = tmp_path / "a.zarr"
    store = extract_to_store(folder, output, settings)
    expected = dict(zip(store.files, store.features[:].tolist(), strict=True))
    manifest = output / "manifest" / "manifest.sqlite"
    good = manifest.read_bytes()
    meant = np.flatnonzero(np.frombuffer(good, np.uint8))
    refused = 0
    rng = np.random.default_rng(0)
    for place in rng.choice(meant, 300):
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.integers(8)
        manifest.write_bytes(flipped)
        try:
            found = load(output)
            named = dict(zip(found.files, found.features[:].tolist(), strict=True))
        except (OSError, ValueError) as error:
            said = str(error)
            refused += 1
        else:
            said = ""
            assert named == expected
        assert said == "" or re.fullmatch(r".*a\.zarr'.+", said)
    assert refused > 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes and links")
def test_files_are_known_by_where_they_are(folder: Path, tmp_path: Path) -> None:
    # The same name before ".." is another folder through the link.
    (tmp_path / "other" / "deep").mkdir(parents=True)
    shutil.copy(folder / "01.bmp", tmp_path / "other" / "00.png")
    (folder / "link").symlink_to(tmp_path / "other" / "deep")
    through = str(folder / "link" / ".." / "00.png")
    assert find_images([through, folder / "00.png", tmp_path / "other" / "00.png"]) == [
        through,
        str(folder / "00.png"),
    ]
    store = extract_to_store([through, folder / "00.png"], tmp_path / "a.zarr")
    assert store.files == [str(folder / "00.png"), through]
    for file, features in zip(store.files, store.features[:], strict=True):
        np.testing.assert_array_equal(features, features_of(file, Settings()).features)
    # Order and names do not depend on what was given before, nor how.
    names = [str(folder / "02.png"), str(folder / "." / "01.bmp")]
    for some in ([through], [os.path.join(folder, "link", "..", "..", "images", "01.bmp")]):
        extract_to_store(some, tmp_path / "b.zarr")
    assert extract_to_store(names, tmp_path / "b.zarr").files == [*reversed(names), through]
    # What has no end is not read for a hash either.
    os.mkfifo(folder / "pipe")
    (folder / "pipe.png").symlink_to("pipe")
    (folder / "endless.png").symlink_to("/dev/zero")
    bad = [folder / "pipe.png", folder / "endless.png"]
    for _ in range(2):
        store = extract_to_store(bad, tmp_path / "c.zarr", check="hash")
        assert [reason for _, reason in store.skipped] == ["is not a regular file"] * 2


def test_other_folders_are_left_alone(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.zarr"
    makers: list[Callable[[], Any]] = [
        output.mkdir,
        lambda: (output / "x").write_text("mine"),
        lambda: zarr.create_group(output, overwrite=True),
        lambda: zarr.create_array(output, shape=(2, 2), dtype="f4", overwrite=True),
        lambda: (shutil.move(output, tmp_path / "b"), output.write_text("mine")),
    ]
    for make in makers:
        make()
        before = sorted(tmp_path.rglob("*"))
        for restart in (False, True):
            with pytest.raises(ValueError, match="is not a feature store"):
                extract_to_store(folder, output, restart=restart)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(FileNotFoundError, match="folder of the output"):
        extract_to_store(folder, tmp_path / "nowhere" / "a.zarr")
    with pytest.raises(ValueError, match=r"\*\.zarr"):
        extract_to_store(folder, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="time, hash"):
        extract_to_store(folder, output, check="name")
    with pytest.raises(FileNotFoundError, match="no such feature store"):
        load(tmp_path / "b.zarr")


def test_what_is_read_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    for name in ("in.npy", "in2.npy", "in/0.npy", "in/1.npy"):
        np.save(name, RNG.random((32, 32)))
    os.symlink("in.npy", "link.npy")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for line, message in (
        ("in.npy -o in.npy", "'in.npy' is one of the images"),
        ("in.npy -o link.npy", "'link.npy' is one of the images"),
        ("in -o in/1.npy", "among the images in"),
        ("in -o in/new.npy", "among the images in"),
        ("in.npy in2.npy -o f.npz --report in2.npy", "'in2.npy' is one of the images"),
        ("in.npy in2.npy -o f.zarr --report in2.npy", "'in2.npy' is one of the images"),
        ("in.npy -o f.npz --report ./f.npz", "would be written twice"),
        ("in.npy -o f.npy --report f.npy.json", "would be written twice"),
        ("in.npy -o f.zarr --report f.zarr/report.json", "would be in the output"),
    ):
        with pytest.raises(ValueError, match=message):
            cli.main(["extract", *line.split()], standalone_mode=False)
        files = sorted(tmp_path.rglob("*"))
        assert {path: path.read_bytes() for path in files if path.is_file()} == before
    # From Python, too.
    table = extract(["in.npy", "in2.npy"])
    for path in ("in.npy", "link.npy"):
        with pytest.raises(ValueError, match="is one of the images"):
            save(table, path)
    with pytest.raises(ValueError, match="is one of the images"):
        save(FeatureTable(table.features, [], ["in/0.npy"], Settings()), "in/../in/0.npy")
    extract_to_store("in", "f.zarr")
    shutil.copy("in.npy", "f.zarr/manifest/in.npy")
    for restart in (False, True):
        for inside in ("f.zarr/manifest/in.npy", "f.zarr/manifest", "."):
            with pytest.raises(ValueError, match=r"is in the output 'f\.zarr', and would be lost"):
                extract_to_store(inside, "f.zarr", restart=restart)
    assert Path("f.zarr/manifest/in.npy").exists()
    os.mkdir("empty")
    with pytest.raises(FileNotFoundError, match=r"^no images in folder 'empty'"):
        extract_to_store("empty", "e.zarr")
    assert not os.path.exists("e.zarr")


def test_links_and_other_spellings_are_the_same_output(
    folder: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("disk")
    os.mkdir("elsewhere")
    os.symlink("disk/real.zarr", "a.zarr")  # which is not there yet
    os.symlink("../disk", "elsewhere/link")
    first = extract_to_store(folder, "a.zarr")
    decoded.clear()
    for name in ("disk/real.zarr/", "./disk//real.zarr", "elsewhere/link/../disk/real.zarr"):
        store = extract_to_store(folder, name)
        assert (decoded, store.files) == ([], first.files)
        np.testing.assert_array_equal(store.features[:], first.features[:])
    extract_to_store(folder, "a.zarr", Settings(depth=1), restart=True)
    assert load("disk/real.zarr").settings.depth == 1
    assert sorted(os.listdir()) == ["a.zarr", "disk", "elsewhere", "images"]
    assert os.listdir("disk") == ["real.zarr"]
    np.save("large.npy", RNG.random((64, 80)))
    os.symlink("../disk/maps.zarr", "elsewhere/m.zarr")
    for name in ("elsewhere/m.zarr", "disk/maps.zarr", "elsewhere/link/maps.zarr"):
        assert tiles("large.npy", name).shape == (2, 4, 4, 16, 20)
    assert sorted(os.listdir("disk")) == ["maps.zarr", "real.zarr"]


@pytest.mark.skipif(shutil.which("cp") is None, reason="copies as a user does")
def test_a_copy_of_a_store_while_a_run_fills_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_SHARD_BYTES", 4 * 32 * 8)
    files = find_images(folder)
    truth = dict(zip(files, expected(files), strict=True))
    output = tmp_path / "a.zarr"
    outcomes = {"right": 0, "refused": 0}
    copies: list[Path] = []

    def look(copy: Path) -> None:
        try:
            store = load(copy)
            rows = store.features[:]
        except (OSError, ValueError):
            outcomes["refused"] += 1
            return
        assert all((truth[name] == row).all() for name, row in zip(store.files, rows, strict=True))
        outcomes["right"] += 1

    with StoreWriter(output, Settings()) as writer:
        writer.plan(files)
        for task in writer.waiting():
            writer.add(task.row, features_of(task.path, Settings()), Stamp())
            writer._begin_commit()  # in a thread of its own
            if task.row % 4 == 0:
                copies.append(tmp_path / f"copy{task.row}.zarr")
                subprocess.run(["cp", "-r", output, copies[-1]], check=False, capture_output=True)
    for copy in copies:
        look(copy)
    assert outcomes["right"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)  # of rows that are done again
        store = extract_to_store(folder, copies[-1], check="hash")
    assert store.files == sorted(files)
    look(copies[-1])
    assert sum(outcomes.values()) == len(copies) + 1


# Several processes ------------------------------------------------------------------------------


def test_one_writer_at_a_time(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.zarr"
    extract_to_store(folder, output)
    code = (
        "import sys; from dtwpt.extract import StoreWriter, Settings\n"
        "writer = StoreWriter(sys.argv[1], Settings()); print('mine', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, output],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        for restart in (False, True):
            with pytest.raises(StoreBusyError, match="another process is writing"):
                extract_to_store(folder, output, restart=restart)
        assert len(load(output).files) == 40  # reading is free
        other.kill()
    assert len(extract_to_store(folder, output).files) == 40  # the system lets go of it


def test_a_reader_sees_one_version_of_a_shard(tmp_path: Path) -> None:
    store = DurableStore(tmp_path / "a")
    array = zarr.create_array(store, shape=(64, 4), chunks=(8, 4), shards=(64, 4), dtype="f4")
    array[:] = 1
    steady = SteadyStore(tmp_path / "a")
    with steady.steady():
        reader = zarr.open_array(steady, mode="r")
        assert (reader[:8] == 1).all()
        array[:] = RNG.random((64, 4))  # other lengths of other chunks
        assert (reader[8:24] == 1).all()
    with steady.steady():
        np.testing.assert_array_equal(reader[8:24], array[8:24])
    # What cannot be written leaves what was there, and no rest.
    (tmp_path / "a" / "c" / "0" / "x").mkdir()
    before = sorted((tmp_path / "a").rglob("*"))
    with pytest.raises(OSError, match="directory"):
        asyncio.run(store.set("c/0/x", zarr.core.buffer.cpu.Buffer.from_bytes(b"12")))
    assert sorted((tmp_path / "a").rglob("*")) == before


def test_rows_come_in_any_order(folder: Path, tmp_path: Path) -> None:
    files = find_images(folder)
    with StoreWriter(tmp_path / "a.zarr", Settings()) as writer:
        assert writer.plan(files).new == 40
        tasks = list(writer.waiting())
        assert [task.path for task in tasks] == sorted(files)
        for place in RNG.permutation(40)[:30]:
            row, path = tasks[place]
            writer.add(row, features_of(path, Settings()), Stamp())
        writer.add(tasks[0].row, ImageError(tasks[0].path, "because"), Stamp())
    store = load(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.features[:], expected(store.files))
    assert [skipped.reason for skipped in store.skipped] == ["because"]


SCRIPT = """
import os, signal, sys, time
import dtwpt.extract.run.workers as working
from dtwpt.extract import extract_to_store, extractor

real, end_hanging = working.image_of, working.Workers.end_hanging

def end_hanging_in_time(workers):
    if os.path.exists("time is up"):
        for worker in workers._workers:
            if worker.queue and "hang" in worker.queue[0].path:
                worker.since -= 600
        end_hanging(workers)

def image_of(path, settings):
    name = os.path.basename(path)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "killed" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "twice" in name and not os.path.exists(path + ".2"):
        open(path + (".2" if os.path.exists(path + ".1") else ".1"), "w").close()
        os.abort()
    if "hang" in name:
        time.sleep(1000)
    return real(path, settings)

def serve(*arguments, real=working._serve):
    working.image_of = extractor.image_of = image_of
    real(*arguments)

if __name__ == "__main__":
    import script

    working._serve, working.Workers.end_hanging = script.serve, end_hanging_in_time
    extract_to_store(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [2, 4])
def test_files_that_kill_or_hang_their_reader(
    folder: Path, tmp_path: Path, workers: int, decoded: list[str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for name in ("02.crash.png", "07.hang.png", "07.twice.png", "12.killed.png", "12.crash.png"):
        shutil.copy(folder / "00.png", folder / name)
    good = [path for path in find_images(folder) if not path.endswith(("sh.png", "g.png", "d.png"))]
    output = tmp_path / "a.zarr"
    with running(
        [sys.executable, tmp_path / "script.py", folder, output, str(workers)],
        cwd=tmp_path,
        env=ENVIRONMENT,
    ) as process:
        # One that hangs holds up what its process has got, and no other.
        held_up = 5
        if workers > 2:
            wait_until(lambda: has_features(output, len(good) - held_up), process)
        (tmp_path / "time is up").touch()
        assert process.wait(600) == 0
    store = load(output)
    assert store.files == good
    np.testing.assert_array_equal(store.features[:], expected(good))
    assert [(Path(name).name, reason) for name, reason in store.skipped] == [
        ("02.crash.png", "the decoder crashed 3 times (SIGSEGV)"),
        ("07.hang.png", "reading it took more than 600 s"),
        ("12.crash.png", "the decoder crashed 3 times (SIGSEGV)"),
        (
            "12.killed.png",
            "the decoder crashed 3 times (SIGKILL, most likely for lack of memory)",
        ),
    ]
    decoded.clear()
    extract_to_store(folder, output)  # they are not tried again
    assert decoded == []


def test_time_in_which_everything_is_suspended_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(working, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(workers: working.Workers, seconds: float) -> bool:
        now[0] += seconds
        workers.waitables(True, None)
        workers.end_hanging()
        return bool(workers.blamed)

    with working.Workers(1, Settings(), True, False, timeout=600) as workers:
        (worker,) = workers._workers
        worker.ready = worker.results.recv() is None
        worker.queue.append(working.Task(0, "a.png"))
        assert not any(step(workers, 1) for _ in range(300))
        assert not step(workers, 1000)  # Ctrl-Z, or a laptop that is closed
        assert not any(step(workers, 1) for _ in range(299))
        assert any(step(workers, 1) for _ in range(3))


@pytest.mark.parametrize("code", [-9, 1])
def test_processes_that_end_before_they_start(
    monkeypatch: pytest.MonkeyPatch, folder: Path, code: int
) -> None:
    end = f"os.kill(os.getpid(), {-code})" if code < 0 else f"os._exit({code})"
    monkeypatch.setattr(working, "_serve", functools.partial(exec, f"import os; {end}"))
    monkeypatch.setattr(working._Worker, "put", lambda self, task: self.queue.append(task))

    class Context:
        """Processes that do not get the arguments, which ``exec`` would not take."""

        def __getattr__(self, name: str) -> Any:
            return getattr(multiprocessing.get_context("spawn"), name)

        def Process(self, target: Any, args: Any, daemon: bool) -> Any:  # noqa: N802
            return multiprocessing.get_context("spawn").Process(target=target, daemon=daemon)

    monkeypatch.setattr(
        working, "multiprocessing", SimpleNamespace(get_context=lambda _: Context())
    )
    hint = "were killed before they had started .*SIGKILL" if code < 0 else "still import dtwpt"
    with pytest.raises(WorkerError, match=hint):
        extract(folder, workers=2)


@pytest.mark.parametrize("how", ["a script", "a pipe"])
def test_readers_need_nothing_of_the_script_that_starts_them(
    folder: Path, tmp_path: Path, how: str
) -> None:
    # Neither a guard, nor a file, nor a working folder without names of Python's own modules.
    script = (
        "from dtwpt.extract import extract\n"
        f"print(len(extract({str(folder)!r}, workers=2).files))\n"
    )
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "script.py").write_text(script)
    for name in ("types", "struct", "pickle", "token", "operator"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError")
    done = subprocess.run(
        [sys.executable, "-P", "-" if how == "a pipe" else tmp_path / "scripts" / "script.py"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        input=script,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("40\n", "")


# Disks ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk in memory; yield a function that changes its options."""
    path.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("mounting a disk is not allowed here")

    if shutil.which("mount") is None or os.name == "nt":
        pytest.skip("needs mount")
    mount(options)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(output: Path, files: list[str], settings: Settings) -> None:
    """Commit every row on its own."""
    with StoreWriter(output, settings) as writer:
        writer.plan(files)
        for row, path in writer.waiting():
            writer.add(row, features_of(path, settings), Stamp())
            writer._begin_commit()


def test_a_full_disk_and_one_that_is_read_only(folder: Path, tmp_path: Path) -> None:
    files = find_images(folder)
    settings = Settings(pool=8)  # 8 KiB an image, hardly compressible
    with small_disk(tmp_path / "disk", "size=220k") as change:
        output = tmp_path / "disk" / "a.zarr"
        with pytest.raises(OSError, match="No space left") as caught:
            fill(output, files, settings)
        assert caught.value.errno == errno.ENOSPC
        partial = load(output)
        assert 3 < len(partial.files) < 40
        np.testing.assert_array_equal(partial.features[:], expected(partial.files, settings))
        change("size=4m")
        store = extract_to_store(folder, output, settings)
        np.testing.assert_array_equal(store.features[:], expected(files, settings))
        assert not list(output.rglob("*.partial"))

        half_written(output / "manifest" / "manifest.sqlite")
        change("ro")
        for use in (load, lambda path: extract_to_store(folder, path, settings)):
            with pytest.raises(OSError, match=r"a\.zarr'.*(cannot be written here|: Read-only)"):
                use(output)
        change("rw")
        assert len(load(output).files) == 40
        change("ro")
        assert len(load(output).files) == 40
        for path in (output, tmp_path / "disk" / "b.zarr"):
            with pytest.raises(OSError, match=r"cannot write .*: Read-only file system"):
                extract_to_store(folder, path, settings)


def half_written(manifest: Path) -> None:
    """Kill a process in the middle of a transaction, some of which is in the file already."""
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('UPDATE inputs SET reason = hex(zeroblob(999))')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, manifest], check=True)
    assert manifest.with_name("manifest.sqlite-journal").stat().st_size > 0


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs permissions of POSIX")
@pytest.mark.parametrize("part", [".", "manifest", "manifest/lock", "manifest/manifest.sqlite"])
def test_without_permission_to_write(folder: Path, part: str) -> None:
    # Not in tmp_path, which is for its owner alone.
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "a.zarr")
        extract_to_store(folder, output)
        for path in (Path(place), output, *output.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        (output / part).chmod(0o555 if (output / part).is_dir() else 0o444)
        code = (
            "import difflib, os, sys\n"  # difflib: of click, for messages
            "from dtwpt.cli import main\n"
            "from dtwpt.extract import extract_to_store\n"
            "extract_to_store('.', 'warm.zarr')\n"  # another user may not read the modules
            "if os.geteuid() == 0:\n"  # whom nothing stops
            "    os.setgroups([])\n"
            "    os.setgid(65534)\n"
            "    os.setuid(65534)\n"
            "main(['extract', '*', '-o', sys.argv[1]])"
        )
        for image in folder.iterdir():
            shutil.copy(image, place)
        done = subprocess.run(
            [sys.executable, "-c", code, output],
            cwd=place,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == f"dtwpt: cannot write '{output}': Permission denied\n"
        assert done.returncode == 1
        assert len(load(output).files) == 40


def test_a_commit_that_fails_leaves_the_state_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.zarr"

    def full(self: Any, results: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("dtwpt.extract.store.manifest.Manifest.finish", full)
        with pytest.raises(OSError, match="No space left"):
            extract_to_store(folder, output)
    store = load(output)
    assert (store.files, len(store.waiting)) == ([], 40)
    store = extract_to_store(folder, output)
    np.testing.assert_array_equal(store.features[:], expected(store.files))


# Other front doors ------------------------------------------------------------------------------


def test_torch_agrees(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    expected = extract(folder, Settings(depth=3)).features
    for workers in (1, 3):
        store = extract_to_store(
            folder, tmp_path / f"{workers}.zarr", Settings(depth=3), workers=workers, device="cpu"
        )
        assert (store.skipped, store.waiting) == ([], [])
        features = np.asarray(store.features)
        assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
        assert (store.device, "torch" in store.made_by) == ("cpu", True)
    with pytest.raises(ValueError, match="'nonsense' cannot be used"):
        extract(folder, device="nonsense")
    with pytest.raises(ValueError, match="'cuda:77' cannot be used"):
        FeatureExtractor(device="cuda:77")


def test_a_callable_for_other_pipelines(folder: Path) -> None:
    files = find_images(folder)
    settings = Settings(colour="channels", crop=32)
    extractor = pickle.loads(pickle.dumps(FeatureExtractor(settings)))
    expected = extract(folder, settings).features
    batch = {"path": np.array([*files, "nowhere.png"]), "label": np.arange(41)}
    made = extractor(batch)
    assert made["features"][:-1].tobytes() == expected.tobytes()
    assert np.isnan(made["features"][-1]).all()
    assert made["error"].tolist() == [""] * 40 + ["No such file or directory"]
    np.testing.assert_array_equal(made["label"], np.arange(41))
    assert extractor(files[3:5])["features"].tobytes() == expected[3:5].tobytes()
    grey = FeatureExtractor(Settings(pool="none"))
    images = RNG.random((3, 20, 24), dtype=np.float32)
    assert grey(images).shape == (3, 32 * 5 * 6)
    assert grey(["nowhere.png"])["features"].shape == (1, 0)
    for bad, message in (
        ({"file": files}, "a column 'path'"),
        (files[:2], "different sizes"),
        (images[0], r"\(B, H, W\)"),
    ):
        with pytest.raises(ValueError, match=message):
            grey(bad)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        extractor(images)


def test_other_tables(folder: Path, tmp_path: Path) -> None:
    (folder / os.fsdecode(b"\xff\n.png")).write_text("not a picture")
    table = extract(folder, on_error="skip")
    save(table, tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), table.features)
    about = json.loads((tmp_path / "a.npy.json").read_text())
    assert (about["files"], about["feature_names"]) == (table.files, table.feature_names)
    assert os.fsencode(about["skipped"][0]["file"]).endswith(b"\xff\n.png")
    assert about["made_by"] == table.made_by
    parquet = pytest.importorskip("pyarrow.parquet")
    save(table, tmp_path / "a.parquet")
    read = parquet.read_table(tmp_path / "a.parquet")
    assert read.column_names == ["file", *table.feature_names]
    assert read["file"].to_pylist() == table.files
    columns = [read[name].to_numpy() for name in table.feature_names]
    assert np.stack(columns, axis=1).tobytes() == table.features.tobytes()
    settings = json.loads(read.schema.metadata[b"dtwpt"])["settings"]
    assert Settings.from_dict(settings) == table.settings
    assert isinstance(table, FeatureTable)
    assert table.waiting == []
