"""Store writer. Holds an exclusive lock; writes shards before the manifest."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import new_folder, remove_abandoned, sync
from dtwpt.extract.extractor import Row, Stamp, another_size
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.labels import Labelling
from dtwpt.extract.run.workers import Task
from dtwpt.extract.settings import Settings
from dtwpt.extract.store.chunks import (
    DurableStore,
    FileLock,
    Timeout,
    ZstdCodec,
    is_partial_header,
    remove_partial,
    zarr,
)
from dtwpt.extract.store.manifest import Manifest, Plan, State, StoreBusyError, StoreWarning
from dtwpt.extract.store.reader import (
    FEATURES,
    MANIFEST,
    MANIFEST_FILE,
    VERSION,
    Header,
    StoredLayout,
    beside,
    names_damage,
    names_sqlite,
    not_whole,
    open_features,
    read_header,
    shard_name,
    sum_of,
    with_sum,
)
from dtwpt.extract.table import versions

_LOCK_FILE = os.path.join(MANIFEST, "lock")
# Raw bytes of a shard: what is rewritten when one row of it is new.
_SHARD_BYTES = 1 << 22
_CHUNKS_PER_SHARD = 16
# Maximum number of features that wait to be written.
_PENDING_BYTES = 1 << 25
# Seconds between two commits: rare enough that they take a twentieth of the time.
_LEAST_PAUSE, _MOST_PAUSE, _PAUSE_PER_SECOND = 0.5, 60.0, 20.0


class _Pending(NamedTuple):
    row: int
    features: NDArray[np.float32] | None
    reason: str
    stamp: Stamp


class StoreWriter:
    """The writer of a store; one process at a time.

    Outcomes may be added in any order. All are on disk once :meth:`close` has returned, most of
    them seconds after :meth:`add`.

    Parameters
    ----------
    path : path
        Ends in ``.zarr``. An existing store is resumed.
    settings : Settings
    device : str
    restart : bool
        Start over. An existing store is replaced once the new one is planned.

    Raises
    ------
    ValueError
        If the path holds something other than a store, or a store that is damaged or has other
        settings.
    StoreBusyError
        If another process is writing to it.
    OSError
        If it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Settings,
        *,
        device: str = "numpy",
        restart: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self._target = os.path.realpath(self.path)
        self._settings = settings
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._commit: Future[float] | None = None
        self._array: Any = None
        self._rows = 0
        self._broken = False  # a commit has failed
        self._fresh = ""  # the folder of a store that is not in its place yet
        self._locks: list[FileLock] = []
        self._manifest: Manifest | None = None
        self._thread = ThreadPoolExecutor(1, "dtwpt-store")
        self._size: tuple[int, int] | None = None
        try:
            self._begin(settings, device, restart)
        except BaseException:
            self._release()
            raise
        self._last, self._pause = time.monotonic(), _LEAST_PAUSE

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a failed write there is no point in retrying; after anything else, keep what has
        # been computed.
        self.close(commit=not self._broken)

    # Beginning ----------------------------------------------------------------------------------

    def _begin(self, settings: Settings, device: str, restart: bool) -> None:
        folder = os.path.dirname(self._target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"the folder of the output does not exist: {folder!r}")
        _clear_up(self._target)
        if os.path.lexists(self._target):
            try:
                header = read_header(self.path)
            except ValueError as error:
                if not (restart and _is_ours(self._target)):
                    raise
                header, restart = None, bool(error)
            self._lock(self._target)
            if not restart and header is not None:
                _check_same(self.path, header, settings, device)
                self._open(self._target, header)
                if not header.sealed:
                    header = self._seal(header)
                self._continued_by(header, versions(device))
                return
            _check_nothing_else(self.path)
        self._create(settings, device)

    def _continued_by(self, header: Header, now: dict[str, str]) -> None:
        """Record that other versions resume a store: their features may differ slightly."""
        if "engine" not in header.made_by:  # not recorded by the first stores
            now = {name: version for name, version in now.items() if name != "engine"}
        if now in (header.made_by, *header.continued_by):
            return
        others = [
            f"{name} {header.made_by.get(name)}, now {version}"
            for name, version in now.items()
            if header.made_by.get(name) != version
        ]
        warnings.warn(
            f"{self.path!r} was begun with {'; '.join(others)}", StoreWarning, stacklevel=4
        )
        with self._naming_the_disk():
            self._group.update_attributes(
                with_sum(replace(header, continued_by=(*header.continued_by, now)).attributes())
            )

    def _seal(self, header: Header) -> Header:
        """Add checksums to a store that has none yet; if interrupted, the next run repeats it."""
        header = replace(header, version=VERSION)
        manifest = self._open_manifest
        size = self._array.shards[0] if self._array is not None else 1
        with names_sqlite(self.path), self._naming_the_disk():
            manifest.take_up_sums(header.identity)
            for shard, _ in manifest.shards(size):
                start, stop = shard * size, (shard + 1) * size
                rows = list(manifest.done(start, stop))
                sums: dict[int, int] = {}
                if rows and self._array is not None:
                    block, _ = self._readable(shard)
                    whole = ~not_whole(block, None)
                    sums = {row: sum_of(block[row - start]) for row in rows if whole[row - start]}
                manifest.wait_again(set(rows) - set(sums))
                manifest.set_sums(start, stop, sums.items())
            self._group.update_attributes(with_sum(header.attributes()))
            manifest.close()
            self._manifest = Manifest(self._manifest_file, header.sealed, write=True)
        return header

    def _lock(self, folder: str) -> None:
        before = os.stat(folder).st_ino
        lock = FileLock(os.path.join(folder, _LOCK_FILE), timeout=0, thread_local=False)
        busy = f"another process is writing to {self.path!r}"
        try:
            lock.acquire()
        except Timeout:
            raise StoreBusyError(busy) from None
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._locks.append(lock)
        if os.stat(folder).st_ino != before:  # replaced while this process was about to lock it
            raise StoreBusyError(busy)

    def _open(self, folder: str, header: Header) -> None:
        manifest_file = os.path.join(folder, MANIFEST_FILE)
        for part in (folder, os.path.dirname(manifest_file), manifest_file):
            # SQLite would report it only at the first write.
            if os.path.exists(part) and not os.access(part, os.W_OK):
                raise _cannot_write(self.path, PermissionError(errno.EACCES, "Permission denied"))
        # We hold the lock, so nobody uses what killed processes left behind.
        try:
            remove_partial(folder)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        with names_sqlite(self.path):
            self._manifest = Manifest(manifest_file, header.sealed, write=True)
            self._manifest.check()
        self._header = header
        store = DurableStore(folder)
        with names_damage(self.path, "zarr.json"):
            self._group = zarr.open_group(store, mode="r+", zarr_format=3)
        self._array = open_features(self.path, store, "r+")
        if self._array is not None:
            self._size = StoredLayout.of(self.path, self._array, self._settings).size
        features = os.path.join(folder, FEATURES)
        if self._array is None and os.path.isdir(features):
            # Shards without the metadata needed to read them.
            with self._naming_the_disk():
                shutil.rmtree(features)

    def _create(self, settings: Settings, device: str) -> None:
        folder, name = os.path.split(self._target)
        fresh = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.new")
        with contextlib.ExitStack() as stack:
            try:
                # Until it is in place, nobody puts anything into it.
                made = stack.enter_context(new_folder(self._target, 0o700))
                stack.callback(shutil.rmtree, made, ignore_errors=True)  # if it still exists
                os.mkdir(os.path.join(made, MANIFEST))
            except OSError as error:
                raise _cannot_write(self.path, error) from error
            self._lock(made)
            # Only with its lock inside, so that clean-up does not mistake it for one of a killed
            # process.
            os.rename(made, fresh)
            self._fresh = fresh
        header = Header(secrets.token_hex(16), settings, device, versions(device))
        group = zarr.create_group(DurableStore(self._fresh), zarr_format=3)
        group.create_array(
            MANIFEST,
            shape=(0,),
            chunks=(1,),
            dtype="uint8",
            dimension_names=("nothing",),  # without a name, xarray does not open the group
            attributes={"about": "manifest.sqlite in this folder says which row is which image"},
        )
        group.update_attributes(with_sum(header.attributes()))
        with names_sqlite(self.path):
            Manifest.create(os.path.join(self._fresh, MANIFEST_FILE), header.identity)
        self._open(self._fresh, header)

    def plan(
        self,
        paths: Iterable[str],
        *,
        check: str = "time",
        retry_skipped: bool = False,
        prune: bool = False,
        label: Labelling | None = None,
    ) -> Plan:
        """Register inputs, compare known ones with their files, and start.

        Parameters
        ----------
        paths : iterable of str
        check : {"time", "hash"}
            How to detect a changed file: by size and modification time, or by its contents.
        retry_skipped : bool
            Retry skipped inputs.
        prune : bool
            Forget inputs that are not among the paths and whose files are gone.
        label : callable, optional
            Returns the label of an absolute path, empty where there is none.
        """
        try:
            with names_sqlite(self.path), self._naming_the_disk():
                plan = self._open_manifest.plan(
                    _listed(paths),
                    hashes=check == "hash",
                    retry_skipped=retry_skipped,
                    prune=prune,
                    label=label,
                    resize=self._resize,
                )
        except _InputError as error:
            raise error.cause from None
        if not self._fresh:
            with names_sqlite(self.path), self._naming_the_disk():
                if check == "hash":
                    self._open_manifest.check(every_row=True)
                self._mend(thoroughly=check == "hash")
        if self._array is None and self._settings.final_size() is not None:
            self._create_array(self._settings.final_size() or (1, 1))
        if self._fresh:
            self._put_in_place()
        return plan

    def _mend(self, thoroughly: bool) -> None:
        """Redo rows that are marked done but missing.

        Shards that will be written to are read (all of them with ``thoroughly``); of the others
        only the existence is checked.
        """
        manifest = self._open_manifest
        size = self._array.shards[0] if self._array is not None else self._rows or 1
        for shard, waits in manifest.shards(size):
            start = shard * size
            done = manifest.done(start, start + size)
            file = os.path.join(self._target, *shard_name(shard).split("/"))
            there = self._array is not None and os.path.isfile(file)
            lost = [] if there else list(done)
            if there and (waits or thoroughly):
                block, whole = self._readable(shard)
                rows = np.array(list(done), np.int64)
                wrong = not_whole(block[rows - start], np.array(list(done.values()), np.int64))
                lost = rows[wrong].tolist()
            if lost:
                # Before the shard: if that fails, a later run retries.
                manifest.wait_again(lost)
            if there and (waits or thoroughly) and not whole:
                # Rows cannot be added to a shard that cannot be read.
                self._replace_shard(shard, block if len(lost) < len(done) else None)
            if lost:
                name = shard_name(shard) if self._array is not None else FEATURES
                warnings.warn(
                    f"{self.path!r}: {name} is {'damaged' if there else 'missing'}: "
                    f"{len(lost)} images that were done are done again",
                    StoreWarning,
                    stacklevel=4,
                )

    def _readable(self, shard: int) -> tuple[NDArray[np.float32], bool]:
        """Return the rows of a shard, NaN if unreadable, and whether all could be read."""
        size, length = self._array.shards
        start, step = shard * size, self._array.chunks[0]
        block = np.full((size, length), np.nan, np.float32)
        whole = self._read_into(block, start)
        if not whole:
            block[:] = np.nan
            for first in range(0, size, step):
                self._read_into(block[first : first + step], start + first)
        return block, whole

    def _read_into(self, block: NDArray[np.float32], start: int) -> bool:
        """Fill a block with rows from a given one on, as far as they exist; False if damaged."""
        try:
            with names_damage(self.path, ""):
                values = self._array[start : start + len(block)]
        except ValueError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a bad sector is damage like any other
                raise
            return False
        block[: len(values)] = values
        return True

    def _replace_shard(self, shard: int, block: NDArray[np.float32] | None) -> None:
        """Replace a shard atomically, or remove it."""
        name = shard_name(shard)
        if block is None:
            os.unlink(os.path.join(self._target, *name.split("/")))
            return
        # Zarr would read the old one first.
        files: dict[str, Any] = {}
        array = zarr.create_array(
            zarr.storage.MemoryStore(files), **_layout(self._array.chunks, self._array.shards)
        )
        array[:] = block
        DurableStore(self._target).set_sync(name, files["c/0/0"])

    @property
    def _open_manifest(self) -> Manifest:
        if self._manifest is None:
            raise ValueError("the writer is closed")
        return self._manifest

    def _resize(self, rows: int) -> None:
        # Before the manifest lists the rows: additional rows are harmless.
        self._rows = rows
        if self._array is not None and self._array.shape[0] < rows:
            self._array.resize((rows, self._array.shape[1]))

    def _put_in_place(self) -> None:
        """Move the new store into place, and the existing one out of the way."""
        fresh, folder = self._fresh, os.path.dirname(self._target)
        # SQLite and Zarr open their files by name.
        self._open_manifest.close()
        old = fresh.removesuffix(".new") + ".old"
        if os.path.lexists(self._target):
            if len(self._locks) == 1:  # it did not exist at the start
                raise StoreBusyError(f"another process is writing to {self.path!r}")
            shutil.copymode(self._target, fresh)
            os.rename(self._target, old)
        else:
            shutil.copymode(os.path.join(fresh, MANIFEST), fresh)  # those of any new folder
        sync(os.path.join(fresh, MANIFEST))
        sync(fresh)
        try:
            os.rename(fresh, self._target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise StoreBusyError(f"another process is writing to {self.path!r}") from None
            raise
        sync(folder)
        self._fresh = ""
        size = self._size
        self._open(self._target, self._header)
        self._size = size
        if os.path.lexists(old):
            _discard(old)

    def _create_array(self, size: tuple[int, int]) -> None:
        length = self._settings.count(size)
        attributes: dict[str, Any] = with_sum({"size": list(size)})
        if self._settings.pool != "none":  # with as many names as a map has values
            attributes["feature_names"] = self._settings.names(size)
        rows_per_shard = _power_of_two(_SHARD_BYTES // (4 * length))
        rows_per_chunk = max(1, rows_per_shard // _CHUNKS_PER_SHARD)
        layout = _layout((rows_per_chunk, length), (rows_per_shard, length))
        layout["shape"] = (self._rows, length)
        self._array = self._group.create_array(FEATURES, **layout, attributes=attributes)
        self._size = size

    # Filling ------------------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """Return the number of committed inputs in each state."""
        with names_sqlite(self.path), Manifest(self._manifest_file) as manifest:
            return manifest.counts()

    def waiting(self) -> Generator[Task, None, None]:
        """Yield the waiting inputs by row; each call reads the list again."""
        # A separate connection: the other one belongs to the committing thread.
        with names_sqlite(self.path), Manifest(self._manifest_file) as manifest:
            for row, path in manifest.waiting():
                yield Task(row, path)

    @property
    def _manifest_file(self) -> str:
        return os.path.join(self._fresh or self._target, MANIFEST_FILE)

    def add(self, row: int, result: Row | ImageError, stamp: Stamp) -> Row | ImageError:
        """Add the outcome of a row, and return what is recorded about it.

        Features of a different length are refused: with ``pool="none"``, the first image added sets
        the length.
        """
        if isinstance(result, Row):
            if self._array is None:
                self._create_array(result.size)
            if self._settings.pool == "none" and result.size != self._size:
                result = self._another_size(row, result.size)
        if isinstance(result, Row):
            # A copy: the row may be a view of a much larger array.
            features = np.array(result.features, np.float32)
            self._pending.append(_Pending(row, features, "", stamp))
            self._pending_bytes += result.features.nbytes
        else:
            self._pending.append(_Pending(row, None, result.reason, stamp))
        self.commit_if_due()
        return result

    @property
    def size(self) -> tuple[int, int] | None:
        """The final size that determines the names of the features; None until it is known."""
        return self._size

    def decide_size(self, size: tuple[int, int]) -> None:
        """Set the size of all images, with ``pool="none"``, before the first one is added."""
        if self._array is None:
            self._create_array(size)

    def _another_size(self, row: int, size: tuple[int, int]) -> ImageError:
        with names_sqlite(self.path), Manifest(self._manifest_file) as manifest:
            path = manifest.path(row)
        return another_size(path, size, "the first one", self._size or (0, 0))

    def flush(self) -> None:
        """Write what has been added, and wait until it is on disk.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._begin_commit()
        self._settle()

    def commit_if_due(self) -> None:
        """Start a commit if it is due."""
        if self._commit is not None and self._commit.done():
            seconds = self._settle()
            self._pause = min(max(_LEAST_PAUSE, _PAUSE_PER_SECOND * seconds), _MOST_PAUSE)
        full = self._pending_bytes >= _PENDING_BYTES
        if full or time.monotonic() - self._last >= self._pause:
            if self._commit is not None and not full:
                return  # the previous one is still running
            self._begin_commit()

    def _begin_commit(self) -> None:
        # In a separate thread, so that an exception here, such as Ctrl-C, never leaves a commit
        # half done while another one starts.
        self._settle()
        if self._pending:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            self._commit = self._thread.submit(self._write, pending)
        self._last = time.monotonic()

    def _settle(self) -> float:
        """Wait for the running commit; raise its exception."""
        if self._commit is None:
            return 0.0
        seconds = self._commit.result()
        self._commit = None
        return seconds

    def _write(self, pending: list[_Pending]) -> float:
        started = time.monotonic()
        done = [entry for entry in pending if entry.features is not None]
        try:
            with names_sqlite(self.path), self._naming_the_disk():
                if done:
                    self._write_rows(done)
                self._open_manifest.finish(
                    (row, reason if features is None else sum_of(features), stamp)
                    for row, features, reason, stamp in pending
                )
        except BaseException:
            self._broken = True
            raise
        return time.monotonic() - started

    def _write_rows(self, done: list[_Pending]) -> None:
        shard = self._array.shards[0]
        rows = np.array([entry.row for entry in done])
        order = np.argsort(rows, kind="stable")
        shards = rows[order] // shard
        for places in np.split(order, np.flatnonzero(np.diff(shards)) + 1):
            start = int(rows[places[0]]) // shard * shard
            stop = min(start + shard, self._array.shape[0])
            with names_damage(self.path, shard_name(start // shard)):
                block = self._array[start:stop]
            for place in places:
                block[rows[place] - start] = done[place].features
            self._array[start:stop] = block

    @contextlib.contextmanager
    def _naming_the_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise _cannot_write(self.path, OSError(errno.ENOSPC, "No space left")) from error
            raise
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    # The end ------------------------------------------------------------------------------------

    def close(self, commit: bool = True) -> None:
        """Commit what has been added, and release the store.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        try:
            if commit:
                self.flush()
        finally:
            self._release()

    def _release(self) -> None:
        self._thread.shutdown(wait=True)  # a running commit finishes
        if self._manifest is not None:
            self._manifest.close()
            self._manifest = None
        for lock in self._locks:
            lock.release()
        self._locks = []
        if self._fresh:
            with contextlib.suppress(OSError):
                _discard(self._fresh)
            self._fresh = ""


def _layout(chunks: tuple[int, int], shards: tuple[int, int]) -> dict[str, Any]:
    """Return the storage options of an array of features with one shard."""
    return {
        "shape": shards,
        "dtype": "float32",
        "chunks": chunks,
        "shards": shards,
        "compressors": [ZstdCodec(level=3, checksum=True)],
        "fill_value": float("nan"),
        "dimension_names": ("image", "feature"),
    }


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


def _cannot_write(path: str, error: OSError) -> OSError:
    return type(error)(error.errno, f"cannot write {path!r}: {error.strerror or error}")


def _check_same(path: str, header: Header, settings: Settings, device: str) -> None:
    before, now = header.settings.to_dict(), settings.to_dict()
    differences = [
        f"{name} {before[name]!r}, not {now[name]!r}" for name in now if before[name] != now[name]
    ]
    if header.device != device:
        differences.append(f"device {header.device!r}, not {device!r}")
    if differences:
        raise ValueError(
            f"{path!r} was made with {', '.join(differences)}: resume with the same settings, "
            "choose another output, or start over (--restart)"
        )


class _InputError(Exception):
    """Raised by finding the inputs, not by recording them."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _listed(paths: Iterable[str]) -> Iterator[str]:
    try:
        yield from paths
    except OSError as error:
        raise _InputError(error) from error


def _is_ours(folder: str) -> bool:
    """Whether a folder is a store, if a damaged one or one of a newer version."""
    try:
        read_header(folder)
    except ValueError as error:
        return "is not a feature store" not in str(error)
    return True


def _check_nothing_else(path: str) -> None:
    """Refuse to replace a store whose folder also holds other files."""
    others = _others(path)
    if others:
        raise ValueError(
            f"{path!r} also holds {others[0]!r}, which is not the store's: move it away first"
        )


def _others(path: str) -> list[str]:
    ours = {"zarr.json", FEATURES, MANIFEST}
    return sorted(
        name for name in os.listdir(path) if name not in ours and not is_partial_header(name)
    )


def _clear_up(target: str) -> None:
    """Clean up after a process that was killed while it created a store."""
    with contextlib.suppress(OSError):
        remove_abandoned(os.path.dirname(target))
    for kind, path in list(beside(target)):
        with contextlib.suppress(OSError, Timeout):
            lock_file = os.path.join(path, _LOCK_FILE)
            locked, replaced = os.path.exists(lock_file), os.path.lexists(target)
            # Stores get their lock before these names: without one, it is a remnant of a power cut.
            remains = not locked and (kind == "new" or (replaced and _is_ours(target)))
            if kind == "gone" or remains:
                if not _others(path):
                    shutil.rmtree(path, ignore_errors=True)
            elif locked:
                # A process working on it holds its lock.
                with FileLock(lock_file, timeout=0):
                    if kind == "old" and not replaced:
                        if _is_ours(path):
                            os.rename(path, target)
                    elif not _others(path) and (kind == "new" or _is_ours(target)):
                        _discard(path)


def _discard(folder: str) -> None:
    """Delete a store, renamed first so that nobody takes it for a complete one."""
    gone = f"{os.path.splitext(folder)[0]}.gone"
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
