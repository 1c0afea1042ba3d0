"""Is everything that the index promises really there? Every row, shared part and segment is read.

Damage is listed, never hidden. A torn tail or a block without rows is no damage: a crash leaves
them, and nothing refers to them (test_verify_counts_a_torn_tail_as_harmless). A repair takes out
the rows and shared parts that are lost, so that an import brings them anew
(test_verify_repair_lets_an_import_bring_a_lost_prompt_back), and frees segments that this index
opened and put no row in. A segment that it does not know may belong to another copy of the index
and stays (test_verify_repair_frees_only_what_this_index_left).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies import Place, torn_tail_bytes
from ownweights.traffic.encode import content_hash, decode_bodies, part_hash
from ownweights.traffic.shelf import Shelf

_PAGE_ROWS = 512
_UNUSED = "FROM segment WHERE id NOT IN (SELECT segment FROM record UNION SELECT segment FROM part)"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what is wrong. `damaged` are ids of records whose body is lost;
    `repaired` and `freed_bytes` say what a repair took out."""

    records: int
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
    records = 0
    for record_id, fault, is_lost in _check_records(database, shelf):
        records += 1
        if fault:
            damaged += [record_id] * is_lost
            faults.append(f"record {record_id}: {fault}")
    lost_parts = list[str]()
    for digest, fault, is_lost in _damaged_parts(database, shelf):
        faults.append(f"shared text {digest}: {fault}")
        lost_parts += [digest] * is_lost
    torn_bytes = sum(map(torn_tail_bytes, shelf.files()))
    sizes = shelf.sizes()
    repaired = freed_bytes = 0
    if repair:
        repaired, unused = _take_out(database, damaged, lost_parts)
        freed_bytes = sum(map(shelf.free, unused))
    return VerifyReport(
        records=records,
        segments=len(sizes),
        damaged=tuple(damaged),
        faults=tuple(faults),
        torn_bytes=torn_bytes,
        body_bytes=sum(sizes.values()),
        repaired=repaired,
        freed_bytes=freed_bytes,
    )


def _check_records(database: Database, shelf: Shelf) -> Iterator[tuple[str, str, bool]]:
    """(id, what is wrong with its body or '', whether it is surely lost) of each record."""
    reader, parts, last = shelf.reader(), _PartReader(database, shelf), 0
    try:
        while rows := database.query(
            "SELECT record.id, content_hash, name, offset_bytes, item, seq FROM record"
            " JOIN segment ON segment.id = segment WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, _PAGE_ROWS),
        ):
            for record_id, digest, *place, last in rows:  # noqa: B007 (the page's last seq)
                try:
                    request, response = decode_bodies(reader.read(Place(*place)), parts.read)
                    is_same = content_hash(request, response) == digest
                    yield record_id, "" if is_same else "its body is not what was stored", True
                except StoreError as error:
                    yield record_id, error.what, error.is_row
                except (ValueError, LookupError, TypeError) as error:
                    yield record_id, f"its body cannot be decoded: {error}", True
    finally:
        reader.close()
        parts.close()


class _PartReader:
    def __init__(self, database: Database, shelf: Shelf) -> None:
        self._reader = shelf.reader()
        rows = database.query(
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
    """Take out lost rows and parts; how many rows, and the segments that had none before. A segment
    whose last row goes here is forgotten, its file stays: a backup may bring the rows back."""
    with database.transaction():
        unused = [row[0] for row in database.query(f"SELECT name {_UNUSED}")]
        taken = 0
        for record_id in ids:
            taken += database.execute("DELETE FROM record WHERE id = ?", (record_id,))
            database.log_event("record.lost", record_id, "its body could not be read")
        for digest in parts:
            database.execute("DELETE FROM part WHERE hash = ?", (digest,))
            database.log_event("part.lost", digest, "it could not be read")
        database.execute(f"DELETE {_UNUSED}")
    return taken, unused
