"""What a run writes kept apart from what it reads."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence

from dtwpt.extract.images.locations import located
from dtwpt.extract.images.reading import SUFFIXES

__all__ = ["check_outputs", "check_spared", "sparing"]


def check_outputs(outputs: Sequence[str], paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise a ValueError if a run would write a file twice, or one that the next run would read.

    Parameters
    ----------
    outputs : sequence of str
        The files, or folders, to write.
    paths : iterable of paths
        The files, folders and patterns to read, as they were given.
    """
    folders = [os.path.join(os.path.realpath(path), "") for path in paths if os.path.isdir(path)]
    written = [os.path.realpath(output) for output in outputs]
    for place, (shown, output) in enumerate(zip(outputs, written, strict=True)):
        for other_shown, other in zip(outputs[:place], written, strict=False):
            if output == other:
                raise ValueError(f"{shown!r} would be written twice: choose another name")
            if output.startswith(os.path.join(other, "")):
                raise ValueError(f"{shown!r} would be in the output {other_shown!r}: move it out")
        if output.lower().endswith(SUFFIXES):
            for folder in folders:
                if output.startswith(folder):
                    raise ValueError(
                        f"{shown!r} would be among the images in {folder!r}, and read as one the "
                        "next time: write it elsewhere"
                    )


def sparing(outputs: Iterable[str], files: Iterable[str]) -> Iterator[str]:
    """Yield the files to read, and raise a ValueError at one that is to be written, or lies in it.

    It costs next to nothing where no output is there yet, and little where it is a folder.
    """
    there = {os.path.realpath(output): output for output in outputs if os.path.exists(output)}
    folders = {os.path.join(real, ""): there[real] for real in there if os.path.isdir(real)}
    numbers = {os.stat(real).st_ino for real in there if os.path.isfile(real)}

    @functools.lru_cache(maxsize=1024)  # files come folder by folder
    def output_around(folder: str) -> str | None:
        real = os.path.join(os.path.realpath(folder), "")
        return next((output for above, output in folders.items() if real.startswith(above)), None)

    for name in files:
        file = located(name).container if "://" in name else name
        around = output_around(os.path.dirname(file)) if folders else None
        if folders and around is None and os.path.islink(file):
            around = output_around(os.path.dirname(os.path.realpath(file)))
        if around is not None:
            raise ValueError(f"{file!r} is in the output {around!r}, and would be lost")
        real = os.path.realpath(file) if numbers and _number(file) in numbers else ""
        if real in there:
            raise ValueError(f"{there[real]!r} is one of the images, and would be overwritten")
        yield name


def _number(file: str) -> int | None:
    try:
        return os.stat(file).st_ino
    except OSError:  # reported when it is read
        return None


def check_spared(outputs: Iterable[str], files: Iterable[str]) -> None:
    """Raise a ValueError if one of the files that are read is to be written, or lies in it."""
    for _ in sparing(outputs, files):
        pass
