"""One SQLite file that several processes use at once: WAL, short transactions, numbered migrations.

In: the path of `own.db`. Out: a `Database` whose methods raise StoreError with a hint, never
sqlite3's own errors. Invariants: writers wait for each other instead of failing
(test_database_processes_wait_for_each_other); a migration happens whole or not at all, and a copy
of the old file is kept (test_open_database_keeps_copy_before_migrating); a file written by a newer
version is refused untouched (test_open_database_refuses_newer); nobody but its owner may read it
(test_open_database_is_its_owners_alone).
Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_user_version.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS, Migration

BUSY_TIMEOUT_S = 20.0
CACHE_BYTES = 16 * 2**20  # of pages, for each open database

_HINTS: tuple[tuple[str, str, str], ...] = (
    ("locked", "is locked", "another process is writing; wait for it or stop it, then try again"),
    ("busy", "is locked", "another process is writing; wait for it or stop it, then try again"),
    ("disk is full", "cannot grow", "free some disk space; nothing stored so far is lost"),
    ("readonly", "cannot be written", "check the permissions of the project folder"),
    ("unable to open", "cannot be opened", "check that the folder exists and may be written"),
    ("disk I/O error", "cannot be read or written", "check the disk and the space left on it"),
    (
        "malformed",
        "is damaged",
        "put back a copy (own.db.before-* beside it, or your backup); bodies/ is not affected",
    ),
    ("not a database", "is not a database", "put back a copy, or move the file away to start anew"),
    ("unsupported file format", "is not a database", "put back a copy, or move the file away"),
)


class Database:
    """An open `own.db`, for one thread. `transaction()` groups writes; lone statements commit."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with explained(self.path):
            return self._connection.execute(sql, params).fetchall()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows it changed."""
        with explained(self.path):
            return self._connection.execute(sql, params).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row; the number of rows changed in all."""
        with explained(self.path):
            return self._connection.executemany(sql, rows).rowcount

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock, waiting for it; commit at the end, or undo all on an error."""
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with explained(self.path):
                self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def log_event(self, kind: str, ref: str, detail: str = "") -> None:
        """Append to the event log: what `kind` of thing happened to `ref`."""
        self.execute(
            "INSERT INTO event (at, kind, ref, detail) VALUES (?, ?, ?, ?)",
            (time.time(), kind, ref, detail),
        )

    def check_integrity(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when it is sound."""
        try:
            rows = self.query("PRAGMA integrity_check") + self.query("PRAGMA foreign_key_check")
        except StoreError as error:  # too damaged even to be checked
            return [error.what]
        return [" ".join(str(v) for v in row) for row in rows if row != ("ok",)]

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_database(
    path: Path,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    is_power_safe: bool = False,
) -> Database:
    """Open (or make) the database at `path` and bring it to the newest schema.

    What was committed survives a killed process always, and a power cut where `is_power_safe`.
    Raises: StoreError when it is locked for longer than the time-out, damaged, newer than this
    program, or the disk is full
    """
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {path.parent}: {error.strerror}") from None
        _make_private(path)
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        with explained(path):
            _configure(connection, busy_timeout_s, is_power_safe=is_power_safe)
            _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return Database(path, connection)


def _make_private(path: Path) -> None:
    """Make a file that only its owner may read, where there is none; SQLite's own inherit that."""
    with contextlib.suppress(OSError):  # what is wrong here, SQLite will say
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors about the file at `path` into StoreError with a hint."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise StoreError(f"{path} refused a row: {error}") from error
    except sqlite3.Error as error:
        text = str(error)
        for needle, what, hint in _HINTS:
            if needle in text:
                raise StoreError(f"{path} {what} ({text})", hint=hint) from error
        raise StoreError(f"{path}: {text}") from error


def is_row_refused(error: BaseException) -> bool:
    """Whether a StoreError is about the row (a constraint), not about the file."""
    return isinstance(error.__cause__, sqlite3.IntegrityError)


def _configure(
    connection: sqlite3.Connection, busy_timeout_s: float, *, is_power_safe: bool
) -> None:
    # SQLite does not wait by itself while another process switches the file to WAL
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute(f"PRAGMA synchronous = {'FULL' if is_power_safe else 'NORMAL'}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    newest = migrations[-1].number if migrations else 0
    if _version(connection) == newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)  # another process may have migrated while we waited
        if version > newest:
            raise StoreError(
                f"{path} has schema version {version}, this program knows up to {newest}",
                hint="it was written by a newer version: upgrade ownweights",
            )
        if 0 < version < newest:
            _keep_copy(path, version)
        for migration in migrations:
            if migration.number > version:
                for statement in _statements(migration.sql):
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep_copy(path: Path, version: int) -> None:
    """Copy the committed state to `<name>.before-<version + 1>`, whole or not at all."""
    target = path.with_name(f"{path.name}.before-{version + 1}")
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    source = sqlite3.connect(path)
    _make_private(draft)
    copy = sqlite3.connect(draft)
    try:
        source.backup(copy)
        copy.close()
        os.replace(draft, target)
    finally:
        source.close()
        copy.close()
        draft.unlink(missing_ok=True)


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one (a trigger's body holds semicolons of its own)."""
    pending = ""
    for piece in sql.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n;"):
                yield pending.strip()
            pending = ""
