"""Segments written anew without what went, so that its bytes are really gone.

In: segments that hold items no row refers to (`segment.dead`). Out: their live items in a new
segment, the rows repointed, the old file unlinked. Whenever this stops, every row finds its body,
and running it again goes on (test_compact_killed_at_any_step_loses_nothing). A reader in the middle
looks up the new place; a process that still writes to an old segment finds it gone from the index,
in the transaction that would refer to it, and begins a new one
(test_compact_beside_a_writer_and_a_reader).

    copy live items ─► repoint rows ─► (again, while any came) ─► 'gone:<name>' ─► unlink ─► forget
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies import Place, SegmentReader, SegmentWriter, segment_path

_GONE = "gone:"  # before the name of a segment whose file is to be unlinked
_PAGE_ITEMS = 1000  # of one transaction: short, for others wait

Moved = tuple[str, object, int, int]  # table, key, offset, item


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Segments written anew or unlinked, the bytes that this freed, and segments that stay because
    something in them cannot be read (`own traffic verify` says what)."""

    segments: int
    freed_bytes: int
    unreadable: tuple[str, ...]


def compact(
    database: Database, bodies_dir: Path, on_progress: Callable[[int, int], object] | None = None
) -> CompactReport:
    """Write every segment anew that holds what no row refers to; `on_progress(done, of)`.

    Raises: StoreError when the disk is full or the index cannot be written
    """
    _unlink_gone(database, bodies_dir)
    names = [n for (n,) in database.query("SELECT name FROM segment WHERE dead > 0 ORDER BY id")]
    before = _size_bytes(bodies_dir)
    unreadable: list[str] = []
    with contextlib.closing(SegmentReader(bodies_dir)) as reader:
        writer = SegmentWriter(bodies_dir, on_new=lambda name: _register(database, name))
        with contextlib.closing(writer):
            for done, name in enumerate(names, start=1):
                try:
                    while not _leave(database, name):
                        _move_page(database, name, reader, writer)
                except _Unreadable:
                    unreadable.append(name)
                if on_progress is not None:
                    on_progress(done, len(names))
    _unlink_gone(database, bodies_dir)
    freed_bytes = max(0, before - _size_bytes(bodies_dir))
    return CompactReport(len(names) - len(unreadable), freed_bytes, tuple(unreadable))


class _Unreadable(Exception):
    pass


def _move_page(database: Database, name: str, reader: SegmentReader, writer: SegmentWriter) -> None:
    """Copy some live items of a segment, then point their rows to the copies."""
    live = _live(database, name)
    try:
        items = [reader.read(Place(name, offset, item)) for _, _, offset, item in live]
    except StoreError as error:
        raise _Unreadable(error.what) from error
    places = writer.append(items)
    writer.sync()
    with database.transaction():
        late: dict[str, int] = {}
        for (table, key, offset, item), place in zip(live, places, strict=True):
            if not _repoint(database, table, (key, name, offset, item), place):
                late[place.segment] = late.get(place.segment, 0) + 1
        for segment, count in late.items():  # it went while it was copied
            database.execute("UPDATE segment SET dead = dead + ? WHERE name = ?", (count, segment))


def _live(database: Database, name: str) -> list[Moved]:
    found: list[Moved] = []
    for table, key in (("part", "hash"), ("record", "seq")):
        rows = database.query(
            f"SELECT {key}, offset_bytes, item FROM {table}"
            " WHERE segment = (SELECT id FROM segment WHERE name = ?)"
            " ORDER BY offset_bytes, item LIMIT ?",
            (name, _PAGE_ITEMS),
        )
        found += [(table, *row) for row in rows]
    return found


def _repoint(database: Database, table: str, old: Sequence[object], place: Place) -> int:
    key = "hash" if table == "part" else "seq"
    return database.execute(
        f"UPDATE {table} SET offset_bytes = ?, item = ?,"
        " segment = (SELECT id FROM segment WHERE name = ?)"
        f" WHERE {key} = ? AND segment = (SELECT id FROM segment WHERE name = ?)"
        " AND offset_bytes = ? AND item = ?",
        (place.offset_bytes, place.item, place.segment, *old),
    )


def _leave(database: Database, name: str) -> bool:
    """Give a segment up, if no row refers to it any more."""
    with database.transaction():
        return bool(
            database.execute(
                "UPDATE segment SET name = ? WHERE name = ?"
                " AND NOT EXISTS (SELECT 1 FROM record WHERE record.segment = segment.id)"
                " AND NOT EXISTS (SELECT 1 FROM part WHERE part.segment = segment.id)",
                (_GONE + name, name),
            )
        ) or not database.query("SELECT 1 FROM segment WHERE name = ?", (name,))


def _unlink_gone(database: Database, bodies_dir: Path) -> None:
    names = database.query("SELECT name FROM segment WHERE name LIKE ?", (f"{_GONE}%",))
    for (name,) in names:
        path = segment_path(bodies_dir, name.removeprefix(_GONE))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot unlink {path}: {error.strerror}",
                hint="it holds bodies that were taken out; mend the permissions and try again",
            ) from error
        database.execute("DELETE FROM segment WHERE name = ?", (name,))


def _register(database: Database, name: str) -> None:
    database.execute("INSERT INTO segment (name, opened_at) VALUES (?, ?)", (name, time.time()))


def _size_bytes(bodies_dir: Path) -> int:
    total = 0
    for path in bodies_dir.glob("*.seg"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
