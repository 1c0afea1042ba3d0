"""Recording behind the caller's back: nothing blocks, nothing raises, everything is counted."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.ids import new_id
from ownweights.core.project import Project
from ownweights.traffic import Record, Recorder, TrafficStore
from ownweights.traffic import recorder as module
from ownweights.traffic.redact import Privacy, PrivacyRules
from tests.postgres import spell
from tests.traffic.samples import make, run_python, stored


class Gate:
    """A store whose writing can be held up, and can fail."""

    def __init__(self, project: Project) -> None:
        self.may_write = threading.Event()
        self.is_writing = threading.Event()
        self.errors: list[Exception] = []
        self.batches: list[int] = []
        self._project = project

    def open(self, project: Project) -> Any:
        self._store = TrafficStore.open(project)
        return self

    def add_batch(self, records: Sequence[Record]) -> Any:
        self.is_writing.set()
        assert self.may_write.wait(60)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(len(records))
        return self._store.add_batch(records)

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def gate(project: Project) -> Gate:
    return Gate(project)


@contextmanager
def recording(project: Project, gate: Gate, **options: Any) -> Iterator[Recorder]:
    given = {"open_store": gate.open, "batch_s": 0.0, "retry_s": 0.0, **options}
    recorder = Recorder(project, **given)
    try:
        yield recorder
    finally:
        gate.may_write.set()
        recorder.close(timeout_s=60)


def test_recorder_stores_what_is_offered(project: Project) -> None:
    records = [make(str(n)) for n in range(600)]
    recorder = Recorder(project)
    assert all(recorder.offer(record) for record in records)
    assert recorder.flush(timeout_s=60)
    assert stored(project) == records
    counts = recorder.close()
    assert (counts.offered, counts.recorded, counts.waiting, counts.lost) == (600, 600, 0, 0)
    assert (counts.failures, counts.last_error) == (0, "")


def test_close_stores_what_is_waiting(project: Project) -> None:
    recorder = Recorder(project, batch_s=3600)
    for n in range(10):
        recorder.offer(make(str(n)))
    assert recorder.close(timeout_s=60).recorded == 10
    assert len(stored(project)) == 10
    assert recorder.close().recorded == 10


def test_recorder_does_not_wait_for_a_full_batch_to_grow_old(project: Project) -> None:
    recorder = Recorder(project, batch_s=3600)
    for n in range(256):
        recorder.offer(make(str(n)))
    assert recorder.flush(timeout_s=60)
    recorder.close()


def test_recorder_tells_how_long_each_batch_waited(project: Project, gate: Gate) -> None:
    waits: list[float] = []
    with recording(project, gate, on_wait=waits.append) as recorder:
        for n in range(300):
            recorder.offer(make(str(n)))
        gate.may_write.set()
        assert recorder.flush(timeout_s=60)
    assert 2 <= len(waits) <= 300 and min(waits) >= 0


def test_offer_after_close_is_counted_as_lost(project: Project) -> None:
    recorder = Recorder(project)
    recorder.close()
    assert recorder.offer(make()) is False
    assert recorder.counts().lost == 1
    assert not project.store_dir.exists()  # nothing recorded, nothing made


def test_offer_counts_what_does_not_fit(project: Project, gate: Gate) -> None:
    with recording(project, gate, max_queue_records=3) as recorder:
        recorder.offer(make("in hand"))
        assert gate.is_writing.wait(60)
        taken = [recorder.offer(make(str(n))) for n in range(5)]
        assert taken == [True, True, True, False, False]
        counts = recorder.counts()
        assert (counts.offered, counts.waiting, counts.lost) == (6, 4, 2)
    assert recorder.counts().recorded == 4
    assert len(stored(project)) == 4


def test_offer_counts_what_is_too_much_in_bytes(project: Project, gate: Gate) -> None:
    with recording(project, gate, max_queue_bytes=100) as recorder:
        recorder.offer(make("in hand"), num_bytes=1000)
        assert gate.is_writing.wait(60)
        taken = [recorder.offer(make(str(n)), num_bytes=60) for n in range(4)]
        assert taken == [True, True, False, False]
        assert not recorder.has_room()
    assert recorder.counts().recorded == 3


def test_recorder_writes_no_more_than_so_many_bytes_at_once(project: Project, gate: Gate) -> None:
    with recording(project, gate) as recorder:
        recorder.offer(make("first"))
        assert gate.is_writing.wait(60)
        for n in range(7):
            recorder.offer(make(str(n)), num_bytes=module.BATCH_BYTES // 2)
    assert gate.batches == [1, 2, 2, 2, 1]


def test_recorder_does_not_wait_for_more_bytes_than_a_batch(project: Project) -> None:
    recorder = Recorder(project, batch_s=3600)
    recorder.offer(make(), num_bytes=module.BATCH_BYTES)
    assert recorder.flush(timeout_s=60)
    recorder.close()


def test_recorder_asks_for_time_as_it_falls_behind(project: Project, gate: Gate) -> None:
    with recording(project, gate, max_queue_records=8, max_queue_bytes=800) as recorder:
        gate.may_write.set()
        recorder.offer(make("stored"))
        assert recorder.flush(timeout_s=60)
        gate.may_write.clear()
        gate.is_writing.clear()
        recorder.offer(make("in hand"))
        assert gate.is_writing.wait(60)
        paces: list[float] = []
        for n in range(8):
            recorder.offer(make(str(n)))
            paces.append(recorder.pace_s())
        assert paces[:2] == [0.0, 0.0]
        assert paces[2:] == sorted(paces[2:]) and 0 < paces[2] < paces[7] == module.MOST_PACE_S


def test_recorder_asks_for_no_time_while_nothing_is_stored(project: Project, gate: Gate) -> None:
    with recording(project, gate, max_queue_records=8) as recorder:
        recorder.offer(make("in hand"))
        assert gate.is_writing.wait(60)
        for n in range(8):
            recorder.offer(make(str(n)))
        assert recorder.pace_s() == 0.0


def test_recorder_writes_in_batches(project: Project, gate: Gate) -> None:
    with recording(project, gate) as recorder:
        recorder.offer(make("first"))
        assert gate.is_writing.wait(60)
        for n in range(700):
            recorder.offer(make(str(n)))
    assert gate.batches == [1, 256, 256, 188]


def test_recorder_tries_again_after_an_error(project: Project, gate: Gate) -> None:
    gate.errors = [StoreError("own.db is locked"), StoreError("own.db cannot grow")]
    gate.may_write.set()
    with recording(project, gate) as recorder:
        recorder.offer(make())
        assert recorder.flush(timeout_s=60)
        counts = recorder.counts()
    assert (counts.recorded, counts.lost, counts.failures) == (1, 0, 2)
    assert counts.last_error == "own.db cannot grow"


def test_recorder_says_when_storing_fails_and_works_again(
    project: Project, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = [StoreError("own.db cannot grow")] * 5
    gate.may_write.set()
    with recording(project, gate) as recorder:
        recorder.offer(make("a private text"))
        assert recorder.flush(timeout_s=60)
    assert caplog.messages == [
        "requests are answered but cannot be recorded (1 wait, 0 are lost): own.db cannot grow",
        "requests are recorded again (0 wait, 0 are lost)",
    ]


def test_recorder_says_again_what_goes_on_failing(
    project: Project, gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAY_EVERY_S", 0.0)
    gate.errors = [StoreError("own.db cannot grow")] * 5
    gate.may_write.set()
    with recording(project, gate) as recorder:
        recorder.offer(make())
        assert recorder.flush(timeout_s=60)
    assert sum("cannot be recorded" in line for line in caplog.messages) == 5


def test_close_says_what_was_not_recorded(
    project: Project, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = [StoreError("own.db cannot grow")] * 1_000_000
    gate.may_write.set()
    with recording(project, gate, retry_s=3600) as recorder:
        for n in range(600):
            recorder.offer(make(str(n)))
        assert recorder.close(timeout_s=0.01).fault == "own.db cannot grow"
    assert caplog.messages[-1] == (
        "600 requests were answered but not recorded: own.db cannot grow"
    )


def test_recorder_says_what_it_lost_and_nothing_of_it(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(project)
    for n in range(3):
        recorder.offer(replace(make(str(n)), metadata={"private": object()}))
    recorder.offer(make("sound"))
    counts = recorder.close(timeout_s=60)
    assert (counts.recorded, counts.lost, counts.fault) == (1, 3, "")
    assert caplog.messages[-1] == (
        "3 requests were answered but not recorded: not JSON, or too large"
    )
    assert "private" not in caplog.text


def test_recorder_tries_again_to_open_the_store(project: Project) -> None:
    failures = [StoreError("own.db cannot be opened")] * 2

    def open_store(project: Project) -> TrafficStore:
        if failures:
            raise failures.pop()
        return TrafficStore.open(project)

    recorder = Recorder(project, open_store=open_store, retry_s=0.0)
    recorder.offer(make())
    assert recorder.flush(timeout_s=60)
    assert recorder.close().failures == 2


def test_close_gives_up_on_a_store_that_stays_broken(project: Project, gate: Gate) -> None:
    gate.errors = [StoreError("own.db cannot grow")] * 1_000_000
    gate.may_write.set()
    with recording(project, gate, retry_s=3600) as recorder:
        for n in range(600):
            recorder.offer(make(str(n)))
        counts = recorder.close(timeout_s=0.01)
    assert (counts.recorded, counts.waiting, counts.lost) == (0, 0, 600)
    assert recorder.flush(timeout_s=0)


KILLED = """
import os, sys
from ownweights.traffic import Recorder
from tests.postgres import spelled
from tests.traffic.samples import make
recorder = Recorder(spelled(sys.argv[1]))
for n in range(700):
    recorder.offer(make(str(n)))
assert recorder.flush(timeout_s=60)
for n in range(700, 2000):
    recorder.offer(make(str(n)))
os.kill(os.getpid(), 9)
"""


def test_recorder_killed_keeps_what_was_committed(project: Project) -> None:
    process = run_python(KILLED, spell(project))
    _, errors = process.communicate()
    assert process.returncode == -9, errors
    asked = [record.request["messages"][1]["content"] for record in stored(project)]
    assert asked == [str(n) for n in range(len(asked))]  # no gap, nothing twice
    assert len(asked) >= 700
    with TrafficStore.open(project) as store:
        assert store.verify().is_sound


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: replace(record, metadata={"x": object()}),
        lambda record: replace(record, request={"x": object()}),
        lambda record: replace(record, role="nobody"),
        lambda record: replace(record, workload=None),
        lambda record: None,
    ],
)
def test_recorder_loses_the_one_bad_record_alone(
    project: Project, spoil: Callable[[Record], Any]
) -> None:
    recorder = Recorder(project, batch_s=3600)
    for n in range(20):
        record = make(str(n))
        recorder.offer(spoil(record) if n == 7 else record)
    counts = recorder.close(timeout_s=60)
    assert (counts.recorded, counts.lost) == (19, 1)
    assert counts.last_error
    assert len(stored(project)) == 19


def test_offer_takes_records_from_many_threads(project: Project) -> None:
    recorder = Recorder(project)

    def offer(name: int) -> None:
        for n in range(100):
            recorder.offer(make(f"{name} {n}"))

    threads = [threading.Thread(target=offer, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = recorder.close(timeout_s=60)
    assert (counts.offered, counts.recorded, counts.lost) == (800, 800, 0)
    asked = {record.request["messages"][1]["content"] for record in stored(project)}
    assert len(asked) == 800


def test_recorder_waits_little_for_the_write_lock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_TIMEOUT_S", 0.01)
    with TrafficStore.open(project) as other:
        recorder = Recorder(project, retry_s=0.0)
        with other.database.transaction():
            recorder.offer(make())
            assert not recorder.flush(timeout_s=0.1)
            while not recorder.counts().last_error:  # it has tried
                assert not recorder.flush(timeout_s=0.1)
        assert recorder.flush(timeout_s=60)
        counts = recorder.close()
    assert (counts.recorded, counts.lost) == (1, 0)
    assert "is locked" in counts.last_error


NAMED_SECRET = "sk-proj-a1b2c3d4e5f6g7h8i9j0"


class Broken(Privacy):
    """Cannot look at what says `odd`."""

    def record(self, record: Record) -> Record:
        if "odd" in str(record.request):
            raise RuntimeError(f"about {record.request}")
        return super().record(record)


def test_recorder_masks_before_anything_is_written(project: Project) -> None:
    recorder = Recorder(project)
    assert recorder.offer(make(f"use {NAMED_SECRET}", f"I use {NAMED_SECRET}"))
    recorder.close()
    files = [path.read_bytes() for path in project.store_dir.rglob("*") if path.is_file()]
    assert files and not any(NAMED_SECRET.encode() in raw for raw in files)
    (record,) = stored(project)
    assert NAMED_SECRET not in str(record) and record.answer_text is not None
    assert record.answer_text.startswith("I use <KEY_")


def test_recorder_loses_what_cannot_be_redacted(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(project, privacy=Broken(project))
    for text in ("one", "odd", "two"):
        recorder.offer(make(text))
    counts = recorder.close()
    assert (counts.offered, counts.recorded, counts.lost, counts.waiting) == (3, 2, 1, 0)
    assert counts.last_error == "redaction failed with RuntimeError"
    assert [record.request["messages"][1]["content"] for record in stored(project)] == [
        "one",
        "two",
    ]
    assert "redaction failed with RuntimeError" in caplog.text and "odd" not in caplog.text


def test_recorder_waits_for_the_key_of_placeholders(project: Project) -> None:
    project.store_dir.mkdir(parents=True)
    key = project.store_dir / "redaction.key"
    key.write_text("no key")
    recorder = Recorder(project, batch_s=0.0, retry_s=0.0)
    recorder.offer(make(NAMED_SECRET))
    while not recorder.counts().failures:
        recorder.flush(0.01)
    key.unlink()
    assert recorder.flush(60)
    counts = recorder.close()
    assert (counts.recorded, counts.lost) == (1, 0)


def test_recorder_keeps_nothing_of_a_workload_that_is_not_recorded(project: Project) -> None:
    privacy = Privacy(project, PrivacyRules(unrecorded=frozenset({"w"})))
    recorder = Recorder(project, privacy=privacy)
    assert recorder.offer(make("hello")) and recorder.offer(make("hello", workload="v"))
    counts = recorder.close()
    assert (counts.offered, counts.recorded, counts.lost) == (1, 1, 0)
    assert [record.workload for record in stored(project)] == ["v"]


def test_recorder_goes_on_when_the_index_is_deleted(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    if project.server:
        pytest.skip("a server has no file to delete")
    recorder = Recorder(project, batch_s=0.0, retry_s=0.0)
    recorder.offer(make("before"))
    assert recorder.flush(timeout_s=60)
    project.database_path.unlink()
    for n in range(3):
        recorder.offer(make(str(n)))
    assert recorder.close(timeout_s=60).lost == 0
    assert len(stored(project)) == 3
    assert "own.db was deleted or replaced" in caplog.text


def test_recorder_waits_while_the_index_is_garbage(project: Project) -> None:
    if project.server is not None:
        pytest.skip("a server has no file to spoil")
    recorder = Recorder(project, batch_s=0.0, retry_s=0.0)
    recorder.offer(make("before"))
    assert recorder.flush(timeout_s=60)
    with contextlib.closing(sqlite3.connect(project.database_path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else SQLite mends it from its log
    aside = project.database_path.rename(project.root / "aside.db")
    garbage = project.root / "garbage"
    garbage.write_bytes(b"no database at all" * 1000)
    garbage.rename(project.database_path)
    recorder.offer(make("meanwhile"))
    give_up_s = time.monotonic() + 60
    while not recorder.counts().fault:
        assert time.monotonic() < give_up_s, recorder.counts()
    assert "is not a database" in recorder.counts().fault
    aside.rename(project.database_path)
    assert recorder.flush(timeout_s=60)
    assert recorder.close().lost == 0
    assert len(stored(project)) == 2


def test_recorder_keeps_order_when_the_clock_jumps(project: Project) -> None:
    recorder = Recorder(project)
    times = [1.8e9, 0.0, -5.0, 4e9, 1.8e9]
    for n, at in enumerate(times):
        recorder.offer(replace(make(str(n)), at=at, id=new_id(at)))
    assert recorder.close(timeout_s=60).recorded == len(times)
    with TrafficStore.open(project) as store:
        assert [record.at for record in store.records()] == times
        assert store.verify().is_sound
