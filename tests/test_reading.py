"""Image files against Pillow's and tifffile's own decoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, features

from dtwpt import cmod2
from dtwpt.extract import ImageError, Limits, iter_tiles, read_image
from dtwpt.features import packet_features
from tests import raw_images

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


def bad_header() -> bytes:
    data = bytearray(raw_images.png(GREY, 8, 0))
    data[29] ^= 255
    return bytes(data)


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
    "other format": ("a.png", lambda path: Image.fromarray(GREY).save(path, "PPM"), "not an image"),
    "bomb": ("a.png", lambda path: path.write_bytes(png_claiming(60000, 60000)), "too little data"),
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
    "five bands": (
        "a.tif",
        lambda path: tifffile.imwrite(
            path, np.dstack([DEEP] * 5), photometric="minisblack", planarconfig="contig"
        ),
        "choose one (--channel)",
    ),
    "no value": (
        "a.tif",
        lambda path: tifffile.imwrite(
            path, np.where(GREY > 9, FLOAT, -9999), extratags=[(42113, "s", 6, "-9999", True)]
        ),
        "GDAL_NODATA -9999",
    ),
    "raw of a camera": (
        "a.tif",
        lambda path: tifffile.imwrite(path, DEEP, photometric="cfa"),
        "develop it",
    ),
    "canon raw": (
        "a.cr2",
        lambda path: path.write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(99)),
        "develop",
    ),
    "rows without end": (
        "a.tif",
        lambda path: path.write_bytes(raw_images.tiff(GREY, 8, 1, more={257: (4, [4294901800])})),
        "has 1 of the 330377062 pieces",
    ),
    "a strip without end": (
        "a.tif",
        lambda path: path.write_bytes(
            raw_images.tiff(GREY, 8, 1, more={257: (4, [10**8]), 278: (4, [10**8])}, deflate=True)
        ),
        "too little data",
    ),
    "bad checksum": ("a.png", lambda path: path.write_bytes(bad_header()), "cannot be decoded"),
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


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's own, and its warnings, are not used.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", DEEP_RGB, photometric="rgb")
    np.save(tmp_path / "a.npy", RGB)
    count = GREY.size
    for name in ("a.png", "a.tif", "a.npy"):
        read_image(tmp_path / name, limits=Limits(max_pixels=count))
        # An array is as large as its file.
        few = Limits(max_pixels=count - 1)
        if name == "a.npy":
            read_image(tmp_path / name, limits=few)
        else:
            with pytest.raises(ImageError, match=r"--max-pixels"):
                read_image(tmp_path / name, limits=few)
        with pytest.raises(ImageError, match=r"--max-memory"):
            read_image(tmp_path / name, limits=Limits(max_memory=6 * count))
        read_image(tmp_path / name, limits=Limits(max_memory=50 * count))
    with pytest.raises(ValueError, match="max_pixels must be an integer of at least 1"):
        Limits(max_pixels=0)


def test_images_that_break_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG")
    whole, no_end = buffer.getvalue(), buffer.getvalue()[:-2]
    for setting in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", setting)
        with pytest.raises(ImageError, match="truncated"):
            read_image(no_end)
        pixels = read_image(no_end, limits=Limits(truncated=True))
        np.testing.assert_array_equal(pixels, read_image(whole))
        assert ImageFile.LOAD_TRUNCATED_IMAGES is setting
    # Threads that differ do not disturb each other.
    with ThreadPoolExecutor(8) as pool:
        tried = [
            pool.submit(read_image, no_end, limits=Limits(truncated=bool(n % 2)))
            for n in range(200)
        ]
        assert [future.exception() is None for future in tried] == [False, True] * 100
    # What is there of a PNG is right.
    content = raw_images.png(DEEP, 16, 0)
    part = read_image(content[: len(content) // 2], limits=Limits(truncated=True))
    np.testing.assert_allclose(part[:4], DEEP[:4] / 65535, rtol=1e-7)


def test_unknown_colour(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="luma, channels"):
        read_image(tmp_path / "a.png", "gray")


# Metadata ---------------------------------------------------------------------------------------


def exif(orientation: int, *tags: tuple[int, int, int, bytes]) -> bytes:
    entries = sorted([(0x112, 3, 1, struct.pack("<HH", orientation, 0)), *tags])
    body = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


EXIF = {
    "number as text": exif(6, (0x100, 2, 4, b"24\0\0")),
    "ratio as text": exif(6, (0x11A, 2, 4, b"72\0\0")),
    "text as number": exif(6, (0x10F, 11, 1, struct.pack("<f", 1))),
    "negative": exif(6, (0x100, 9, 1, b"\xff\xff\xff\xff")),
    "unknown type": exif(6, (0x100, 99, 1, bytes(4))),
    "far away": exif(6, (0x8769, 4, 1, b"\xff\xff\xff\x7f")),
    "cut off": exif(6)[:-4],
    "garbage": b"Exif\0\0" + bytes(range(250)),
    "no directory": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("case", EXIF)
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP"])
def test_only_the_orientation_is_read_of_exif(case: str, suffix: str) -> None:
    buffer, plain = io.BytesIO(), io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if suffix == "WEBP" else {}
    Image.fromarray(RGB).save(buffer, suffix, exif=EXIF[case], **options)
    Image.fromarray(RGB).save(plain, suffix, **options)
    expected = read_image(plain.getvalue())
    turned = len(EXIF[case]) > 20 and case != "garbage"
    pixels = read_image(buffer.getvalue())
    np.testing.assert_array_equal(pixels, np.rot90(expected, -1) if turned else expected)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt", "iCCP", "many", "bad sum", "xmp", "hex"])
def test_pixels_of_a_png_do_not_depend_on_its_metadata(kind: str) -> None:
    large, small = zlib.compress(bytes(3_000_000)), zlib.compress(bytes(900_000))
    xmp = b'<x tiff:Orientation="6"/>'
    raw = b"\nexif\n  99\n" + exif(6).hex().encode()
    before = {
        "zTXt": raw_images.chunk(b"zTXt", b"workflow\0\0" + large),
        "iTXt": raw_images.chunk(b"iTXt", b"w\0\1\0\0\0" + large),
        "tEXt": raw_images.chunk(b"tEXt", b"w\0" + bytes(3_000_000)),
        "iCCP": raw_images.chunk(b"iCCP", b"icc\0\0" + large),
        "many": raw_images.chunk(b"zTXt", b"w\0\0" + small) * 99,
        "bad sum": raw_images.chunk(b"tEXt", b"w\0x")[:-1] + b"?",
        "xmp": raw_images.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "hex": raw_images.chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
    }[kind]
    pixels = read_image(raw_images.png(GREY, 8, 0, before=before))
    expected = np.rot90(GREY, -1) if kind in ("xmp", "hex") else GREY
    np.testing.assert_allclose(pixels, expected / 255, rtol=1e-6)


# Parts of files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [254, 255])
@pytest.mark.parametrize("below", [False, True])
def test_a_thumbnail_is_not_the_picture(tmp_path: Path, kind: int, below: bool) -> None:
    path = tmp_path / "a.nef"
    with tifffile.TiffWriter(path) as writer:
        old = [(255, "H", 1, 2, True)] if kind == 255 else ()
        small: dict[str, Any] = {"subfiletype": 1} if kind == 254 else {"extratags": old}
        more: dict[str, Any] = {"subifds": 1} if below else {}
        for image, options in ((RGB[::4, ::4], {**small, **more}), (RGB, {})):
            writer.write(image, photometric="rgb", metadata=None, **options)
    np.testing.assert_array_equal(read_image(path), read_image(RGB))
    np.testing.assert_array_equal(read_image(path, page=0), read_image(RGB[::4, ::4]))
    (tile,) = iter_tiles(path)
    np.testing.assert_array_equal(tile.maps, cmod2(read_image(RGB)))


def test_page_level_and_channel(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages = [RGB, RGB[::-1]]
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, photometric="rgb", subifds=2, metadata=None)
            for step in (2, 4):
                writer.write(page[::step, ::step], photometric="rgb", subfiletype=1, metadata=None)
    for number, page in enumerate(pages):
        for level, step in enumerate((1, 2, 4)):
            choice: dict[str, Any] = {"page": number, "level": level, "channel": 1}
            expected = read_image(page[::step, ::step, 1])
            np.testing.assert_array_equal(read_image(path, **choice), expected)
            (tile,) = iter_tiles(path, **choice)
            np.testing.assert_array_equal(tile.maps, cmod2(expected))
    for name, value, count in (("page", 2, 1), ("level", 3, 2), ("channel", 3, 2)):
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(ImageError, match=f"has no {name} {value}, only 0 to {count}"):
            read_image(path, **wrong)
    with pytest.raises(ValueError, match="page must be an integer of at least 0, got -1"):
        read_image(path, page=-1)
    # The levels of a pyramid may follow their page, too, and bands need not be colours.
    bands = RNG.integers(0, 256, (13, 17, 7), dtype=np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2):
            writer.write(
                bands[::step, ::step],
                photometric="minisblack",
                planarconfig="contig",
                subfiletype=int(step > 1),
                metadata=None,
            )
    np.testing.assert_array_equal(
        read_image(path, level=1, channel=6), read_image(np.array(bands[::2, ::2, 6]))
    )
    # Frames of an animation, and photographs in one file.
    frames = [Image.fromarray(np.array(page)) for page in pages]
    for name in ("a.webp", "a.png", "a.mpo"):
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        for number in (0, 1):
            pixels = read_image(tmp_path / name, page=number)
            difference = np.abs(pixels - read_image(np.array(pages[number]))).max()
            assert difference <= (0.6 if name == "a.mpo" else 0), name
        with pytest.raises(ImageError, match="has no page 2, only 0 to 1"):
            read_image(tmp_path / name, page=2)


def test_what_is_given_instead_of_a_path(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif(6))
    expected = read_image(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file, Image.open(tmp_path / "a.png") as image:
        for source in (content, bytearray(content), io.BytesIO(content), file, image):
            np.testing.assert_array_equal(read_image(source), expected)
    np.testing.assert_array_equal(read_image(np.rot90(RGB, -1)), expected)
    with pytest.raises(ImageError, match="the 5 bytes given: not an image"):
        read_image(b"a.png")
    with pytest.raises(TypeError, match="an image must be a path, bytes, a binary file"):
        read_image(7)


# Codecs that need not be there -------------------------------------------------------------------


@pytest.mark.parametrize("size", [(13, 17), (16, 24), (40, 60), (30, 300)])
def test_jpeg_xl(size: tuple[int, int]) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    image = RNG.integers(0, 2**16, (*size, 3), dtype=np.uint16)
    for array in (image, image[..., 0], (image >> 8).astype(np.uint8)):
        content = imagecodecs.jpegxl_encode(array, lossless=True)
        np.testing.assert_array_equal(read_image(content), read_image(np.array(array)))
        count = size[0] * size[1]
        with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels are more than"):
            read_image(content, limits=Limits(max_pixels=count - 1))


@pytest.mark.parametrize("suffix", ["heif", "avif"])
def test_heif_and_avif(suffix: str) -> None:
    buffer = io.BytesIO()
    if suffix == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(RGB).save(buffer, suffix, exif=turned, quality=100)
    with Image.open(buffer) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(buffer.getvalue()), read_image(expected))


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1", "rescaled", "signed", "RGB"])
def test_dicom(tmp_path: Path, kind: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    frames = np.stack([DEEP, DEEP[::-1]]) >> 4
    stored: NDArray[Any] = np.stack([RGB, RGB[::-1]]) if kind == "RGB" else frames
    bits = 8 if kind == "RGB" else 12
    expected = [frame / (2**bits - 1) for frame in stored]
    if kind == "signed":
        stored = (frames.astype(np.int32) - 2048).astype(np.int16)
        expected = list(stored)
    elif kind == "rescaled":
        data.RescaleSlope, data.RescaleIntercept = "2", "-1024"
        expected = [2.0 * frame - 1024 for frame in frames]
    elif kind == "MONOCHROME1":
        expected = [1 - frame for frame in expected]
    elif kind == "RGB":
        expected = [frame @ [0.299, 0.587, 0.114] for frame in expected]
        data.PlanarConfiguration = 0
    data.Rows, data.Columns, data.NumberOfFrames = 13, 17, 2
    data.SamplesPerPixel = 3 if kind == "RGB" else 1
    named = kind in ("RGB", "MONOCHROME1")
    data.PhotometricInterpretation = kind if named else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = (8 if kind == "RGB" else 16), bits, bits - 1
    data.PixelRepresentation = int(kind == "signed")
    data.PixelData = stored.tobytes()
    pydicom.dcmwrite(tmp_path / "a", data, enforce_file_format=True)
    for page in (None, 0, 1):
        pixels = read_image(tmp_path / "a", page=page)
        np.testing.assert_allclose(pixels, expected[page or 0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ImageError, match="has no page 2"):
        read_image(tmp_path / "a", page=2)
    with pytest.raises(ImageError, match="--max-pixels"):
        read_image(tmp_path / "a", limits=Limits(max_pixels=220))


@pytest.mark.parametrize("package", ["imagecodecs", "pydicom", "pillow_heif"])
def test_a_missing_codec_is_named(package: str) -> None:
    content = {
        "imagecodecs": b"\xff\x0a" + bytes(200),
        "pydicom": bytes(128) + b"DICM" + bytes(99),
        "pillow_heif": b"\0\0\0\x18ftypheic" + bytes(99),
    }[package]
    named = package.replace("_", "-")
    with (
        mock.patch.dict("sys.modules", {package: None}),
        pytest.raises(ImageError, match=rf"the package {named}.*pip install \"dtwpt\[codecs\]\""),
    ):
        read_image(content)


# Nothing that happens to a file meanwhile ends the process ----------------------------------------


@pytest.mark.parametrize("suffix", ["bmp", "tif", "png", "npy", "jpg"])
def test_files_are_not_mapped_into_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, GREY)
    else:
        Image.fromarray(GREY).save(path)
    with mock.patch("mmap.mmap", side_effect=AssertionError("mapped")):
        read_image(path)
        if suffix in ("npy", "tif"):
            list(iter_tiles(path))


def test_half_a_megabyte_that_would_take_gigabytes(tmp_path: Path) -> None:
    side = 13_377
    header = raw_images.chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = raw_images.chunk(b"IDAT", bytes(550_000)) + raw_images.chunk(b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + header + body
    assert len(content) < 600_000
    with pytest.raises(ImageError, match=r"needs about \d+ MiB, more than the limit of 1536 MiB"):
        read_image(content)
