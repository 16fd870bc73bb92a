"""The manifest of a store: every input with its row and state, in SQLite."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.extractor import Stamp, stamp_of
from dtwpt.extract.inputs import with_keys
from dtwpt.extract.labels import Labelling

# Seconds to wait for another process that is reading or writing.
_PATIENCE = 60.0
# Inputs fetched at a time, so that no reader holds up the writer.
_PAGE = 1000
# Rows written in one transaction, and seconds of comparing files that a kill may lose. Both bound
# how long readers wait for a commit.
_MOST_ROWS = 20_000
_COMPARED = 1.0
# Rows whose numbers are joined into one text: SQLite allows up to a gigabyte.
_LISTED = 1 << 22
# Rows whose checksums are always checked: about a quarter of a second.
_CHEAP = 100_000

_SCHEMA = """
CREATE TABLE store (identity TEXT NOT NULL);
CREATE TABLE inputs (
    row INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,  -- absolute path
    path BLOB NOT NULL,        -- as it was last found
    state INTEGER NOT NULL,    -- 0 waiting, 1 done, 2 skipped, 3 forgotten
    reason TEXT,
    size INTEGER,
    mtime_ns INTEGER,
    sha256 BLOB,
    features_sum INTEGER,      -- CRC-32 of the features of a row that is done
    row_sum INTEGER            -- and of all that stands before it
);
"""
_COLUMNS = "row, key, path, state, reason, size, mtime_ns, sha256, features_sum"
# Changed rows get a new checksum by this trigger; new rows come with theirs.
_TRIGGERS = f"""
CREATE TEMP TRIGGER sum_changed AFTER UPDATE OF {_COLUMNS} ON main.inputs BEGIN
    UPDATE inputs SET row_sum = sum_of({_COLUMNS}) WHERE row = new.row;
END;
"""

_WRONG_TYPES = """
SELECT row FROM inputs WHERE typeof(row) != 'integer' OR typeof(key) != 'blob'
OR typeof(path) != 'blob' OR typeof(state) != 'integer' OR state NOT IN (0, 1, 2, 3)
OR typeof(reason) NOT IN ('text', 'null') OR (state = 2) != (reason IS NOT NULL)
OR typeof(size) NOT IN ('integer', 'null') OR typeof(mtime_ns) NOT IN ('integer', 'null')
OR typeof(sha256) NOT IN ('blob', 'null')
LIMIT 1
"""
_WRONG_STATE = "SELECT row FROM inputs WHERE state NOT IN (0, 1, 2, 3) LIMIT 1"
_LACKS_SUMS = """
SELECT row FROM inputs WHERE typeof(row_sum) != 'integer' OR (state = 1) !=
(typeof(features_sum) = 'integer') LIMIT 1
"""


# Marks a row whose stored values are no longer valid.
_WAIT = "UPDATE inputs SET state = 0, reason = NULL, features_sum = NULL WHERE row = ?"
# Marks a row as forgotten, until its file is found again.
_FORGET = "UPDATE inputs SET state = 3, reason = NULL, features_sum = NULL WHERE row = ?"
# Created when there are labels.
_LABELS = """
CREATE TABLE IF NOT EXISTS labels (
    row INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    sum INTEGER NOT NULL       -- CRC-32 of both
)
"""


class StoreBusyError(OSError):
    """Another process is writing to the store."""


class StoreWarning(UserWarning):
    """A repaired fault of a store that its owner should know of."""


class State(IntEnum):
    """The state of an input."""

    WAITING = 0
    DONE = 1
    SKIPPED = 2
    FORGOTTEN = 3


class Plan(NamedTuple):
    """The result of comparing the inputs with the manifest."""

    new: int
    changed: int
    retried: int
    forgotten: int


class States(NamedTuple):
    """Rows and states in order of the absolute paths, checksums of features by row, and reasons."""

    rows: NDArray[np.int64]
    states: NDArray[np.int8]
    sums: NDArray[np.int64]
    reasons: list[tuple[int, str]]


class Manifest:
    """The manifest of one store, open.

    Paths are stored as bytes, as the system has them: names need not be text.

    Parameters
    ----------
    path : str
        The file, which exists.
    identity : str, optional
        Identity that the manifest must have, if its rows have checksums.
    write : bool
        Whether to open it for writing.

    Raises
    ------
    sqlite3.Error
        If it is damaged, that of another store, or cannot be read.
    """

    def __init__(self, path: str, identity: str | None = None, *, write: bool = False) -> None:
        # A reader may have to roll back a killed writer's transaction, and so to write.
        mode = "rw" if os.access(path, os.W_OK) else "ro"
        uri = f"file:{_quoted(os.path.abspath(path))}?mode={mode}"
        # Transactions are explicit. One thread at a time uses the connection.
        self._database = sqlite3.connect(
            uri, timeout=_PATIENCE, isolation_level=None, uri=True, check_same_thread=False
        )

        self._sums = identity is not None
        try:
            if identity is not None:
                found = self._database.execute("SELECT identity FROM store").fetchall()
                if found != [(identity,)]:
                    raise sqlite3.DatabaseError("it is that of another store")
            if write:
                # Syncs the folder too, so that a commit survives a power cut right after it.
                self._database.execute("PRAGMA synchronous = EXTRA")
                # Otherwise, changes that exceed the cache would lock readers out.
                self._database.execute("PRAGMA cache_spill = OFF")
                self._database.create_function("sum_of", -1, _sum_of, deterministic=True)
                if self._sums:
                    self._database.executescript(_TRIGGERS)
        except BaseException:
            self._database.close()
            raise

    @classmethod
    def create(cls, path: str, identity: str) -> None:
        """Make a new, empty manifest."""
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript(_SCHEMA)
            database.execute("INSERT INTO store VALUES (?)", (identity,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, *, every_row: bool = False) -> None:
        """Raise a sqlite3.Error if the file is not a sound manifest.

        Checksums of rows are compared with ``every_row``, and where there are few.
        """
        columns = f"{_COLUMNS}, row_sum" if self._sums else "row, key, path, state"
        self._database.execute(f"SELECT {columns} FROM inputs LIMIT 1").fetchall()
        (verdict,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        (count,) = self._database.execute("SELECT count(*) FROM inputs").fetchone()
        thoroughly = every_row or count <= _CHEAP
        # SQLite accepts values of any type.
        wrong = [_WRONG_TYPES if thoroughly else _WRONG_STATE, *([_LACKS_SUMS] * self._sums)]
        for query in wrong:
            row = self._database.execute(query).fetchone()
            if row is not None:
                raise sqlite3.DatabaseError(f"row {row[0]!r} is of other types")
        if thoroughly:
            for _ in self._checked():
                pass

    def _checked(self) -> Iterator[tuple[Any, ...]]:
        """Yield the columns of all rows, by row, compared with their checksums."""
        if not self._sums:
            yield from self._pages(_COLUMNS.removesuffix(", features_sum"), "1")
            return
        for *values, row_sum in self._pages(f"{_COLUMNS}, row_sum", "1"):
            if _sum_of(*values) != row_sum:
                raise sqlite3.DatabaseError(f"row {values[0]!r} has been changed")
            yield tuple(values)

    def _pages(self, columns: str, condition: str) -> Iterator[tuple[Any, ...]]:
        """Yield columns of rows, by row, a page at a time, so that no writer has to wait.

        The first column must be the row.
        """
        start = -1
        while True:
            page = self._database.execute(
                f"SELECT {columns} FROM inputs WHERE row > ? AND ({condition}) "
                "ORDER BY row LIMIT ?",
                (start, _PAGE),
            ).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            start = page[-1][0]

    # Writing ------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        self._database.execute(f"BEGIN {kind}")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def plan(
        self,
        paths: Iterable[str],
        *,
        hashes: bool,
        retry_skipped: bool,
        prune: bool = False,
        label: Labelling | None = None,
        resize: Callable[[int], None],
    ) -> Plan:
        """Register inputs: new ones after the others, by absolute path; changed ones wait again.

        Parameters
        ----------
        paths : iterable of str
        hashes : bool
            Compare contents instead of times.
        retry_skipped : bool
            Retry skipped inputs.
        prune : bool
            Forget inputs that were not found and whose files are gone.
        label : callable, optional
            Returns the label of an absolute path.
        resize : callable
            Called with the number of rows before they are recorded.
        """
        execute = self._database.execute
        execute(
            "CREATE TEMP TABLE IF NOT EXISTS found (key BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID"
        )
        with self._transaction("DEFERRED"):  # of the temporary database alone
            execute("DELETE FROM found")
            self._database.executemany(
                # Of several names of one file keep the same one, in whatever order they come.
                "INSERT INTO found VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET path = min(path, excluded.path)",
                ((os.fsencode(key), os.fsencode(path)) for key, path in with_keys(paths)),
            )
        (last,) = execute("SELECT coalesce(max(row), -1) FROM inputs").fetchone()
        changes = _Changes(self, last + 1, resize)
        for key, path, row, before, state, *stamp in self._found():
            if label is not None:
                number = changes.rows + len(changes.new) if row is None else row
                changes.labels.append((number, _text(label(os.fsdecode(key)))))
            if row is None:
                changes.new.append((key, path))
            elif state == State.FORGOTTEN:
                changes.renamed.append((path, row))
                changes.changed.append((row,))
            else:
                if path != before:
                    changes.renamed.append((path, row))
                if state and (hashes or not _has_times(key, stamp)):  # it is finished
                    verdict = _compare(os.fsdecode(key), stamp, hashes)
                    if verdict is True:
                        changes.changed.append((row,))
                    elif verdict is not False:
                        changes.hashed.append((verdict, row))
            changes.write_down_if_due()
        changes.write_down()
        retried = 0
        if retry_skipped:
            with self._transaction():
                retried = execute(
                    "UPDATE inputs SET state = 0, reason = NULL WHERE state = 2"
                ).rowcount
        forgotten = self._forget_missing() if prune else 0
        execute("DELETE FROM found")
        return Plan(changes.rows - last - 1, changes.count, retried, forgotten)

    def _forget_missing(self) -> int:
        gone: list[tuple[int]] = []
        for row, key in self._pages(
            "row, key", "state != 3 AND +key NOT IN (SELECT key FROM found)"
        ):
            if not os.path.lexists(os.fsdecode(key)):
                gone.append((row,))
        for start in range(0, len(gone), _MOST_ROWS):
            with self._transaction():
                self._database.executemany(_FORGET, gone[start : start + _MOST_ROWS])
        return len(gone)

    def _found(self) -> Iterator[tuple[Any, ...]]:
        """Yield key, path and record of each input found, by key, in pages."""
        after = b""
        while True:
            page = self._database.execute(
                "SELECT found.key, found.path, row, inputs.path, state, size, mtime_ns, sha256 "
                "FROM found LEFT JOIN inputs ON inputs.key = found.key WHERE found.key > ? "
                "ORDER BY found.key LIMIT ?",
                (after, _PAGE),
            ).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def write(self, changes: _Changes) -> None:
        """Record a plan in one transaction."""
        new = ((row, *pair, 0) for row, pair in enumerate(changes.new, changes.rows))
        execute = self._database.executemany
        with self._transaction():
            execute("UPDATE inputs SET path = ? WHERE row = ?", changes.renamed)
            execute(_WAIT, changes.changed)
            execute("UPDATE inputs SET sha256 = ? WHERE row = ?", changes.hashed)
            execute(
                "INSERT INTO inputs (row, key, path, state, row_sum) VALUES (?, ?, ?, ?, ?)",
                ((*row, _sum_of(*row, *_NOTHING)) for row in new),
            )
            if changes.labels:
                self._database.execute(_LABELS)
                execute(
                    "INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT (row) DO UPDATE "
                    "SET label = excluded.label, sum = excluded.sum WHERE label != excluded.label",
                    ((*pair, _sum_of(*pair)) for pair in changes.labels),
                )

    def wait_again(self, rows: Iterable[int]) -> None:
        """Mark rows as waiting, in one transaction."""
        with self._transaction():
            self._database.executemany(_WAIT, ((row,) for row in rows))

    def finish(self, results: Iterable[tuple[int, str | int, Stamp]]) -> None:
        """Record rows in one transaction.

        Each has the checksum of its features, or the reason why it is skipped.
        """
        with self._transaction():
            self._database.executemany(
                "UPDATE inputs SET state = ?, reason = ?, features_sum = ?, size = ?, "
                "mtime_ns = ?, sha256 = ? WHERE row = ?",
                (
                    (State.SKIPPED, _text(result), None, *stamp, row)
                    if isinstance(result, str)
                    else (State.DONE, None, result, *stamp, row)
                    for row, result, stamp in results
                ),
            )

    def take_up_sums(self, identity: str) -> None:
        """Add columns for checksums to a manifest without; :meth:`set_sums` fills them."""
        with self._transaction():
            columns = {row[1] for row in self._database.execute("PRAGMA table_info(inputs)")}
            for name in {"features_sum", "row_sum"} - columns:
                self._database.execute(f"ALTER TABLE inputs ADD COLUMN {name} INTEGER")
            self._database.execute("DROP TABLE IF EXISTS store")
            self._database.execute("CREATE TABLE store (identity TEXT NOT NULL)")
            self._database.execute("INSERT INTO store VALUES (?)", (identity,))

    def set_sums(self, start: int, stop: int, sums: Iterable[tuple[int, int]]) -> None:
        """Record the checksums of features, and of all rows in a range."""
        with self._transaction():
            self._database.executemany(
                "UPDATE inputs SET features_sum = ? WHERE row = ?",
                ((features_sum, row) for row, features_sum in sums),
            )
            self._database.execute(
                f"UPDATE inputs SET row_sum = sum_of({_COLUMNS}) WHERE row >= ? AND row < ?",
                (start, stop),
            )

    # Reading ------------------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """Return the number of inputs in each state, except forgotten ones."""
        counts = {State.WAITING: 0, State.DONE: 0, State.SKIPPED: 0}
        for state, count in self._database.execute(
            "SELECT state, count(*) FROM inputs WHERE state != 3 GROUP BY state"
        ):
            counts[State(state)] = count
        return counts

    def labels(self) -> dict[int, str] | None:
        """Return the labels of rows; None if none were ever given."""
        tables = self._database.execute("SELECT name FROM sqlite_master").fetchall()
        if ("labels",) not in tables:
            return None
        found = self._database.execute("SELECT row, label, sum FROM labels").fetchall()
        for row, label, known in found:
            if _sum_of(row, label) != known:
                raise sqlite3.DatabaseError(f"the label of row {row!r} has been changed")
        return {row: label for row, label, _ in found}

    def waiting(self) -> Iterator[tuple[int, str]]:
        """Yield row and absolute path of waiting inputs, by row; the list may shrink meanwhile."""
        for row, key in self._pages("row, key", "state = 0"):
            yield row, os.fsdecode(key)

    def done(self, start: int, stop: int) -> dict[int, int | None]:
        """Return the rows in a range that are done, with their checksums."""
        column = "features_sum" if self._sums else "NULL"
        return dict(
            self._database.execute(
                f"SELECT row, {column} FROM inputs WHERE row >= ? AND row < ? AND state = 1 "
                "ORDER BY row",
                (start, stop),
            )
        )

    def shards(self, size: int) -> list[tuple[int, bool]]:
        """Return the shards of ``size`` rows each, and for each whether a row of it waits."""
        return [
            (shard, bool(waits))
            for shard, waits in self._database.execute(
                "SELECT row / ? AS shard, max(state = 0) FROM inputs GROUP BY shard ORDER BY shard",
                (size,),
            )
        ]

    def states(self, *, every_row: bool = False) -> States:
        """Return a consistent snapshot of the rows; see :meth:`check` for ``every_row``."""
        self._database.execute("BEGIN")
        try:
            (count,) = self._database.execute("SELECT count(*) FROM inputs").fetchone()
            if every_row or count <= _CHEAP:
                self.check(every_row=every_row)
            steps = range(0, count, _LISTED)
            by_key = self._listed(
                "SELECT row AS number FROM inputs ORDER BY key LIMIT ? OFFSET ?",
                [(_LISTED, start) for start in steps],
            )
            where = "FROM inputs WHERE row >= ? AND row < ? ORDER BY row"
            ranges = [(start, start + _LISTED) for start in steps]
            states = self._listed(f"SELECT state AS number {where}", ranges)
            column = "coalesce(features_sum, -1)" if self._sums else "-1"
            sums = self._listed(f"SELECT {column} AS number {where}", ranges)
            reasons = self._database.execute(
                "SELECT row, reason FROM inputs WHERE state = 2"
            ).fetchall()
        finally:
            self._database.execute("ROLLBACK")
        if len(states) != count or not np.array_equal(np.sort(by_key), np.arange(count)):
            raise sqlite3.DatabaseError("rows are missing or duplicated")
        if not np.isin(states, list(State)).all() or len(sums) != count:
            raise sqlite3.DatabaseError("a row has an unknown state")
        if self._sums and not np.array_equal(sums >= 0, states == State.DONE):
            raise sqlite3.DatabaseError("rows that are done lack their checksums")
        return States(by_key, states[by_key].astype(np.int8), sums, reasons)

    def _listed(self, query: str, steps: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
        """Return a column of integers, through texts: a tuple a row takes several times as long."""
        parts = [np.empty(0, np.int64)]
        for step in steps:
            (text,) = self._database.execute(
                f"SELECT group_concat(number) FROM ({query})", step
            ).fetchone()
            parts.append(_numbers(text))
        return np.concatenate(parts)

    def paths(self) -> list[str]:
        """Return the paths as they were found, by row."""
        return [os.fsdecode(path) for _, _, path, *_ in self._checked()]

    def path(self, row: int) -> str:
        """Return the path of a row, as it was found."""
        (path,) = self._database.execute("SELECT path FROM inputs WHERE row = ?", (row,)).fetchone()
        return os.fsdecode(path)

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Yield path and reason of skipped inputs, by row."""
        for _, path, reason in self._pages("row, path, reason", "state = 2"):
            yield os.fsdecode(path), reason


class _Changes:
    """A plan recorded in short transactions: readers wait for one, a kill loses one.

    Parameters
    ----------
    manifest : Manifest
    rows : int
        Number of existing rows.
    resize : callable
        Called with the number of rows before they are recorded.
    """

    def __init__(self, manifest: Manifest, rows: int, resize: Callable[[int], None]) -> None:
        self._manifest, self._resize = manifest, resize
        self.rows = rows
        self.count = 0  # of those that have changed
        self.new: list[tuple[bytes, bytes]] = []
        self.renamed: list[tuple[bytes, int]] = []
        self.changed: list[tuple[int]] = []
        self.hashed: list[tuple[bytes | None, int]] = []
        self.labels: list[tuple[int, str]] = []
        self._steps = 0
        self._since = time.monotonic()

    def write_down_if_due(self) -> None:
        """Record pending changes if there are many, or if the last time was a while ago."""
        self._steps += 1
        if self._steps >= _MOST_ROWS or time.monotonic() - self._since > _COMPARED:
            self.write_down()

    def write_down(self) -> None:
        """Record pending changes."""
        # Before the manifest lists them.
        self._resize(self.rows + len(self.new))
        lists = (self.new, self.renamed, self.changed, self.hashed, self.labels)
        if any(lists):
            self._manifest.write(self)
        self.rows += len(self.new)
        self.count += len(self.changed)
        for some in lists:
            some.clear()
        self._steps, self._since = 0, time.monotonic()


def _has_times(path: bytes, stamp: Sequence[Any]) -> bool:
    """Whether a file has the size and time of a stamp; a quick check for most."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return bool(status.st_size == stamp[0] and status.st_mtime_ns == stamp[1])


def _compare(path: str, before: Sequence[Any], hashes: bool) -> bool | bytes | None:
    """Return whether a file has changed, or its hash to record."""
    now = stamp_of(path)
    size, mtime_ns, sha256 = before
    same_times = now.size == size and now.mtime_ns == mtime_ns
    if not hashes or now.size is None or now.size != size:
        return not same_times
    digest = stamp_of(path, contents=True).sha256
    if sha256 is None and same_times:  # not recorded until now
        return digest
    return digest is None or digest != sha256


def _numbers(text: str | None) -> NDArray[np.int64]:
    """Return the numbers in a text, up to the first that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # not a number
        return np.fromstring(text or "", np.int64, sep=",")


# Columns of a new row from the reason on.
_NOTHING = (None,) * 5


def _sum_of(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


def _text(reason: str) -> str:
    # It may quote a name that is not text.
    return reason.encode("utf-8", "backslashreplace").decode()


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))
