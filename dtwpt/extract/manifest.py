"""The manifest of a store: every input, its row and what has become of it, in SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.extractor import Stamp, stamp_of
from dtwpt.extract.inputs import with_keys

__all__ = ["Manifest", "Plan", "State", "StoreBusyError", "StoreWarning"]

# Seconds to wait for another process that reads or writes at this moment.
_PATIENCE = 60.0
# Inputs that are fetched at a time, so that no reader ever holds up the writer.
_PAGE = 1000

_SCHEMA = """
CREATE TABLE inputs (
    row INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,  -- absolute path
    path BLOB NOT NULL,        -- as it was last found
    state INTEGER NOT NULL,    -- 0 waiting, 1 done, 2 skipped
    reason TEXT,
    size INTEGER,
    mtime_ns INTEGER,
    sha256 BLOB
)
"""


_WRONG_TYPES = """
SELECT row FROM inputs WHERE typeof(row) != 'integer' OR typeof(key) != 'blob'
OR typeof(path) != 'blob' OR typeof(state) != 'integer' OR state NOT IN (0, 1, 2)
OR typeof(reason) NOT IN ('text', 'null') OR (state = 2) != (reason IS NOT NULL)
OR typeof(size) NOT IN ('integer', 'null') OR typeof(mtime_ns) NOT IN ('integer', 'null')
OR typeof(sha256) NOT IN ('blob', 'null')
LIMIT 1
"""


class StoreBusyError(OSError):
    """Another process writes to the store."""


class StoreWarning(UserWarning):
    """Something about a store that is put right, and that its owner should know of."""


class State(IntEnum):
    """What has become of an input."""

    WAITING = 0
    DONE = 1
    SKIPPED = 2


class Plan(NamedTuple):
    """What comparing the inputs with the manifest has shown."""

    new: int
    changed: int
    retried: int


class Manifest:
    """The manifest of one store, open.

    Paths are bytes in it, as the system has them: names need not be text.

    Parameters
    ----------
    path : str
        The file, which exists.

    Raises
    ------
    sqlite3.Error
        If it is damaged or cannot be read.
    """

    def __init__(self, path: str) -> None:
        # A reader may have to undo what a killed writer left half done, hence to write.
        mode = "rw" if os.access(path, os.W_OK) else "ro"
        uri = f"file:{_quoted(os.path.abspath(path))}?mode={mode}"
        # Transactions are begun by hand; one thread at a time uses it.
        self._database = sqlite3.connect(
            uri, timeout=_PATIENCE, isolation_level=None, uri=True, check_same_thread=False
        )

    @classmethod
    def create(cls, path: str) -> Manifest:
        """Return a new, empty manifest."""
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(_SCHEMA)
        return cls(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise a sqlite3.Error if the file is not a sound manifest."""
        self._database.execute("SELECT row, key, path, state FROM inputs LIMIT 1").fetchall()
        (verdict,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self._check_types()

    def _check_types(self) -> None:
        """Raise a sqlite3.Error if a row holds what is never written: SQLite takes anything."""
        wrong = self._database.execute(_WRONG_TYPES).fetchone()
        if wrong is not None:
            raise sqlite3.DatabaseError(f"row {wrong[0]!r} is of other types")

    # Writing ------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
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
        resize: Callable[[int], None],
    ) -> Plan:
        """Take up inputs: the new ones after the others, by absolute path; the changed ones anew.

        Parameters
        ----------
        paths : iterable of str
        hashes : bool
            Compare the contents, not the times.
        retry_skipped : bool
            Take up again whatever was skipped.
        resize : callable
            Called with the number of rows before they are written down.
        """
        with self._transaction():
            execute = self._database.execute
            execute("CREATE TEMP TABLE IF NOT EXISTS found (key BLOB PRIMARY KEY, path BLOB)")
            execute("DELETE FROM found")
            self._database.executemany(
                # Of several names of one file, the same one in whatever order they come.
                "INSERT INTO found VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET path = min(path, excluded.path)",
                ((os.fsencode(key), os.fsencode(path)) for key, path in with_keys(paths)),
            )
            execute(
                "UPDATE inputs SET path = found.path FROM found "
                "WHERE inputs.key = found.key AND inputs.path != found.path"
            )
            (last,) = execute("SELECT coalesce(max(row), -1) FROM inputs").fetchone()
            changed = sum(
                self._take_up_changed(row, key, Stamp(size, mtime_ns, sha256), hashes)
                for row, key, size, mtime_ns, sha256 in self._known_inputs(last)
            )
            retried = 0
            if retry_skipped:
                retried = execute(
                    "UPDATE inputs SET state = 0, reason = NULL WHERE state = 2"
                ).rowcount
            new = execute(
                "INSERT INTO inputs (row, key, path, state) "
                "SELECT ? + row_number() OVER (ORDER BY key), key, path, 0 FROM found "
                "WHERE key NOT IN (SELECT key FROM inputs)",
                (last,),
            ).rowcount
            execute("DELETE FROM found")
            resize(last + 1 + new)
        return Plan(new, changed, retried)

    def _known_inputs(self, last: int) -> Iterator[tuple[int, bytes, int, int, bytes]]:
        """Yield the inputs among the found ones that are finished."""
        start = -1
        while start < last:
            page = self._database.execute(
                "SELECT row, inputs.key, size, mtime_ns, sha256 FROM inputs CROSS JOIN found "
                "ON inputs.key = found.key WHERE row > ? AND state != 0 ORDER BY row LIMIT ?",
                (start, _PAGE),
            ).fetchall()
            if not page:
                return
            yield from page
            start = page[-1][0]

    def _take_up_changed(self, row: int, key: bytes, before: Stamp, hashes: bool) -> bool:
        now = stamp_of(os.fsdecode(key))
        same_times = (now.size, now.mtime_ns) == (before.size, before.mtime_ns)
        if hashes and now.size is not None and now.size == before.size:
            if before.sha256 is None and same_times:  # not asked for until now
                digest = stamp_of(os.fsdecode(key), contents=True).sha256
                self._database.execute("UPDATE inputs SET sha256 = ? WHERE row = ?", (digest, row))
                return False
            now = stamp_of(os.fsdecode(key), contents=True)
            if now.sha256 is not None and now.sha256 == before.sha256:
                return False
        elif same_times:
            return False
        self._database.execute("UPDATE inputs SET state = 0, reason = NULL WHERE row = ?", (row,))
        return True

    def wait_again(self, rows: Iterable[int]) -> None:
        """Take up rows again, all of them or none."""
        with self._transaction():
            self._database.executemany(
                "UPDATE inputs SET state = 0, reason = NULL WHERE row = ?", ((row,) for row in rows)
            )

    def finish(self, results: Iterable[tuple[int, str | None, Stamp]]) -> None:
        """Write down rows that are done (reason None) or skipped, all of them or none."""
        with self._transaction():
            self._database.executemany(
                "UPDATE inputs SET state = ?, reason = ?, size = ?, mtime_ns = ?, sha256 = ? "
                "WHERE row = ?",
                (
                    (
                        State.DONE if reason is None else State.SKIPPED,
                        reason if reason is None else _text(reason),
                        *stamp,
                        row,
                    )
                    for row, reason, stamp in results
                ),
            )

    # Reading ------------------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """Return the number of inputs in each state."""
        counts = dict.fromkeys(State, 0)
        for state, count in self._database.execute(
            "SELECT state, count(*) FROM inputs GROUP BY state"
        ):
            counts[State(state)] = count
        return counts

    def waiting(self) -> Iterator[tuple[int, str]]:
        """Yield row and absolute path of what is waiting, by row, while it may become less."""
        start = -1
        while True:
            page = self._database.execute(
                "SELECT row, key FROM inputs WHERE row > ? AND state = 0 ORDER BY row LIMIT ?",
                (start, _PAGE),
            ).fetchall()
            if not page:
                return
            for row, key in page:
                yield row, os.fsdecode(key)
            start = page[-1][0]

    def done(self, start: int, stop: int) -> list[int]:
        """Return the rows that are done, of those from one to before another."""
        return [
            row
            for (row,) in self._database.execute(
                "SELECT row FROM inputs WHERE row >= ? AND row < ? AND state = 1 ORDER BY row",
                (start, stop),
            )
        ]

    def shards(self, size: int) -> list[tuple[int, bool]]:
        """Return the shards, of ``size`` rows each, with a row that is done, and if one waits."""
        return [
            (shard, bool(waits))
            for shard, waits in self._database.execute(
                "SELECT row / ? AS shard, max(state = 0) FROM inputs GROUP BY shard "
                "HAVING max(state = 1) ORDER BY shard",
                (size,),
            )
        ]

    def states(self) -> tuple[NDArray[np.int64], NDArray[np.int8], list[tuple[int, str]]]:
        """Return rows and states, in order of the keys, and the reasons, at one moment."""
        self._database.execute("BEGIN")
        try:
            self._check_types()
            pairs = self._database.execute("SELECT row, state FROM inputs ORDER BY key")
            flat = np.fromiter((number for pair in pairs for number in pair), np.int64)
            reasons = self._database.execute(
                "SELECT row, reason FROM inputs WHERE state = 2"
            ).fetchall()
        finally:
            self._database.execute("ROLLBACK")
        rows = flat[::2]
        if not np.array_equal(np.sort(rows), np.arange(len(rows))):
            raise sqlite3.DatabaseError("rows are missing, or there twice")
        return rows, flat[1::2].astype(np.int8), reasons

    def paths(self) -> list[str]:
        """Return the paths as they were found, by row."""
        return [
            os.fsdecode(path)
            for (path,) in self._database.execute("SELECT path FROM inputs ORDER BY row")
        ]

    def path(self, row: int) -> str:
        """Return the path of a row, as it was found."""
        (path,) = self._database.execute("SELECT path FROM inputs WHERE row = ?", (row,)).fetchone()
        return os.fsdecode(path)

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Yield path and reason of what is skipped, by row."""
        start = -1
        while True:
            page = self._database.execute(
                "SELECT row, path, reason FROM inputs WHERE row > ? AND state = 2 "
                "ORDER BY row LIMIT ?",
                (start, _PAGE),
            ).fetchall()
            if not page:
                return
            for _, path, reason in page:
                yield os.fsdecode(path), reason
            start = page[-1][0]


def _text(reason: str) -> str:
    # It may quote a name that is not text.
    return reason.encode("utf-8", "backslashreplace").decode()


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))
