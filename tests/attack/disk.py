"""A disk as a power cut leaves it, from the log of what a process did to its files.

Kept is what was synced: the contents of a file at its last sync, the names in a folder at its own.
Of the rest, nothing or anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Operation(NamedTuple):
    """A line of the log."""

    what: str
    path: str
    target: str
    offset: int
    data: bytes


def operations(log: Path) -> Iterator[Operation]:
    with open(log, "rb") as file:
        while line := file.readline():
            what, path, target, offset, length = line.decode().rstrip("\n").split("\t")
            yield Operation(what, path, target, int(offset), file.read(int(length)))


class _File:
    def __init__(self, content: bytes = b"") -> None:
        self.now = bytearray(content)
        self.kept = bytes(content)


class _Folder:
    def __init__(self) -> None:
        self.now: dict[str, _Folder | _File] = {}
        self.kept: dict[str, _Folder | _File] = {}


class Disk:
    """The folders and files below a folder, all on disk at the start."""

    def __init__(self, path: Path) -> None:
        self._root = self._read(path)

    def _read(self, path: Path) -> _Folder:
        folder = _Folder()
        for entry in path.iterdir():
            folder.now[entry.name] = (
                self._read(entry) if entry.is_dir() else _File(entry.read_bytes())
            )
        folder.kept = dict(folder.now)
        return folder

    def _at(self, path: str) -> tuple[_Folder, str]:
        *folders, name = path.strip("/").split("/")
        at = self._root
        for part in folders:
            below = at.now[part]
            assert isinstance(below, _Folder)
            at = below
        return at, name

    def do(self, operation: Operation) -> None:
        what, path, target, offset, data = operation
        if path in ("", "/"):  # the root itself, which can only be synced
            self._root.kept = dict(self._root.now)
            return
        folder, name = self._at(path.removesuffix(" (deleted)"))
        if what == "mkdir":
            folder.now[name] = _Folder()
        elif what.startswith("create"):
            made = folder.now.setdefault(name, _File())
            if what == "create-empty" and isinstance(made, _File):
                made.now.clear()
        elif what == "unlink":
            del folder.now[name]
        elif what == "rename":
            other, new = self._at(target)
            other.now[new] = folder.now.pop(name)
        elif name in folder.now:  # else it has no name any more
            self._change(folder.now[name], what, offset, data)

    def _change(self, item: _Folder | _File, what: str, offset: int, data: bytes) -> None:
        if isinstance(item, _Folder):
            item.kept = dict(item.now)
        elif what == "sync":
            item.kept = bytes(item.now)
        else:
            size = offset if what == "truncate" else max(len(item.now), offset)
            item.now[:] = item.now[:size].ljust(size, b"\0")
            item.now[offset : offset + len(data)] = data

    def cut(self, path: Path, rng: np.random.Generator | None = None) -> None:
        """Write what a power cut leaves; with a generator, some of what was not synced, too."""
        self._write(self._root, path, rng)

    def _write(self, folder: _Folder, path: Path, rng: np.random.Generator | None) -> None:
        path.mkdir()
        names = {**folder.kept}
        if rng is not None:
            for name in sorted({*folder.now, *folder.kept}):
                chosen = (folder.now if rng.random() < 0.5 else folder.kept).get(name)
                names.pop(name, None)
                if chosen is not None:
                    names[name] = chosen
        for name, item in names.items():
            if isinstance(item, _Folder):
                self._write(item, path / name, rng)
            else:
                (path / name).write_bytes(_left(item, rng))


def _left(file: _File, rng: np.random.Generator | None) -> bytes:
    """Return the remains of a file: of each block, the synced or a later state."""
    if rng is None or bytes(file.now) == file.kept:
        return file.kept
    content = bytearray(file.kept if rng.random() < 0.5 else file.kept.ljust(len(file.now), b"\0"))
    for start in range(0, len(content), 512):
        if rng.random() < 0.5:
            block = file.now[start : min(start + 512, len(content))]
            content[start : start + len(block)] = block
    return bytes(content)
