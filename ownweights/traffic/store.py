"""The traffic store: rows in `own.db`, bodies in segments, several processes at once.

In: Records. Out: the same Records, in the order they were added. A body is on disk before its row
is committed, so a crash at any point leaves a store that reads whole
(test_import_killed_half_way_leaves_a_sound_store). Where a record came from (its `source_id`, else
its id) is unique within a workload, so adding it again adds nothing
(test_add_again_adds_nothing). What was committed survives a killed process; with
`is_power_safe` a power cut too.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.chat import Usage
from ownweights.core.database import BUSY_TIMEOUT_S, Database, has_database, open_database
from ownweights.core.errors import InputError, StoreError
from ownweights.core.project import Project
from ownweights.traffic.bodies.mover import Mover
from ownweights.traffic.bodies.segment import Place, SegmentWriter
from ownweights.traffic.bodies.shelf import Shelf
from ownweights.traffic.draft import Draft, Sorted, encode_all
from ownweights.traffic.encode import decode_bodies, decode_stored
from ownweights.traffic.part import count_uses
from ownweights.traffic.query import RecordFilter, distinct, stats
from ownweights.traffic.record import Record, Role, Status
from ownweights.traffic.tally import add_tallies
from ownweights.traffic.verify import VerifyReport, verify_store

BATCH_ROWS = 256
ROLL_S = 300.0  # a segment older than this moves, though it is not full
_PAGE_ROWS = 512
_CACHED_PARTS = 4096

_COLUMNS = (
    "record.id, at, workload, session, metadata, status, role, model, source_id, prompt_hash,"
    " protocol, end_user, key_id, upstream, prompt_tokens, completion_tokens, cost_usd, latency_ms,"
    " segment.name, offset_bytes, item, seq"
)
_INSERT_RECORD = (
    "INSERT INTO record (id, at, workload, origin, session, source_id, prompt_hash, role, status,"
    " model, finish_reason, metadata, content_hash, body_bytes, protocol, end_user, key_id,"
    " upstream, prompt_tokens, completion_tokens, cost_usd, latency_ms, tally_id,"
    " segment, offset_bytes, item)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
    " (SELECT id FROM segment WHERE name = ?), ?, ?)"
)
_FROM = "FROM record JOIN segment ON segment.id = record.segment"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch: rows added, rows already there, ids already there with another body
    (`conflicts`; the stored one stays), and why others cannot be stored at all (`refused`)."""

    added: int
    duplicates: int
    conflicts: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkloadStats:
    """One workload in numbers."""

    workload: str
    records: int
    ok: int
    partial: int
    error: int
    prompts: int
    sessions: int
    body_bytes: int
    cost_usd: float | None  # of those whose cost is known; None where none is
    unpriced: int  # the others
    first_at: float
    last_at: float
    models: tuple[str, ...]
    pruned: int = 0


class TrafficStore:
    """An open store, for one thread. Use `with TrafficStore.open(project) as store:`."""

    def __init__(self, project: Project, database: Database, *, is_power_safe: bool) -> None:
        self.project = project
        self.database = database
        self._is_power_safe = is_power_safe
        self._writer = SegmentWriter(project.bodies_dir, on_new=self._register)
        self._writing = threading.RLock()  # held from the first body to the commit of its row
        self.shelf = Shelf.of(project)
        self._reader = self.shelf.reader()
        self._mover = self._make_mover()
        self._stored_parts: dict[str, Place] = {}

    @classmethod
    def open(
        cls,
        project: Project,
        *,
        create: bool = True,
        is_power_safe: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> TrafficStore:
        """Open the project's store; an empty one is made unless `create` is false.

        Raises: StoreError when it cannot be opened, or is not there and may not be made
        """
        if not create and not has_database(project.database):
            raise StoreError(
                f"there is no traffic in {project.root}",
                hint="own traffic import FILE, or record some through own serve",
            )
        database = open_database(
            project.database, busy_timeout_s=busy_timeout_s, is_power_safe=is_power_safe
        )
        return cls(project, database, is_power_safe=is_power_safe)

    def add(self, records: Iterable[Record]) -> tuple[int, int]:
        """Store records, a batch at a time; how many were added, and how many were there already.

        Raises: StoreError as `add_batch`; InputError, after the rest of its batch is stored, for a
        record that cannot be stored
        """
        added = duplicates = 0
        for batch in _batches(records):
            result = self.add_batch(batch)
            added += result.added
            duplicates += result.duplicates + len(result.conflicts)
            if result.refused:
                raise InputError(result.refused[0])
        return added, duplicates

    def add_batch(self, records: Sequence[Record]) -> BatchResult:
        """Store records in one transaction: all of them or, on an error, none.

        Raises: StoreError when they cannot be written
        """
        drafts, refused = encode_all(records)
        result = Sorted(self._known(drafts))
        fresh = [draft for draft in drafts if result.is_fresh(draft)]
        with self._writing:
            added, raced = self._store(fresh)
        if self._mover and not self._mover.is_running:
            self._mover.adopt(self._left_here())
            self._mover.start()
        return BatchResult(
            added,
            result.duplicates + raced.duplicates,
            (*result.conflicts, *raced.conflicts),
            tuple(refused),
        )

    def records(
        self,
        workload: str | None = None,
        *,
        status: Status | None = None,
        role: Role | None = None,
        session: str | None = None,
        limit: int | None = None,
        is_newest_first: bool = False,
    ) -> Iterator[Record]:
        """The records that match, in the order they were added; read page by page.

        Raises: StoreError for a record whose body is missing or damaged
        """
        only = RecordFilter(workload, status, role, session=session)
        return self.matching(only, limit=limit, is_newest_first=is_newest_first)

    def matching(
        self, only: RecordFilter, *, limit: int | None = None, is_newest_first: bool = False
    ) -> Iterator[Record]:
        """The records that match and have their bodies, as `records`."""
        where, params = only.where()
        edge, order = ("seq < ?", "DESC") if is_newest_first else ("seq > ?", "ASC")
        last = 2**62 if is_newest_first else 0
        left = 2**62 if limit is None else limit
        while left > 0:
            rows = self.database.query(
                f"SELECT {_COLUMNS} {_FROM} WHERE {where} AND pruned_at IS NULL AND {edge}"
                f" ORDER BY seq {order} LIMIT ?",
                (*params, last, min(left, _PAGE_ROWS)),
            )
            yield from filter(None, map(self._record, rows))
            if len(rows) < _PAGE_ROWS:
                return
            last, left = rows[-1][-1], left - len(rows)

    def count(
        self,
        workload: str | None = None,
        *,
        status: Status | None = None,
        role: Role | None = None,
        session: str | None = None,
    ) -> int:
        """How many records match and have their bodies."""
        where, params = RecordFilter(workload, status, role, session=session).where()
        sql = f"SELECT count(*) FROM record WHERE {where} AND pruned_at IS NULL"
        return int(self.database.query(sql, params)[0][0])

    def get(self, record_id: str) -> Record | None:
        """The record with this id; None when there is none, or its bodies went."""
        sql = f"SELECT {_COLUMNS} {_FROM} WHERE record.id = ? AND pruned_at IS NULL"
        rows = self.database.query(sql, (record_id,))
        return self._record(rows[0]) if rows else None

    def find_ids(self, text: str, *, limit: int = 10) -> list[str]:
        """The ids of records whose id begins with `text` or that a file named so."""
        rows = self.database.query(
            "SELECT id FROM record WHERE origin = ? OR id BETWEEN ? AND ? ORDER BY seq LIMIT ?",
            (text, text, f"{text}g", limit),
        )
        return [row[0] for row in rows]

    def workloads(self) -> list[WorkloadStats]:
        """Every workload in numbers, the largest first."""
        models, counted = self.models(), distinct(self.database)
        return [
            WorkloadStats(
                one.name, one.records, one.ok, one.partial, one.error,
                *counted.get(one.name, (0, 0)), one.body_bytes,
                one.cost_usd if one.priced else None, one.records - one.priced,
                one.first_at, one.last_at, tuple(models[one.name]), one.pruned,
            )
            for one in stats(self.database, RecordFilter())
        ]  # fmt: skip

    def workloads_of_prompt(self, prompt_hash: str) -> list[str]:
        """The workloads that hold requests with these fixed prompt parts."""
        rows = self.database.query(
            "SELECT DISTINCT workload FROM record WHERE prompt_hash = ? ORDER BY 1", (prompt_hash,)
        )
        return [row[0] for row in rows]

    def models(self) -> dict[str, list[str]]:
        """Who answered in each workload."""
        models: dict[str, list[str]] = {}
        rows = self.database.query("SELECT DISTINCT workload, model FROM tally ORDER BY 1, 2")
        for workload, model in rows:
            models.setdefault(workload, []).append(model)
        return models

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Check every row, body and segment; `repair` takes out what is lost."""
        if repair:
            self._stored_parts.clear()
        return verify_store(self.database, self.shelf, repair=repair)

    def move_bodies(self, *, older_than_s: float = 0.0) -> int:
        """Move bodies to the object store now, where there is one; how many segments. One that was
        begun less than `older_than_s` ago stays."""
        self._close_older_than(older_than_s)
        if self._mover is None:
            return 0
        self._mover.adopt(self._left_here())
        return self._mover.move()

    def close(self) -> None:
        """Let go of all files; may be called twice."""
        with self._writing:
            self._writer.close()
        if self._mover:
            self._mover.close()
        self._reader.close()
        self.database.close()

    def __enter__(self) -> TrafficStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _make_mover(self) -> Mover | None:
        if self.shelf.objects is None:
            return None
        roll = functools.partial(self._close_older_than, ROLL_S)
        return Mover(self.project.bodies_dir, self.shelf.objects, roll=roll)

    def _left_here(self) -> list[str]:
        """The segments on this disk that the index knows, whoever wrote them."""
        left: list[str] = []
        for page in _pages([path.stem for path in self.shelf.files()]):
            sql = f"SELECT name FROM segment WHERE name IN ({_marks(page)})"
            left += [row[0] for row in self.database.query(sql, page)]
        return left

    def _close_older_than(self, age_s: float) -> None:
        with self._writing:
            self._writer.close_older_than(age_s)

    def _known(self, drafts: Sequence[Draft]) -> dict[tuple[str, str], str]:
        """(workload, origin) → content hash, of those among `drafts` that are stored."""
        known: dict[tuple[str, str], str] = {}
        for workload in {draft.origin[0] for draft in drafts}:
            origins = [draft.origin[1] for draft in drafts if draft.origin[0] == workload]
            for page in _pages(origins):
                rows = self.database.query(
                    "SELECT origin, content_hash FROM record"
                    f" WHERE origin IN ({_marks(page)}) AND workload = ?",
                    (*page, workload),
                )
                known.update(((workload, origin), digest) for origin, digest in rows)
        return known

    def _store(self, drafts: Sequence[Draft]) -> tuple[int, Sorted]:
        """Write bodies, then rows; how many, and which were added meanwhile by someone else."""
        places, parts = self._write_bodies(drafts)
        written = [*parts.values(), *places]
        try:
            if self._is_power_safe:
                self._writer.sync()
            stored = self._store_rows(drafts, places, parts)
        except StoreError as error:
            if error.is_undone:
                self._writer.take_back(written)
            raise
        if stored is None:  # a repair took out what the rows would refer to: write it anew
            self._stored_parts.clear()
            self._writer.take_back(written)
            self._writer.close()
            return self._store(drafts)
        self._stored_parts.update(parts)
        return stored

    def _store_rows(
        self, drafts: Sequence[Draft], places: Sequence[Place], parts: Mapping[str, Place]
    ) -> tuple[int, Sorted] | None:
        """Insert the rows in one transaction; None when the index lacks what they refer to."""
        with self.database.transaction():
            if not self._is_present(drafts, places, parts):
                return None
            # another process may have added some of them while their bodies were written
            raced = Sorted(self._known(drafts))
            fresh = [pair for pair in zip(drafts, places, strict=True) if raced.is_fresh(pair[0])]
            tallies = add_tallies(self.database, [draft.facts for draft, _ in fresh])
            self._insert([d.row(p, t) for (d, p), t in zip(fresh, tallies, strict=True)], parts)
            count_uses(self.database, [draft.bodies.parts for draft, _ in fresh])
        return len(fresh), raced

    def _register(self, segment: str) -> None:
        """Note a segment before anything is in it, so that a repair can tell what a killed process
        left from the bodies of another index."""
        self.database.execute(
            "INSERT INTO segment (name, opened_at) VALUES (?, ?)", (segment, time.time())
        )
        if self._mover:
            self._mover.adopt([segment])

    def _is_present(
        self, drafts: Sequence[Draft], places: Sequence[Place], parts: Mapping[str, Place]
    ) -> bool:
        """Whether the index has the parts that drafts do not bring, and the segments of all."""
        hashes = {digest for draft in drafts for digest in draft.bodies.parts} - parts.keys()
        names = {place.segment for place in [*parts.values(), *places]}
        return self._has_all("part", "hash", hashes) and self._has_all("segment", "name", names)

    def _has_all(self, table: str, column: str, wanted: set[str]) -> bool:
        found = 0
        for page in _pages(sorted(wanted)):
            sql = f"SELECT count(*) FROM {table} WHERE {column} IN ({_marks(page)})"
            found += self.database.query(sql, page)[0][0]
        return found == len(wanted)

    def _write_bodies(self, drafts: Sequence[Draft]) -> tuple[list[Place], dict[str, Place]]:
        """Append items, and those shared parts that are not stored yet, to the segment."""
        wanted = {d: raw for draft in drafts for d, raw in draft.bodies.parts.items()}
        new = {d: raw for d, raw in wanted.items() if self._part_place(d) is None}
        places = self._writer.append([*new.values(), *(draft.bodies.item for draft in drafts)])
        return places[len(new) :], dict(zip(new, places, strict=False))

    def _insert(self, rows: Sequence[tuple[Any, ...]], parts: Mapping[str, Place]) -> None:
        self.database.execute_many(
            "INSERT INTO part (hash, segment, offset_bytes, item, uses)"
            " VALUES (?, (SELECT id FROM segment WHERE name = ?), ?, ?, 0) ON CONFLICT DO NOTHING",
            [(d, p.segment, p.offset_bytes, p.item) for d, p in parts.items()],
        )
        self.database.execute_many(_INSERT_RECORD, rows)

    def _record(self, row: tuple[Any, ...]) -> Record | None:
        """The record of a row; None where it went while it was read."""
        try:
            return self._read_record(row)
        except StoreError:  # its segment may have been written anew, or its bodies are gone
            self._stored_parts.clear()
            sql = f"SELECT {_COLUMNS} {_FROM} WHERE seq = ? AND pruned_at IS NULL"
            again = self.database.query(sql, (row[-1],))
            if not again:
                return None
            return self._read_record(again[0])

    def _read_record(self, row: tuple[Any, ...]) -> Record:
        (record_id, at, workload, session, metadata, status, role, model, source_id, prompt_hash,
         protocol, end_user, key_id, upstream, read, written, cost_usd, latency_ms,
         *place, _) = row  # fmt: skip
        request, response = decode_bodies(self._reader.read(Place(*place)), self._part)
        return Record(
            id=record_id,
            at=at,
            workload=workload,
            session=session,
            metadata=decode_stored(metadata.encode()),
            request=request,
            response=response,
            status=status,
            role=role,
            model=model,
            source_id=source_id,
            prompt_hash=prompt_hash,
            protocol=protocol,
            end_user=end_user,
            key_id=key_id,
            upstream=upstream,
            usage=Usage(read, written),
            cost_usd=cost_usd,
            latency_ms=latency_ms,
        )

    def part(self, digest: str) -> bytes:
        """The bytes of a shared part.

        Raises: StoreError when it is missing or damaged
        """
        try:
            return self._part(digest)
        except StoreError:  # its segment may have been written anew
            self._stored_parts.pop(digest, None)
            return self._part(digest)

    def _part(self, digest: str) -> bytes:
        place = self._part_place(digest)
        if place is None:
            raise StoreError(
                f"the shared text {digest} is missing",
                hint="own traffic verify lists what needs it",
            )
        return self._reader.read(place)

    def _part_place(self, digest: str) -> Place | None:
        if digest not in self._stored_parts:
            rows = self.database.query(
                "SELECT name, offset_bytes, item FROM part JOIN segment ON segment.id = segment"
                " WHERE hash = ?",
                (digest,),
            )
            if not rows:
                return None
            if len(self._stored_parts) >= _CACHED_PARTS:
                self._stored_parts.clear()
            self._stored_parts[digest] = Place(*rows[0])
        return self._stored_parts[digest]


def _pages(values: list[str]) -> Iterator[list[str]]:
    return (values[start : start + _PAGE_ROWS] for start in range(0, len(values), _PAGE_ROWS))


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) >= BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
