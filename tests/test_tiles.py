"""Maps computed tile by tile against those of the whole image."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

import dtwpt
from dtwpt.cli import cli
from dtwpt.extract import ImageError, iter_tiles, read_image, tiles
from dtwpt.extract.images.arrays import open_npy
from dtwpt.extract.maps import partial_path
from dtwpt.extract.store.manifest import StoreWarning
from dtwpt.features import OPERATORS
from tests.strategies import modes, seeds

zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11", exc_type=ImportError)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (700, 2300), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (300, 130, 3), dtype=np.uint8)


def whole(image: NDArray[Any], operator: str = "cmod", **options: Any) -> NDArray[np.float32]:
    maps: NDArray[np.float32] = OPERATORS[operator](image, **options)
    return maps


@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.integers(1, 3),
    modes,
    st.sampled_from(sorted(OPERATORS)),
    st.sampled_from(["qshift_a", "qshift_d"]),
    st.integers(1, 200),
    seeds,
)
def test_tiles_equal_the_whole_image_bit_for_bit(
    size: tuple[int, int],
    depth: int,
    mode: str,
    operator: str,
    wavelet: str,
    tile: int,
    seed: int,
) -> None:
    image = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    options: dict[str, Any] = {"depth": depth, "wavelet": wavelet, "mode": mode}
    expected = whole(image, operator, **options)
    maps = np.full_like(expected, np.nan)
    for place, values in iter_tiles(image, operator=operator, tile=tile, **options):
        assert np.isnan(maps[(..., *place)]).all()  # no place comes twice
        maps[(..., *place)] = values
    np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("mode", ["symmetric", "periodic"])
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_tiles_of_a_file_equal_the_whole_image(tmp_path: Path, mode: str, operator: str) -> None:
    maps = tiles(GREY, tmp_path / "maps.zarr", operator=operator, mode=mode, tile=512)
    assert len(list(iter_tiles(GREY, mode=mode, tile=512))) == 2 * 5
    np.testing.assert_array_equal(maps[...], whole(GREY, operator, mode=mode))


def test_only_what_the_filters_see_is_read() -> None:
    class Watched:
        shape, dtype = (1200, 900), np.dtype(np.uint8)
        seen = 0

        def __getitem__(self, place: tuple[slice, slice]) -> NDArray[np.uint8]:
            pixels: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)[place]
            self.seen = max(self.seen, pixels.size)
            return pixels

    watched = Watched()
    count = sum(1 for _ in iter_tiles(watched, tile=256))
    length = dtwpt.PacketBank(2, "qshift_b").filters.shape[1]
    assert count == 5 * 4
    assert watched.seen == (256 - 4 + length) ** 2


# Sources ----------------------------------------------------------------------------------------


def save(path: Path, image: NDArray[Any], kind: str) -> Path:
    if kind == "npy":
        np.save(path.with_suffix(".npy"), image)
        return path.with_suffix(".npy")
    if kind == "npy by columns":
        np.save(path.with_suffix(".npy"), np.asfortranarray(image))
        return path.with_suffix(".npy")
    if kind.startswith("zarr"):
        array = zarr.create_array(
            path.with_suffix(".zarr"),
            shape=image.shape,
            chunks=(50, image.shape[1] if "wide" in kind else 40, *image.shape[2:]),
            dtype=image.dtype,
            zarr_format=2 if "2" in kind else 3,
        )
        array[...] = image
        return path.with_suffix(".zarr")
    stored: dict[str, dict[str, Any]] = {
        "tiled": {"tile": (32, 48), "compression": "zlib"},
        "striped": {"rowsperstrip": 7, "compression": "zlib"},
        "plain": {},
        "apart": {"tile": (32, 48), "planarconfig": "separate"},
        "big-endian": {"byteorder": ">", "rowsperstrip": 7, "compression": "zlib"},
        "bigtiff": {"bigtiff": True, "tile": (32, 48)},
    }
    if kind == "apart":
        image = np.moveaxis(image, -1, 0)
    photometric = "minisblack" if image.ndim == 2 else "rgb"
    tifffile.imwrite(path.with_suffix(".tif"), image, photometric=photometric, **stored[kind])
    return path.with_suffix(".tif")


KINDS = (
    *("npy", "npy by columns", "zarr 3", "zarr 2", "zarr wide"),
    *("tiled", "striped", "plain", "big-endian", "bigtiff"),
)


@pytest.mark.parametrize("colour", ["luma", "channels"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, dtype) for kind in KINDS for dtype in ("grey", "rgb", "deep rgb", "float32")),
        *(("apart", dtype) for dtype in ("rgb", "deep rgb")),
    ],
)
def test_pixels_are_those_of_read_image(tmp_path: Path, kind: str, dtype: str, colour: str) -> None:
    images: dict[str, NDArray[Any]] = {
        "grey": GREY[:300, :130],
        "rgb": COLOUR,
        "deep rgb": COLOUR.astype(np.uint16) * 257 - (COLOUR > 9),
        "float32": RNG.normal(size=(300, 130)).astype(np.float32),
    }
    image = images[dtype]
    path = save(tmp_path / "image", image, kind)
    if kind.startswith("zarr"):
        np.save(tmp_path / "same.npy", image)
        expected = read_image(tmp_path / "same.npy", colour)
    else:
        expected = read_image(path, colour)
    if dtype == "float32" and colour == "luma":
        np.testing.assert_array_equal(expected, image)
    # Periodic: the far side is read as well.
    maps = tiles(path, tmp_path / "maps.zarr", colour=colour, mode="periodic", tile=64)
    np.testing.assert_array_equal(maps[...], whole(expected, mode="periodic"))


@pytest.mark.parametrize("kind", ["tiled", "striped", "plain", "apart"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_as_its_orientation_says(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(COLOUR, -1, 0) if kind == "apart" else COLOUR,
        photometric="rgb",
        tile=(32, 48) if kind in ("tiled", "apart") else None,
        rowsperstrip=7 if kind == "striped" else None,
        compression=None if kind == "plain" else "zlib",
        planarconfig="separate" if kind == "apart" else None,
        extratags=[(274, "H", 1, orientation, True)],
    )
    with Image.open(path) as picture:
        turned = np.asarray(ImageOps.exif_transpose(picture))
    np.save(tmp_path / "turned.npy", turned)
    image = read_image(tmp_path / "turned.npy")
    maps = tiles(path, tmp_path / "maps.zarr", tile=64)
    assert maps.attrs["size"] == list(image.shape)
    np.testing.assert_array_equal(maps[...], whole(image))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_white_zero(tmp_path: Path, dtype: str) -> None:
    image = (GREY[:60, :64] > 99) if dtype == "bool" else GREY[:60, :64].astype(dtype)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="miniswhite", tile=(16, 16))
    (tile,) = iter_tiles(path)
    np.testing.assert_array_equal(tile.maps, whole(read_image(path)))


def test_arrays_and_maps_of_files_are_sources(tmp_path: Path) -> None:
    expected = whole(GREY)
    np.save(tmp_path / "image.npy", GREY)
    path = save(tmp_path / "image", GREY, "zarr 3")
    for mode in ("r", "c"):
        for source in (np.load(tmp_path / "image.npy", mmap_mode=mode), zarr.open_array(path)):
            for tile in iter_tiles(source, tile=256):
                np.testing.assert_array_equal(tile.maps, expected[(..., *tile.place)])


def test_what_was_changed_in_a_private_map_of_a_file_stays(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", GREY)
    image = np.load(tmp_path / "image.npy", mmap_mode="c")
    image[:200] = 0
    expected = whole(np.array(image))
    for tile in iter_tiles(image, tile=256):
        np.testing.assert_array_equal(tile.maps, expected[(..., *tile.place)])
    assert not image[:200].any()


def damaged(path: Path) -> None:
    image = np.ones((100, 100), np.uint8)
    tifffile.imwrite(path, image, compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[-1]
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(data)


def truncated(path: Path) -> None:
    tifffile.imwrite(path, GREY, compression="zlib", tile=(64, 64))  # the directory comes first
    path.write_bytes(path.read_bytes()[:-5000])


def no_width(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((300, 200), np.uint8))
    data = bytearray(path.read_bytes())
    data[18:22] = bytes(4)
    path.write_bytes(data)


HOSTILE: dict[str, tuple[Any, str]] = {
    "nan.npy": (lambda p: np.save(p, np.array([[0.0, np.nan]])), "contains NaN"),
    "int.npy": (lambda p: np.save(p, np.ones((9, 9), np.int64)), "dtype int64 is not accepted"),
    "3d.npy": (lambda p: np.save(p, np.ones((3, 9, 9))), "is neither"),
    "none.npy": (lambda p: np.save(p, np.ones((0, 9))), "has no pixels"),
    "huge.npy": (lambda p: np.save(p, np.full((9, 9), 3e38)), "too large for float32"),
    "text.npy": (lambda p: p.write_text("no array"), "not a plain .npy array"),
    "missing.tif": (lambda p: None, "No such file"),
    "empty.tif": (lambda p: p.touch(), "is empty"),
    "image.png": (lambda p: Image.fromarray(COLOUR).save(p), "only .npy, Zarr arrays and TIFF"),
    "folder.zarr": (lambda p: p.mkdir(), "not a Zarr array"),
    "group.zarr": (zarr.create_group, "name an array in it"),
    "wide.tif": (no_width, "has no pixels"),
    "damaged.tif": (damaged, "cannot be decoded"),
    "truncated.tif": (truncated, "truncated"),
    "lab.tif": (lambda p: Image.new("LAB", (9, 9)).save(p), "photometric type CIELAB"),
    "volume.tif": (
        lambda p: tifffile.imwrite(
            p, np.ones((16, 32, 32), np.uint8), volumetric=True, tile=(16,) * 3
        ),
        "is not an image",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    make(tmp_path / name)
    with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
        tiles(tmp_path / name, tmp_path / "maps.zarr")
    assert not list(tmp_path.glob("maps*"))


@pytest.mark.parametrize("kind", ["npy", "plain"])
def test_a_file_that_is_cut_off_meanwhile_does_not_end_the_process(
    tmp_path: Path, kind: str
) -> None:
    path = save(tmp_path / "image", RNG.integers(0, 256, (3000, 2500), dtype=np.uint8), kind)
    code = (
        "import os, sys; from dtwpt.extract import tiles\n"
        "def cut_off(done, total):\n"
        "    if done == 1: os.truncate(sys.argv[1], 4096)\n"
        "try: tiles(*sys.argv[1:], tile=256, workers=1, progress=cut_off)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "maps.zarr")],
        env={**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{path}: (the file is truncated|changed while it was read)\n", done.stdout
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 1), (50, 70, 3)])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "<f4", "bool"])
def test_rectangles_of_a_file(
    tmp_path: Path, order: Any, shape: tuple[int, ...], dtype: str
) -> None:
    array = np.asarray(RNG.integers(0, 2, shape).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    with open(tmp_path / "a.npy", "rb", buffering=0) as file:
        stored = open_npy(file)
        for rows in (slice(None), slice(3, 4), slice(7, 50)):
            for columns in (slice(None), slice(0, 9), slice(60, 70)):
                np.testing.assert_array_equal(stored[rows, columns], array[rows, columns])
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.npy", "channels")[0],
        array.reshape(50, 70, -1)[..., 0].astype(np.float32)
        / {"uint8": np.float32(255), ">u2": np.float32(65535)}.get(dtype, np.float32(1)),
    )


def test_a_large_piece_is_not_decoded(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=700)
    with (
        mock.patch("dtwpt.extract.images.sources._MOST_CHUNK_BYTES", 2**20),
        pytest.raises(ImageError, match="store it in tiles"),
    ):
        tiles(tmp_path / "a.tif", tmp_path / "maps.zarr")


def test_a_plane_of_an_ome_zarr_image(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (2, 3, 2, 60, 70), dtype=np.uint8)
    for version, axes in ((2, ["t", "c", "z", "y", "x"]), (3, ["c", "y", "x"])):
        path = tmp_path / f"{version}.zarr"
        group = zarr.create_group(path, zarr_format=version)
        array = image if version == 2 else image[0, :, 0]
        for level in (0, 1):
            part = array[..., :: level + 1, :: level + 1]
            chunks = (*(1,) * (part.ndim - 2), 16, 16)
            group.create_array(str(level), data=part, chunks=chunks)
        scales = [
            {
                "axes": [{"name": axis} for axis in axes],
                "datasets": [{"path": "0"}, {"path": "1"}],
            }
        ]
        group.attrs.update(
            {"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}}
        )
        for page, level, channel in ((None, 0, None), (3, 1, 2) if version == 2 else (None, 1, 2)):
            (tile,) = iter_tiles(path, page=page, level=level, channel=channel)
            t, z = divmod(page or 0, 2)
            plane = np.moveaxis(image[t, :, z, :: level + 1, :: level + 1], 0, -1)
            expected = whole(read_image(np.array(plane), channel=channel))
            np.testing.assert_array_equal(tile.maps, expected)
        with pytest.raises(ImageError, match="has no level 2, only 0 to 1"):
            list(iter_tiles(path, level=2))
        with pytest.raises(ImageError, match="has no page 4, only 0 to"):
            list(iter_tiles(path, page=4))


@pytest.mark.skipif(
    importlib.util.find_spec("imagecodecs") is None, reason="decodes by imagecodecs"
)
@pytest.mark.parametrize("compression", ["jpeg", "lzw", "zstd", "jpeg2000"])
def test_slides(tmp_path: Path, compression: str) -> None:
    image = COLOUR[:160, :128]
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", compression=compression, tile=(64, 64)
    )
    expected = read_image(tmp_path / "a.tif")
    if compression != "jpeg":
        np.testing.assert_array_equal(expected, read_image(np.array(image)))
    else:  # as Pillow has it
        with Image.open(tmp_path / "a.tif") as picture:
            reference = read_image(np.array(picture.convert("RGB")))
        np.testing.assert_allclose(expected, reference, atol=0.01)
    for tile in iter_tiles(tmp_path / "a.tif", tile=64):
        np.testing.assert_array_equal(tile.maps, whole(expected)[(..., *tile.place)])


def test_what_is_masked_is_refused() -> None:
    with pytest.raises(ImageError, match="is masked"):
        list(iter_tiles(np.ma.masked_less(GREY, 3)))


@pytest.mark.parametrize("source", [7, [[1.0]], None])
def test_what_is_neither_path_nor_array_is_refused(tmp_path: Path, source: Any) -> None:
    with pytest.raises(TypeError, match="source must be a path or an array"):
        tiles(source, tmp_path / "maps.zarr")


# The output -------------------------------------------------------------------------------------


def test_the_output_says_what_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "image", COLOUR, "tiled")
    maps = tiles(path, tmp_path / "maps.zarr", depth=3, colour="channels", mode="zero")
    assert maps.shape == (3, 2, 8, 8, 38, 17)
    assert maps.metadata.zarr_format == 3
    assert maps.metadata.dimension_names == (
        *("channel", "sign", "vertical_packet", "horizontal_packet", "row", "column"),
    )
    assert maps.attrs["settings"] == {
        "operator": "cmod",
        "depth": 3,
        "wavelet": "qshift_b",
        "mode": "zero",
        "colour": "channels",
    }
    assert maps.attrs["size"] == [300, 130]
    assert maps.attrs["stride"] == 8
    assert maps.attrs["source"]["path"] == str(path)
    assert maps.attrs["made_by"]["dtwpt"] == dtwpt.__version__
    assert sorted(os.listdir(tmp_path / "maps.zarr")) == ["c", "zarr.json"]


def test_only_maps_are_overwritten_and_only_if_asked_to(tmp_path: Path) -> None:
    output = tmp_path / "maps.zarr"
    tiles(GREY, output)
    with pytest.raises(FileExistsError, match="exists"):
        tiles(255 - GREY, output)
    np.testing.assert_array_equal(zarr.open_array(output)[...], whole(GREY))
    again = tiles(255 - GREY, output, overwrite=True)
    np.testing.assert_array_equal(again[...], whole(255 - GREY))
    assert os.listdir(tmp_path) == ["maps.zarr"]
    for other in ("folder", "other.zarr", "file"):
        path = tmp_path / other
        if other == "file":
            path.write_text("mine")
        elif other == "folder":
            path.mkdir()
        else:
            zarr.create_array(path, shape=(3,), dtype="uint8")
        for overwrite in (False, True):
            with pytest.raises(FileExistsError):
                tiles(GREY, path, overwrite=overwrite)
        assert path.exists()


def test_tiles_of_zeros_are_written_too(tmp_path: Path) -> None:
    maps = tiles(np.zeros((600, 100), np.uint8), tmp_path / "maps.zarr", tile=64)
    assert maps.nchunks_initialized == maps.nchunks
    assert not maps[...].any()


def interrupted(source: Any, output: Path, tiles_done: int, **options: Any) -> None:
    """Break off after some tiles."""

    def stop(done: int, total: int) -> None:
        if done == tiles_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiles(source, output, tile=64, workers=1, progress=stop, **options)
    assert not output.exists()


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = save(tmp_path / "image", COLOUR, "striped")
    output = tmp_path / "maps.zarr"
    interrupted(path, output, 3)
    steps: list[tuple[int, int]] = []
    maps = tiles(path, output, tile=64, progress=lambda *step: steps.append(step))
    np.testing.assert_array_equal(maps[...], whole(read_image(path)))
    assert steps[0][0] >= 3
    assert steps[-1] == (15, 15)
    assert not Path(partial_path(output)).exists()


def test_only_the_same_run_goes_on(tmp_path: Path) -> None:
    path = save(tmp_path / "image", COLOUR, "tiled")
    output = tmp_path / "maps.zarr"
    interrupted(path, output, 3)
    with pytest.raises(FileExistsError, match="begun with another settings"):
        tiles(path, output, tile=64, mode="zero")
    with pytest.raises(FileExistsError, match="begun with another tile"):
        tiles(path, output, tile=200)
    os.utime(path, (0, 0))
    with pytest.raises(FileExistsError, match="begun with another source"):
        tiles(path, output, tile=64)
    maps = tiles(path, output, tile=64, mode="zero", overwrite=True)
    np.testing.assert_array_equal(maps[...], whole(read_image(path), mode="zero"))
    interrupted(COLOUR, tmp_path / "second.zarr", 3)
    with pytest.raises(FileExistsError, match="an image in memory"):
        tiles(COLOUR, tmp_path / "second.zarr", tile=64)


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    path = save(tmp_path / "image", COLOUR, "tiled")
    output = tmp_path / "maps.zarr"
    inside, leave = threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        inside.set()
        leave.wait(600)

    first = threading.Thread(target=tiles, args=(path, output), kwargs={"progress": hold})
    first.start()
    assert inside.wait(600)
    try:
        for overwrite in (False, True):
            with pytest.raises(OSError, match="another process is writing"):
                tiles(path, output, overwrite=overwrite)
    finally:
        leave.set()
        first.join()
    np.testing.assert_array_equal(zarr.open_array(output)[...], whole(read_image(path)))


@pytest.mark.parametrize("kind", ["npy", "tiled", "zarr"])
def test_an_image_that_changes_meanwhile_gives_nothing(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "image", COLOUR, kind)

    def change(done: int, total: int) -> None:
        if done == 3:
            for file in [path, *path.rglob("*")]:
                os.utime(file, (0, 0))

    with pytest.raises(ImageError, match="changed while it was read"):
        tiles(path, tmp_path / "maps.zarr", tile=64, progress=change)
    assert os.listdir(tmp_path) == [path.name]
    assert tiles(path, tmp_path / "maps.zarr", tile=64).shape[-2:] == (75, 33)


@pytest.mark.parametrize("last", ["renamed", "cleared up"])
def test_killed_after_its_last_step_it_has_nothing_left_to_do(
    tmp_path: Path, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = save(tmp_path / "image", COLOUR, "tiled"), tmp_path / "maps.zarr"
    steps: list[tuple[int, int]] = []
    tiles(path, output, tile=64)
    files = {file: file.stat().st_mtime_ns for file in output.rglob("*") if file.is_file()}
    if last == "renamed":
        (output / "tiles-done").write_text("0/0\n")
    maps = tiles(path, output, tile=64, progress=lambda *step: steps.append(step))
    np.testing.assert_array_equal(maps[...], whole(read_image(path)))
    assert steps == [(15, 15)]
    run("extract", path, "-o", output, "--tile", 64)
    said = capsys.readouterr().out
    assert said.endswith(" pixels, 2 x 4 x 4 x 75 x 33, nothing left to do\n")
    now = {file: file.stat().st_mtime_ns for file in output.rglob("*") if file.is_file()}
    assert now == files
    # Something else is not done.
    others: list[tuple[dict[str, Any], str]] = [
        ({"tile": 64, "mode": "zero"}, "settings"),
        ({"tile": 2048}, "tile"),
    ]
    for options, other in others:
        with pytest.raises(FileExistsError, match=f"exists with another {other}"):
            tiles(path, output, **options)
    os.utime(path, (0, 0))
    with pytest.raises(FileExistsError, match="exists with another source"):
        tiles(path, output, tile=64)


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "cut off":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content[{"index": -9, "exchanged": 99, "value": len(content) // 3}[how]] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "cut off", "empty", "index", "value", "exchanged"])
def test_maps_that_lack_tiles_are_completed(tmp_path: Path, how: str) -> None:
    path, output = save(tmp_path / "image", COLOUR, "tiled"), tmp_path / "maps.zarr"
    maps = tiles(path, output, tile=64)
    expected = maps[...]
    first, last = (
        output.joinpath("c", "0", "0", "0", *place) for place in (("0", "0"), ("4", "2"))
    )
    if how == "exchanged":
        content = first.read_bytes()
        first.write_bytes(last.read_bytes())
        last.write_bytes(content)
    else:
        spoil(last, how)
        # No reader of Zarr takes it for values.
        values = np.full((1, 1), np.nan)
        with contextlib.suppress(Exception):  # each of its codecs has its own
            values = maps[:]
        assert np.isnan(values[..., -1, -1]).all()
    steps: list[tuple[int, int]] = []
    with pytest.warns(StoreWarning, match=r"maps\.zarr' lacks [12] of 15 tiles, missing or dam"):
        maps = tiles(
            path,
            output,
            tile=64,
            check="time" if how in ("missing", "cut off", "empty") else "hash",
            progress=lambda *step: steps.append(step),
        )
    assert steps == [(done, 15) for done in range(13 if how == "exchanged" else 14, 16)]
    np.testing.assert_array_equal(maps[...], expected)
    tiles(path, output, tile=64, check="hash")
    assert sorted(os.listdir(tmp_path)) == [path.name, "maps.zarr"]
    assert sorted(os.listdir(output)) == ["c", "zarr.json"]
    # The same of unfinished ones.
    interrupted(path, tmp_path / "second.zarr", 5)
    spoil(tmp_path / "second.zarr.partial" / "c" / "0" / "0" / "0" / "0" / "1", how)
    maps = tiles(path, tmp_path / "second.zarr", tile=64, check="hash")
    np.testing.assert_array_equal(maps[...], expected)


def test_unfinished_maps_outlive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = save(tmp_path / "image", COLOUR, "tiled"), tmp_path / "maps.zarr"
    partial = Path(partial_path(output))
    # What older versions have left, whose metadata were never synced.
    partial.mkdir()
    for name in ("zarr.json", "tiles-done"):
        (partial / name).touch()
    synced: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        if os.path.exists(f"/proc/self/fd/{number}"):
            synced.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    maps = tiles(path, output, tile=64, workers=1)
    np.testing.assert_array_equal(maps[...], whole(read_image(path)))
    if not os.path.isdir("/proc/self/fd"):
        return
    places = [re.sub(r"\.[0-9a-f]{16}\.tmp", "", name) for name in synced]
    shard = str(partial / "c/0/0/0/0/0")
    order = [str(partial / "zarr.json"), str(partial), str(tmp_path), shard]
    order += [str(partial / "c/0/0/0/0"), str(partial / "c"), str(partial), f"{partial}/tiles-done"]
    at = -1
    for name in order:  # each after the one before it
        at = places.index(name, at + 1)
    assert places.count(f"{partial}/tiles-done") == 15
    assert places[-1] == str(tmp_path)


def test_what_killed_runs_leave_is_cleared_and_found_again(tmp_path: Path) -> None:
    path, output = save(tmp_path / "image", COLOUR, "tiled"), tmp_path / "maps.zarr"
    tiles(path, output)
    files = sorted(output.rglob("*"))
    # Killed between two renames, and then the new ones removed.
    output.rename(f"{output}.0123456789abcdef.tmp")
    tiles(path, output)
    assert sorted(output.rglob("*")) == files
    rubbish = [Path(f"{name}.0123456789abcdef.tmp") for name in (output, partial_path(output))]
    for folder in rubbish:
        (folder / "c").mkdir(parents=True)
    mine = Path(f"{output}.mine.tmp")
    mine.mkdir()
    tiles(path, output, overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted([path, output, mine])


def test_the_image_is_never_in_what_is_replaced(tmp_path: Path) -> None:
    path, output = save(tmp_path / "image", COLOUR, "tiled"), tmp_path / "maps.zarr"
    tiles(path, output)
    inside = output / "c" / "image.tif"
    path.rename(inside)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is in the output"):
            tiles(inside, output, overwrite=overwrite)
    assert inside.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (3000, 4500), dtype=np.uint8)
    path, output = save(tmp_path / "image", image, "npy"), tmp_path / "maps.zarr"
    code = (
        "import sys; from dtwpt.extract import tiles;"
        # After each tile it waits to be told to go on: it is never done before it is killed.
        "go_on = lambda *n: print(*n, flush=True) or sys.stdin.readline();"
        "tiles(sys.argv[1], sys.argv[2], tile=256, progress=go_on)"
    )
    command = [sys.executable, "-c", code, str(path), str(output)]
    seen = -1
    for kill in range(4):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            first = int(process.stdout.readline().split()[0])
            assert first >= seen  # nothing that was done is done again
            for step in range(4):
                process.stdin.write("\n")
                process.stdin.flush()
                if step < 3:
                    seen = int(process.stdout.readline().split()[0])
            time.sleep(0.01 * kill)
            process.kill()
        assert not output.exists()
        # A tile that was being written, and a list cut off.
        with open(Path(partial_path(output), "tiles-done"), "a", encoding="ascii") as done:
            done.write("7/")
    maps = tiles(path, output, tile=256)
    np.testing.assert_array_equal(maps[...], whole(image))


# The command ------------------------------------------------------------------------------------


def run(*args: Any) -> None:
    cli.main([str(arg) for arg in args], standalone_mode=False)


def test_the_command_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "image", COLOUR, "tiled")
    output = tmp_path / "maps.zarr"
    run("extract", path, "-o", output, "--tile", 2048, "--operator", "rmax", "--depth", 3)
    assert "maps of 300x130 pixels, 2 x 8 x 8 x 38 x 17" in capsys.readouterr().out
    expected = whole(read_image(path), "rmax", depth=3)
    np.testing.assert_array_equal(zarr.open_array(output)[...], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.npy", "b.npy", "-o", "maps.zarr"], "for one image, got 2"),
        (["a.npy", "-o", "maps.npz"], r"must be named \*.zarr"),
        (["a.npy", "-o", "maps.zarr", "--pool", "4"], "--pool does not go with --tile"),
        (["a.npy", "-o", "maps.zarr", "--restart"], "--restart does not go with --tile"),
        (["a.npy", "-o", "maps.zarr", "--crop", "4"], "--crop does not go with --tile"),
        (["a.npy", "-o", "maps.zarr", "--resize", "4"], "--resize does not go with --tile"),
        (["missing.npy", "-o", "maps.zarr"], "no such file"),
        (["a.npy", "-o", "nowhere/maps.zarr"], "folder of the output does not exist"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.npy", "b.npy"):
        np.save(name, GREY[:64, :64])
    with pytest.raises((ValueError, OSError, click.UsageError), match=message):
        run("extract", *options, "--tile", "64")
    assert sorted(os.listdir()) == ["a.npy", "b.npy"]


def test_attributes_of_maps_that_were_changed_are_noticed(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    image, output = tmp_path / "a.npy", tmp_path / "a.zarr"
    np.save(image, np.random.default_rng(0).random((64, 80)))
    for stage in ("complete", "unfinished"):
        tiles(image, output)
        if stage == "unfinished":
            (output / "tiles-done").touch()
            output.rename(tmp_path / "a.zarr.partial")
        metadata = next(tmp_path.glob("a.zarr*")) / "zarr.json"
        good = metadata.read_text()
        metadata.write_text(good.replace('"stride": 4', '"stride": 8'))
        with pytest.raises(ValueError, match="is damaged: its attributes have been changed"):
            tiles(image, output)
        # Those of other people do no harm.
        metadata.write_text(good.replace('"stride": 4', '"stride": 4, "theirs": 1'))
        tiles(image, output)
