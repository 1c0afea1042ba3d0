"""Segments written anew without what went, so that its bytes are really gone.

In: segments that hold items no row refers to (`segment.dead`). Out: their live items in a new
segment, the rows repointed, the old file unlinked. Whenever this stops, every row finds its body,
and running it again goes on (test_compact_killed_at_any_step_loses_nothing). A reader in the middle
looks up the new place; a process that still writes to an old segment finds it gone from the index,
in the transaction that would refer to it, and begins a new one
(test_compact_beside_a_writer_and_a_reader). Once it has run, segments hold nothing that no row
refers to, also where one before it was killed (test_compact_killed_at_any_step_loses_nothing) or
records went meanwhile (test_compact_frees_what_went_while_it_was_copied).

    copy live items ─► repoint rows ─► (again, while any came) ─► 'gone:<name>' ─► unlink ─► forget
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.segment import Place, SegmentReader, SegmentWriter, segment_path
from ownweights.traffic.bodies.shelf import Shelf

_GONE = "gone:"  # before the name of a segment whose file is to be unlinked
_PAGE_ITEMS = 1000  # of one transaction: short, for others wait

Moved = tuple[str, object, int, int]  # table, key, offset, item


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Segments written anew or unlinked, the bytes that this freed, and segments that stay because
    something in them cannot be read (`own traffic verify` says what), or because they are not here,
    and another machine or another object store may hold them."""

    segments: int
    freed_bytes: int
    unreadable: tuple[str, ...]


def compact(
    database: Database, shelf: Shelf, on_progress: Callable[[int, int], object] | None = None
) -> CompactReport:
    """Write every segment anew that holds what no row refers to; `on_progress(done, of)`.

    Raises: StoreError when the disk is full, the index cannot be written, or the object store
    cannot be asked
    """
    _unlink_gone(database, shelf)
    before = sum(shelf.sizes().values())
    done, unreadable = set[str](), list[str]()
    with contextlib.closing(shelf.reader()) as reader:
        # what goes while it is copied leaves dead weight in the copy: look again
        while names := [name for name in _with_dead_weight(database) if name not in done]:
            targets: list[str] = []
            on_new = functools.partial(_register, database, targets)
            with contextlib.closing(SegmentWriter(shelf.folder, on_new=on_new)) as writer:
                here = shelf.sizes()
                for name in names:
                    can_be_freed = name in here or shelf.is_whole
                    if not (can_be_freed and _is_emptied(database, name, reader, writer)):
                        unreadable.append(name)
                    done.add(name)
                    if on_progress is not None:
                        on_progress(len(done), len(done | set(names)))
            _finish(database, targets)
    anew = len(done) - len(unreadable)
    unreadable += _unlink_gone(database, shelf)
    freed_bytes = max(0, before - sum(shelf.sizes().values()))
    return CompactReport(anew, freed_bytes, tuple(unreadable))


def file_of(name: str) -> str:
    """The segment's name as its file has it, whether it is given up or not."""
    return name.removeprefix(_GONE)


class _Unreadable(Exception):
    pass


def _is_emptied(
    database: Database, name: str, reader: SegmentReader, writer: SegmentWriter
) -> bool:
    """Move all live items out of a segment and give it up; false where one cannot be read."""
    try:
        while not _leave(database, name):
            _move_page(database, name, reader, writer)
    except _Unreadable:
        return False
    return True


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
        if not _has_segments(database, {place.segment for place in places}):
            writer.close()  # another took it for one that was left behind: begin a new one
            return
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


def _unlink_gone(database: Database, shelf: Shelf) -> list[str]:
    """Unlink what was given up, wherever it is; those that were not found and may lie elsewhere."""
    elsewhere: list[str] = []
    for (name,) in database.query("SELECT name FROM segment WHERE name LIKE ?", (f"{_GONE}%",)):
        freed_bytes = shelf.free(file_of(name))
        path = segment_path(shelf.folder, file_of(name))
        if path.exists():
            raise StoreError(
                f"cannot unlink {path}",
                hint="it holds bodies that were taken out; mend the permissions and try again",
            )
        if not freed_bytes and not shelf.is_whole:
            elsewhere.append(file_of(name))
        else:
            database.execute("DELETE FROM segment WHERE name = ?", (name,))
    return elsewhere


def _with_dead_weight(database: Database) -> list[str]:
    rows = database.query("SELECT name FROM segment WHERE dead > 0 ORDER BY id")
    return [name for (name,) in rows if not name.startswith(_GONE)]


def _has_segments(database: Database, names: set[str]) -> bool:
    marks = ",".join("?" * len(names))
    sql = f"SELECT count(*) FROM segment WHERE name IN ({marks})"
    return database.query(sql, sorted(names)) == [(len(names),)]


def _register(database: Database, targets: list[str], name: str) -> None:
    """Note a segment for copies. Until it is finished it counts as one with dead weight, for a
    killed process leaves copies in it that no row refers to."""
    database.execute(
        "INSERT INTO segment (name, opened_at, dead) VALUES (?, ?, 1)", (name, time.time())
    )
    targets.append(name)


def _finish(database: Database, targets: Sequence[str]) -> None:
    database.execute_many(
        "UPDATE segment SET dead = dead - 1 WHERE name = ?", [(name,) for name in targets]
    )
