"""What is old goes, bodies and rows apart, and what stays says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ownweights.core.errors import UsageError
from ownweights.core.project import Project, Server
from ownweights.traffic import TrafficStore
from ownweights.traffic.erase import Whose, bodies_of, erase, find
from ownweights.traffic.feedback import feedback_of, keep_feedback, parse_feedback
from ownweights.traffic.query import RecordFilter, count, page, stats
from ownweights.traffic.retention import PruneReport, prune
from tests.traffic.bodies.test_compact import all_items
from tests.traffic.samples import make

DAY_S = 86_400.0
NOW = 20_000 * DAY_S


def fill(store: TrafficStore, days: int = 10) -> None:
    """A record for each of the last days, newest first named 0."""
    store.add(
        [
            make(f"question {n} of <{n}>", f"answer {n}", source_id=f"id-{n}", at=NOW - n * DAY_S)
            for n in range(days)
        ]
    )


def names(store: TrafficStore) -> list[str | None]:
    return [record.source_id for record in store.records()]


def test_prune_of_bodies_keeps_rows_in_lists_and_statistics(store: TrafficStore) -> None:
    fill(store)
    report = prune(store, NOW, keep_bodies_days=4.5)
    assert (report.records, report.bodies, report.is_clean) == (0, 5, True)
    assert names(store) == [f"id-{n}" for n in range(5)]
    rows = page(store.database, RecordFilter())
    assert [row.pruned_at for row in rows] == [NOW] * 5 + [None] * 5
    (one,) = stats(store.database, RecordFilter())
    assert (one.records, one.pruned) == (10, 5)
    assert (store.count(), count(store.database, RecordFilter())) == (5, 10)
    assert store.get(rows[0].id) is None
    report_ = store.verify()
    assert (report_.is_sound, report_.pruned, report_.dead_items) == (True, 5, 0)
    assert b"<7>" not in all_items(store.project.bodies_dir)
    assert b"<2>" in all_items(store.project.bodies_dir)


def test_prune_of_rows_takes_all_of_them(store: TrafficStore) -> None:
    fill(store)
    report = prune(store, NOW, keep_metadata_days=6.5, keep_bodies_days=2.5)
    assert (report.records, report.bodies) == (3, 4)
    assert len(page(store.database, RecordFilter())) == 7
    assert names(store) == ["id-0", "id-1", "id-2"]
    again = prune(store, NOW, keep_metadata_days=6.5, keep_bodies_days=2.5)
    assert (again.records, again.bodies) == (0, 0)
    assert store.verify().is_sound


@pytest.mark.parametrize("days", [None, 0])
def test_prune_keeps_for_ever_by_default(store: TrafficStore, days: float | None) -> None:
    fill(store)
    report = prune(store, NOW, keep_bodies_days=days, keep_metadata_days=days)
    assert (report.records, report.bodies) == (0, 0)
    assert len(names(store)) == 10


def test_prune_takes_a_day(store: TrafficStore) -> None:
    fill(store)
    report = prune(store, NOW, before=NOW - 7.5 * DAY_S, bodies_before=NOW - 3.5 * DAY_S)
    assert (report.records, report.bodies) == (2, 4)


def test_prune_dry_run_changes_nothing(store: TrafficStore) -> None:
    fill(store)
    report = prune(store, NOW, keep_bodies_days=4.5, keep_metadata_days=8.5, dry_run=True)
    assert report == PruneReport(1, 4)
    assert len(names(store)) == 10


def test_prune_finishes_what_was_cut_off(store: TrafficStore) -> None:
    fill(store)
    store.database.execute("UPDATE segment SET dead = 1")
    assert prune(store, NOW).segments == 1
    assert store.verify().is_sound


def test_a_pruned_record_can_be_erased_and_comes_back_by_import(store: TrafficStore) -> None:
    fill(store, 2)
    prune(store, NOW, keep_bodies_days=0.5)
    again = make("question 1 of <1>", "answer 1", source_id="id-1", at=NOW - DAY_S)
    assert store.add([again]) == (0, 1)  # known, though its body went
    gone = [row.id for row in page(store.database, RecordFilter()) if row.pruned_at]
    erase(store, Whose(ids=tuple(gone)))
    assert store.add([again]) == (1, 0)
    assert store.verify().is_sound


def everything(project: Project) -> bytes:
    """All bytes of the store: segments unpacked, index and log as they are (of Postgres its tables
    and indexes; its log is the server's)."""
    if project.server:
        return all_items(project.bodies_dir) + table_bytes(project.server)
    files = [path for path in project.store_dir.iterdir() if path.name.startswith("own.db")]
    return all_items(project.bodies_dir) + b"".join(path.read_bytes() for path in files)


def table_bytes(server: Server) -> bytes:
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        rows = connection.execute(
            "SELECT pg_read_binary_file(pg_relation_filepath(oid)) FROM pg_class"
            " WHERE relkind IN ('r', 'i') AND relnamespace = current_schema()::regnamespace"
        )
        return b"".join(data for (data,) in rows)


@contextlib.contextmanager
def reading(project: Project) -> Iterator[None]:
    """Someone who reads the state of now, however long that takes."""
    if project.server:
        import psycopg

        with psycopg.connect(project.server.url, autocommit=True) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT count(*) FROM record").fetchall()
            yield
            connection.execute("COMMIT")
        return
    with TrafficStore.open(project) as reader:
        reader.database.execute("BEGIN")
        reader.database.query("SELECT count(*) FROM record")
        yield
        reader.database.execute("COMMIT")


def mixed(store: TrafficStore) -> None:
    """Records of two users, and what each said of one of them and of the session."""
    records = (
        [
            make(
                f"secret of <{user}> number {n}", f"reply to <{user}>", session=f"session-{user}",
                metadata={"user": f"person-{user}"}, source_id=f"{user}-{n}",
            )
            for n in range(20)
            for user in ("eve", "bob")
        ]
    )  # fmt: skip
    store.add(records)
    for record in records[:2]:
        comment = f"a remark on {record.session}"
        for target in ({"request_id": record.id}, {"session": record.session}):
            keep_feedback(store.database, parse_feedback({**target, "comment": comment}))


@pytest.mark.parametrize(
    "whose", [Whose(user="person-eve"), Whose(session="session-eve")], ids=["user", "session"]
)
def test_erase_leaves_no_byte_behind(project: Project, whose: Whose) -> None:
    with TrafficStore.open(project) as store:
        mixed(store)
        assert b"<eve>" in everything(project)
        assert b"person-eve" in everything(project)
        report = erase(store, whose)
        assert (report.records, report.is_clean) == (20, True)
        left = everything(project)
        for trace in (b"<eve>", b"person-eve", b"session-eve", b"eve-3"):
            assert trace not in left, trace
        assert b"<bob>" in left
        assert b"a remark on session-bob" in left
        assert len(names(store)) == 20
        assert store.verify().is_sound
    assert b"person-eve" not in everything(project)


def test_erase_by_id_takes_those_alone(store: TrafficStore) -> None:
    mixed(store)
    ids = tuple(row.id for row in page(store.database, RecordFilter(), limit=3))
    assert {one.id for one in find(store.database, Whose(ids=ids))} == set(ids)
    assert erase(store, Whose(ids=ids)).records == 3
    assert len(names(store)) == 37
    with pytest.raises(UsageError, match="there is no record"):
        find(store.database, Whose(ids=(ids[0],)))


GIVEN: tuple[dict[str, Any], ...] = (
    {"value": True}, {"value": 0.5}, {"comment": "a remark"}, {"demonstration": "so"},
)  # fmt: skip


def say_all(store: TrafficStore, at: float, **target: str) -> None:
    for given in GIVEN:
        keep_feedback(store.database, replace(parse_feedback({**target, **given}), at=at))


def kinds(store: TrafficStore) -> dict[str, list[str]]:
    rows = store.database.query(
        "SELECT coalesce(request_id, session), kind FROM feedback ORDER BY 1, 2"
    )
    found: dict[str, list[str]] = {}
    for target, kind in rows:
        found.setdefault(target, []).append(kind)
    return found


def test_feedback_goes_with_what_it_is_about(store: TrafficStore) -> None:
    late = NOW + DAY_S  # long after, and still it goes with the record
    records = [make(f"q{n}", session=f"s-{n // 2}", at=NOW - n * DAY_S) for n in range(8)]
    store.add(records)
    for n in (0, 3, 6):
        say_all(store, late, request_id=records[n].id)
    for n in range(4):
        say_all(store, late, session=f"s-{n}")
    every, numbers = ["boolean", "comment", "demonstration", "number"], ["boolean", "number"]
    prune(store, NOW, keep_bodies_days=2.5, keep_metadata_days=4.5)
    assert kinds(store) == {
        records[0].id: every, records[3].id: numbers,
        "s-0": every, "s-1": every, "s-2": numbers,  # of s-1 one record is whole, of s-2 none
    }  # fmt: skip
    assert feedback_of(store.database, session="s-3") == []


def test_feedback_of_what_was_never_recorded_goes_by_its_age(store: TrafficStore) -> None:
    for days in (1, 4, 9):
        say_all(store, NOW - days * DAY_S, request_id=f"r-{days}")
    prune(store, NOW, keep_bodies_days=2.5, keep_metadata_days=6.5, dry_run=True)
    assert len(kinds(store)) == 3
    prune(store, NOW, keep_bodies_days=2.5, keep_metadata_days=6.5)
    every, numbers = ["boolean", "comment", "demonstration", "number"], ["boolean", "number"]
    assert kinds(store) == {"r-1": every, "r-4": numbers}
    say_all(store, NOW, session="eve")
    erase(store, Whose(session="eve"))
    assert set(kinds(store)) == {"r-1", "r-4"}


def test_erase_says_when_a_reader_keeps_the_log(project: Project) -> None:
    with TrafficStore.open(project, busy_timeout_s=0.1) as store:
        mixed(store)
        with reading(project):
            assert not erase(store, Whose(user="person-eve")).is_clean
        assert erase(store, Whose(user="person-eve")).is_clean
    assert b"person-eve" not in everything(project)


def test_find_gives_names_and_bodies(store: TrafficStore) -> None:
    mixed(store)
    found = list(bodies_of(store, find(store.database, Whose(user="person-bob"))))
    assert len(found) == 20
    assert {(one.name, one.workload) for one, _ in found} == {(f"bob-{n}", "w") for n in range(20)}
    assert all(record and record.answer_text == "reply to <bob>" for _, record in found)


@pytest.mark.parametrize("given", [{}, {"user": "a", "session": "b"}, {"user": "a", "ids": ("b",)}])
def test_whose_is_one_of_three(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="say whose records"):
        Whose(**given)  # pyright: ignore[reportArgumentType]


def test_erase_of_nobody_is_no_error(store: TrafficStore) -> None:
    mixed(store)
    assert erase(store, Whose(user="nobody")).records == 0
    assert len(names(store)) == 40
