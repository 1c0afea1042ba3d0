"""Tallies stay what counting gives, whatever comes and goes."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.database import open_database
from ownweights.core.migrations import MIGRATIONS
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic.query import RecordFilter, stats
from ownweights.traffic.recount import recount, tally_faults
from ownweights.traffic.remove import drop_bodies, remove_rows
from ownweights.traffic.tally import latency_class, latency_quantile
from tests.traffic.samples import make
from tests.traffic.test_query import some_records


@given(st.floats(0, 1e6))
def test_latency_class_doubles(latency_ms: float) -> None:
    number = latency_class(latency_ms)
    low = 0 if number == 0 else 10 * 2 ** (number - 1)
    assert low <= latency_ms
    assert number == 15 or latency_ms < 10 * 2**number


def test_latency_quantile_of_nothing_is_unknown() -> None:
    assert latency_quantile([0] * 16, 0.5) is None


def test_latency_quantile_spreads_a_class_evenly() -> None:
    classes = [0, 4, 4] + [0] * 13  # 10 to 20 ms, 20 to 40 ms
    assert latency_quantile(classes, 0.5) == 20
    assert latency_quantile(classes, 0.25) == 15
    assert latency_quantile(classes, 1.0) == 40


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "prune"]), st.integers(0, 10**6)),
                max_size=12))  # fmt: skip
def test_tallies_always_match_the_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    with TrafficStore.open(Project(tmp_path_factory.mktemp("tally"))) as store:
        for step, seed in steps:
            seqs = [row[0] for row in store.database.query("SELECT seq FROM record")]
            some = seqs[seed % 3 :: 1 + seed % 5]
            if step == "add":
                store.add(some_records(1 + seed % 9, seed))
            else:
                with store.database.transaction():
                    if step == "remove":
                        remove_rows(store.database, some, {})
                    else:
                        drop_bodies(store.database, some, {}, now=1.0)
            assert tally_faults(store.database) == []


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE tally SET records = records + 1 WHERE id = 1",
        "UPDATE tally SET cost_nusd = cost_nusd + 1000000 WHERE id = 1",
        "UPDATE tally SET lat_3 = lat_3 + 1 WHERE id = 2",
        "UPDATE record SET tally_id = NULL WHERE seq = 1",
        "UPDATE record SET tally_id = 999 WHERE seq = 1",
        "UPDATE record SET workload = 'other' WHERE seq = 1",
        "UPDATE record SET at = at + 864000 WHERE seq = 1",
        "DELETE FROM key_tally WHERE tally_id < 5",
        "UPDATE key_tally SET body_bytes = body_bytes + 1",
        "DELETE FROM seen WHERE kind = 'session'",
        "UPDATE seen SET records = records + 1",
        "UPDATE workload_tally SET prompts = prompts + 1",
        "DELETE FROM record WHERE seq = 3",
    ],
)
def test_verify_repair_mends_tallies(store: TrafficStore, harm: str) -> None:
    store.add(some_records(40))
    assert store.verify().is_sound
    store.database.execute(harm)
    faults = store.verify().faults
    assert faults
    assert all("tall" in fault or "uses" in fault for fault in faults)
    store.verify(repair=True)
    assert store.verify().is_sound


def test_recount_gives_what_adding_gave(store: TrafficStore) -> None:
    store.add(some_records(60))
    before = stats(store.database, RecordFilter(), "model")
    recount(store.database)
    assert stats(store.database, RecordFilter(), "model") == before


def test_migration_counts_the_records_of_an_older_store(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = some_records(50)
    with TrafficStore.open(project) as store:
        store.add(records)
        new = stats(store.database, RecordFilter(), "model")
        rows = store.database.query("SELECT * FROM record ORDER BY seq")
        names = [one[1] for one in store.database.query("PRAGMA table_info(record)")]
        segments = store.database.query("SELECT id, name, opened_at FROM segment")
        parts = store.database.query("SELECT hash, segment, offset_bytes, item FROM part")
    project.database_path.unlink()
    kept = [n for n, name in enumerate(names) if name not in ("tally_id", "pruned_at")]
    with open_database(project.database_path, migrations=MIGRATIONS[:6]) as old:
        old.execute_many("INSERT INTO segment VALUES (?, ?, ?)", segments)
        old.execute_many("INSERT INTO part VALUES (?, ?, ?, ?)", parts)
        old.execute_many(
            f"INSERT INTO record ({', '.join(names[n] for n in kept)})"
            f" VALUES ({', '.join('?' * len(kept))})",
            [[row[n] for n in kept] for row in rows],
        )
    with TrafficStore.open(project) as store:
        assert tally_faults(store.database) == []
        assert stats(store.database, RecordFilter(), "model") == new
        assert store.verify().is_sound
        assert len(list(store.records())) == 50
        store.verify(repair=True)
        assert store.database.query("SELECT count(*) FROM part WHERE uses IS NULL") == [(0,)]
        assert store.verify().is_sound


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0, 1e12])
def test_add_keeps_no_cost_that_is_no_amount(store: TrafficStore, odd: float) -> None:
    store.add([replace(make(), cost_usd=odd, latency_ms=odd)])
    (record,) = store.records()
    assert (record.cost_usd, record.latency_ms) == (None, None)
    assert store.verify().is_sound


def test_tallies_are_undone_with_their_rows(
    store: TrafficStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    store.add([make("one")])
    monkeypatch.setattr(store, "_insert", fail)
    with pytest.raises(sqlite3.OperationalError):
        store.add([make("two")])
    assert tally_faults(store.database) == []
