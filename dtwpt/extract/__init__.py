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

from importlib.util import find_spec

# Said here once, so that nothing below fails half way through a run.
_missing = [name for name in ("PIL", "threadpoolctl", "tifffile") if find_spec(name) is None]
if _missing:
    raise ImportError(f'dtwpt.extract needs {", ".join(_missing)}: pip install "dtwpt[cli]"')

from dtwpt.extract.inputs import find_images  # noqa: E402
from dtwpt.extract.maps import tiles  # noqa: E402
from dtwpt.extract.output import FeatureTable, Skipped, load, load_settings, save  # noqa: E402
from dtwpt.extract.reading import ImageError, read_image  # noqa: E402
from dtwpt.extract.run import WorkerError, extract  # noqa: E402
from dtwpt.extract.settings import Settings  # noqa: E402
from dtwpt.extract.tiling import Tile, iter_tiles  # noqa: E402

__all__ = [
    "FeatureTable",
    "ImageError",
    "Settings",
    "Skipped",
    "Tile",
    "WorkerError",
    "extract",
    "find_images",
    "iter_tiles",
    "load",
    "load_settings",
    "read_image",
    "save",
    "tiles",
]
