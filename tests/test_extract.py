"""From paths to a table of features: which files, which values, which file."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tqdm.auto
from PIL import Image

from dtwpt.extract import (
    FeatureTable,
    ImageError,
    Settings,
    Skipped,
    extract,
    extract_to_store,
    find_images,
    load,
    load_settings,
    read_image,
    save,
    tiles,
)
from dtwpt.extract.atomic import replacing
from dtwpt.extract.images.reading import centre_crop, resize
from dtwpt.features import packet_feature_names, packet_features

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Colour images of several sizes in files of several kinds."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(21):
        pixels = RNG.integers(0, 256, (40 + number % 5, 36 + number % 3, 3), dtype=np.uint8)
        if number % 7 == 0:
            np.save(folder / f"{number:02}.npy", pixels)
        else:
            Image.fromarray(pixels).save(folder / f"{number:02}.{('png', 'jpg')[number % 2]}")
    return folder


# Which files ------------------------------------------------------------------------------------


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        *("b.PNG", "a.jpeg", "sub/c.tif", "sub/deeper/d.webp", "with space/é\n.png", "[x].bmp"),
        *(".hidden.png", "sub/.trash/e.png", "notes.txt", "odd"),
    ]
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in/with space/loop").symlink_to(tmp_path / "in")  # must not loop forever
    (tmp_path / "in/twin").symlink_to(tmp_path / "in/sub/deeper")  # found under its own name
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/f.gif").touch()
    (tmp_path / "in/through").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere.png")
    everything = [
        f"in/{name}"
        for name in (
            *("[x].bmp", "a.jpeg", "b.PNG", "gone.png", "sub/c.tif", "sub/deeper/d.webp"),
            *("through/f.gif", "with space/é\n.png"),
        )
    ]
    assert find_images("in") == everything
    assert find_images(Path("in/sub")) == ["in/sub/c.tif", "in/sub/deeper/d.webp"]
    assert find_images(["in/odd", "in/sub", "./in/sub/c.tif", "in/b.PNG", "in/odd"]) == [
        *("in/odd", "in/sub/c.tif", "in/sub/deeper/d.webp", "in/b.PNG")
    ]
    assert find_images("in/[x].bmp") == ["in/[x].bmp"]  # it exists: not a pattern
    assert find_images("in/[a-b].*") == ["in/a.jpeg", "in/b.PNG"]
    assert find_images("in/s*") == ["in/sub/c.tif", "in/sub/deeper/d.webp"]
    assert find_images("in/sub/d*/**/*.webp") == ["in/sub/deeper/d.webp"]
    assert find_images("in/sub/.trash/*") == ["in/sub/.trash/e.png"]
    missing: list[str | list[str]] = ["in/x.png", "in/*.gif", []]
    for paths in missing:
        with pytest.raises(FileNotFoundError):
            find_images(paths)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in folder 'empty'"):
        find_images(["in", "empty"])


# Which values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"operator": "rmax", "depth": 1, "wavelet": "qshift_a", "mode": "periodic", "pool": (2, 3)},
        {"colour": "channels", "pool": 2},
        {"resize": 32, "crop": (24, 28), "pool": "none", "colour": "channels"},
        {"colour": "channels", "depth": (1, 2), "pool": ("mean", "std", "max")},
    ],
    ids=str,
)
def test_features_are_those_of_the_library_in_any_number_of_processes(
    folder: Path, options: dict[str, Any]
) -> None:
    settings = Settings(**options)
    calls: list[tuple[int, int]] = []
    table = extract(folder, settings, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 21) for done in range(22)]
    assert table.files == find_images(folder)
    assert table.features.dtype == np.float32
    assert table.settings == settings
    arguments: Any = {
        name: getattr(settings, name) for name in ("depth", "wavelet", "operator", "pool")
    }
    mode: Any = {"mode": settings.mode}
    for file, row in zip(table.files, table.features, strict=True):
        image = read_image(file, settings.colour)
        if settings.resize is not None and settings.crop is not None:
            image = centre_crop(resize(image, settings.resize), settings.crop)
        expected = packet_features(image, **arguments, **mode)
        # The last bits depend on the number of threads, which here is not limited.
        np.testing.assert_allclose(row, expected.ravel(), rtol=1e-4, atol=1e-6)
    names = packet_feature_names((24, 28), **arguments)
    prefixes = ["red_", "green_", "blue_"] if settings.colour == "channels" else [""]
    assert table.feature_names == [prefix + name for prefix in prefixes for name in names]

    # The same bits in several processes, and alone.
    parallel = extract(folder, settings, workers=3)
    assert parallel.files == table.files
    assert parallel.features.tobytes() == table.features.tobytes()
    alone = extract(table.files[7], settings)
    assert alone.features.tobytes() == table.features[7].tobytes()


def test_a_bar_shows_how_far_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that tqdm has for the place: in Jupyter, a widget."""
    pytest.importorskip("zarr")
    closed: list[tuple[Any, ...]] = []

    class Bar(tqdm.auto.tqdm):  # type: ignore[misc]
        def close(self) -> None:
            if not self.disable:
                closed.append((self.unit, self.initial, self.n, self.total))
            super().close()

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    extract(folder, progress=True)
    extract_to_store(find_images(folder)[:4], tmp_path / "a.zarr", progress=True)
    extract_to_store(folder, tmp_path / "a.zarr", progress=True)
    tiles(np.zeros((80, 70)), tmp_path / "maps.zarr", tile=40, progress=True)
    assert closed == [
        *(("image", 0, 21, 21), ("image", 0, 4, 4), ("image", 4, 21, 21)),
        ("tile", 0, 4, 4),
    ]
    extract(folder, progress=False)
    with pytest.raises(ImageError):
        extract(folder, Settings(crop=100), progress=True)
    assert closed[4:] == [("image", 0, 0, 21)]


def test_resize_and_crop(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (30, 50), dtype=np.uint8)
    image = (pixels / np.float32(255)).astype(np.float32)
    for size, expected in ((15, (15, 25)), (60, (60, 100)), ((20, 21), (20, 21)), (7, (7, 12))):
        resized = resize(image, size)
        pillow = Image.fromarray(pixels).resize(expected[::-1], Image.Resampling.BILINEAR)
        assert resized.shape == expected
        assert np.abs(resized - np.asarray(pillow) / 255).max() < 1.1 / 255  # which rounds twice
    stack = resize(np.stack([image, image[::-1]]), 15)
    np.testing.assert_array_equal(stack[1], resize(image[::-1], 15))
    np.testing.assert_array_equal(centre_crop(stack, (11, 25)), stack[:, 2:13])
    with pytest.raises(ValueError, match="30x50 is smaller than the crop of 31x31"):
        centre_crop(image, 31)


def test_stops_at_the_first_bad_file_or_skips_it(folder: Path) -> None:
    (folder / "05.jpg").write_text("not a picture")
    (folder / "17.jpg").write_bytes((folder / "17.jpg").read_bytes()[:600])
    good = [file for file in find_images(folder) if file[-6:-4] not in ("05", "17")]
    for workers in (1, 2):
        with pytest.raises(ImageError, match=r"05\.jpg: not an image"):
            extract(folder, workers=workers)
        table = extract(folder, workers=workers, on_error="skip")
        assert table.files == good
        assert [os.path.basename(file) for file, _ in table.skipped] == ["05.jpg", "17.jpg"]
        assert "truncated" in table.skipped[1].reason.lower()
        np.testing.assert_array_equal(table.features, extract(good).features)
        with pytest.raises(ImageError, match=r"05\.jpg: not an image"):
            extract([folder / "05.jpg", folder / "17.jpg"], workers=workers, on_error="skip")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pool": 12}, "pool has 12 rows, more than the 10 rows"),
        ({"crop": 41}, "smaller than the crop"),
        ({"resize": 200000}, "200000"),
        ({"pool": "none"}, "resize or crop"),
    ],
)
def test_settings_that_do_not_fit_an_image(
    folder: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        extract(folder, Settings(**options))
    assert caught.value.path.startswith(str(folder))


def test_features_beyond_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.where(np.eye(32), 1e38, -1e38))
    with pytest.raises(ImageError, match="too large for float32"):
        extract(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Settings(operator="abs"), "cmod, rmax"),
        (lambda: Settings(depth=0), "depth"),
        (lambda: Settings(depth=1.5), "depth"),  # type: ignore[arg-type]
        (lambda: Settings(wavelet="haar"), "qshift_b"),
        (lambda: Settings(wavelet=3), "wavelet"),  # type: ignore[arg-type]
        (lambda: Settings(mode="wrap"), "symmetric"),
        (lambda: Settings(colour="grey"), "luma, channels"),
        (lambda: Settings(resize=0), "resize"),
        (lambda: Settings(crop=(3, -1)), "crop"),
        (lambda: Settings(crop=(3, 4, 5)), "crop"),  # type: ignore[arg-type]
        (lambda: Settings(pool="median"), "pool"),
        (lambda: Settings(depth=(2, 2)), "depth"),
        (lambda: Settings(pool=0), "pool"),
        (lambda: extract(".", workers=0), "workers"),
        (lambda: extract(".", on_error="ignore"), "stop, skip"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize(
    "pool", ["mean", "none", "std", 3, (2, 3), ("mean", "max"), ("std", 2), ("std", "max", (2, 3))]
)
def test_settings_come_back_from_json(pool: Any) -> None:
    for depth in (2, (3, 1)):
        settings = Settings(depth=depth, pool=pool, colour="channels")
        stored = settings.to_dict()
        assert stored["pool"] == json.loads(json.dumps(pool))  # as before there were statistics
        again = Settings.from_dict(json.loads(json.dumps(stored)))
        assert again == settings
        assert hash(again) == hash(settings)
        for size in ((7, 9), (32, 1)):
            assert settings.count(size) == len(set(settings.names(size)))
    assert Settings(pool=("max", "mean"), depth=[2]) == Settings(pool=["mean", "max"])  # type: ignore[arg-type]


# Which file -------------------------------------------------------------------------------------


def table(**changes: Any) -> FeatureTable:
    values: dict[str, Any] = {
        "features": np.arange(6, dtype=np.float32).reshape(3, 2),
        "feature_names": ["p", "q"],
        "files": ["a b.png", "new\nline/é.jpg", os.fsdecode(b"not-utf8-\xff.png")],
        "settings": Settings(crop=(3, 4), pool="none"),
        "skipped": [Skipped("bad.png", "the file is empty")],
    }
    return FeatureTable(**{**values, **changes})


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    for saved in (table(), table(skipped=[], settings=Settings(resize=9))):
        save(saved, path)
        loaded = load(path)
        assert isinstance(loaded, FeatureTable)
        np.testing.assert_array_equal(loaded.features, saved.features)
        for name in ("feature_names", "files", "settings", "skipped", "made_by"):
            assert getattr(loaded, name) == getattr(saved, name)
        assert load_settings(path) == (saved.settings, saved.made_by)
        with np.load(path, allow_pickle=False) as arrays:
            assert set(arrays) == {
                *("features", "feature_names", "files", "settings", "skipped", "skipped_reasons")
            }
            settings = json.loads(str(arrays["settings"]))
        assert settings["made_by"]["dtwpt"]
    content = path.read_bytes()
    save(saved, path)
    assert path.read_bytes() == content
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # as the umask says
    (tmp_path / "other").unlink()
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.npz"]


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".parquet"])
@pytest.mark.parametrize("labels", [None, ["cat", "", "dög, big"]])
def test_every_table_comes_back(tmp_path: Path, suffix: str, labels: list[str] | None) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    odd = np.array([[1 / 3, 1e-45], [-0.0, 3.4028235e38], [16777217, 5e-324]], np.float32)
    saved = table(features=odd, labels=labels, files=["a b.png", "new\nline/é.jpg", 'c",.png'])
    save(saved, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert isinstance(loaded, FeatureTable)
    assert loaded.features.tobytes() == odd.tobytes()
    for name in ("feature_names", "files", "labels", "settings", "skipped", "made_by"):
        assert getattr(loaded, name) == getattr(saved, name)
    if suffix == ".csv":
        pandas = pytest.importorskip("pandas")
        read = pandas.read_csv(tmp_path / "a.csv", keep_default_na=False, dtype={"p": np.float32})
        assert list(read["file"]) == saved.files
        assert labels is None or list(read["label"]) == labels


def test_one_long_name_does_not_make_all_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtwpt.extract.files._MOST_BYTES", 1000)
    saved = table(files=["é" * 3000, os.fsdecode(b"\xff"), "c"])
    save(saved, tmp_path / "a.npz")
    assert os.path.getsize(tmp_path / "a.npz") < 4 * 3 * 3000 / 3
    assert load(tmp_path / "a.npz").files == saved.files


def test_rows_by_name_and_other_packages_tables() -> None:
    labelled = table(labels=["x", "y", "x"])
    for name in ("a b.png", "./a b.png", "x/../a b.png", Path("a b.png").absolute()):
        assert labelled.row(name).tolist() == [0, 1]
    with pytest.raises(KeyError, match=r"no features of 'b\.png'"):
        labelled.row("b.png")
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = labelled.to_pandas()
    assert frame.columns.tolist() == ["label", "p", "q"]
    assert frame.loc["a b.png"].tolist() == ["x", 0, 1]
    assert labelled.to_arrow().to_pandas().set_index("file").equals(frame)


def test_a_link_and_the_permissions_of_the_output_stay(tmp_path: Path) -> None:
    target = tmp_path / "target.npz"
    save(table(), target)
    target.chmod(0o640)
    (tmp_path / "link.npz").symlink_to(target)
    save(table(files=["x", "y", "z"]), tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert load(target).files == ["x", "y", "z"]


def test_a_failure_leaves_the_old_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "features.npz"
    save(table(), path)
    before = path.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        args[0].write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        save(table(files=["x", "y", "z"]), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.npz"]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    for path, error in (
        ("features.txt", ValueError),
        ("folder.npz", IsADirectoryError),
        ("pipe.npz", OSError),
        ("missing/features.npz", FileNotFoundError),
        (f"{'x' * 250}/features.npz", OSError),
    ):
        with pytest.raises(error, match="output"):
            save(table(), tmp_path / path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
        lambda path: path.write_text("text"),
        lambda path: np.savez(path, features=np.zeros(3)),
        lambda path: np.savez(path, settings=np.array("no json")),
        lambda path: np.savez(path, settings=np.array("[]")),
        lambda path: np.savez(path, settings=np.full(1, None)),
    ],
)
def test_load_refuses_other_files(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    path = tmp_path / "other.npz"
    write(path)
    for read in (load, load_settings):
        with pytest.raises(ValueError, match="is not a file of features"):
            read(path)


def spoiled(name: str, content: bytes, tmp_path: Path) -> bytes:
    """Return a table that is damaged in some way."""
    output = tmp_path / "spoiled.npz"
    if name == "bomb":
        np.savez_compressed(
            output, **{**dict(np.load(tmp_path / "good.npz")), "files": "x" * 10**7}
        )
        return output.read_bytes()
    if name in ("rows", "names", "reasons"):
        key = {"rows": "files", "names": "feature_names", "reasons": "skipped_reasons"}[name]
        arrays = dict(np.load(tmp_path / "good.npz"))
        np.savez(output, **{**arrays, key: np.append(arrays[key], "one more")})
        return output.read_bytes()
    damaged = bytearray(content)
    place = content.index(b"PK\x01\x02") + {"method": 10, "encrypted": 8}[name]
    damaged[place] = {"method": 99, "encrypted": 1}[name]
    return bytes(damaged)


@pytest.mark.parametrize("how", ["bomb", "rows", "names", "reasons", "method", "encrypted"])
def test_a_damaged_table_is_a_value_error(tmp_path: Path, how: str) -> None:
    save(table(), tmp_path / "good.npz")
    path = tmp_path / "bad.npz"
    path.write_bytes(spoiled(how, (tmp_path / "good.npz").read_bytes(), tmp_path))
    with pytest.raises(ValueError, match=r"bad\.npz' is not a file of features"):
        load(path)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.npy.json", "a.csv", "a.parquet"])
def test_flipped_bits_of_a_table_never_change_it(tmp_path: Path, name: str) -> None:
    output = tmp_path / name.removesuffix(".json")
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    save(table(), output)
    good, expected = (tmp_path / name).read_bytes(), load(output)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(good), size=300):
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.integers(8)
        (tmp_path / name).write_bytes(flipped)
        for read in (load, load_settings):
            with contextlib.suppress(ValueError):
                found = read(output)
                if isinstance(found, FeatureTable):
                    np.testing.assert_array_equal(found.features, expected.features)
                    assert (found.files, found.skipped) == (expected.files, expected.skipped)
                    found = (found.settings, found.made_by)
                assert found == (expected.settings, expected.made_by)


def test_a_matrix_and_what_stands_beside_it_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.npy"
    save(table(), output)
    loaded = load(output)
    np.testing.assert_array_equal(loaded.features, np.load(output))
    assert (loaded.files, loaded.skipped) == (table().files, table().skipped)
    assert load_settings(output) == (loaded.settings, loaded.made_by)
    # Killed between the two renames, each of which is in its place.
    real, calls = os.replace, []

    def replace(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            save(table(features=np.ones((3, 2), np.float32)), output)
    with pytest.raises(
        ValueError, match=r"a\.npy' is damaged, or from another run than .*a\.npy\.json'"
    ):
        load(output)
    (tmp_path / "a.npy.json").unlink()
    for read in (load, load_settings):
        with pytest.raises(ValueError, match=r"a\.npy' lacks .*a\.npy\.json'"):
            read(output)
        with pytest.raises(FileNotFoundError, match=r"b\.npy"):
            read(tmp_path / "b.npy")


def test_a_table_outlives_kills_and_power_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rubbish = tmp_path / ".dtwpt-0123456789abcdef.tmp"
    rubbish.write_bytes(b"half")
    synced: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(os.fstat(number).st_ino)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "other.npz") as other:  # at work on it, it is no rubbish
        save(table(), tmp_path / "a.npz")
        other.write(b"x")
        assert synced == [(tmp_path / "a.npz").stat().st_ino, tmp_path.stat().st_ino]
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "other.npz"]


def test_settings_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    newer = {**Settings().to_dict(), "twist": 3, "made_by": {"dtwpt": "9"}}
    np.savez(tmp_path / "newer.npz", settings=np.array(json.dumps(newer)))
    with pytest.raises(ValueError, match="unknown setting twist"):
        load_settings(tmp_path / "newer.npz")
