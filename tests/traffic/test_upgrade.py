"""A store of an earlier version opens, is migrated with a copy kept, and keeps every record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ownweights.core.database import open_database
from ownweights.core.errors import StoreError
from ownweights.core.jsonl import encode_json
from ownweights.core.migrations import MIGRATIONS
from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore, make_record
from ownweights.traffic.bodies.segment import SegmentWriter
from ownweights.traffic.encode import encode_bodies
from ownweights.traffic.query import RecordFilter, page, stats
from ownweights.traffic.recount import tally_faults
from ownweights.traffic.retention import prune
from tests.traffic.samples import answer, ask, make

OLD = 5  # the newest step of the version before tallies, keys and facts of records
FIRST_AT = 1.7e9
DAY_S = 86_400.0
INSERT = (  # as that version wrote it
    "INSERT INTO record (id, at, workload, origin, session, source_id, prompt_hash, role, status,"
    " model, finish_reason, metadata, content_hash, body_bytes, segment, offset_bytes, item)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT id FROM segment WHERE name = ?),"
    " ?, ?)"
)


def some() -> list[Record]:
    """Records of each kind that version knew; none with a user, a key, a cost or tokens."""
    common = {"at": FIRST_AT, "session": "s"}
    return [
        *(make(f"question {n}", f"answer {n}", source_id=f"id-{n}", at=FIRST_AT + n * DAY_S,
               session=f"s-{n % 2}", metadata={"n": n, "é": [None]}, role="imported")
          for n in range(6)),
        make("asked live", **common),
        make_record(ask("cut"), answer("off", finish_reason="length"), role="student",
                    workload="w", **common),
        make_record(ask("lost"), None, role="teacher", workload="other", at=FIRST_AT),
        make_record({"model": "big", "messages": [{"role": "user", "content": "\u2028"}]},
                    answer("no system prompt"), role="teacher", workload="other", at=FIRST_AT),
    ]  # fmt: skip


def write_old(project: Project, records: list[Record]) -> None:
    """The store as the version of step OLD left it."""
    encoded = [encode_bodies(record.request, record.response) for record in records]
    parts = {digest: raw for one in encoded for digest, raw in one.parts.items()}
    writer = SegmentWriter(project.bodies_dir)
    places = writer.append([*parts.values(), *(one.item for one in encoded)])
    writer.close()
    with open_database(project.database, migrations=MIGRATIONS[:OLD]) as database:
        database.execute(
            "INSERT INTO segment (name, opened_at) VALUES (?, ?)", (writer.segment, FIRST_AT)
        )
        database.execute_many(
            "INSERT INTO part (hash, segment, offset_bytes, item)"
            " VALUES (?, (SELECT id FROM segment WHERE name = ?), ?, ?)",
            [(digest, p.segment, p.offset_bytes, p.item)
             for digest, p in zip(parts, places, strict=False)],
        )  # fmt: skip
        rows = zip(records, encoded, places[len(parts) :], strict=True)
        database.execute_many(
            INSERT,
            [(r.id, r.at, r.workload, r.source_id or r.id, r.session, r.source_id, r.prompt_hash,
              r.role, r.status, r.model, r.finish_reason, encode_json(r.metadata).decode(),
              one.content_hash, len(one.item), p.segment, p.offset_bytes, p.item)
             for r, one, p in rows],
        )  # fmt: skip
        database.execute("INSERT INTO attempt VALUES ('w', 1, 0.05, '{}', 1.0, 'h', NULL)")
        database.execute(
            "INSERT INTO audit (route, request_id, at, stage, share, kind, outcome, harm, chance,"
            " quiet) VALUES ('r', 'q', 1.0, 'served', 0.5, 'audit', 'judged', 0.0, 0.1, 3)"
        )
        database.log_event("route.changed", "r", "by hand")


@pytest.fixture
def old(project: Project) -> list[Record]:
    """What an old store of the project holds."""
    records = some()
    write_old(project, records)
    return records


def test_an_old_store_keeps_every_record(project: Project, old: list[Record]) -> None:
    with TrafficStore.open(project) as store:
        assert list(store.records()) == old
        assert len(store.database.copies()) > 0
        assert store.database.query("SELECT workload, k FROM attempt") == [("w", 1)]
        assert store.database.query("SELECT route, quiet, unsure FROM audit") == [("r", 3, 0)]
        assert store.database.query("SELECT kind, ref FROM event") == [("route.changed", "r")]
        assert store.add([replace(record, id=f"again {record.id}") for record in old[:6]]) == (0, 6)


def test_an_old_store_is_counted_as_if_written_now(project: Project, old: list[Record]) -> None:
    with TrafficStore.open(project) as store:
        assert tally_faults(store.database) == []
        assert store.verify().is_sound
        found = {one.name: (one.records, one.ok, one.partial, one.error)
                 for one in stats(store.database, RecordFilter())}  # fmt: skip
        assert found == {"w": (8, 7, 1, 0), "other": (2, 1, 0, 1)}
        rows = page(store.database, RecordFilter(session="s-1"))
        assert [row.id for row in rows] == [old[n].id for n in (5, 3, 1)]


def test_an_old_store_is_repaired_pruned_and_written_on(
    project: Project, old: list[Record]
) -> None:
    with TrafficStore.open(project) as store:
        prune(store, 0.0, before=FIRST_AT + 2.5 * DAY_S)  # shared texts of unknown use stay
        left = [record for record in old if record.at > FIRST_AT + 2.5 * DAY_S]
        assert list(store.records()) == left
        assert store.verify(repair=True).repaired == 0
        assert store.add([make("new", source_id="new")]) == (1, 0)
        prune(store, 0.0, before=FIRST_AT + 4.5 * DAY_S)
        assert [record.source_id for record in store.records()] == ["id-5", "new"]
        assert store.verify().is_sound


def test_the_copy_holds_what_was_there(project: Project, old: list[Record]) -> None:
    TrafficStore.open(project).close()
    count = "SELECT count(*) FROM {}"
    if project.server is None:
        path = project.database_path.with_name(f"own.db.before-{OLD + 1}")
        with open_database(path, migrations=MIGRATIONS[:OLD]) as copy:
            assert copy.query(count.format("record")) == [(len(old),)]
            with pytest.raises(StoreError, match="no such table: tally"):
                copy.query(count.format("tally"))
        return
    with open_database(project.database) as database:
        for table, rows in (("record", len(old)), ("part", 1), ("audit", 1), ("event", 1)):
            assert database.query(count.format(f"before_{OLD + 1}_{table}")) == [(rows,)]
        assert all("tally" not in name for name in database.copies())
        for name in ("before_lunch", "before_6_lunch"):  # somebody else's
            database.execute(f"CREATE TABLE {name} (x BIGINT)")
        database.drop_copies()
        assert database.copies() == []
        assert database.query("SELECT * FROM before_lunch, before_6_lunch") == []
