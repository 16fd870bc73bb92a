"""Mutated files for every reader of strangers' files: an answer or the documented error, in time.

What is read of a picture is what Pillow, as another decoder, reads, where it reads anything.

Each reader is given ``DTWPT_FUZZ_FILES`` files, which ``DTWPT_FUZZ_SEED`` chooses: the same ones on
every machine.
"""

from __future__ import annotations

import os
import signal
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from dtwpt.extract import (
    FeatureTable,
    ImageError,
    Settings,
    find_images,
    iter_tiles,
    load,
    read_image,
    save,
)
from dtwpt.report import KernelError, load_kernels

FILES = int(os.environ.get("DTWPT_FUZZ_FILES", "200"))
SEED = int(os.environ.get("DTWPT_FUZZ_SEED", "0"))
# Of one file, for a machine that is shared.
LIMIT = 60

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
PICTURES = ["png", "jpg", "bmp", "webp", "gif", "tif"]
PICTURES += ["jp2"] if features.check("jpg_2000") else []
KERNELS = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)


def picture(path: Path) -> None:
    Image.fromarray(PIXELS).save(path)


def tiff(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import tifffile

        if "compression" in options and options["compression"] != "zlib":
            pytest.importorskip("imagecodecs")
        tifffile.imwrite(path, PIXELS, photometric="rgb", **options)

    return write


def dicom(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel = 40, 50, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = PIXELS.tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def archive(path: Path) -> None:
    content = path.with_suffix(".png")
    picture(content)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            made.write(content, "a.png")
    else:
        with tarfile.open(path, "w:gz") as made_:
            made_.add(content, "a.png")


def member_of(path: Path) -> None:
    try:
        files = find_images(path)
    except OSError as error:  # it cannot be read, or there is nothing left in it
        raise ImageError(str(path), str(error)) from error
    for file in files:
        read_image(file)


def as_pillow(path: Path) -> None:
    pixels = read_image(path, "channels")
    try:
        with Image.open(path) as image:
            if image.format == "TIFF" and 262 not in getattr(image, "tag_v2", ()):
                return  # which Pillow inverts
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))[..., :3] / 255
    except Exception:  # whatever a decoder thinks of
        return
    # JPEG in TIFF has another decoder.
    tolerance = 0.02 if path.name == "jpeg.tif" else 1e-6
    np.testing.assert_allclose(pixels, np.moveaxis(expected, -1, 0), rtol=0, atol=tolerance)


def table(path: Path) -> None:
    save(FeatureTable(np.ones((3, 2), np.float32), ["p", "q"], ["a", "b", "c"], Settings()), path)


def torch_file(path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = {"conv1.weight": torch.from_numpy(KERNELS), "bias": torch.ones(4)}
    torch.save(content, path, _use_new_zipfile_serialization=path.suffix == ".pt")


def safetensors(path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    library.save_file({"conv": KERNELS}, path)


def part_of(path: Path) -> None:
    for _ in iter_tiles(path, tile=256, workers=1):
        pass


READERS: list[tuple[str, Callable[[Path], None], Callable[[Path], Any], type[Exception]]] = [
    *((f"a.{kind}", picture, as_pillow, ImageError) for kind in PICTURES),
    ("plain.tif", tiff(), as_pillow, ImageError),
    ("tiled.tif", tiff(tile=(16, 16), compression="zlib"), as_pillow, ImageError),
    ("apart.tif", tiff(tile=(16, 16), compression="zstd"), as_pillow, ImageError),
    ("lzw.tif", tiff(compression="lzw", predictor=True), as_pillow, ImageError),
    ("jpeg.tif", tiff(compression="jpeg", tile=(16, 16)), as_pillow, ImageError),
    ("a.dcm", dicom, read_image, ImageError),
    ("b.npy", lambda path: np.save(path, PIXELS), read_image, ImageError),
    ("b.tif", tiff(tile=(16, 16), compression="zlib"), part_of, ImageError),
    ("c.npy", lambda path: np.save(path, PIXELS), part_of, ImageError),
    *((f"c.{kind}", archive, member_of, ImageError) for kind in ("zip", "tgz")),
    *((f"d.{kind}", table, load, ValueError) for kind in ("npz", "npy", "csv", "parquet")),
    ("e.npy", lambda path: np.save(path, KERNELS), load_kernels, KernelError),
    *((name, torch_file, load_kernels, KernelError) for name in ("e.pt", "e.pth")),
    ("e.safetensors", safetensors, load_kernels, KernelError),
]


def mutated(good: bytes, rng: np.random.Generator) -> bytes:
    content = bytearray(good)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(content) + 1))
        # Mostly in what describes the rest, which stands at the ends.
        if rng.random() < 0.5:
            place = int(rng.choice([place % 200, max(0, len(content) - place % 400)]))
        length = int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << rng.integers(8)
        elif kind == 1:
            content[place : place + length] = rng.bytes(length)
        elif kind == 2:
            content[place : place + length] = bytes([int(rng.choice([0, 127, 128, 255]))]) * length
        elif kind == 3:
            del content[place : place + length]
        else:
            content[place:place] = content[:length]
    return bytes(content)


def too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {LIMIT} s")  # a test failure, as no reader is to raise it


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
@pytest.mark.parametrize(
    ("name", "make", "read", "error"), READERS, ids=[reader[0] for reader in READERS]
)
def test_readers(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    read: Callable[[Path], Any],
    error: type[Exception],
) -> None:
    path = tmp_path / name
    make(path)
    good = path.read_bytes()
    rng = np.random.default_rng(SEED)
    before = signal.signal(signal.SIGALRM, too_long)
    refused = 0
    try:
        for _ in range(FILES):
            path.write_bytes(mutated(good, rng))
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
            except error:
                refused += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    print(f"{name}: {FILES} files, {refused} refused")
    assert refused
