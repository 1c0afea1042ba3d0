"""Damage is found and named, and what a crash leaves is not called damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic import verify as module
from ownweights.traffic.bodies.compact import compact
from ownweights.traffic.part import free_unused
from ownweights.traffic.retention import take_out
from tests.traffic.samples import make, stored


def fill(project: Project, name: str, count: int = 2) -> Path:
    """Records in a segment of their own; the segment's file."""
    with TrafficStore.open(project) as store:
        store.add([make(f"{name} {n}", source_id=f"{name}-{n}") for n in range(count)])
    return max(project.bodies_dir.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_verify_of_an_empty_store_is_sound(store: TrafficStore) -> None:
    report = store.verify()
    assert (report.is_sound, report.records, report.segments) == (True, 0, 0)


def test_verify_counts_what_it_read(project: Project) -> None:
    paths = [fill(project, "a"), fill(project, "b", 3)]
    with TrafficStore.open(project) as store:
        report = store.verify()
    assert (report.is_sound, report.records, report.segments) == (True, 5, 2)
    assert report.body_bytes == sum(path.stat().st_size for path in paths)


def test_verify_counts_a_torn_tail_as_harmless(project: Project) -> None:
    path = fill(project, "a")
    with path.open("ab") as file:
        file.write(b"BLK1 and then the power went")
    with TrafficStore.open(project) as store:
        report = store.verify()
    assert (report.is_sound, report.torn_bytes) == (True, 28)


@pytest.mark.parametrize("kind", ["flipped", "cut", "gone"])
def test_verify_names_records_whose_body_is_lost(project: Project, kind: str) -> None:
    fill(project, "first")  # holds the shared system prompt
    path = fill(project, "second")
    match kind:
        case "flipped":
            flip_last_byte(path)
        case "cut":
            path.write_bytes(path.read_bytes()[:-5])
        case _:
            path.unlink()
    with TrafficStore.open(project) as store:
        report = store.verify()
        lost = [row[0] for row in store.database.query(
            "SELECT id FROM record WHERE source_id LIKE 'second-%'")]  # fmt: skip
        assert store.count() == 4
    assert not report.is_sound
    if kind == "gone" and project.server is not None:
        assert report.damaged == ()  # another machine may still hold it
    else:
        assert sorted(report.damaged) == sorted(lost)
    assert all("body segment " in fault for fault in report.faults)


def test_verify_names_records_whose_shared_prompt_is_lost(project: Project) -> None:
    flip_last_byte(fill(project, "first"))
    fill(project, "second")
    with TrafficStore.open(project) as store:
        assert len(store.verify().damaged) == 4
        store.database.execute("DELETE FROM part")
        assert any("the shared text" in fault for fault in store.verify().faults)


def test_verify_finds_a_body_that_was_swapped(project: Project) -> None:
    fill(project, "a")
    with TrafficStore.open(project) as store:
        store.database.execute("UPDATE record SET item = 1 WHERE source_id = 'a-1'")
        report = store.verify()
    assert len(report.damaged) == 1
    assert report.faults[0].endswith("its body is not what was stored")


def test_verify_finds_a_row_that_points_at_a_prompt(project: Project) -> None:
    fill(project, "a")
    with TrafficStore.open(project) as store:
        store.database.execute("UPDATE record SET item = 0 WHERE source_id = 'a-1'")
        assert "its body cannot be decoded" in store.verify().faults[0]


def test_verify_repair_takes_out_what_is_lost_and_says_so(project: Project) -> None:
    fill(project, "first")
    flip_last_byte(fill(project, "second"))
    with TrafficStore.open(project) as store:
        report = store.verify(repair=True)
        assert (report.repaired, len(report.damaged)) == (2, 2)
        events = store.database.query("SELECT kind, ref FROM event ORDER BY id")
        assert events == [("record.lost", record_id) for record_id in report.damaged]
        assert store.verify().is_sound
    assert [record.source_id for record in stored(project)] == ["first-0", "first-1"]
    fill(project, "second")  # what was lost can be imported again
    assert len(stored(project)) == 4


def test_verify_repair_lets_an_import_bring_a_lost_prompt_back(project: Project) -> None:
    flip_last_byte(fill(project, "first"))  # holds the shared system prompt
    with TrafficStore.open(project) as store:
        assert store.add([make("cached", source_id="cached")]) == (1, 0)
        report = store.verify(repair=True)
        assert (report.repaired, len(report.faults)) == (3, 4)
        assert any(fault.startswith("shared text ") for fault in report.faults)
        kinds = store.database.query("SELECT kind FROM event ORDER BY id")
        assert kinds == [("record.lost",)] * 3 + [("part.lost",)]
        store.add([make("later", source_id="later")])  # by the store that knew the old place
        assert store.verify().is_sound
    fill(project, "first")
    assert [record.source_id for record in stored(project)] == ["later", "first-0", "first-1"]
    with TrafficStore.open(project) as store:
        assert store.verify().is_sound


def test_verify_names_a_shared_prompt_that_nobody_needs(project: Project) -> None:
    flip_last_byte(fill(project, "first"))
    with TrafficStore.open(project) as store:
        store.database.execute("DELETE FROM record")
        faults = store.verify(repair=True).faults
        assert {fault[:5] for fault in faults} == {"tally", "talli", "share"}
        assert store.verify().is_sound


def test_verify_repair_beside_a_writer_loses_nothing_it_writes(project: Project) -> None:
    with TrafficStore.open(project) as writer:
        writer.add([make("before", source_id="before")])
        flip_last_byte(max(project.bodies_dir.iterdir()))
        with TrafficStore.open(project) as other:
            assert other.verify(repair=True).repaired == 1
        assert writer.add([make("after", source_id="after")]) == (1, 0)
    assert [record.source_id for record in stored(project)] == ["after"]


def test_verify_repair_frees_only_what_this_index_left(project: Project) -> None:
    kept, lost = fill(project, "kept"), fill(project, "lost")
    left = project.bodies_dir / "1-left.seg"
    shutil.copy(kept, left)
    foreign = project.bodies_dir / "1-foreign.seg"
    shutil.copy(kept, foreign)
    flip_last_byte(lost)
    with TrafficStore.open(project) as store:
        store.database.execute("INSERT INTO segment (name, opened_at) VALUES ('1-left', 1)")
        assert store.verify().freed_bytes == 0
        report = store.verify(repair=True)
        assert (report.repaired, report.freed_bytes) == (2, kept.stat().st_size)
        assert store.verify(repair=True).freed_bytes == 0
        assert store.database.query("SELECT name FROM segment ORDER BY id") == [
            (kept.stem,), (lost.stem,)
        ]  # fmt: skip
    assert sorted(project.bodies_dir.iterdir()) == sorted([kept, lost, foreign])


@pytest.mark.parametrize("what", ["a record's", "a shared prompt's"])
def test_verify_repair_leaves_what_it_emptied_to_the_next_prune(
    project: Project, what: str
) -> None:
    """Nothing stays for ever that no row refers to."""
    first, second = fill(project, "first"), fill(project, "second")
    lost = first if what == "a shared prompt's" else second
    flip_last_byte(lost)
    with TrafficStore.open(project) as store:
        report = store.verify(repair=True)
        assert lost.exists()
        assert store.verify().dead_items == report.repaired + (lost == first)
        compact(store.database, store.shelf)
        assert (lost.exists(), store.verify().dead_items) == (False, 0)
        assert store.verify().is_sound


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("act", ["add", "prune", "both"])
def test_repair_beside_others_keeps_what_is_needed(
    project: Project, monkeypatch: pytest.MonkeyPatch, is_known: bool, is_before: bool, act: str
) -> None:
    """Records come and go before or after bodies are read: no shared text is taken for unused."""
    fill(project, "a", 6)
    check = module._check_records

    def meanwhile() -> None:
        with TrafficStore.open(project) as other:
            if act != "prune":
                other.add([make("late", source_id="late")])
            if act != "add":
                take_out(other, [2, 3])

    def check_beside(*words: Any) -> Any:
        meanwhile() if is_before else None
        yield from check(*words)
        None if is_before else meanwhile()

    with TrafficStore.open(project) as store:
        if not is_known:
            store.database.execute("UPDATE part SET uses = NULL")
        monkeypatch.setattr(module, "_check_records", check_beside)
        assert store.verify(repair=True).is_sound
        monkeypatch.undo()
        left = [record.source_id for record in store.records()]
        ((uses,),) = store.database.query("SELECT uses FROM part")
        assert uses >= len(left)
        take_out(store, [seq for (seq,) in store.database.query("SELECT seq FROM record")][:-1])
        with store.database.transaction():
            assert free_unused(store.database) == 0
        assert [record.source_id for record in store.records()] == left[-1:]
        assert store.verify(repair=True).repaired == 0
        assert store.database.query("SELECT uses FROM part") == [(1,)]
