"""Features of image files: find the images, read them, transform each, save one table.

The command ``dtwpt extract`` is a thin layer over this package:

>>> import tempfile, pathlib, numpy as np
>>> from dtwpt.extract import Settings, extract, load, save
>>> with tempfile.TemporaryDirectory() as folder:
...     for name in ("a.npy", "b.npy"):
...         np.save(pathlib.Path(folder, name), np.eye(32))
...     table = extract([folder], Settings(depth=2, pool=2))
...     save(table, pathlib.Path(folder, "features.npz"))
...     load(pathlib.Path(folder, "features.npz")).features.shape
(2, 128)
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# Checked once here, so that no run fails half way.
_missing = [name for name in ("PIL", "threadpoolctl", "tifffile") if find_spec(name) is None]
if _missing:
    raise ImportError(f'dtwpt.extract needs {", ".join(_missing)}: pip install "dtwpt[cli]"')

from dtwpt.extract.api import extract, extract_to_store  # noqa: E402
from dtwpt.extract.extractor import FeatureExtractor  # noqa: E402
from dtwpt.extract.files import load, load_settings, save  # noqa: E402
from dtwpt.extract.images.errors import ImageError  # noqa: E402
from dtwpt.extract.images.limits import Limits  # noqa: E402
from dtwpt.extract.images.reading import read_image  # noqa: E402
from dtwpt.extract.inputs import find_images  # noqa: E402
from dtwpt.extract.maps import tiles  # noqa: E402
from dtwpt.extract.run.workers import WorkerError  # noqa: E402
from dtwpt.extract.settings import Settings  # noqa: E402
from dtwpt.extract.store.manifest import StoreBusyError  # noqa: E402
from dtwpt.extract.table import FeatureTable, Skipped  # noqa: E402
from dtwpt.extract.tiling import Tile, iter_tiles  # noqa: E402

if TYPE_CHECKING:
    from dtwpt.extract.store.reader import FeatureStore, StoredFeatures
    from dtwpt.extract.store.writer import StoreWriter

# Names that need zarr are imported on first use.
_LAZY = {
    "FeatureStore": "dtwpt.extract.store.reader",
    "StoreWriter": "dtwpt.extract.store.writer",
    "StoredFeatures": "dtwpt.extract.store.reader",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FeatureExtractor",
    "FeatureStore",
    "FeatureTable",
    "ImageError",
    "Limits",
    "Settings",
    "Skipped",
    "StoreBusyError",
    "StoreWriter",
    "StoredFeatures",
    "Tile",
    "WorkerError",
    "extract",
    "extract_to_store",
    "find_images",
    "iter_tiles",
    "load",
    "load_settings",
    "read_image",
    "save",
    "tiles",
]
