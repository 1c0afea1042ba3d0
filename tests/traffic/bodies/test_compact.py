"""Bytes really go, and nothing that stays is ever out of reach."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic.bodies import compact as module
from ownweights.traffic.bodies.compact import compact
from ownweights.traffic.bodies.segment import SegmentReader, SegmentWriter
from ownweights.traffic.part import free_unused
from ownweights.traffic.retention import take_out
from tests.postgres import spell
from tests.traffic.samples import make, run_python


def fill(store: TrafficStore, number: int = 30) -> None:
    store.add([make(f"question {n}", f"answer {n}", source_id=f"id-{n}") for n in range(number)])


def seqs(store: TrafficStore, every: int = 3) -> list[int]:
    return [row[0] for row in store.database.query("SELECT seq FROM record ORDER BY seq")][::every]


def names(store: TrafficStore) -> list[str | None]:
    return [record.source_id for record in store.records()]


def all_items(bodies_dir: Path) -> bytes:
    """Everything that lies in segments, unpacked."""
    return b"\n".join(items_in(bodies_dir))


def items_in(bodies_dir: Path) -> list[bytes]:
    reader = SegmentReader(bodies_dir)
    found: list[bytes] = []
    for path in bodies_dir.glob("*.seg"):
        data, start = path.read_bytes(), 0
        while (start := data.find(b"BLK1", start)) >= 0:
            with contextlib.suppress(StoreError):
                found += reader._read_block(path.stem, start)
            start += 1
    reader.close()
    return found


def test_compact_frees_what_went_and_keeps_the_rest(project: Project) -> None:
    with TrafficStore.open(project) as store:
        fill(store)
        store.close()
    with TrafficStore.open(project) as store:
        assert b"question 3" in all_items(project.bodies_dir)
        assert take_out(store, seqs(store)) == 10
        report = compact(store.database, store.shelf)
        assert (report.segments, report.unreadable) == (1, ())
        assert report.freed_bytes > 0
        found = all_items(project.bodies_dir)
        assert b'question 3"' not in found
        assert b"question 4" in found
        assert names(store) == [f"id-{n}" for n in range(30) if n % 3]
        assert store.verify().is_sound
        assert compact(store.database, store.shelf).segments == 0


def test_compact_of_a_segment_without_rows_unlinks_it(store: TrafficStore) -> None:
    fill(store, 3)
    take_out(store, seqs(store, 1))
    with store.database.transaction():
        assert free_unused(store.database) == 1
    compact(store.database, store.shelf)
    assert list(store.project.bodies_dir.iterdir()) == []
    assert store.database.query("SELECT count(*) FROM segment") == [(0,)]
    fill(store, 3)
    assert store.verify().is_sound


def test_free_unused_keeps_a_part_that_is_needed(store: TrafficStore) -> None:
    fill(store, 4)
    take_out(store, seqs(store, 2))
    with store.database.transaction():
        assert free_unused(store.database) == 0
    assert store.verify().is_sound


def test_parts_of_an_older_store_stay_until_counted(store: TrafficStore) -> None:
    fill(store, 2)
    store.database.execute("UPDATE part SET uses = NULL")
    take_out(store, seqs(store, 1)[:1])
    with store.database.transaction():
        assert free_unused(store.database) == 0
    assert store.verify(repair=True).is_sound
    assert store.database.query("SELECT uses FROM part") == [(1,)]


def test_compact_beside_a_writer_and_a_reader(project: Project) -> None:
    with TrafficStore.open(project) as writer, TrafficStore.open(project) as other:
        fill(writer)
        reading = other.records()
        first = next(reading)
        with TrafficStore.open(project) as pruner:
            take_out(pruner, seqs(pruner))
            compact(pruner.database, pruner.shelf)
        other._reader.close()
        assert first.source_id == "id-0"
        assert [r.source_id for r in reading] == [f"id-{n}" for n in range(30) if n % 3]
        assert writer.add([make("later", source_id="later")]) == (1, 0)
        assert names(writer)[-1] == "later"
        assert writer.verify().is_sound


def test_compact_takes_along_what_a_writer_adds_meanwhile(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrafficStore.open(project) as writer:
        fill(writer)
        take_out(writer, seqs(writer))
        move, added = module._move_page, list[int]()

        def move_and_add(*words: Any) -> None:
            move(*words)
            if len(added) < 3:
                added.append(1)
                writer.add([make(f"new {len(added)}", source_id=f"new-{len(added)}")])

        monkeypatch.setattr(module, "_move_page", move_and_add)
        with TrafficStore.open(project) as pruner:
            compact(pruner.database, pruner.shelf)
        assert names(writer)[-3:] == ["new-1", "new-2", "new-3"]
        writer.add([make("last", source_id="last")])
        assert names(writer)[-1] == "last"
        assert writer.verify().is_sound


def test_compact_frees_what_went_while_it_was_copied(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrafficStore.open(project) as store:
        fill(store)
        take_out(store, seqs(store))
        live, done = module._live, list[int]()

        def find_and_take_one(*words: Any) -> Any:
            found = live(*words)
            if not done:
                done.append(take_out(store, seqs(store)[:1]))
            return found

        monkeypatch.setattr(module, "_live", find_and_take_one)
        compact(store.database, store.shelf)
        assert b'question 1"' not in all_items(project.bodies_dir)
        assert len(items_in(project.bodies_dir)) == len(names(store)) + 1  # and the system prompt
        assert (store.verify().is_sound, store.verify().dead_items) == (True, 0)


@pytest.mark.parametrize("by", ["verify", "compact"])
def test_compact_goes_on_when_its_copy_is_taken_for_one_left_behind(
    project: Project, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with TrafficStore.open(project) as store, TrafficStore.open(project) as other:
        fill(store)
        take_out(store, seqs(store))
        sync, done = module.SegmentWriter.sync, list[int]()

        def sync_and_let(writer: SegmentWriter) -> None:
            sync(writer)
            if not done:
                done.append(1)
                other.verify(repair=True) if by == "verify" else compact(
                    other.database, other.shelf
                )

        monkeypatch.setattr(module.SegmentWriter, "sync", sync_and_let)
        assert compact(store.database, store.shelf).unreadable == ()
        assert names(store) == [f"id-{n}" for n in range(30) if n % 3]
        assert len(items_in(project.bodies_dir)) == len(names(store)) + 1
        assert store.verify().is_sound


def test_compact_leaves_a_damaged_segment_and_says_so(project: Project) -> None:
    with TrafficStore.open(project) as store:
        fill(store)
    (path,) = project.bodies_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with TrafficStore.open(project) as store:
        take_out(store, seqs(store))
        assert compact(store.database, store.shelf).unreadable == (path.stem,)
        assert path.exists()
        store.verify(repair=True)
        compact(store.database, store.shelf)
        assert store.verify().is_sound


STEPS = ["_live", "_repoint", "_leave", "_unlink_gone", "_register"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_compact_killed_at_any_step_loses_nothing(project: Project, step: str, after: int) -> None:
    with TrafficStore.open(project) as store:
        fill(store)
        store.close()
    with TrafficStore.open(project) as store:
        take_out(store, seqs(store))
    script = """
import os, signal, sys
from ownweights.traffic import TrafficStore
from ownweights.traffic.bodies import compact as module
from tests.postgres import spelled
step, left = sys.argv[2], [int(sys.argv[3])]
found = getattr(module, step)
def dies(*words):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return found(*words)
setattr(module, step, dies)
with TrafficStore.open(spelled(sys.argv[1])) as store:
    module.compact(store.database, store.shelf)
"""
    process = run_python(script, spell(project), step, after)
    process.communicate()
    assert process.returncode in (0, -9)
    with TrafficStore.open(project) as store:
        assert names(store) == [f"id-{n}" for n in range(30) if n % 3]
        assert store.verify().is_sound
        compact(store.database, store.shelf)
        assert b'question 3"' not in all_items(project.bodies_dir)
        assert names(store) == [f"id-{n}" for n in range(30) if n % 3]
        assert len(items_in(project.bodies_dir)) == len(names(store)) + 1
        assert store.verify().dead_items == 0


def test_compact_reports_progress(store: TrafficStore) -> None:
    fill(store)
    take_out(store, seqs(store))
    seen: list[tuple[int, int]] = []
    on_progress: Callable[[int, int], object] = lambda done, of: seen.append((done, of))  # noqa: E731
    compact(store.database, store.shelf, on_progress)
    assert seen == [(1, 1)]
