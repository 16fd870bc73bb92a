"""Images wherever they lie: one file has one feature vector, whatever holds it."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import pytest
import tifffile
from PIL import Image

from dtwpt.cli import cli
from dtwpt.extract import (
    FeatureExtractor,
    ImageError,
    Settings,
    extract,
    extract_to_store,
    find_images,
    load,
    read_image,
)
from dtwpt.extract.inputs import Inputs, iterate_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (21, 26, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with one image of each kind that is written here."""
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    (folder / "deep").mkdir(parents=True)
    picture = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.jpg", "b.png", "c.webp", "d.bmp", "e.gif", "deep/f.jp2"):
        options: dict[str, Any] = {"exif": exif} if name in ("a.jpg", "b.png") else {}
        picture.save(folder / name, **options)
    for name, kind in (("g.jfif", "JPEG"), ("h.jpe", "JPEG"), ("bare", "PNG"), ("i.mpo", "JPEG")):
        picture.save(folder / name, kind)
    tifffile.imwrite(folder / "j.tif", PIXELS.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(folder / "k.svs", PIXELS, photometric="rgb", tile=(16, 16))
    np.save(folder / "l.npy", PIXELS)
    for name in ("notes.txt", "deep/more.txt", "README", "run.sh", ".hidden.png"):
        (folder / name).write_text("no image")
    return folder


def packed(kind: str, folder: Path) -> str:
    """Put the files into one that holds them all."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    images = find_images(folder)
    if kind == "zip":
        with zipfile.ZipFile("in.zip", "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
        return "in.zip"
    if kind.startswith("tar"):
        name = f"in.{kind}"
        with tarfile.open(name, "w:gz" if kind == "tar.gz" else "w") as archive_:
            for file in files:
                archive_.add(file, file.relative_to(folder))
        return name
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    contents = [Path(image).read_bytes() for image in images]
    if kind == "parquet":
        table = pyarrow.table({"label": [1] * len(images), "jpeg": pyarrow.array(contents)})
        parquet.write_table(table, "in.parquet", row_group_size=5)
        return "in.parquet"
    rows = [{"bytes": content, "path": None} for content in contents]
    table = pyarrow.table({"image": pyarrow.array(rows), "thumbnail": pyarrow.array(contents)})
    make = pyarrow.ipc.new_file if kind == "feather" else pyarrow.ipc.new_stream
    with make(f"in.{kind}", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return f"in.{kind}"


KINDS = ("zip", "tar", "tar.gz", "parquet", "feather", "arrow")


@pytest.mark.parametrize("kind", KINDS)
def test_archives_and_tables_hold_the_same_images(folder: Path, kind: str) -> None:
    expected = extract(folder)
    container = packed(kind, folder)
    # Rows of tables have numbers, members names.
    order = sorted(range(len(expected.files)), key=lambda n: expected.files[n])
    for where in (container, f"memory://{kind}/{container}"):
        if where != container:
            fsspec = pytest.importorskip("fsspec")
            fsspec.filesystem("memory").pipe(f"/{kind}/{container}", Path(container).read_bytes())
        table = extract(where)
        names = [file.partition("://")[2].rpartition("::")[0] for file in table.files]
        if kind in ("zip", "tar", "tar.gz"):
            kept = [n for n in order if expected.files[n] != "in/bare"]  # without a suffix
            assert sorted(names) == [expected.files[n][3:] for n in kept]
            rows = sorted(range(len(names)), key=lambda n: names[n])
        else:
            kept, rows = order, list(range(len(names)))
            column = "jpeg" if kind == "parquet" else "image"
            assert names == [f"{column}/{n:09}" for n in rows]
        np.testing.assert_array_equal(table.features[rows], expected.features[kept])
        for file, features in zip(table.files, table.features, strict=True):
            np.testing.assert_array_equal(extract(file).features[0], features)
    with pytest.raises(ImageError, match=r"has no (member|row) '?x"):
        extract(f"{table.files[0].partition('://')[0]}://x::{container}")


def test_urls(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put("in", "/somewhere", recursive=True)
    expected = extract(sorted(set(find_images(folder)) - {"in/bare"}))
    left = Inputs(["memory://somewhere"])
    table = extract(left)
    assert [file.replace("memory:///somewhere", "in") for file in table.files] == expected.files
    np.testing.assert_array_equal(table.features, expected.features)
    assert left.left_out == {".txt": 2, ".sh": 1, "": 2}
    assert find_images("memory://somewhere/*.tif") == ["memory:///somewhere/j.tif"]
    for wrong in ("memory://nowhere.png", "nothing-like-that://a.png"):
        try:
            found = find_images(wrong)
        except OSError:
            continue
        with pytest.raises(ImageError):
            read_image(found[0])


def test_a_store_of_members_is_resumed(folder: Path) -> None:
    pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11", exc_type=ImportError)
    archive = packed("zip", folder)
    expected = extract(archive)
    for check in ("time", "hash"):
        store = extract_to_store(["in.zip", os.path.abspath("in.zip")], "a.zarr", check=check)
        # Known by where they are, and called as they were given last.
        names = [file.replace(os.path.abspath("in.zip"), "in.zip") for file in store.files]
        assert sorted(names) == sorted(expected.files)
    order = [expected.files.index(name) for name in names]
    np.testing.assert_array_equal(store.features[:], expected.features[order])
    # Another archive of the same name is done again.
    with zipfile.ZipFile("in.zip", "a") as more:
        more.write(folder / "b.png", "another.png")
    store = extract_to_store("in.zip", "a.zarr")
    assert len(store.files) == len(expected.files) + 1
    with pytest.raises(ValueError, match=r"in\.parquet' is one of the images"):
        cli.main(["extract", packed("parquet", folder), "-o", "in.parquet"], standalone_mode=False)


def test_a_member_that_unpacks_to_too_much(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50_000_000))
    from dtwpt.extract import Limits

    with pytest.raises(ImageError, match="unpacks to 48 MiB"):
        read_image(f"zip://a.png::{tmp_path / 'a.zip'}", limits=Limits(max_memory=1 << 20))
    for name in ("b.zip", "b.tar", "b.parquet", "b.arrow"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 9)
        with pytest.raises(OSError, match=f"cannot read '.*{name}'"):
            find_images(tmp_path / name)


def test_batches_of_the_extractor(folder: Path) -> None:
    files = find_images(folder)[:5]
    expected = extract(files).features
    extractor = FeatureExtractor(Settings())
    contents = [Path(file).read_bytes() for file in files]
    batches: list[Any] = [
        files,
        contents,
        {"path": files},
        {"image": [{"bytes": content, "path": None} for content in contents]},
        {"image": [{"bytes": None, "path": file} for file in files]},
        {"image": [Image.open(io.BytesIO(content)) for content in contents]},
        {"bytes": np.array(contents, dtype=object)},
    ]
    if importlib.util.find_spec("pandas"):
        import pandas

        batches.append(pandas.DataFrame({"path": files, "label": range(5)}))
    if importlib.util.find_spec("pyarrow"):
        import pyarrow

        batches += [pyarrow.table({"image": contents}), pyarrow.array(contents)]
    for batch in batches:
        result = extractor(batch)
        np.testing.assert_array_equal(result["features"], expected)
        assert result["error"].tolist() == [""] * 5
    missing = extractor({"image": [contents[0], None, float("nan"), {"bytes": None, "path": None}]})
    assert missing["error"].tolist() == ["", *3 * ["the row holds no image"]]
    for wrong in ("a.png", b"a.png", 7):
        with pytest.raises(TypeError, match="a batch must be a sequence or columns"):
            extractor(wrong)
    with pytest.raises(ValueError, match="needs a column 'path', 'image', 'bytes', got 'label'"):
        extractor({"label": [1]})


def test_rows_that_hold_paths_alone(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows: list[dict[str, Any]] = [{"bytes": Path("in/b.png").read_bytes(), "path": "b.png"}]
    rows += [{"bytes": None, "path": "in/b.png"}, {"bytes": None, "path": None}]
    parquet.write_table(pyarrow.table({"image": rows}), "in.parquet")
    skipped = extract("in.parquet", on_error="skip").skipped
    reasons = [reason for _, reason in skipped]
    assert reasons[0].startswith("the row holds no image but the path 'in/b.png': store the files'")
    assert reasons[1] == "the row holds no image"


def test_hugging_face_datasets(folder: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="a large package, used where it is there")
    files = find_images(folder)[:4]
    expected = extract(files).features
    images = datasets.Dataset.from_dict({"image": files, "label": [0, 1, 0, 1]})
    for decode in (True, False):
        images = images.cast_column("image", datasets.Image(decode=decode))
        made = images.map(
            FeatureExtractor(), batched=True, batch_size=3, new_fingerprint=f"{decode}"
        )
        np.testing.assert_array_equal(made.with_format("numpy")["features"], expected)
        assert made["error"][:] == [""] * 4


# It leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_shards_of_webdataset(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="used where it is installed")
    files = find_images(folder)[:2]
    expected = extract(files).features
    with webdataset.TarWriter("shard.tar") as writer:
        for number, file in enumerate(files):
            kind = Path(file).suffix[1:]
            writer.write({"__key__": f"{number}", kind: Path(file).read_bytes(), "cls": number})
    np.testing.assert_array_equal(extract("shard.tar").features, expected)
    samples = webdataset.WebDataset("shard.tar", shardshuffle=False).rename(image="jpg;png")
    for batch in (samples.batched(2), samples.decode("pil").batched(2)):
        (columns,) = batch
        np.testing.assert_array_equal(FeatureExtractor()(columns)["features"], expected)


# Folders ----------------------------------------------------------------------------------------


def test_folders_deep_in_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    np.save("a.npy", PIXELS)
    os.chdir(tmp_path)
    try:
        assert find_images("d") == ["/".join(["d"] * 1500 + ["a.npy"])]
    finally:
        Path("/".join(["d"] * 1500), "a.npy").unlink()
        for depth in range(1500, 0, -1):  # not by recursion, as pytest would
            os.rmdir("/".join(["d"] * depth))


@pytest.mark.skipif(os.name == "nt", reason="makes links")
def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in range(9):
        for top in (tmp_path / "in", outside):
            (top / f"f{number}").mkdir(parents=True)
            np.save(top / f"f{number}" / "a.npy", PIXELS)
            for other in range(9):
                (top / f"f{number}" / f"to{other}").symlink_to(top / f"f{other}")
    (tmp_path / "in" / "f5" / "out").symlink_to(outside)
    (tmp_path / "in" / "f7" / "out").symlink_to(outside / "f3")
    found = find_images(tmp_path / "in")
    assert len(found) == len({os.path.realpath(file) for file in found}) == 18
    inner = [str(tmp_path / "in" / f"f{number}" / "a.npy") for number in range(9)]
    assert sorted(file for file in found if "out" not in file) == inner
    for pattern in ("in/**/*.npy", "in/**/**/a*", "**/in/**"):
        assert sorted(find_images(tmp_path / pattern)) == sorted(found), pattern
    some = find_images(tmp_path / "in/**/f[12]/*.npy")
    assert [file for file in some if "out" not in file] == inner[1:3]
    assert len(some) == 4


def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with mock.patch("os.scandir", scandir):
        table = extract("in", on_error="skip")
        assert [tuple(skipped) for skipped in table.skipped] == [("in/deep", "Permission denied")]
        with pytest.raises(ImageError, match="in/deep: Permission denied"):
            extract("in")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_pipes_and_devices_are_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    table = extract("in", on_error="skip")
    assert [tuple(skipped) for skipped in table.skipped] == [
        ("in/loop.png", os.strerror(errno.ELOOP)),
        ("in/pipe.png", "is not a regular file"),
        ("in/zero.png", "is not a regular file"),
    ]


def test_a_folder_that_vanishes_is_left_out(folder: Path) -> None:
    files: Iterator[str] = iterate_images("in")
    first = next(files)
    shutil.rmtree(folder / "deep")
    assert [first, *files] == find_images("in")


# The command ------------------------------------------------------------------------------------


def run(*args: str) -> None:
    cli.main(["extract", *args], standalone_mode=False)


def test_files_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = find_images(folder)
    expected = extract(folder).features
    for content in ("\n".join(files), "\0".join(files) + "\0"):
        Path("list").write_text(content)
        run("--files-from", "list", "-o", "a.npz")
        np.testing.assert_array_equal(np.asarray(load("a.npz").features), expected)
    Path("list").write_text("in/gone.png\nin/*.png\nin/b.png\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["extract", "--files-from", "list", "-o", "a.npz", "--on-error", "skip"])
    assert ended.value.code == 3
    table = load("a.npz")
    assert table.files == ["in/b.png"]
    assert [skipped.file for skipped in table.skipped] == ["in/gone.png", "in/*.png"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"in/l.npy")))
    run("--files-from", "-", "-o", "b.npz")
    assert load("b.npz").files == ["in/l.npy"]
    with pytest.raises(click.UsageError, match="no PATH"):
        run("-o", "c.npz")
    # What is left out of a folder is said.
    capsys.readouterr()
    run("in", "-o", "d.npz")
    said = capsys.readouterr().err
    assert "note: 4 files were left out of folders, not an image by name: 2 .txt, 1 without" in said


def test_options_of_reading(folder: Path) -> None:
    with pytest.raises(ImageError, match="--max-pixels"):
        run("in/b.png", "-o", "a.npz", "--max-pixels", "100")
    np.save("large.npy", np.zeros((600, 600), np.float32))
    with pytest.raises(ImageError, match="--max-memory"):
        run("large.npy", "-o", "a.npz", "--max-memory", "1")
    (folder / "cut.jpg").write_bytes((folder / "g.jfif").read_bytes()[:-2])
    for workers in ("1", "2"):
        run("in/cut.jpg", "in/g.jfif", "-o", "a.npz", "--truncated", "--workers", workers)
        first, second = np.asarray(load("a.npz").features)
        np.testing.assert_array_equal(first, second)
    run("in/j.tif", "-o", "a.npz", "--channel", "1")
    same = extract("in/j.tif", Settings(channel=1))
    np.testing.assert_array_equal(np.asarray(load("a.npz").features), same.features)
    assert load("a.npz").settings.channel == 1
