"""Image files against Pillow's and tifffile's own decoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dtwpt.extract import ImageError, read_image
from dtwpt.features import packet_features

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (13, 17, 1), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
FLOAT = RNG.normal(size=(13, 17)).astype(np.float32)


def picture(mode: str) -> Image.Image:
    if mode == "P with transparency":
        image = Image.fromarray(RGB).quantize(16)
        image.info["transparency"] = bytes(range(16))
        return image
    if mode == "I;16":
        return Image.fromarray(DEEP)
    if mode == "F":
        return Image.fromarray(FLOAT)
    if mode == "LA":
        return Image.fromarray(np.dstack([GREY, ALPHA]))
    if mode == "RGBA":
        return Image.fromarray(np.dstack([RGB, ALPHA]))
    return Image.fromarray(RGB).convert(mode)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", mode) for mode in ("1", "L", "LA", "P", "P with transparency", "RGB", "RGBA", "I;16")]
    + [("tif", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")]
    + [("jpg", mode) for mode in ("L", "RGB", "CMYK")]
    + [("webp", mode) for mode in ("RGB", "RGBA")]
    + [("bmp", mode) for mode in ("1", "L", "P", "RGB")],
)
def test_pixels_are_those_that_pillow_decodes(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"image.{suffix}"
    options: dict[str, Any] = {"transparency": bytes(range(16))} if "transparency" in mode else {}
    options |= {"lossless": True, "exact": True} if suffix == "webp" else {}
    picture(mode).save(path, **options)
    with Image.open(path) as image:
        if mode in ("I;16", "F"):
            deep = np.asarray(image) / (65535 if mode == "I;16" else 1)
            expected = np.repeat(deep[None], 3, axis=0)
        elif mode in ("LA", "RGBA"):  # transparency is ignored, also where it is full
            expected = np.moveaxis(np.asarray(image)[..., :-1] / 255, -1, 0)
            expected = np.repeat(expected, 4 - len(expected), axis=0)[:3]
        else:
            expected = np.moveaxis(np.asarray(image.convert("RGBA"))[..., :3] / 255, -1, 0)
    channels = read_image(path, "channels")
    assert channels.dtype == np.float32
    assert channels.shape == (3, 13, 17)
    np.testing.assert_allclose(channels, expected, rtol=0, atol=2e-7)

    luma = read_image(path)
    assert luma.dtype == np.float32
    weighted = np.tensordot([0.299, 0.587, 0.114], expected, 1)
    np.testing.assert_allclose(luma, weighted, rtol=0, atol=3e-7)
    if mode == "RGB":
        with Image.open(path) as image:
            pillow = np.asarray(image.convert("L")) / 255
        assert np.abs(luma - pillow).max() <= 0.51 / 255  # which rounds


def test_grey_pixels_give_the_features_of_the_array_itself(tmp_path: Path) -> None:
    for values, name in ((GREY, "grey.png"), (DEEP, "deep.png"), (DEEP, "deep.npy")):
        if name.endswith("npy"):
            np.save(tmp_path / name, values)
        else:
            Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.min() >= 0
        assert image.max() <= 1
        np.testing.assert_array_equal(packet_features(image), packet_features(values))


def test_luma_stays_within_0_and_1(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    luma = read_image(tmp_path / "ramp.png")[0]
    assert luma[0] == 0
    assert luma[-1] == 1
    np.testing.assert_allclose(luma, np.arange(256) / 255, rtol=3e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"planarconfig": "separate"},
        {"compression": "zlib"},
        {"tile": (16, 16)},
        {"extrasamples": ["unassalpha"]},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_colour_tiff_of_16_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = DEEP_RGB
    if "extrasamples" in options:
        pixels = np.dstack([DEEP_RGB, DEEP])
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "deep.tif", pixels, photometric="rgb", **options)
    expected = np.moveaxis(DEEP_RGB / 65535, -1, 0)
    channels = read_image(tmp_path / "deep.tif", "channels")
    np.testing.assert_allclose(channels, expected, rtol=1e-7)


def test_other_deep_tiff(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, DEEP, photometric="miniswhite")
    np.testing.assert_allclose(read_image(path), 1 - DEEP / 65535, atol=1e-7)
    tifffile.imwrite(path, np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(
        read_image(path, "channels"), np.moveaxis(RGB, -1, 0) / 255, atol=1e-7
    )
    tifffile.imwrite(path, np.dstack([FLOAT] * 3), photometric="rgb")
    np.testing.assert_array_equal(read_image(path, "channels"), np.stack([FLOAT] * 3))
    for dtype in (np.float16, np.float64):
        tifffile.imwrite(path, FLOAT.astype(dtype))
        np.testing.assert_array_equal(read_image(path), FLOAT.astype(dtype).astype(np.float32))
    tifffile.imwrite(path, np.stack([DEEP, DEEP // 2]), photometric="minisblack")  # two pages
    np.testing.assert_allclose(read_image(path), DEEP / 65535, rtol=1e-7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.empty(0)
    for name in ("turned.jpg", "turned.png", "turned.webp", "turned.tif", "deep.png"):
        path = tmp_path / name
        image = Image.fromarray(DEEP if name == "deep.png" else RGB)
        image.save(path, exif=exif)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        if name == "deep.png":
            np.testing.assert_allclose(read_image(path), expected / 65535, rtol=1e-7)
        else:
            channels = np.moveaxis(read_image(path, "channels"), 0, -1)
            np.testing.assert_allclose(channels, expected / 255, atol=2e-7)
    # The same picture in a kind of TIFF that is read without Pillow.
    tag = (274, "H", 1, orientation, False)
    tifffile.imwrite(tmp_path / "deep.tif", np.dstack([DEEP] * 3), extratags=[tag])
    np.testing.assert_allclose(read_image(tmp_path / "deep.tif", "channels")[0] * 65535, expected)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY / 255),
        (DEEP.astype(">u2"), DEEP / 65535),
        (GREY > 99, GREY > 99),
        (FLOAT, FLOAT),
        (np.asfortranarray(FLOAT.astype(np.float64)), FLOAT),
        (FLOAT.astype(np.float16), FLOAT.astype(np.float16)),
        (GREY[..., None], GREY / 255),
        (RGB, RGB @ [0.299, 0.587, 0.114] / 255),
        (np.dstack([RGB, ALPHA]), RGB @ [0.299, 0.587, 0.114] / 255),
    ],
)
def test_npy(tmp_path: Path, array: NDArray[Any], expected: NDArray[Any]) -> None:
    np.save(tmp_path / "array.npy", array)
    image = read_image(tmp_path / "array.npy")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=0, atol=3e-7)


def truncated(suffix: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if suffix == "deep.tif":
            tifffile.imwrite(path, DEEP_RGB, photometric="rgb")
        elif suffix == "npy":
            with path.open("wb") as file:
                np.save(file, GREY)
        else:
            Image.fromarray(RGB).save(path, suffix)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])

    return write


def png_claiming(height: int, width: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


NPZ = io.BytesIO()
np.savez(NPZ, GREY)


def saved(array: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, array, allow_pickle=True)

    return write


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("a.png", lambda path: None, "No such file"),
    "folder": ("a.png", Path.mkdir, "folder"),
    "empty": ("a.jpg", Path.touch, "empty"),
    "text": ("a.png", lambda path: path.write_text("not an image"), "not an image"),
    "other format": ("a.png", lambda path: Image.fromarray(GREY).save(path, "GIF"), "not an image"),
    "bomb": ("a.png", lambda path: path.write_bytes(png_claiming(60000, 60000)), "bomb"),
    "truncated jpeg": ("a.jpg", truncated("JPEG"), "truncated"),
    "truncated png": ("a.png", truncated("PNG"), ""),
    "truncated webp": ("a.webp", truncated("WEBP"), ""),
    "truncated bmp": ("a.bmp", truncated("BMP"), "truncated"),
    "truncated tiff": ("a.tif", truncated("TIFF"), ""),
    "truncated deep tiff": ("a.tif", truncated("deep.tif"), "truncated"),
    "broken tiff": ("a.tif", lambda path: path.write_bytes(b"II*\0\x08\0\0\0garbage" * 9), ""),
    "nan tiff": (
        "a.tif",
        lambda path: tifffile.imwrite(path, np.where(GREY > 9, FLOAT, np.nan)),
        "NaN",
    ),
    "int tiff": ("a.tif", lambda path: tifffile.imwrite(path, GREY.astype(np.int32)), "int32"),
    "cmyk": (
        "a.tif",
        lambda path: tifffile.imwrite(
            path, np.stack([DEEP] * 4), photometric="separated", planarconfig="separate"
        ),
        "SEPARATED",
    ),
    "five bands": (
        "a.tif",
        lambda path: tifffile.imwrite(
            path, np.dstack([DEEP] * 5), photometric="minisblack", planarconfig="contig"
        ),
        "is not an image",
    ),
    "truncated npy": ("a.npy", truncated("npy"), ""),
    "not npy": ("a.npy", lambda path: Image.fromarray(GREY).save(path, "PNG"), "not a plain .npy"),
    "npz": ("a.npy", lambda path: path.write_bytes(NPZ.getvalue()), "not a plain .npy"),
    "nan": ("a.npy", saved(np.full((4, 4), np.nan)), "NaN"),
    "infinity": ("a.npy", saved(np.full((4, 4), np.inf, np.float32)), "infinity"),
    "float32 overflow": ("a.npy", saved(np.full((4, 4), 1e300)), "float32"),
    "stack": ("a.npy", saved(np.zeros((5, 4, 4, 3))), "shape"),
    "vector": ("a.npy", saved(np.zeros(5)), "shape"),
    "channels first": ("a.npy", saved(np.zeros((3, 8, 8))), "shape (3, 8, 8)"),
    "no pixels": ("a.npy", saved(np.zeros((0, 4))), ""),
    "complex": ("a.npy", saved(np.zeros((4, 4), np.complex64)), "complex64"),
    "object": ("a.npy", saved(np.full((4, 4), None)), "objects"),
    "int64": ("a.npy", saved(np.zeros((4, 4), np.int64)), "int64"),
    "text array": ("a.npy", saved(np.full((4, 4), "x")), "<U1"),
    "structured": ("a.npy", saved(np.zeros((4, 4), [("x", "u1")])), "dtype"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_the_file_and_the_reason(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name, write, reason = BAD[case]
    path = tmp_path / name
    write(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert reason.lower() in caught.value.reason.lower()
    assert "\n" not in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert capfd.readouterr().err == ""  # the C libraries keep quiet too


def test_limit_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", DEEP_RGB, photometric="rgb")
    np.save(tmp_path / "a.npy", RGB)
    for limit, accepted in ((RGB[..., 0].size - 1, True), (RGB[..., 0].size // 2 - 1, False)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        read_image(tmp_path / "a.npy")
        for name in ("a.png", "a.tif"):
            if accepted:  # where Pillow warns, and warnings are errors here
                read_image(tmp_path / name)
            else:
                with pytest.raises(ImageError, match="bomb"):
                    read_image(tmp_path / name)


def test_unknown_colour(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="luma, channels"):
        read_image(tmp_path / "a.png", "gray")
