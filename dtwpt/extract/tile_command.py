"""``dtwpt extract --tile``: the maps of one large image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

from dtwpt.extract.maps import partial_path, tiles

__all__ = ["extract_tiles"]

# Options that decide what becomes of the maps, or of many images.
_NOT_FOR_TILES = ("resize", "crop", "pool", "on_error", "settings_from")


def extract_tiles(
    paths: Collection[str],
    output: str,
    options: Mapping[str, Any],
    given: Collection[str],
    *,
    note: Callable[[str], None],
    progress: Callable[[int, str], AbstractContextManager[Callable[[int, int], None] | None]],
) -> str:
    """Write the maps of one image and return what to say about it.

    Parameters
    ----------
    paths : collection of str
        One image.
    output : str
    options : mapping
        Values of the options of ``dtwpt extract``.
    given : collection of str
        Names of those that were given.
    note : callable
        Shows a line.
    progress : callable
        Opens a progress bar of a number of units.

    Raises
    ------
    ValueError
        If options do not go together.
    """
    refused = [name for name in _NOT_FOR_TILES if name in given]
    if refused:
        raise ValueError(f"--{refused[0].replace('_', '-')} does not go with --tile")
    if len(paths) != 1:
        raise ValueError(f"--tile is for one image, got {len(paths)} paths")
    if not output.lower().rstrip("/").endswith(".zarr"):
        raise ValueError(f"with --tile the output must be named *.zarr, got {output!r}")
    (path,) = paths
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {path!r}")
    started = time.perf_counter()
    partial = partial_path(output)
    try:
        with progress(1, "tile") as bar:
            maps = tiles(
                path,
                output,
                **{
                    name: options[name]
                    for name in ("operator", "depth", "wavelet", "mode", "colour", "tile")
                },
                # One process is the default for many images, a thread for each core here.
                workers=(options["workers"] or None) if "workers" in given else None,
                progress=bar,
            )
    except BaseException as error:
        if os.path.isdir(partial) and not isinstance(error, FileExistsError):
            note(f"note: {partial} keeps the tiles that are done; the same command goes on there")
        raise
    seconds = time.perf_counter() - started
    height, width = maps.attrs["size"]
    shape = " x ".join(map(str, maps.shape))
    return (
        f"{output}: maps of {height}x{width} pixels, {shape}, {seconds:.1f} s "
        f"({height * width / seconds / 1e6:.1f} million pixels/s)"
    )
