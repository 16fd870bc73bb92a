"""Three hundred files of the kind that real folders hold: each is right, or named with a reason."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import dtwpt
from dtwpt.colour import LUMA
from dtwpt.extract import FeatureTable, load, read_image
from dtwpt.features import packet_features

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}
FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}
READ = (*FORMATS.values(), "GIF")
LOSSLESS = {"lossless": True, "exact": True}


def encoded(image: Image.Image, suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[suffix], **options)
    return buffer.getvalue()


def hostile(folder: Path) -> None:
    """Write the files, the same ones every time."""
    rng = np.random.default_rng(0)

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    rgb = Image.fromarray(pixels(40, 48, 3))
    for suffix in FORMATS:
        good = encoded(rgb, suffix)
        # Truncated, with changed beginnings, with changes anywhere.
        for number in range(14):
            (folder / f"cut{number:02}.{suffix}").write_bytes(good[: int(len(good) * number / 14)])
        for number in range(18):
            fuzzed = bytearray(good)
            for place in rng.integers(0, min(64, len(good)), 1 + number % 4):
                fuzzed[place] = rng.integers(256)
            (folder / f"head{number:02}.{suffix}").write_bytes(fuzzed)
        for number in range(16):
            fuzzed = bytearray(good)
            for place in rng.integers(0, len(good), 1 + number % 5):
                fuzzed[place] = rng.integers(256)
            (folder / f"fuzz{number:02}.{suffix}").write_bytes(fuzzed)
        # Of another kind than the name says, of odd sizes.
        (folder / f"misnamed.{suffix}").write_bytes(
            encoded(rgb, "bmp" if suffix == "png" else "png")
        )
        for height, width in ((1, 1), (1, 5000), (5000, 1)):
            image = Image.fromarray(pixels(height, width))
            (folder / f"thin{height}x{width}.{suffix}").write_bytes(encoded(image, suffix))
    others: dict[str, bytes] = {
        "empty.png": b"",
        "zeros.jpg": bytes(10_000),
        "text.tif": b"This is not a picture.\n" * 9,
        "deep.png": encoded(Image.fromarray(rng.integers(0, 2**16, (30, 33), np.uint16)), "png"),
        "deep.tif": encoded(Image.fromarray(rng.integers(0, 2**16, (30, 33), np.uint16)), "tif"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "jpg"),
        "cmyk.tif": encoded(rgb.convert("CMYK"), "tif"),
        "palette.png": encoded(rgb.quantize(16), "png", transparency=bytes(range(16))),
        "alpha.png": encoded(Image.fromarray(pixels(30, 33, 4)), "png"),
        "alpha.webp": encoded(Image.fromarray(pixels(30, 33, 4)), "webp", **LOSSLESS),
        "bits.png": encoded(Image.fromarray(pixels(30, 33) > 99), "png"),
        "with space.png": encoded(rgb, "png"),
        "two\nlines.png": encoded(rgb, "png"),
        "naïve-日本.png": encoded(rgb, "png"),
        os.fsdecode(b"not-\xff-text.png"): encoded(rgb, "png"),
        "[x]*?.png": encoded(rgb, "png"),
        "-o.png": encoded(rgb, "png"),
    }
    frames = [Image.fromarray(pixels(20, 24, 3)) for _ in range(3)]
    others["moving.webp"] = encoded(
        frames[0], "webp", save_all=True, append_images=frames[1:], **LOSSLESS
    )
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    others["gif.png"] = gif.getvalue()
    others["ppm.png"] = b"P5 2 2 255\n1234"  # of a format that is not read
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        others[f"turned{orientation}.jpg"] = encoded(rgb, "jpg", exif=exif)
    # A picture of 40,000 x 40,000 pixels that are all the same.
    bomb = bytearray(encoded(Image.new("1", (8, 8)), "png"))
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    others["bomb.png"] = bytes(bomb)
    for name, array in (
        ("plain", pixels(30, 33)),
        ("float", rng.random((30, 33))),
        ("nan", np.full((30, 33), np.nan)),
        ("integers", np.arange(900).reshape(30, 30)),
        ("cube", np.zeros((3, 3, 3, 3))),
        ("objects", np.array([{}, []], dtype=object)),
        ("none", np.zeros((0, 5))),
    ):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        others[f"{name}.npy"] = buffer.getvalue()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    others["vast.npy"] = header.getvalue()
    for name, content in others.items():
        (folder / name).write_bytes(content)
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "pipe.png").symlink_to("pipe")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(encoded(rgb, "png"))
    (folder / "forbidden.png").write_bytes(encoded(rgb, "png"))
    (folder / "forbidden.png").chmod(0)


def pillow(path: str) -> np.ndarray:
    """Decode with Pillow, and make brightness of it as the documentation says."""
    if path.endswith(".tif") and not pillow_reads(Path(path)):
        page = tifffile.imread(path, key=0)  # which knows more of them
        scaled = page / (1 if page.dtype == bool else np.iinfo(page.dtype).max)
        return scaled @ np.asarray(LUMA) if page.ndim == 3 else scaled
    with Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith("I;16"):
            return np.asarray(turned, dtype=np.float64) / 65535
        # Through RGBA, which keeps the colours under transparency.
        colours: np.ndarray = np.asarray(turned.convert("RGBA"))[..., :3] / 255
        return np.asarray(colours @ np.asarray(LUMA))


def pillow_reads(path: Path) -> bool:
    try:
        with Image.open(path, formats=READ) as image:
            image.load()
    except Exception:  # whatever a decoder thinks of
        return False
    return True


# Runs a command and writes down its memory. In between, as a process counts as its own what the one
# that started it held at that moment.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes and links")
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on what it decodes here
def test_hostile_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    hostile(folder)
    names = {str(path) for path in folder.iterdir() if path.name not in ("pipe", "folder.png")}
    names |= {str(folder / "folder.png" / "inside.png")}
    assert len(names) >= 300
    outputs = ["a.npz"]
    if sys.version_info >= (3, 11):
        outputs += ["a.zarr"]
    for output in outputs:
        done = subprocess.run(
            [
                *(sys.executable, "-c", MEASURED, str(tmp_path / "peak")),
                *(sys.executable, "-m", "dtwpt.cli", "extract", "folder", "-o", output),
                *("--on-error", "skip", "--workers", "3", "--report", "report.json"),
            ],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        # In KiB: nothing was unpacked that is larger than it should be.
        assert int((tmp_path / "peak").read_text()) < 1 << 20
        assert all(line.startswith("skipped ") for line in done.stderr.splitlines())
        lines = [json.loads(line) for line in (tmp_path / "report.json").read_text().splitlines()]
        summary = lines.pop()["summary"]
        assert (summary["status"], summary["finished"]) == ("finished", len(names))
        result = load(tmp_path / output)
        assert {str(tmp_path / file) for file in result.files} | {
            str(tmp_path / line["file"]) for line in lines
        } == names
        assert len(result.files) + len(lines) == len(names)
        assert all(line["reason"] and "\n" not in line["reason"] for line in lines)
        assert [(line["file"], line["reason"]) for line in lines] == [
            tuple(skipped) for skipped in sorted(result.skipped, key=lambda s: os.fsencode(s.file))
        ]
        assert {type(result.features[0]), isinstance(result, FeatureTable)} >= {np.ndarray}
        reasons = {os.path.basename(line["file"]): line["reason"] for line in lines}
        for name, reason in (
            ("empty.png", "the file is empty"),
            ("endless.png", "not a regular file"),
            ("pipe.png", "not a regular file"),
            ("dangling.png", "No such file"),
            ("itself.png", "symbolic links"),
            ("bomb.png", "too little data"),
            ("ppm.png", "not an image"),
            ("vast.npy", "not a plain .npy array"),
            ("integers.npy", "dtype int64 is not accepted"),
            ("nan.npy", "contains NaN"),
        ):
            assert reason in reasons[name]
        if os.geteuid() != 0:  # whom nothing stops
            assert "Permission" in reasons["forbidden.png"]
        # Nothing that Pillow reads is left out, and all of it is right.
        for file, features in zip(result.files, result.features, strict=True):
            if file.endswith(".npy"):
                expected = np.load(tmp_path / file) / (255 if "plain" in file else 1)
            else:
                expected = pillow(str(tmp_path / file))
            np.testing.assert_allclose(read_image(tmp_path / file), expected, rtol=0, atol=1e-6)
            made = packet_features(expected.astype(np.float32))
            np.testing.assert_allclose(features, made, rtol=1e-3, atol=1e-5)
        for name, reason in reasons.items():
            if name not in ("forbidden.png", "endless.png", "pipe.png") and name[-3:] != "npy":
                assert not pillow_reads(folder / name), (name, reason)
