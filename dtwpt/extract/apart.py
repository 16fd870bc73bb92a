"""What a run writes kept apart from what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from dtwpt.extract.inputs import SUFFIXES

__all__ = ["check_outputs", "sparing"]


def check_outputs(outputs: Sequence[str], paths: Iterable[str]) -> None:
    """Raise a ValueError if a run would write a file twice, or one that the next run would read.

    Parameters
    ----------
    outputs : sequence of str
        The files, or folders, to write.
    paths : iterable of str
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
    """Yield the files to read, and raise a ValueError at one that is to be written."""
    there = {
        os.path.realpath(output): (os.stat(output).st_ino, output)
        for output in outputs
        if os.path.isfile(output)
    }
    if not there:
        yield from files
        return
    numbers = {number for number, _ in there.values()}
    for file in files:
        try:
            possible = os.stat(file).st_ino in numbers
        except OSError:  # reported when it is read
            possible = False
        real = os.path.realpath(file) if possible else ""
        if real in there:
            raise ValueError(f"{there[real][1]!r} is one of the images, and would be overwritten")
        yield file
