"""The store: what is added is there, once, whoever else writes at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.chat import Usage
from ownweights.core.database import plain_text
from ownweights.core.errors import InputError, StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, make_record
from ownweights.traffic import draft as draft_module
from ownweights.traffic import store as module
from tests.postgres import spell
from tests.traffic.samples import SYSTEM, answer, ask, make, run_together, stored

TEXT = st.text(max_size=40)


def numbered(count: int, **fields: Any) -> list[Any]:
    return [make(f"q{n}", f"a{n}", source_id=f"s{n}", **fields) for n in range(count)]


def test_store_gives_back_the_same_records(store: TrafficStore) -> None:
    records = [
        *numbered(3),
        make_record(ask(tools=[{"name": "n" * 99}]), None, role="teacher", session="s"),
        make_record(ask(), answer(None, tool_calls=[{"id": "1"}]), role="student", workload="w"),
        replace(
            make(),
            protocol="messages",
            end_user="u",
            key_id="k",
            upstream="main",
            usage=Usage(3, 4),
            cost_usd=0.01,
            latency_ms=12.5,
        ),
        make("x", "cut", status="partial", metadata={"gold": "é\u2028\ud83d", "n": [1, None]}),
    ]
    assert store.add(records) == (7, 0)
    assert list(store.records()) == records
    assert [store.get(record.id) for record in records] == records
    assert store.get("unknown") is None


@given(
    text=TEXT, reply=st.none() | TEXT, session=st.none() | TEXT,
    metadata=st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=3),
)  # fmt: skip
def test_store_always_gives_back_the_same_record(
    tmp_path_factory: pytest.TempPathFactory, text: str, reply: Any, session: Any, metadata: Any
) -> None:
    record = make_record(
        ask(text), answer(reply), role="imported", session=session, metadata=metadata
    )
    with TrafficStore.open(Project(tmp_path_factory.mktemp("p"))) as store:
        store.add([record])
        assert list(store.records()) == [replace(record, session=session and plain_text(session))]


def test_store_reads_a_model_name_of_half_a_character(store: TrafficStore) -> None:
    record = replace(make(), model="m\ud83d", session="s\ud83d")
    store.add([record])
    assert store.records().__next__().model == "m\\ud83d"


def test_records_pass_through_pages_in_order(
    store: TrafficStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE_ROWS", 3)
    records = numbered(10)
    store.add(records)
    assert list(store.records()) == records
    assert list(store.records(is_newest_first=True)) == records[::-1]
    for limit in (1, 3, 4, 9, 10, 11):
        assert list(store.records(limit=limit)) == records[:limit]
    assert list(store.records(is_newest_first=True, limit=4)) == records[:5:-1]


def test_records_may_be_added_while_they_are_read(
    store: TrafficStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE_ROWS", 2)
    store.add(numbered(3))
    seen = []
    for record in store.records():
        if len(seen) == 1:
            store.add(numbered(5)[3:])
        seen.append(record.source_id)
    assert seen == ["s0", "s1", "s2", "s3", "s4"]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ({}, "abcd"),
        ({"workload": "w"}, "abc"),
        ({"status": "partial"}, "bd"),
        ({"role": "student"}, "c"),
        ({"session": "s1"}, "ac"),
        ({"workload": "w", "status": "ok", "session": "s1"}, "ac"),
        ({"workload": "none"}, ""),
        ({"workload": "' OR 1=1 --"}, ""),
    ],
)
def test_records_and_count_choose_alike(
    store: TrafficStore, only: dict[str, Any], expected: str
) -> None:
    store.add(
        [
            make("a", session="s1"),
            make("b", status="partial"),
            make("c", session="s1", role="student"),
            make("d", status="partial", workload="other"),
        ]
    )
    found = [record.request["messages"][1]["content"] for record in store.records(**only)]
    assert "".join(found) == expected
    assert store.count(**only) == len(expected)


def test_add_again_adds_nothing(store: TrafficStore, project: Project) -> None:
    records = [*numbered(3), make("no source id")]
    assert store.add(records) == (4, 0)
    assert store.add(records) == (0, 4)
    assert store.add([records[0], *numbered(4)]) == (1, 4)
    assert store.count() == 5
    size_bytes = sum(path.stat().st_size for path in project.bodies_dir.iterdir())
    store.add(records)
    assert size_bytes == sum(path.stat().st_size for path in project.bodies_dir.iterdir())


def test_add_batch_sorts_out_what_is_there_already(store: TrafficStore) -> None:
    a, b, other = make("a", source_id="1"), make("b", source_id="1"), make("o", source_id="2")
    result = store.add_batch([a, replace(a, id="x"), b, other])
    assert (result.added, result.duplicates, result.conflicts) == (2, 1, ("1",))
    assert list(store.records()) == [a, other]
    assert store.add_batch([b]).conflicts == ("1",)
    assert store.add_batch([replace(b, workload="w2")]).added == 1
    assert store.add_batch([]).added == 0


def test_add_batch_is_all_or_nothing(store: TrafficStore, project: Project) -> None:
    store.add(numbered(1))
    clash = replace(make("clash"), id=stored(project)[0].id)
    with pytest.raises(StoreError, match=r"refused a row: .*record[._]id"):
        store.add_batch([make("fine"), clash])
    assert store.count() == 1
    assert store.add([make("fine")]) == (1, 0)


def test_add_batch_refuses_what_is_no_json(store: TrafficStore) -> None:
    odd = replace(make(), request={"messages": {1, 2, object()}}, source_id="odd")
    meta = replace(make(), metadata={"x": object()}, source_id="meta")
    result = store.add_batch([odd, meta, make("fine")])
    assert result.added == 1
    assert [what.partition(":")[0] for what in result.refused] == [
        "record odd is not JSON", "record meta is not JSON"
    ]  # fmt: skip
    with pytest.raises(InputError, match="record odd is not JSON"):
        store.add([odd])


def test_add_batch_refuses_what_is_too_large(
    store: TrafficStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "MAX_BODY_BYTES", 1000)
    result = store.add_batch([make("x" * 1000, source_id="big"), make("y" * 500)])
    assert result.added == 1
    assert result.refused[0].startswith("record big has 1,")
    assert result.refused[0].endswith(" bytes, the limit is 1,000")


def test_add_keeps_a_message_of_ten_megabytes(store: TrafficStore) -> None:
    record = make("long " * 2_000_000, "short")
    store.add([make(), record, make("after")])
    assert list(store.records())[1] == record


def test_store_keeps_a_shared_prompt_once(store: TrafficStore, project: Project) -> None:
    for number in range(3):  # three segments' worth of writers
        with TrafficStore.open(project) as writer:
            writer.add([make(f"q{number}")])
    assert store.database.query("SELECT count(*) FROM part") == [(1,)]
    assert {r.request["messages"][0]["content"] for r in store.records()} == {SYSTEM}


def test_add_batch_settles_a_race_for_the_same_record(
    store: TrafficStore, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = numbered(3)
    theirs = [ours[0], replace(make("other body"), source_id="s1")]
    write = store._write_bodies

    def write_while_another_adds(drafts: Sequence[Any]) -> Any:
        with TrafficStore.open(project) as rival:
            rival.add(theirs)
        return write(drafts)

    monkeypatch.setattr(store, "_write_bodies", write_while_another_adds)
    result = store.add_batch(ours)
    assert (result.added, result.duplicates, result.conflicts) == (1, 1, ("s1",))
    assert list(store.records()) == [*theirs, ours[2]]
    assert store.verify().is_sound


def test_find_ids_by_beginning_or_by_source(store: TrafficStore) -> None:
    records = [make("a", source_id="one", at=1.0), make("b", source_id="two", at=1.0)]
    store.add(records)
    assert store.find_ids(records[0].id[:13]) == [record.id for record in records]
    assert store.find_ids(records[0].id[:13], limit=1) == [records[0].id]
    assert store.find_ids("two") == [records[1].id]
    assert store.find_ids("three") == store.find_ids("%") == []


def test_workloads_counts_each_kind(store: TrafficStore) -> None:
    assert store.workloads() == []
    store.add(
        [
            make("a", session="s", at=10.0),
            make("b", session="s", at=5.0, status="partial"),
            make_record(ask(), None, role="teacher", workload="w", at=7.0),
            make("c", workload="small", at=8.0),
        ]
    )
    first, second = store.workloads()
    assert (first.workload, second.workload) == ("w", "small")
    assert (first.records, first.ok, first.partial, first.error) == (3, 1, 1, 1)
    assert (first.sessions, first.prompts, first.first_at, first.last_at) == (1, 1, 5.0, 10.0)
    assert first.models == ("big", "big-1")
    assert first.body_bytes > 0


def test_store_adds_up_what_is_known_of_costs(store: TrafficStore) -> None:
    rows = [
        replace(one, cost_usd=usd) for one, usd in zip(numbered(3), (0.5, None, 0.25), strict=True)
    ]
    store.add(rows)
    (stats,) = store.workloads()
    assert (stats.cost_usd, stats.unpriced) == (0.75, 1)


def test_open_without_create_says_that_nothing_is_there(project: Project) -> None:
    with pytest.raises(StoreError, match="there is no traffic in") as caught:
        TrafficStore.open(project, create=False)
    assert "own traffic import FILE" in str(caught.value.hint)
    assert not project.store_dir.exists()
    TrafficStore.open(project).close()
    TrafficStore.open(project, create=False).close()


def test_store_may_be_closed_twice(project: Project) -> None:
    store = TrafficStore.open(project)
    store.add(numbered(1))
    store.close()
    store.close()
    assert len(stored(project)) == 1


def test_power_safe_store_syncs_bodies_before_rows(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    with TrafficStore.open(project, is_power_safe=True) as store:
        insert = store._insert
        monkeypatch.setattr(
            module.SegmentWriter, "sync", lambda self: happened.append("bodies synced")
        )
        monkeypatch.setattr(
            store, "_insert", lambda *given: (happened.append("rows"), insert(*given))
        )
        store.add(numbered(1))
    assert happened == ["bodies synced", "rows"]


@pytest.mark.parametrize("stage", ["segment", "rows"])
def test_add_batch_that_fails_leaves_no_body_behind(
    store: TrafficStore, project: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    execute = store.database.execute if stage == "segment" else store.database.execute_many

    def refuse(sql: str, rows: Any) -> int:
        raise StoreError("own.db cannot grow")

    monkeypatch.setattr(store.database, execute.__name__, refuse)
    records = numbered(2)
    for _ in range(3):
        with pytest.raises(StoreError, match=r"own\.db cannot grow"):
            store.add_batch(records)
    assert sum(path.stat().st_size for path in project.bodies_dir.iterdir()) <= 8
    monkeypatch.undo()
    store.add_batch(records)
    assert store.verify().is_sound
    assert list(store.records()) == records
    assert len(list(project.bodies_dir.iterdir())) == 1


def test_add_batch_keeps_bodies_of_rows_that_may_come_back(
    store: TrafficStore, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(sql: str, rows: Any) -> int:
        raise StoreError("disk I/O error", is_undone=False)

    monkeypatch.setattr(store.database, "execute_many", refuse)
    with pytest.raises(StoreError, match="disk I/O error"):
        store.add_batch(numbered(2))
    assert max(path.stat().st_size for path in project.bodies_dir.iterdir()) > 100


def test_records_says_that_a_body_is_lost(store: TrafficStore, project: Project) -> None:
    store.add(numbered(2))
    for path in project.bodies_dir.iterdir():
        path.unlink()
    with TrafficStore.open(project) as fresh, pytest.raises(StoreError, match="cannot be read"):
        list(fresh.records())
    assert store.count() == 2


WRITE = """
import sys
from ownweights.traffic import TrafficStore
from tests.postgres import spelled
from tests.traffic.samples import make
name = sys.argv[2]
sys.stdin.readline()
with TrafficStore.open(spelled(sys.argv[1])) as store:
    for batch in range(8):
        own = [make(f"{name} {batch} {n}", source_id=f"{name}-{batch}-{n}") for n in range(10)]
        common = [make(f"common {batch} {n}", source_id=f"common-{batch}-{n}") for n in range(10)]
        store.add(own + common)
        assert store.verify().is_sound
"""


def test_store_serves_several_processes_at_once(project: Project) -> None:
    run_together([(WRITE, spell(project), name) for name in "abc"])
    with TrafficStore.open(project) as store:
        sources = [record.source_id for record in store.records()]
        assert len(sources) == len(set(sources)) == 4 * 80
        assert store.verify().is_sound
        names = store.database.query("SELECT name FROM segment")
    assert {len(list(project.bodies_dir.iterdir())), len(names)} == {3}


def test_store_workloads_of_prompt_names_each_once(store: TrafficStore) -> None:
    other = make_record({"model": "big", "messages": []}, None, role="teacher", workload="c")
    records = [*numbered(2, workload="b"), make("q9", workload="a"), other]
    store.add(records)
    assert store.workloads_of_prompt(records[0].prompt_hash) == ["a", "b"]
    assert store.workloads_of_prompt("unknown") == []
