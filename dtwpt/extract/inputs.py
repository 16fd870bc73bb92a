"""Which files a run reads, and in which order."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterable, Iterator

__all__ = ["SUFFIXES", "find_images", "iterate_images", "with_keys"]

#: What an image in a folder is recognised by, in lower or upper case.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the image files that files, folders and patterns stand for.

    Parameters
    ----------
    paths : path or iterable of paths
        - A file is taken whatever its name.
        - A folder stands for the files in it and below with a suffix of these formats,
          sorted by name. Hidden ones (``.name``) are left out, symbolic links followed.
        - A pattern (``*``, ``?``, ``[...]``; ``**`` for any depth) stands for what a shell would
          make of it, sorted. A path that exists is never taken for a pattern.

    Returns
    -------
    list of str
        As given, so relative paths stay relative; a path that comes up again is left out.

    Raises
    ------
    FileNotFoundError
        If there is no such path, or a folder or pattern without a single image.
    OSError
        If a folder cannot be read.

    Examples
    --------
    >>> import os, pathlib, tempfile
    >>> from dtwpt.extract import find_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "A.JPG", "notes.txt"):
    ...         pathlib.Path(folder, name).touch()
    ...     [os.path.basename(path) for path in find_images(folder)]
    ['A.JPG', 'b.png']
    """
    found: dict[str, str] = {}
    for key, file in with_keys(iterate_images(paths)):
        found.setdefault(key, file)
    return list(found.values())


def with_keys(files: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield files with their absolute paths, by which they are known.

    Folders that are links keep their names, as in what a folder stands for, but for paths with
    "..": ``link/..`` is where the link leads, not where it seems.
    """

    @functools.lru_cache(maxsize=1024)  # files come folder by folder
    def absolute(folder: str) -> str:
        above = os.pardir in re.split(r"[\\/]" if os.name == "nt" else "/", folder)
        real = os.path.realpath(folder) if above else os.path.abspath(folder)
        return os.path.join(real, "")

    for file in files:
        folder, name = os.path.split(file) if os.name == "nt" else _split(file)
        yield absolute(folder) + name, file


def _split(file: str) -> tuple[str, str]:
    """Return what ``os.path.split`` does, or with slashes at the end of the folder, but sooner."""
    name = file.rfind("/") + 1
    return file[:name], file[name:]


def iterate_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> Iterator[str]:
    """Yield what :func:`find_images` returns, and what comes up again again, one at a time."""
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    nothing = True
    for path in paths:
        nothing = False
        yield from _expand(os.fspath(path))
    if nothing:
        raise FileNotFoundError("no paths given")


def _expand(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        missing = f"no images in folder {path!r}, which are {' '.join(SUFFIXES)}"
        yield from _some(_folder(path, ()), missing)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        files = (
            file
            for match in sorted(glob.glob(path, recursive=True))
            for file in (_folder(match, ()) if os.path.isdir(match) else [match])
        )
        yield from _some(files, f"no image matches {path!r}")
    else:
        raise FileNotFoundError(f"no such file or folder: {path!r}")


def _some(files: Iterator[str], otherwise: str) -> Iterator[str]:
    first = next(files, None)
    if first is None:
        raise FileNotFoundError(otherwise)
    yield first
    yield from files


def _folder(path: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the images in a folder and below; ``above`` are the folders on the way to it."""
    status = os.stat(path)
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back up, which would go round for ever
        return
    with os.scandir(path) as entries:
        listing = sorted(
            (entry.name, _kind(entry)) for entry in entries if not entry.name.startswith(".")
        )
    for name, kind in listing:
        if kind == "folder":
            yield from _folder(os.path.join(path, name), (*above, here))
        elif kind == "file":
            yield os.path.join(path, name)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
    except OSError:  # a link to itself
        pass
    # A dangling link is passed on, so that it is reported and not silently missing.
    is_image = entry.name.lower().endswith(SUFFIXES) and (entry.is_symlink() or entry.is_file())
    return "file" if is_image else ""
