"""Every row of the table of pixel values in the documentation, against values known beforehand."""

from __future__ import annotations

import csv
import importlib.util
import itertools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from dtwpt.extract import ImageError, read_image
from dtwpt.extract.images.sources import open_source
from tests import raw_images

TABLE = Path(__file__).parents[1] / "docs" / "pixel-values.csv"
RNG = np.random.default_rng(0)
SHAPE = (11, 13)
HAS_CODECS = importlib.util.find_spec("imagecodecs") is not None


class Cell(NamedTuple):
    """A row of the table."""

    format: str
    samples: str
    bits: str
    alpha: str
    photometric: str
    value: str

    @property
    def channels(self) -> int:
        kind = self.photometric
        colours = {"RGB": 3, "CMYK": 4}.get(kind, 1)
        if kind.startswith("missing ("):
            return int(kind[9])
        return colours + (self.alpha != "none")

    @property
    def packed(self) -> bool:
        """Whether the samples of a TIFF need a package to be taken apart."""
        return self.format == "TIFF" and int(self.bits) not in (1, 8, 16, 32, 64)


CELLS = [Cell(*row) for row in csv.reader(TABLE.read_text().splitlines()[1:])]


def stored(cell: Cell) -> NDArray[Any]:
    """Return samples of all values that there are, as far as there is room."""
    bits = int(cell.bits)
    shape = SHAPE if cell.channels == 1 else (*SHAPE, cell.channels)
    if cell.samples == "bool":
        return np.asarray(RNG.integers(0, 2, shape) > 0)
    if cell.samples == "float":
        return np.asarray(RNG.normal(0, 9, shape).astype(f"f{bits // 8}"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if cell.samples == "signed" else (0, 2**bits)
    values = RNG.integers(low, high, shape)
    values.flat[: 2 * cell.channels] = [low] * cell.channels + [high - 1] * cell.channels
    kind = "i" if cell.samples == "signed" else "u"
    return np.asarray(values.astype(f"{kind}{-(-bits // 8)}"))


PALETTE = RNG.integers(0, 65536, (3, 256))


def expected(cell: Cell, array: NDArray[Any]) -> NDArray[np.float64]:
    """Return red, green and blue."""
    if cell.photometric == "palette":
        return np.asarray(PALETTE[:, array] // 256 / 255)
    values = np.atleast_3d(array).astype(np.float64)
    if cell.photometric == "CMYK":
        inks = values // 256 if cell.bits == "16" else values
        colours = np.round((255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255) / 255
        return np.moveaxis(colours, -1, 0)
    colours = np.moveaxis(values, -1, 0)[: 3 if cell.channels > 2 else 1]
    top = 2 ** int(cell.bits) - 1
    known = {
        "v": colours,
        "v / (2^bits - 1)": colours / top,
        "1 - v / (2^bits - 1)": 1 - colours / top,
    }
    return np.broadcast_to(known[cell.value], (3, *SHAPE))


def by_pillow(cell: Cell) -> bool:
    """Whether a TIFF is read whole without imagecodecs."""
    return int(cell.bits) <= 8 and cell.photometric != "missing"


def write(folder: Path, cell: Cell, array: NDArray[Any]) -> list[Path]:
    """Write the samples in all the ways that a format has."""
    bits = int(cell.bits)
    if cell.format == ".npy":
        np.save(folder / "a.npy", array)
        np.save(folder / "columns.npy", np.asfortranarray(array))
        return [folder / "a.npy", folder / "columns.npy"]
    if cell.format == "Zarr":
        zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11", exc_type=ImportError)
        zarr.create_array(folder / "a.zarr", data=array, chunks=(4, 5, *array.shape[2:]))
        return [folder / "a.zarr"]
    files: dict[str, bytes] = {}
    colours = PALETTE[:, : 2**bits]
    if cell.format == "PNG":
        kind = {"grey": 0, "RGB": 2, "palette": 3}[cell.photometric] + 4 * (cell.alpha != "none")
        palette = (colours // 256).astype(np.uint8).T.tobytes() if kind == 3 else b""
        for interlaced in (False, True):
            files[f"{interlaced}.png"] = raw_images.png(
                array, bits, kind, palette=palette, interlaced=interlaced
            )
    else:
        kinds = {"white is zero": 0, "black is zero": 1, "RGB": 2, "palette": 3, "CMYK": 5}
        alpha = {"associated": 1, "unassociated": 2, "unspecified": 0}.get(cell.alpha)
        more = {320: (3, colours.ravel().tolist())} if cell.photometric == "palette" else {}
        orders: tuple[Literal["<", ">"], ...] = ("<", ">")
        for order, deflate in itertools.product(orders, (False, True)):
            files[f"{'IM'[order == '>']}{deflate}.tif"] = raw_images.tiff(
                array,
                bits,
                kinds.get(cell.photometric),
                alpha=alpha,
                more=more,
                order=order,
                deflate=deflate,
            )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def whole(source: Any) -> NDArray[np.float32]:
    """Read an image as extract does."""
    return read_image(source, "channels")


def in_tiles(path: Path) -> NDArray[np.float32]:
    """Read an image as --tile does, in two parts."""
    with open_source(path) as source:
        rows, columns = (np.arange(side) for side in source.size)
        parts = [source.read(part, columns, "channels") for part in (rows[:5], rows[5:])]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell[:5]).replace(" ", "_"))
def test_value(tmp_path: Path, cell: Cell) -> None:
    array = stored(cell)
    for path in write(tmp_path, cell, array):
        readers: list[Any] = []
        if cell.format != "Zarr":
            readers += [whole, lambda path: whole(path.read_bytes())]
        if cell.format != "PNG":
            readers.append(in_tiles)
        for read in readers:
            if cell.value == "refused":
                with pytest.raises(ImageError, match=rf"dtype {array.dtype.name} is not accepted"):
                    read(path)
            elif cell.packed and not HAS_CODECS and not (read is not in_tiles and by_pillow(cell)):
                with pytest.raises(ImageError, match="needs the package imagecodecs"):
                    read(path)
            else:
                values = expected(cell, array)
                np.testing.assert_allclose(read(path), values, rtol=1e-6, atol=1e-7)
