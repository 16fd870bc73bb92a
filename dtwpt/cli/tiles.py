"""``dtwpt extract --tile``: the maps of one large image."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from dtwpt.cli.jobs import warnings_as_notes
from dtwpt.cli.options import given
from dtwpt.cli.terminal import Stopped, note, quiet_libraries, show_progress

_SETTINGS = ("operator", "depth", "wavelet", "mode", "colour", "page", "level", "channel")
_FOR_TILES = {*_SETTINGS, "paths", "output", "tile", "workers", "check", "progress"}


def extract_tiles(ctx: click.Context) -> str:
    """Write the maps of one image and return a summary."""
    for name in ctx.params:  # in their order
        if name in given(ctx) - _FOR_TILES:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with --tile", ctx)
    options: dict[str, Any] = ctx.params
    paths, output = options["paths"], options["output"]
    if len(paths) != 1:
        raise click.UsageError(f"--tile is for one image, got {len(paths)} paths", ctx)
    if not output.lower().rstrip("/").endswith(".zarr"):
        raise ValueError(f"with --tile the output must be named *.zarr, got {output!r}")
    if not os.path.exists(paths[0]):
        where = "; --tile reads files on this machine" if "://" in paths[0] else ""
        raise FileNotFoundError(f"no such file: {paths[0]!r}{where}")
    # After the checks, as zarr takes a while to import.
    from dtwpt.extract.maps import partial_path, tiles

    started = time.perf_counter()
    partial = partial_path(output)
    kept = f"progress saved in {partial}; rerun the command to resume"
    left: list[int] = []  # tiles, at first and after each

    def progress(done: int, total: int) -> None:
        left.append(total - done)
        if show is not None:
            show(done, total)

    try:
        with (
            quiet_libraries(),
            warnings_as_notes(),
            show_progress(options["progress"], "tile") as show,
        ):
            maps = tiles(
                paths[0],
                output,
                **{name: options[name] for name in _SETTINGS},
                tile=options["tile"],
                workers=options["workers"] or None,  # a thread for each core
                check=options["check"],
                progress=progress,
            )
    except Stopped as stopped:
        if os.path.isdir(partial):
            stopped.outcome = kept
        raise
    except OSError as error:
        if os.path.isdir(partial) and not isinstance(error, FileExistsError):
            note(f"note: {kept}")
        raise
    seconds = time.perf_counter() - started
    height, width = maps.attrs["size"]
    shape = " x ".join(map(str, maps.shape))
    rate = f"{seconds:.1f} s ({height * width / seconds / 1e6:.1f} million pixels/s)"
    return (
        f"{output}: maps of {height}x{width} pixels, {shape}, "
        f"{rate if left[0] else 'nothing left to do'}"
    )
