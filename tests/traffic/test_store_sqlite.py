"""The store with its rows in a file of SQLite's: plans, a full disk, a damaged file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from tests.traffic.samples import make, run_together
from tests.traffic.test_store import numbered


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_lookups_use_an_index(store: TrafficStore) -> None:
    seen: list[str] = []
    store.database._connection.set_trace_callback(seen.append)
    store.add(numbered(2))
    list(store.records("w"))
    store.get("x")
    store.find_ids("x")
    store.database._connection.set_trace_callback(None)
    selects = {sql for sql in seen if sql.startswith("SELECT")}
    assert len(selects) >= 5
    for sql in selects:
        plan = store.database.query(f"EXPLAIN QUERY PLAN {sql}")
        assert not [row for row in plan if row[3].startswith("SCAN record")], sql


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from tests.traffic.samples import make
with TrafficStore.open(Project(Path(sys.argv[1]))) as store:
    store.add([make("kept", source_id="kept")])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        for n in range(400):
            store.add([make(f"{n} " * 50, source_id=str(n), metadata={"pad": f"{n}" * 500})])
    except StoreError as error:
        print(error.hint)
"""


@pytest.mark.parametrize("limit_bytes", [2_000, 200_000])  # bodies stop first, or the index
def test_store_on_a_full_disk_loses_nothing_stored(project: Project, limit_bytes: int) -> None:
    (told,) = run_together([(FULL_DISK, project.root, limit_bytes)])
    assert "disk" in told
    with TrafficStore.open(project) as store:
        assert next(store.records()).source_id == "kept"
        assert store.verify().is_sound
        assert store.add([make("room again")]) == (1, 0)


def test_store_says_that_the_index_is_damaged(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add(numbered(300))
    data = bytearray(project.database_path.read_bytes())
    data[4096 * 2 : 4096 * 30] = b"\x99" * 4096 * 28
    project.database_path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"), TrafficStore.open(project) as store:
        list(store.records())


def test_store_says_that_the_index_is_gone_mad(project: Project, tmp_path: Path) -> None:
    project.store_dir.mkdir(parents=True)
    connection = sqlite3.connect(project.database_path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match="schema version 999"):
        TrafficStore.open(project)


def test_verify_reports_damage_of_the_index(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add([make()])
        store.database.execute("PRAGMA foreign_keys = OFF")
        store.database.execute("DELETE FROM segment")
        report = store.verify()
    assert any(fault.startswith("own.db: record ") for fault in report.faults)
