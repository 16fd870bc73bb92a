"""Zarr arrays, and the images of OME-Zarr, as sources of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.errors import UnusableError
from dtwpt.extract.limits import Choice

__all__ = ["import_zarr", "open_zarr"]


def import_zarr() -> Any:
    """Return the package zarr, which comes with an extra."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            'large images need zarr (Python 3.11 or later): pip install "dtwpt[extract]"'
        ) from error
    return zarr


def open_zarr(path: str, choice: Choice) -> Any:
    """Return a Zarr array, or the plane of an OME-Zarr image that is chosen.

    Parameters
    ----------
    path : str
        A folder.
    choice : Choice
        Of an OME-Zarr image, ``level`` is the number of the dataset, and ``page`` counts the planes
        of all axes but those of the plane and the channels.

    Raises
    ------
    UnusableError
        If it is neither, or there is no such plane.
    """
    zarr = import_zarr()
    try:
        found: Any = zarr.open(path, mode="r")
    except (FileNotFoundError, ValueError, KeyError):
        raise UnusableError("is a folder, but not a Zarr array") from None
    if hasattr(found, "shape"):
        choice.only_page("a Zarr array")
        return found
    attributes = dict(found.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        raise UnusableError("is a Zarr group, but no OME-Zarr image: name an array in it")
    datasets = scales[0]["datasets"]
    if choice.level >= len(datasets):
        raise UnusableError(f"has no level {choice.level}, only 0 to {len(datasets) - 1}")
    array = found[datasets[choice.level]["path"]]
    # Before version 0.3 there are five axes without names.
    axes = [
        axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", "tczyx")
    ]
    return _Plane(array, axes, choice)


class _Plane:
    """Rows and columns of an array of more axes, with its channels behind them if they are colours.

    Attributes
    ----------
    shape, dtype, chunks
        As of an array (H, W) or (H, W, 3).
    """

    def __init__(self, array: Any, axes: list[str], choice: Choice) -> None:
        if axes[-2:] != ["y", "x"] or len(axes) != array.ndim:
            raise UnusableError(f"axes {' '.join(axes)} of shape {array.shape} are not read")
        sides = dict(zip(axes, array.shape, strict=True))
        others = [axis for axis in axes[:-2] if axis != "c"]
        count = int(np.prod([sides[axis] for axis in others]))
        if (choice.page or 0) >= count:
            raise UnusableError(f"has no page {choice.page}, only 0 to {count - 1}")
        place = np.unravel_index(choice.page or 0, [sides[axis] for axis in others])
        index: dict[str, Any] = dict(zip(others, map(int, place), strict=True))
        channels = sides.get("c", 1)
        if channels not in (1, 3) and choice.channel is None:
            raise UnusableError(f"has {channels} channels: choose one (--channel)")
        if "c" in sides:
            index["c"] = slice(None)
        self._array = array
        self._index = tuple(index[axis] for axis in axes[:-2])
        self.dtype = array.dtype
        self.shape = (*array.shape[-2:], channels)
        self.chunks = (*array.chunks[-2:], channels)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        block = np.asarray(self._array[(*self._index, *index[:2])])
        return block[..., None] if block.ndim == 2 else np.moveaxis(block, 0, -1)
