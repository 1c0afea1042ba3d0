"""What every database of ours does, whichever it is: a file of SQLite's, or a Postgres server.

In: an address (a path, or a `Server`). Out: an open `Database`, brought to the newest schema, whose
methods raise StoreError with a hint, never the driver's own errors. The SQL that callers write is
what both understand: `?` for values, `count(*) FILTER`, `ON CONFLICT DO NOTHING`, `TRUE`; what one
of them spells otherwise stands in its own module (core/sqlite.py, core/postgres.py). Invariants:
one writer at a time, so that numbers taken in a transaction are unique and rows appear in the order
of their `seq` (test_database_shows_rows_in_the_order_of_their_numbers); what was committed survives
a killed process (test_database_keeps_what_was_committed_before_a_kill).
"""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ownweights.core.errors import StoreError
from ownweights.core.migrations import MIGRATIONS, Migration
from ownweights.core.project import Server

BUSY_TIMEOUT_S = 20.0

Address = Path | Server


class Database(abc.ABC):
    """An open database, for one thread. `transaction()` groups writes; lone statements commit."""

    @abc.abstractmethod
    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""

    @abc.abstractmethod
    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows it changed."""

    @abc.abstractmethod
    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row; the number of rows changed in all."""

    @abc.abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Take the write lock, waiting for it; commit at the end, or undo all on an error."""

    @abc.abstractmethod
    def check_integrity(self) -> list[str]:
        """What the database finds wrong with itself; empty when it is sound."""

    @abc.abstractmethod
    def overwrite_deleted(self) -> None:
        """From now on this connection overwrites what it deletes with zeros, where it can."""

    @abc.abstractmethod
    def forget_deleted(self, *, rewrite: bool) -> bool:
        """Let nothing that was deleted be left in files of the database; `rewrite` writes all of
        them anew, for what was deleted in earlier times. False while another process reads an
        older state, which keeps it."""

    @abc.abstractmethod
    def copies(self) -> list[str]:
        """The copies that were kept before a newer version changed the tables."""

    @abc.abstractmethod
    def drop_copies(self) -> None:
        """Delete these."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it; may be called twice."""

    def log_event(self, kind: str, ref: str, detail: str = "") -> None:
        """Append to the event log: what `kind` of thing happened to `ref`."""
        self.execute(
            "INSERT INTO event (at, kind, ref, detail) VALUES (?, ?, ?, ?)",
            (time.time(), kind, ref, detail),
        )

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_database(
    address: Address,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    is_power_safe: bool = False,
) -> Database:
    """Open (or make) the database at `address` and bring it to the newest schema.

    What was committed survives a killed process always, and a power cut where `is_power_safe`.
    Raises: StoreError when it is locked for longer than the time-out, damaged, not to be reached,
    newer than this program, or the disk is full
    """
    if isinstance(address, Server):
        from ownweights.core.postgres import open_postgres

        return open_postgres(
            address,
            migrations=migrations,
            busy_timeout_s=busy_timeout_s,
            is_power_safe=is_power_safe,
        )
    from ownweights.core.sqlite import open_sqlite

    return open_sqlite(
        address, migrations=migrations, busy_timeout_s=busy_timeout_s, is_power_safe=is_power_safe
    )


def has_database(address: Address) -> bool:
    """Whether anything was stored at `address` yet; looking makes nothing.

    Raises: StoreError for a server that cannot be asked
    """
    if isinstance(address, Server):
        from ownweights.core.postgres import has_tables

        return has_tables(address)
    return address.exists()


def is_row_refused(error: BaseException) -> bool:
    """Whether a StoreError is about the row (a constraint), not about the database."""
    return isinstance(error, StoreError) and error.is_row


def plain_text(text: str) -> str:
    r"""Text as every database takes it: NUL and half characters (lone surrogates) are spelled out,
    as `\x00` and `\ud83d`, and come back so."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
