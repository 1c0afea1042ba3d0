"""One SQLite file that several processes use at once: WAL, short transactions, numbered migrations.

In: the path of `own.db`. Out: a `Database` of core/database.py. Invariants: writers wait for each
other instead of failing (test_database_processes_wait_for_each_other); a migration happens whole or
not at all, and a copy of the old file is kept (test_open_database_keeps_copy_before_migrating); a
file written by a newer version is refused (test_open_database_leaves_a_newer_file_as_it_is); nobody
but its owner may read it (test_open_database_is_its_owners_alone); a database that is opened again
keeps its locks, and so its log (test_open_database_again_keeps_the_log_of_the_first).
Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_user_version,
sqlite.org/howtocorrupt.html#posix_close_bug.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ownweights.core.database import BUSY_TIMEOUT_S, Database, plain_text
from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS, Migration, statements_of

_MAKING = threading.Lock()  # a file that one thread makes, no other locks before it is closed
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


class SqliteDatabase(Database):
    """An open `own.db`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with explained(self.path):
            return self._run(sql, params).fetchall()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        with explained(self.path):
            return self._run(sql, params).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        with explained(self.path):
            return self._connection.executemany(sql, rows).rowcount

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
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

    def check_integrity(self) -> list[str]:
        try:
            rows = self.query("PRAGMA integrity_check") + self.query("PRAGMA foreign_key_check")
        except StoreError as error:  # too damaged even to be checked
            return [error.what]
        return [" ".join(str(v) for v in row) for row in rows if row != ("ok",)]

    def overwrite_deleted(self) -> None:
        self.query("PRAGMA secure_delete = ON")

    def forget_deleted(self, *, rewrite: bool) -> bool:
        """Empty the write-ahead log; what a disk keeps below the file system is out of reach."""
        if rewrite:
            self.execute("VACUUM")
        ((busy, *_),) = self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        return not busy

    def copies(self) -> list[str]:
        return [path.name for path in self._copies()]

    def drop_copies(self) -> None:
        for path in self._copies():
            path.unlink(missing_ok=True)

    def _run(self, sql: str, params: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, params)
        except UnicodeEncodeError:  # half a character is kept spelled out, and found so
            plain = [plain_text(one) if isinstance(one, str) else one for one in params]
            return self._connection.execute(sql, plain)

    def _copies(self) -> list[Path]:
        """The copies, and drafts of copies that a migration was killed over."""
        folder, name = self.path.parent, self.path.name
        return sorted([*folder.glob(f"{name}.before-*"), *folder.glob(f".{name}.*")])

    def close(self) -> None:
        self._connection.close()


def open_sqlite(
    path: Path,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    is_power_safe: bool = False,
) -> Database:
    """`open_database` of the file at `path`."""
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
    return SqliteDatabase(path, connection)


def _make_private(path: Path) -> None:
    """Make a file that only its owner may read, where there is none; SQLite's own inherit that.

    A file that is there is not opened: closing it would end every lock that this process holds on
    it, and the next process to leave would take the log of a database in use away.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    with _MAKING, contextlib.suppress(OSError):  # what is wrong here, SQLite will say
        os.close(os.open(os.path.realpath(path), flags, 0o600))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors about the file at `path` into StoreError with a hint."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise StoreError(f"{path} refused a row: {error}", is_row=True) from error
    except sqlite3.Error as error:
        text, is_undone = str(error), _is_undone(error)
        for needle, what, hint in _HINTS:
            if needle in text:
                told = f"{path} {what} ({text})"
                raise StoreError(told, hint=hint, is_undone=is_undone) from error
        raise StoreError(f"{path}: {text}", is_undone=is_undone) from error


def _is_undone(error: sqlite3.Error) -> bool:
    """Whether a failed transaction can never show again. After an I/O error it can: a commit whose
    last step failed may be found in the log when the database is opened next."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code == sqlite3.SQLITE_IOERR_WRITE or code & 0xFF != sqlite3.SQLITE_IOERR


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
                for statement in statements_of(migration.sql):
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
