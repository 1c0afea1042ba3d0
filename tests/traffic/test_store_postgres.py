"""The store with its rows in Postgres: accidents of the server, and what text it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.project import Project, Server
from ownweights.traffic import Record, Recorder, TrafficStore
from ownweights.traffic import store as module
from ownweights.traffic.erase import Whose, erase
from tests.postgres import PostgresServer, spell
from tests.traffic.samples import make, run_python, stored


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Server]:
    with postgres.new_schema() as server:
        yield server


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", server=server)


def texts(records: list[Record]) -> list[str]:
    return [record.request["messages"][1]["content"] for record in records]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_recorder_catches_up_after_the_server_was_down(
    postgres: PostgresServer, project: Project, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(project, retry_s=0.01)
    for n in range(300):
        recorder.offer(make(str(n)))
    assert recorder.flush(timeout_s=60)
    with postgres.down(end):
        for n in range(300, 900):
            assert recorder.offer(make(f"{n} private"))
        assert not recorder.flush(timeout_s=0.2)
        assert "cannot be reached" in recorder.counts().fault
    assert recorder.flush(timeout_s=60)
    counts = recorder.close(timeout_s=60)
    assert (counts.offered, counts.recorded, counts.lost, counts.fault) == (900, 900, 0, "")
    assert texts(stored(project)) == [str(n) if n < 300 else f"{n} private" for n in range(900)]
    assert "requests are recorded again" in caplog.messages[-1]
    assert "private" not in caplog.text


def test_recorder_killed_with_the_server_loses_nothing_committed(
    postgres: PostgresServer, project: Project
) -> None:
    script = """
import os, sys
from ownweights.traffic import Recorder
from tests.postgres import spelled
from tests.traffic.samples import make
recorder = Recorder(spelled(sys.argv[1]))
for n in range(700):
    recorder.offer(make(str(n)))
assert recorder.flush(timeout_s=60)
print("stored", flush=True)
while True:
    n += recorder.offer(make(str(n + 1)))
"""
    process = run_python(script, spell(project))
    assert process.stdout is not None and process.stdout.readline() == "stored\n"
    with postgres.down("kill"):
        process.kill()
        process.communicate()
    asked = texts(stored(project))
    assert asked == [str(n) for n in range(len(asked))] and len(asked) >= 700
    with TrafficStore.open(project) as store:
        assert store.verify().is_sound


def test_store_that_lost_the_answer_to_a_commit_adds_nothing_twice(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are there, and nobody told: the bodies stay, and the batch comes again."""
    with TrafficStore.open(project) as store:
        store.add([make("first")])
        count_uses = module.count_uses

        def count_and_lose_the_answer(*given: Any) -> None:  # the last thing that a batch does
            count_uses(*given)
            store.database.execute("COMMIT")
            raise StoreError("the server cannot be reached", is_undone=False)

        batch = [make("second"), make("third")]
        with monkeypatch.context() as patched:
            patched.setattr(module, "count_uses", count_and_lose_the_answer)
            with pytest.raises(StoreError, match="cannot be reached"):
                store.add_batch(batch)
        again = store.add_batch(batch)
        assert (again.added, again.duplicates) == (0, 2)
        assert texts(list(store.records())) == ["first", "second", "third"]
        assert store.verify().is_sound


def test_store_spells_out_what_postgres_has_no_text_for(project: Project) -> None:
    odd = replace(make("a\0b"), source_id="s\0", session="x\0\ud83d", end_user="u\0", model="m\0")
    with TrafficStore.open(project) as store:
        assert store.add([odd, odd]) == (1, 1)
        assert store.add([odd]) == (0, 1)
        (found,) = store.records(session="x\0\ud83d")
        assert found.request == odd.request  # bodies are kept as they are
        assert (found.source_id, found.session) == ("s\\x00", "x\\x00\\ud83d")
        assert (found.end_user, found.model) == ("u\\x00", "m\\x00")
        assert store.find_ids("s\0") == [odd.id]


def test_readers_by_page_miss_nothing_of_two_writers(project: Project) -> None:
    TrafficStore.open(project).close()
    start = threading.Barrier(3)

    def write(name: str) -> None:
        with TrafficStore.open(project) as store:
            start.wait()
            for batch in range(20):
                store.add([make(f"{name} {batch} {n}") for n in range(5)])

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    with TrafficStore.open(project) as store:
        start.wait()
        last, is_last = 0, False
        while not is_last:
            is_last = not any(writer.is_alive() for writer in writers)
            rows = store.database.query("SELECT seq, id FROM record WHERE seq > ? ORDER BY seq",
                                        (last,))  # fmt: skip
            seen += [row[1] for row in rows]
            last = rows[-1][0] if rows else last
        assert seen == [record.id for record in store.records()]
    assert len(seen) == 200


def test_erase_says_when_a_prepared_transaction_keeps_what_went(
    postgres: PostgresServer, project: Project
) -> None:
    with TrafficStore.open(project, busy_timeout_s=0.1) as store:
        store.add([make("secret", session="eve"), make("other")])
        postgres.run_sql("BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'held'")
        try:
            assert not erase(store, Whose(session="eve")).is_clean
        finally:
            postgres.run_sql("ROLLBACK PREPARED 'held'")
        assert erase(store, Whose(session="eve")).is_clean
