"""The feature store: a Zarr group of features, and in it the manifest of all inputs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.chunks import SteadyStore, zarr
from dtwpt.extract.manifest import Manifest, State
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import Skipped

__all__ = [
    "FEATURES",
    "FORMAT",
    "MANIFEST",
    "MANIFEST_FILE",
    "VERSION",
    "FeatureStore",
    "Header",
    "StoredFeatures",
    "names_sqlite",
    "open_store",
    "read_header",
    "skipped_of",
]

#: Names in the group.
FEATURES, MANIFEST = "features", "manifest"
#: The manifest lies in the folder of an empty array: Zarr then takes it for no part of its own.
MANIFEST_FILE = os.path.join(MANIFEST, "manifest.sqlite")
#: What the attribute "format" of the group says, and the version of the form described here.
FORMAT, VERSION = "dtwpt feature store", 1


@dataclass(frozen=True)
class Header:
    """What is fixed when a store is begun."""

    identity: str
    settings: Settings
    device: str
    made_by: dict[str, str] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "identity": self.identity,
            "settings": self.settings.to_dict(),
            "device": self.device,
            "made_by": self.made_by,
        }


def read_header(path: str) -> Header:
    """Return the header of a store.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is something else, or of a version that this one does not know.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no such feature store: {path!r}")
    foreign = f"{path!r} is not a feature store of dtwpt"
    if not os.path.isdir(path):
        raise ValueError(foreign)
    store = SteadyStore(path)
    try:
        with store.steady():
            attributes = dict(zarr.open_group(store, mode="r", zarr_format=3).attrs)
        if attributes["format"] != FORMAT:
            raise ValueError(foreign)
        version = int(str(attributes["version"]))
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise ValueError(foreign) from error
    if version > VERSION:
        raise ValueError(f"{path!r} was made by a newer dtwpt: version {version} of its format")
    try:
        return Header(
            str(attributes["identity"]),
            Settings.from_dict(attributes["settings"]),  # type: ignore[arg-type]
            str(attributes["device"]),
            dict(attributes["made_by"]),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the feature store {path!r} is damaged: {error}") from error


@contextmanager
def names_sqlite(path: str) -> Iterator[None]:
    """Turn the errors of the manifest into ones that say which store, and what about it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"the manifest of {path!r}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"the manifest of {path!r} is damaged: {error}") from error


class StoredFeatures:
    """The features of a store, read from the disk when they are indexed.

    It takes the indices of a NumPy array for its rows: an integer, a slice, an array of integers
    or of bool; what comes is an array. ``np.asarray`` reads everything.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    """

    def __init__(self, path: str, rows: NDArray[np.int64], length: int) -> None:
        self.dtype = np.dtype(np.float32)
        self.shape = (len(rows), length)
        self.ndim = 2
        self._path = path
        self._folder = _identity(path)
        self._rows = rows
        self._store = SteadyStore(path)
        self._array: Any = None
        if len(rows):
            with self._store.steady():
                self._array = zarr.open_array(self._store, path=FEATURES, mode="r")

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<features of {self._path!r}, shape {self.shape}, float32>"

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        step = self._array.shards[0] if self._array is not None else 1
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("stored features can only be read into a new array")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        more: tuple[Any, ...] = ()
        if isinstance(index, tuple):
            index, *rest = index if index else (slice(None),)
            more = tuple(rest)
        if index is Ellipsis:
            index, more = slice(None), ((Ellipsis, *more) if more else ())
        rows = self._rows[index]
        values = self._read(np.atleast_1d(rows))
        if np.ndim(rows) == 0:
            first: NDArray[np.float32] = values[0]
            return first[more] if more else first
        return values[(slice(None), *more)] if more else values

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(rows), self.shape[1]), np.float32)
        if not len(rows):
            return out
        shards = rows // self._array.shards[0]
        order = np.argsort(shards, kind="stable")
        # A shard at a time: few files are open, and the memory needed is that of the answer.
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            wanted = rows[places]
            first, last = int(wanted.min()), int(wanted.max())
            with self._store.steady():
                self._check_same_store()
                block = self._array[first : last + 1]
                self._check_same_store()
            out[places] = block[wanted - first]
        return out

    def _check_same_store(self) -> None:
        if _identity(self._path) != self._folder:
            raise OSError(f"the store {self._path!r} was replaced by another one: load it again")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


class FeatureStore:
    """A store of features, for reading; :func:`load` opens it.

    It is the state at the moment of loading: what a run that goes on adds later is not in it.

    Attributes
    ----------
    features : StoredFeatures, shape (n, F)
        Read when indexed. One row an image that is done, in order of the paths.
    feature_names : list of str, length F
    files : list of str, length n
        The paths as they were found.
    settings : Settings
    device : str
        Where the transform ran.
    skipped : list of Skipped
        Files that could not be used, with the reason, in order of the paths.
    waiting : list of str
        Files that have not been worked on yet, in order of the paths.
    made_by : dict
        Versions of dtwpt and of the packages that read the images.
    path : str
    """

    def __init__(self, path: str, header: Header) -> None:
        self.path = path
        self.settings, self.device, self.made_by = header.settings, header.device, header.made_by
        with names_sqlite(path), Manifest(os.path.join(path, MANIFEST_FILE)) as manifest:
            self._rows, self._states, self._reasons = manifest.states()
        done = self._rows[self._states == State.DONE]
        size = _stored_size(path) if len(done) else None
        size = size or self.settings.final_size()
        self.feature_names: list[str] = [] if size is None else self.settings.names(size)
        self.features = StoredFeatures(path, done, len(self.feature_names))

    def __repr__(self) -> str:
        counts = {state: int((self._states == state).sum()) for state in State}
        return (
            f"<feature store {self.path!r}: {self.features.shape[0]} images x "
            f"{self.features.shape[1]} features, {counts[State.SKIPPED]} skipped, "
            f"{counts[State.WAITING]} waiting>"
        )

    @cached_property
    def _paths(self) -> list[str]:
        with names_sqlite(self.path), Manifest(os.path.join(self.path, MANIFEST_FILE)) as manifest:
            return manifest.paths()  # of a row, it never changes

    def _in_state(self, state: State) -> list[str]:
        return [self._paths[row] for row in self._rows[self._states == state]]

    @cached_property
    def files(self) -> list[str]:
        """Return the paths of the rows."""
        return self._in_state(State.DONE)

    @cached_property
    def skipped(self) -> list[Skipped]:
        """Return the files without features, and why."""
        reasons = dict(self._reasons)
        rows = self._rows[self._states == State.SKIPPED].tolist()
        return [Skipped(self._paths[row], reasons[row]) for row in rows]

    @cached_property
    def waiting(self) -> list[str]:
        """Return the files that have not been worked on."""
        return self._in_state(State.WAITING)


def _stored_size(path: str) -> tuple[int, int]:
    store = SteadyStore(path)
    with store.steady():
        size: Any = zarr.open_array(store, path=FEATURES, mode="r").attrs["size"]
    height, width = size
    return int(height), int(width)


def skipped_of(path: str) -> Iterator[tuple[str, str]]:
    """Yield path and reason of what is skipped in a store, without the rest of it."""
    with names_sqlite(path), Manifest(os.path.join(path, MANIFEST_FILE)) as manifest:
        yield from manifest.skipped()


def open_store(path: str | os.PathLike[str]) -> FeatureStore:
    """Return a store for reading; see :func:`load`."""
    name = os.fspath(path)
    return FeatureStore(name, read_header(name))
