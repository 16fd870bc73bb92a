"""The feature store: a Zarr group of features that also holds the manifest of all inputs."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.settings import Settings
from dtwpt.extract.store.chunks import SteadyStore, zarr
from dtwpt.extract.store.manifest import Manifest, State
from dtwpt.extract.table import Rows, Skipped

#: Names in the group.
FEATURES, MANIFEST = "features", "manifest"
#: The manifest lies in the folder of an empty array, where Zarr ignores it.
MANIFEST_FILE = os.path.join(MANIFEST, "manifest.sqlite")
_SUM = "checksum"
#: Value of the group's attribute "format", and the current version of the format.
FORMAT, VERSION = "dtwpt feature store", 2


@dataclass(frozen=True)
class Header:
    """The properties fixed when a store is created."""

    identity: str
    settings: Settings
    device: str
    made_by: dict[str, str] = field(default_factory=dict)
    #: Other versions that have resumed it since.
    continued_by: tuple[dict[str, str], ...] = ()
    #: Version 1 had no checksums of rows and features.
    version: int = VERSION

    @property
    def sealed(self) -> str | None:
        """The identity that the manifest must have; None if it has no identity and no checksums."""
        return self.identity if self.version > 1 else None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group, without their checksum."""
        return {
            "format": FORMAT,
            "version": self.version,
            "identity": self.identity,
            "settings": self.settings.to_dict(),
            "device": self.device,
            "made_by": self.made_by,
            "continued_by": list(self.continued_by),
        }


def read_header(path: str) -> Header:
    """Return the header of a store.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If it is not a store, or of an unknown format version.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no such feature store: {path!r}")
    foreign = f"{path!r} is not a feature store of dtwpt"
    if not os.path.isdir(path):
        raise ValueError(foreign)
    # Files by which a store is recognised when its own metadata is damaged.
    ours = os.path.isfile(os.path.join(path, MANIFEST_FILE))
    store = SteadyStore(path)
    try:
        with store.steady():
            attributes: dict[str, Any] = dict(zarr.open_group(store, mode="r", zarr_format=3).attrs)
        if attributes["format"] != FORMAT:
            raise ValueError(foreign)
        version = int(attributes["version"])
    except Exception as error:  # Zarr raises many kinds for invalid metadata
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # which says nothing about its contents
        raise (_garbled(path, "zarr.json", error) if ours else ValueError(foreign)) from error
    if version > VERSION:
        raise ValueError(f"{path!r} was made by a newer dtwpt: version {version} of its format")
    try:
        header = Header(
            str(attributes["identity"]),
            Settings.from_dict(attributes["settings"]),
            str(attributes["device"]),
            dict(attributes["made_by"]),
            tuple(dict(other) for other in attributes.get("continued_by", ())),
            version,
        )
        check_sum(attributes, header.attributes())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _garbled(path, "zarr.json", error) from error
    return header


def with_sum(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with a checksum, as Zarr has checksums of data only."""
    return {**attributes, _SUM: _sum(attributes)}


def _sum(attributes: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(attributes, sort_keys=True).encode()):08x}"


def check_sum(found: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise a ValueError if the named attributes differ from what was written."""
    ours = {name: found[name] for name in names if name in found}  # beside other people's
    if _SUM in found and found[_SUM] != _sum(ours):  # the first stores had none
        raise ValueError("its attributes have been changed")


def _garbled(path: str, part: str, error: BaseException | str) -> ValueError:
    """Return the error of a store whose metadata is damaged."""
    return ValueError(
        f"the feature store {path!r} is damaged: {part}: {_line(error)} (put back a copy of that "
        "file, or extract again with --restart)"
    )


def _line(error: BaseException | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def names_sqlite(path: str) -> Iterator[None]:
    """Turn errors of the manifest into ones that name the store and the fault."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # Python's own errors of unreadable values have no name.
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if isinstance(error, sqlite3.OperationalError) and name != "SQLITE_ERROR":
            raise OSError(f"the manifest of {path!r}: {error}{_why(str(error))}") from error
        raise ValueError(
            f"the manifest of {path!r} is damaged: {_line(error)} (put back a copy of "
            "manifest.sqlite, or extract again with --restart)"
        ) from error


def _why(message: str) -> str:
    """Return what an error message of SQLite means for a store."""
    if "unable to open" in message:
        return ": does it exist, and may it be read and written?"
    if "readonly" in message:
        return ": it cannot be written here, which is needed to roll back what a killed run left"
    return ""


@contextmanager
def names_damage(path: str, part: str) -> Iterator[None]:
    """Turn Zarr's errors about a damaged file into a ValueError that names store and file."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each codec has its own
        raise damaged(path, f"{part}: {_line(error)}") from error


def damaged(path: str, what: str) -> ValueError:
    """Return the error of a store whose features cannot be read, with the remedy."""
    return ValueError(
        f"the feature store {path!r} is damaged: {what} (extract again with --check hash, which "
        "recomputes what is missing, or with --restart)"
    )


def shard_name(shard: int) -> str:
    """Return the file of a shard in the folder of a store."""
    return f"{FEATURES}/c/{shard}/0"


def _identity_of(path: str) -> str | None:
    """Return the identity of the store now at the path; None if there is none."""
    try:
        with open(os.path.join(path, "zarr.json"), "rb") as file:
            return str(json.load(file)["attributes"]["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_same(path: str, identity: str) -> None:
    if _identity_of(path) != identity:
        if not os.path.lexists(path) and not _is_being_replaced(path):
            raise FileNotFoundError(f"the store {path!r} was deleted or moved since it was loaded")
        raise OSError(f"the store {path!r} was replaced by another one: load it again")


class StoredFeatures:
    """The features of a store, read from disk when indexed.

    Indices are those of a NumPy array: for each axis an integer, a slice, or a one-dimensional
    array of integers or bool; the result is an array. ``np.asarray`` reads everything. The object
    can be pickled and sent to other processes that see the same disk.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    """

    def __init__(
        self,
        path: str,
        header: Header,
        rows: NDArray[np.int64],
        length: int,
        sums: NDArray[np.int64],
    ) -> None:
        self.dtype = np.dtype(np.float32)
        self.shape = (len(rows), length)
        self.ndim = 2
        self._path = os.path.realpath(path)  # absolute, as the working folder may change
        self._identity, self._sealed = header.identity, header.sealed
        self._rows, self._sums = rows, sums
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        self._store = SteadyStore(self._path)
        self._array: Any = None
        if len(self._rows):
            _check_same(self._path, self._identity)
            with self._store.steady():
                self._array = open_features(self._path, self._store, "r")
            if self._array is None:
                raise damaged(self._path, f"{FEATURES}/zarr.json is missing")
            _check_same(self._path, self._identity)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OPEN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

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
        rows, columns = _both(index)
        chosen = self._rows[rows]
        if isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray):
            # Pairs, as NumPy takes two arrays: of row and column of each value.
            columns = np.arange(self.shape[1])[columns]
            try:
                chosen, columns = np.broadcast_arrays(chosen, columns)
            except ValueError:
                raise IndexError(
                    f"indices of {len(chosen)} rows and {len(columns)} columns are not pairs: "
                    "index the rows, then the columns of the result"
                ) from None
            pairs: NDArray[np.float32] = self._read(chosen)[np.arange(len(chosen)), columns]
            return pairs
        values = self._read(np.atleast_1d(chosen))
        found: NDArray[np.float32] = (values[0] if np.ndim(chosen) == 0 else values)[..., columns]
        return found

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(rows), self.shape[1]), np.float32)
        if not len(rows):
            return out
        if self._process != os.getpid():  # forked, perhaps with locks held by a thread
            self._open()
        shards = rows // self._array.shards[0]
        order = np.argsort(shards, kind="stable")
        # One shard at a time: few files are open, and memory is that of the result.
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            wanted = rows[places]
            first, last = int(wanted.min()), int(wanted.max())
            name = shard_name(int(shards[places[0]]))
            with self._store.steady():
                _check_same(self._path, self._identity)
                with names_damage(self._path, name):
                    block = self._array[first : last + 1][wanted - first]
                _check_same(self._path, self._identity)
            self._check(wanted, block, name)
            out[places] = block
        return out

    def _check(self, rows: NDArray[np.int64], block: NDArray[np.float32], name: str) -> None:
        """Raise an error if features have changed since the store was loaded."""
        wrong = not_whole(block, self._sums[rows] if self._sealed else None)
        if not wrong.any():
            return
        row = int(rows[wrong][0])
        with (
            names_sqlite(self._path),
            Manifest(os.path.join(self._path, MANIFEST_FILE), self._sealed) as manifest,
        ):
            (now,) = manifest.done(row, row + 1).values() or (None,)
            path = manifest.path(row)
        _check_same(self._path, self._identity)
        if self._sealed and now != self._sums[row]:
            raise OSError(
                f"{path!r} was recomputed since the store {self._path!r} was loaded: load it again"
            )
        lacks = np.isnan(block[wrong]).all()  # features are finite
        what = "lacks rows that are done" if lacks else f"has other features than those of {path!r}"
        raise damaged(self._path, f"{name} {what}")


def not_whole(block: NDArray[np.float32], sums: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Return which rows of features do not match their checksums, if they have any."""
    if sums is None:
        return np.array(~np.isfinite(block).all(axis=1))
    pairs = zip(block, sums.tolist(), strict=True)
    return np.array([sum_of(row) != known for row, known in pairs], bool)


def sum_of(features: NDArray[np.float32]) -> int:
    """Return the checksum of the features of one image."""
    return zlib.crc32(np.ascontiguousarray(features, "<f4").data)


# What another process opens again.
_OPEN = ("_store", "_array")


def _both(index: Any) -> tuple[Any, Any]:
    """Return the indices of rows and columns: integers, slices and arrays with one axis."""
    given = index if isinstance(index, tuple) else (index,)
    dots = sum(part is Ellipsis for part in given)
    if len(given) - dots > 2 or dots > 1:
        raise IndexError(f"too many indices: features have 2 axes, {len(given)} were indexed")
    if dots:
        place = next(place for place, part in enumerate(given) if part is Ellipsis)
        fill = (slice(None),) * (3 - len(given))
        given = (*given[:place], *fill, *given[place + 1 :])
    rows, columns = (_axis(part) for part in (*given, slice(None), slice(None))[:2])
    return rows, columns


def _axis(index: Any) -> Any:
    if isinstance(index, slice):
        return index
    array = np.asarray(index)
    if isinstance(index, (list, tuple)) and not array.size:
        array = array.astype(np.intp)
    if array.ndim == 0 and array.dtype.kind in "iu":
        return int(array)
    if array.ndim == 1 and array.dtype.kind in "iub":
        return array
    shown = f"an array of {array.dtype} with {array.ndim} axes" if array.ndim else repr(index)
    raise IndexError(
        "features are indexed by integers, slices and arrays of integers or bool with one axis, "
        f"got {shown}"
    )


class FeatureStore(Rows):
    """A read-only store of features, opened by :func:`load`.

    It shows the state at the moment of loading, without what a run adds later. Reading an image
    that was recomputed since, or a store that was replaced, raises an OSError. Features are
    compared with their checksums whenever they are read.

    Attributes
    ----------
    features : StoredFeatures, shape (n, F)
        Read when indexed. One row per finished image, in order of the absolute paths.
    feature_names : list of str, length F
        Made on demand: for whole maps there are many.
    files : list of str, length n
        The paths as they were last found.
    settings : Settings
    device : str
        Where the transform ran.
    skipped : list of Skipped
        Files that could not be used, with the reason, in the same order.
    waiting : list of str
        Files not yet processed, in the same order.
    labels : list of str, length n, or None
        Labels as requested; empty for files without.
    made_by : dict
        Versions of dtwpt and of the packages that read the images, and its engine, when it was
        created.
    continued_by : list of dict
        Other versions that have resumed it.
    path : str
    """

    def __init__(self, path: str, header: Header, *, verify: bool = False) -> None:
        self.path = path
        self.settings, self.device = header.settings, header.device
        self.made_by, self.continued_by = header.made_by, list(header.continued_by)
        self._where, self._identity, self._sealed = (
            os.path.realpath(path),
            header.identity,
            header.sealed,
        )
        with names_sqlite(path), self._open_manifest() as manifest:
            self._rows, self._states, sums, self._reasons = manifest.states(every_row=verify)
        done = self._rows[self._states == State.DONE]
        layout = _stored_layout(self._where, self.settings)
        if layout is None and len(done):
            raise damaged(path, f"{FEATURES}/zarr.json is missing")
        self._size = self.settings.final_size() if layout is None else layout.size
        length = 0 if self._size is None else self.settings.count(self._size)
        self.features = StoredFeatures(self._where, header, done, length, sums)
        _check_same(self._where, header.identity)
        if verify:
            for _ in self.features:
                pass

    def __repr__(self) -> str:
        counts = {state: int((self._states == state).sum()) for state in State}
        return (
            f"<feature store {self.path!r}: {self.features.shape[0]} images x "
            f"{self.features.shape[1]} features, {counts[State.SKIPPED]} skipped, "
            f"{counts[State.WAITING]} waiting>"
        )

    def _open_manifest(self) -> Manifest:
        return Manifest(os.path.join(self._where, MANIFEST_FILE), self._sealed)

    @cached_property
    def _paths(self) -> list[str]:
        _check_same(self._where, self._identity)
        with names_sqlite(self.path), self._open_manifest() as manifest:
            paths = manifest.paths()  # a row always belongs to the same file
        _check_same(self._where, self._identity)
        return paths

    def _in_state(self, state: State) -> list[str]:
        return [self._paths[row] for row in self._rows[self._states == state]]

    @cached_property
    def feature_names(self) -> list[str]:  # type: ignore[override]
        """Return the names of the columns, derived from the settings and the size."""
        return [] if self._size is None else self.settings.names(self._size)

    @cached_property
    def files(self) -> list[str]:  # type: ignore[override]
        """Return the paths of the rows."""
        return self._in_state(State.DONE)

    @cached_property
    def labels(self) -> list[str] | None:  # type: ignore[override]
        """Return the labels of the rows."""
        _check_same(self._where, self._identity)
        with names_sqlite(self.path), self._open_manifest() as manifest:
            labels = manifest.labels()
        if labels is None:
            return None
        return [labels.get(row, "") for row in self._rows[self._states == State.DONE].tolist()]

    @cached_property
    def skipped(self) -> list[Skipped]:
        """Return the files without features, and why."""
        reasons = dict(self._reasons)
        rows = self._rows[self._states == State.SKIPPED].tolist()
        return [Skipped(self._paths[row], reasons[row]) for row in rows]

    @cached_property
    def waiting(self) -> list[str]:
        """Return the files not yet processed."""
        return self._in_state(State.WAITING)


class StoredLayout(NamedTuple):
    """The layout of the array of features."""

    size: tuple[int, int]
    length: int

    @classmethod
    def of(cls, path: str, array: Any, settings: Settings) -> StoredLayout:
        """Return the layout of the array of a store.

        Raises
        ------
        ValueError
            If the array's metadata is damaged.
        """
        part = f"{FEATURES}/zarr.json"
        try:
            height, width = (int(side) for side in array.attrs["size"])
            check_sum(array.attrs, ["size"])
            layout = cls((height, width), int(array.shape[1]))
            if layout.length != settings.count(layout.size):
                raise ValueError(f"{layout.length} features, which the settings do not give")
            rows, length = array.shards
            if length != layout.length or rows < 1 or str(array.dtype) != "float32":
                raise ValueError(f"shards of {rows} x {length}, {array.dtype}")
            if not np.isnan(array.fill_value):
                raise ValueError(f"fill_value {array.fill_value}")
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever invalid numbers lead to
            raise _garbled(path, part, error) from error
        return layout


def open_features(path: str, store: Any, mode: str) -> Any:
    """Return the array of features of a store, or None if it has none yet."""
    try:
        return zarr.open_array(store, path=FEATURES, mode=mode, zarr_format=3)
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Zarr raises many kinds for invalid metadata
        raise _garbled(path, f"{FEATURES}/zarr.json", error) from error


def _stored_layout(path: str, settings: Settings) -> StoredLayout | None:
    store = SteadyStore(path)
    with store.steady():
        array = open_features(path, store, "r")
    return None if array is None else StoredLayout.of(path, array, settings)


def skipped_of(path: str) -> Iterator[tuple[str, str]]:
    """Yield path and reason of skipped files in a store, without loading the rest."""
    with names_sqlite(path), Manifest(os.path.join(path, MANIFEST_FILE)) as manifest:
        yield from manifest.skipped()


def open_store(path: str | os.PathLike[str], *, verify: bool = False) -> FeatureStore:
    """Return a store for reading; see :func:`load`."""
    name = os.fspath(path)
    for pause in _PAUSES:
        before = _identity_of(name)
        try:
            return FeatureStore(name, read_header(name), verify=verify)
        except (OSError, ValueError):
            # Another run may be replacing the store.
            if _identity_of(name) == before and not _is_being_replaced(name):
                raise
        time.sleep(pause)
    return FeatureStore(name, read_header(name), verify=verify)


# Seconds between tries to open a store that is being replaced, which takes milliseconds.
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def _is_being_replaced(path: str) -> bool:
    target = os.path.realpath(path)
    with suppress(OSError):
        return not os.path.lexists(target) and any(kind == "old" for kind, _ in beside(target))
    return False


def beside(target: str) -> Iterator[tuple[str, str]]:
    """Yield kind and path of the temporary folders beside a store that is replaced.

    "new" is a store that is not yet in place, "old" one that was just moved away, "gone" one that
    is being deleted.
    """
    folder, name = os.path.split(target)
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.(new|old|gone)")
    for entry in sorted(os.listdir(folder)):
        match = ours.fullmatch(entry)
        path = os.path.join(folder, entry)
        if match and os.path.isdir(path) and not os.path.islink(path):
            yield match[1], path
