"""Is everything that the index promises really there? Every row, shared part and segment is read,
and every tally is counted again.

Damage is listed, never hidden. A torn tail or a block without rows is no damage: a crash leaves
them, and nothing refers to them (test_verify_counts_a_torn_tail_as_harmless). A repair takes out
the rows and shared parts that are lost, so that an import brings them anew
(test_verify_repair_lets_an_import_bring_a_lost_prompt_back), counts the tallies anew
(test_verify_repair_mends_tallies), and frees segments that this index opened and put no row in. A
segment that it does not know may belong to another copy of the index and stays
(test_verify_repair_frees_only_what_this_index_left).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.compact import file_of
from ownweights.traffic.bodies.segment import Place, SegmentReader, torn_tail_bytes
from ownweights.traffic.bodies.shelf import Shelf
from ownweights.traffic.encode import content_hash, decode_bodies, part_hash, parts_of
from ownweights.traffic.part import UseCount
from ownweights.traffic.recount import recount, tally_faults
from ownweights.traffic.remove import NO_SEGMENT, PAGE_ROWS, add_dead, remove_rows

_UNUSED = (
    f"SELECT name FROM segment WHERE name <> '{NO_SEGMENT}' AND dead = 0"
    " AND id NOT IN (SELECT segment FROM record UNION SELECT segment FROM part)"
)

OnParts = Callable[[int, Iterable[str]], object]
_ROW = (
    "SELECT record.id, content_hash, pruned_at, name, offset_bytes, item, seq"
    " FROM record JOIN segment ON segment.id = segment"
)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what is wrong. `damaged` are ids of records whose body is lost, `pruned`
    had theirs taken out; `dead_items` went from the index and still lie in segments; `repaired` and
    `freed_bytes` say what a repair took out."""

    records: int
    pruned: int
    dead_items: int
    segments: int
    damaged: tuple[str, ...]
    faults: tuple[str, ...]
    torn_bytes: int
    body_bytes: int
    repaired: int
    freed_bytes: int

    @property
    def is_sound(self) -> bool:
        return not self.faults


def verify_store(database: Database, shelf: Shelf, *, repair: bool = False) -> VerifyReport:
    """Read all that is stored; `repair` takes out what is lost and frees what a crash left. What
    may only be out of reach is a fault, and stays: another machine's, or an object store's."""
    faults = [f"own.db: {fault}" for fault in database.check_integrity()]
    damaged: list[str] = []
    uses = UseCount(database, is_repair=repair)
    records = faulty = 0
    for record_id, fault, is_lost in _check_records(database, shelf, uses.add):
        records += 1
        if fault:
            faulty += 1
            damaged += [record_id] * is_lost
            faults.append(f"record {record_id}: {fault}")
    faults += tally_faults(database)
    if not faulty and uses.is_whole():  # what an unread body needs is not known
        faults += [f"shared text {digest}: its uses are miscounted" for digest in uses.wrong()]
    lost_parts = list[str]()
    for digest, fault, is_lost in _damaged_parts(database, shelf):
        faults.append(f"shared text {digest}: {fault}")
        lost_parts += [digest] * is_lost
    torn_bytes = sum(map(torn_tail_bytes, shelf.files()))
    sizes = shelf.sizes()
    repaired = freed_bytes = 0
    if repair:
        repaired, unused = _take_out(database, damaged, lost_parts)
        freed_bytes = sum(shelf.free(file_of(name)) for name in unused)
        recount(database)
        # one that is out of reach stays, and needs who knows what
        if faulty == len(damaged) and uses.is_whole(lost=faulty):
            with database.transaction():
                uses.mend()
    ((pruned, dead_items),) = database.query(
        "SELECT (SELECT coalesce(sum(pruned), 0) FROM tally),"
        " (SELECT coalesce(sum(dead), 0) FROM segment)"
    )
    return VerifyReport(
        records=records,
        pruned=int(pruned),
        dead_items=int(dead_items),
        segments=len(sizes),
        damaged=tuple(damaged),
        faults=tuple(faults),
        torn_bytes=torn_bytes,
        body_bytes=sum(sizes.values()),
        repaired=repaired,
        freed_bytes=freed_bytes,
    )


def _check_records(
    database: Database, shelf: Shelf, on_parts: OnParts
) -> Iterator[tuple[str, str, bool]]:
    """(id, what is wrong with its body or '', whether it is surely lost) of each record; `on_parts`
    is told what it needs."""
    last, closing = 0, contextlib.closing
    with closing(shelf.reader()) as reader, closing(_PartReader(database, shelf)) as parts:
        while rows := database.query(f"{_ROW} WHERE seq > ? ORDER BY seq LIMIT ?",
                                     (last, PAGE_ROWS)):  # fmt: skip
            for row in rows:
                record_id, last = row[0], row[-1]
                fault, is_lost = _fault(row, reader, parts, on_parts)
                if fault:  # it may have gone, or moved, since the page was read
                    parts.look_again()
                    fault, is_lost = "", False
                    for found in database.query(f"{_ROW} WHERE seq = ?", (last,)):
                        fault, is_lost = _fault(found, reader, parts, on_parts)
                yield record_id, fault, is_lost


def _fault(
    row: tuple[Any, ...], reader: SegmentReader, parts: _PartReader, on_parts: OnParts
) -> tuple[str, bool]:
    """What is wrong with the body of a row of _ROW, and whether it is surely lost; empty when it is
    sound, or was pruned."""
    _, digest, pruned_at, *place, seq = row
    if pruned_at is not None:
        return "", False
    try:
        item = reader.read(Place(*place))
        request, response = decode_bodies(item, parts.read)
        if content_hash(request, response) != digest:
            return "its body is not what was stored", True
        on_parts(seq, parts_of(item))
        return "", False
    except StoreError as error:
        return error.what, error.is_row
    except (ValueError, LookupError, TypeError) as error:
        return f"its body cannot be decoded: {error}", True


class _PartReader:
    def __init__(self, database: Database, shelf: Shelf) -> None:
        self._database = database
        self._reader = shelf.reader()
        self.look_again()

    def look_again(self) -> None:
        """Learn where the parts lie now."""
        rows = self._database.query(
            "SELECT hash, name, offset_bytes, item FROM part JOIN segment ON segment.id = segment"
            " ORDER BY segment, offset_bytes, item"
        )
        self._places = {digest: Place(*place) for digest, *place in rows}

    def read(self, digest: str) -> bytes:
        if digest not in self._places:
            raise StoreError(f"the shared text {digest} is missing", is_row=True)
        return self._reader.read(self._places[digest])

    def faults(self) -> Iterator[tuple[str, str, bool]]:
        """(hash, what is wrong, whether it is surely lost) of each part that cannot be read."""
        for digest in self._places:
            try:
                if part_hash(self.read(digest)) != digest:
                    yield digest, "it is not what was stored", True
            except StoreError as error:
                yield digest, error.what, error.is_row

    def close(self) -> None:
        self._reader.close()


def _damaged_parts(database: Database, shelf: Shelf) -> list[tuple[str, str, bool]]:
    with contextlib.closing(_PartReader(database, shelf)) as parts:
        return list(parts.faults())


def _take_out(
    database: Database, ids: Sequence[str], parts: Sequence[str]
) -> tuple[int, list[str]]:
    """Take out lost rows and parts; how many rows, and the segments that never had one. What a
    segment loses here is counted as dead in it: its file stays, for a backup may bring the rows
    back, until the next prune (test_verify_repair_leaves_what_it_emptied_to_the_next_prune)."""
    with database.transaction():
        unused = [row[0] for row in database.query(_UNUSED)]
        taken = 0
        for start in range(0, len(ids), PAGE_ROWS):
            page = ids[start : start + PAGE_ROWS]
            marks = ",".join("?" * len(page))
            seqs = database.query(f"SELECT seq FROM record WHERE id IN ({marks})", page)
            taken += remove_rows(database, [seq for (seq,) in seqs], {})
        for record_id in ids:
            database.log_event("record.lost", record_id, "its body could not be read")
        for digest in parts:
            places = database.query("SELECT segment FROM part WHERE hash = ?", (digest,))
            add_dead(database, [segment for (segment,) in places])
            database.execute("DELETE FROM part WHERE hash = ?", (digest,))
            database.log_event("part.lost", digest, "it could not be read")
        database.execute_many("DELETE FROM segment WHERE name = ?", [(name,) for name in unused])
    return taken, unused
