"""Is everything that the index promises really there? Every row, shared part and segment is read.

Damage is listed, never hidden. A torn tail or a block without rows is no damage: a crash leaves
them, and nothing refers to them (test_verify_counts_a_torn_tail_as_harmless).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies import Place, SegmentReader, torn_tail_bytes
from ownweights.traffic.encode import content_hash, decode_bodies

_PAGE_ROWS = 512


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what is wrong. `damaged` are ids of records whose body is lost."""

    records: int
    segments: int
    damaged: tuple[str, ...]
    faults: tuple[str, ...]
    torn_bytes: int
    body_bytes: int
    repaired: int

    @property
    def is_sound(self) -> bool:
        return not self.faults


def verify_store(database: Database, bodies_dir: Path, *, repair: bool = False) -> VerifyReport:
    """Read all that is stored; `repair` takes out the rows whose bodies are lost."""
    faults = [f"own.db: {fault}" for fault in database.check_integrity()]
    damaged: list[str] = []
    records = 0
    for record_id, fault in _check_records(database, bodies_dir):
        records += 1
        if fault:
            damaged.append(record_id)
            faults.append(f"record {record_id}: {fault}")
    paths = sorted(bodies_dir.glob("*.seg")) if bodies_dir.is_dir() else []
    return VerifyReport(
        records=records,
        segments=len(paths),
        damaged=tuple(damaged),
        faults=tuple(faults),
        torn_bytes=sum(map(torn_tail_bytes, paths)),
        body_bytes=sum(path.stat().st_size for path in paths),
        repaired=_take_out(database, damaged) if repair else 0,
    )


def _check_records(database: Database, bodies_dir: Path) -> Iterator[tuple[str, str]]:
    """(id, what is wrong with its body or '') of each record."""
    reader, parts, last = SegmentReader(bodies_dir), _PartReader(database, bodies_dir), 0
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
                    yield record_id, "" if is_same else "its body is not what was stored"
                except StoreError as error:
                    yield record_id, error.what
                except (ValueError, LookupError, TypeError) as error:
                    yield record_id, f"its body cannot be decoded: {error}"
    finally:
        reader.close()
        parts.close()


class _PartReader:
    def __init__(self, database: Database, bodies_dir: Path) -> None:
        self._reader = SegmentReader(bodies_dir)
        rows = database.query(
            "SELECT hash, name, offset_bytes, item FROM part JOIN segment ON segment.id = segment"
        )
        self._places = {digest: Place(*place) for digest, *place in rows}

    def read(self, digest: str) -> bytes:
        if digest not in self._places:
            raise StoreError(f"the shared text {digest} is missing")
        return self._reader.read(self._places[digest])

    def close(self) -> None:
        self._reader.close()


def _take_out(database: Database, ids: list[str]) -> int:
    with database.transaction():
        taken = sum(database.execute("DELETE FROM record WHERE id = ?", (i,)) for i in ids)
        for record_id in ids:
            database.log_event("record.lost", record_id, "its body could not be read")
    return taken
