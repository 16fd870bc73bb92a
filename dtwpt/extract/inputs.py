"""Image files from paths and patterns, and a guard against overwriting them."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from dtwpt.extract.images.errors import UnusableError, one_line, without_secrets
from dtwpt.extract.images.locations import (
    container_kind,
    fetching,
    file_system,
    is_http,
    located,
    members_of,
)
from dtwpt.extract.images.reading import BEGINNING, SUFFIXES, kind_of

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


class FileName(str):
    """A literal path, existing or not, never a pattern."""

    __slots__ = ()


class Inputs:
    """Paths, and a count of the files left out when they are expanded.

    Parameters
    ----------
    paths : iterable of paths
        As for :func:`find_images`.

    Attributes
    ----------
    left_out : Counter
        By suffix, the number of files left out of folders and archives in the last expansion.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.paths = tuple(paths)
        self.left_out: Counter[str] = Counter()

    @classmethod
    def of(cls, paths: Paths) -> Inputs:
        """Return paths given in any form as a list that can be iterated repeatedly."""
        if isinstance(paths, Inputs):
            return paths
        return cls([paths] if isinstance(paths, (str, os.PathLike)) else paths)

    def __iter__(self) -> Iterator[str | os.PathLike[str]]:
        return iter(self.paths)

    def told(self) -> str:
        """Return a one-line summary of the files left out; empty if there are none."""
        if not self.left_out:
            return ""
        kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in _most(self.left_out)]
        more = ", ..." if len(self.left_out) > len(kinds) else ""
        count = sum(self.left_out.values())
        files = "1 file was" if count == 1 else f"{count} files were"
        return f"{files} left out of folders, not an image by name: {', '.join(kinds)}{more}"


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:8]


def find_images(paths: Paths) -> list[str]:
    """Return the image files that files, folders and patterns expand to.

    Parameters
    ----------
    paths : path or iterable of paths
        - A file is taken whatever its name.
        - A folder expands to the files in it and below with a suffix of a supported format, and
          those without a suffix whose first bytes are of one, sorted by name. Hidden ones
          (``.name``) are left out. Symbolic links are followed, and each folder is searched once:
          under its own name if it lies in the given one. A folder that cannot be read is listed as
          an image, so that reading it raises the reason.
        - An archive (``.zip``, ``.tar``, ``.tar.gz``, ...) stands for the images in it, and a file
          of Parquet or Arrow for the rows of its one column of bytes, or that called ``image``.
        - A URL is what fsspec makes of it: a file, an archive, a folder or a pattern.
        - A pattern (``*``, ``?``, ``[...]``; ``**`` for any depth) expands as in a shell, sorted.
          An existing path is never read as a pattern.

    Returns
    -------
    list of str
        As given, so relative paths stay relative; without duplicates.

    Raises
    ------
    FileNotFoundError
        If there is no such path, or a folder or pattern without a single image.
    OSError
        If an archive cannot be read.

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
    """Yield files with their absolute paths, which identify them.

    Folders that are links keep their names, as when a folder is expanded, except in paths with
    "..": ``link/..`` is the parent of the link's target.
    """

    @functools.lru_cache(maxsize=1024)  # files come folder by folder
    def absolute(folder: str) -> str:
        above = os.pardir in re.split(r"[\\/]" if os.name == "nt" else "/", folder)
        real = os.path.realpath(folder) if above else os.path.abspath(folder)
        return os.path.join(real, "")

    for file in files:
        if "://" in file:
            location = located(file)
            if location.kind == "url":
                yield file, file
                continue
            if location.member:
                container = location.container
                if located(container).kind == "path":
                    container = os.path.abspath(container)
                yield location._replace(container=container).name, file
                continue
        folder, name = os.path.split(file) if os.name == "nt" else _split(file)
        yield absolute(folder) + name, file


def _split(file: str) -> tuple[str, str]:
    """Split a path like ``os.path.split``, but faster; the folder may end in slashes."""
    name = file.rfind("/") + 1
    return file[:name], file[name:]


def iterate_images(paths: Paths) -> Iterator[str]:
    """Yield what :func:`find_images` returns, with duplicates, one at a time."""
    inputs = Inputs.of(paths)
    inputs.left_out.clear()
    for path in inputs:
        yield from _expand(os.fspath(path), inputs.left_out)
    if not inputs.paths:
        raise FileNotFoundError("no paths given")


def _expand(path: str, left_out: Counter[str]) -> Iterator[str]:
    if os.path.isdir(path):
        missing = f"no images in folder {path!r}, which are {' '.join(SUFFIXES)}"
        yield from _some(_folder(path, left_out), missing)
    elif isinstance(path, FileName) or os.path.lexists(path):
        yield from _file(path, left_out)
    elif located(path).kind == "url":
        yield from _some(_url(path, left_out), f"no images at {without_secrets(path)!r}")
    elif located(path).member:
        yield path
    elif glob.has_magic(path):
        files = (
            file
            for match in _matches(path)
            for file in (
                _folder(match, left_out) if os.path.isdir(match) else _file(match, left_out)
            )
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


def _file(path: str, left_out: Counter[str]) -> Iterator[str]:
    """Yield a file, or the images in it if it is an archive or a table."""
    kind = container_kind(path)
    if kind is None or not (located(path).kind == "url" or os.path.isfile(path)):
        yield path
        return
    try:
        with fetching(otherwise=False) if "://" in path else contextlib.nullcontext():
            for member in members_of(kind, path):
                if kind == "table" or _is_image(member, left_out):
                    yield f"{kind}://{member}::{path}"
    except OSError:
        raise
    except Exception as error:  # of a damaged file, which may raise anything
        raise OSError(f"cannot read {without_secrets(path)!r}: {one_line(error)}") from error


def _is_image(name: str, left_out: Counter[str]) -> bool:
    """Whether a file is an image by its suffix; counts it as left out if not."""
    if any(part[:1] == "." for part in name.split("/")):  # hidden
        return False
    if name.lower().endswith(SUFFIXES):
        return True
    _count(name, left_out)
    return False


def _count(name: str, left_out: Counter[str]) -> None:
    left_out[os.path.splitext(os.path.basename(name))[1].lower()] += 1


def _url(url: str, left_out: Counter[str]) -> Iterator[str]:
    """Yield the images that a URL expands to."""
    try:
        system, path = file_system(url)
        system.invalidate_cache()  # lists of earlier calls
        with fetching():
            # In the web, "?" begins parameters.
            if "*" in url.partition("?")[0] if is_http(url) else glob.has_magic(path):
                found = sorted(system.glob(path))
            elif is_http(url) or not system.isdir(path):
                found = None
            else:
                found = sorted(system.find(path))
    except UnusableError as error:
        raise OSError(f"{without_secrets(url)!r} {error}") from None
    if found is None:
        yield from _file(url, left_out)
        return
    for file in found:
        if _is_image(file, left_out):
            yield system.unstrip_protocol(file)


# Folders ----------------------------------------------------------------------------------------


def _folder(top: str, left_out: Counter[str]) -> Iterator[str]:
    """Yield the images in a folder and below, sorted by name, each folder once."""
    for path, kind in _walk(top):
        if kind in ("file", "unreadable"):
            yield path
        elif kind == "left out":
            _count(path, left_out)


def _matches(pattern: str) -> list[str]:
    """Return the matches of a pattern, sorted; below ``**``, each folder is searched once."""
    head, found, tail = re.sub(r"(/\*\*)+(?=/|$)", "/**", f"/{pattern}").partition("/**")
    if not found or tail[:1] not in ("", "/"):
        return sorted(glob.glob(pattern))
    top, tail = head[1:], tail[1:]
    matches = set()
    for base in _matches(top) if glob.has_magic(top) else [top]:
        if not tail:  # all that is in it
            matches.update([base or os.curdir] if os.path.isdir(base or os.curdir) else [])
            continue
        for folder, kind in _walk(base or os.curdir):
            if kind == "folder":
                place = folder if base else os.path.relpath(folder)
                place = "" if place == os.curdir else glob.escape(place)
                matches.update(_matches(os.path.join(place, tail)))
    return sorted(matches)


def _walk(top: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a folder and below with their kind, sorted by name, each folder once."""
    root = os.path.join(os.path.realpath(top), "")
    seen: set[tuple[int, int]] = set()
    # Without recursion, as folders may be nested deeper than calls. Holds the names still to visit
    # of each folder on the way down, last one first.
    waiting = [[(top, "folder")]]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        path, kind = waiting[-1].pop()
        if kind == "link" and _is_below(path, root):
            continue
        if kind not in ("folder", "link"):
            yield path, kind
            continue
        try:
            status = os.stat(path)
            here = (status.st_dev, status.st_ino)
            if here in seen:
                continue
            entries = _entries(path)
        except FileNotFoundError:  # removed in the meantime
            continue
        except OSError:
            yield path, "unreadable"  # reading it raises the reason
            continue
        seen.add(here)
        waiting.append(entries)
        yield path, "folder"


def _entries(path: str) -> list[tuple[str, str]]:
    with os.scandir(path) as entries:
        kinds = [(entry.name, _kind(entry)) for entry in entries if entry.name[:1] != "."]
    return [(os.path.join(path, name), kind) for name, kind in sorted(kinds, reverse=True)]


def _is_below(link: str, root: str) -> bool:
    """Whether a link leads to a folder that is also found without it, not in a hidden folder."""
    real = os.path.join(os.path.realpath(link), "")
    inner = real[len(root) :]
    return real.startswith(root) and not any(name[:1] == "." for name in inner.split(os.sep))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError:  # a link to itself
        pass
    # A dangling link is yielded, so that it is reported.
    there = entry.is_symlink() or entry.is_file()
    if entry.name.lower().endswith(SUFFIXES):
        return "file"  # reading a pipe or a device says that it is one
    if there and "." not in entry.name and _begins_like_one(entry.path):
        return "file"
    return "left out" if there else ""


def _begins_like_one(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb", buffering=0) as file:
            return kind_of(file.read(BEGINNING)) is not None
    except OSError:
        return False


# Outputs among them ------------------------------------------------------------------------------


def check_outputs(outputs: Sequence[str], paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise a ValueError if outputs are equal, or would be read as inputs by the next run.

    Parameters
    ----------
    outputs : sequence of str
        The files, or folders, to write.
    paths : iterable of paths
        The files, folders and patterns to read, as given.
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
    """Yield the files to read; raise a ValueError at one that is an output or lies inside one.

    This is almost free if no output exists yet, and cheap if it is a folder.
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
    """Raise a ValueError if an input file is an output or lies inside one."""
    for _ in sparing(outputs, files):
        pass
