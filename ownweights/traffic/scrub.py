"""What was deleted is overwritten too: in the index, in its log, and in copies of it.

In: an open database. Out: no page, no log frame that still holds a deleted row. Of SQLite; another
database reclaims rows by itself. What a disk keeps below the file system is out of reach.
"""

from __future__ import annotations

from pathlib import Path

from ownweights.core.database import Database


def overwrite_deleted(database: Database) -> None:
    """From now on this connection overwrites what it deletes with zeros."""
    database.query("PRAGMA secure_delete = ON")


def empty_log(database: Database, *, rewrite: bool) -> bool:
    """Empty the write-ahead log; `rewrite` writes the whole index anew first, for what was deleted
    in earlier times. False while another process reads an older state, which keeps the log."""
    if rewrite:
        database.execute("VACUUM")
    ((busy, *_),) = database.query("PRAGMA wal_checkpoint(TRUNCATE)")
    return not busy


def copies_of(database_path: Path) -> list[Path]:
    """The copies of the index that were kept before a newer version changed its tables."""
    return sorted(database_path.parent.glob(f"{database_path.name}.before-*"))
