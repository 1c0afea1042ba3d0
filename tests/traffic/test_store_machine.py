"""Whatever is added, pruned, deleted, damaged, repaired and reopened, in any order: the store holds
what a plain list holds, and its tallies are what counting gives."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.bodies.compact import compact
from ownweights.traffic.erase import Whose, erase, find
from ownweights.traffic.query import RecordFilter, count, distinct, facets, stats
from ownweights.traffic.recount import tally_faults
from ownweights.traffic.remove import drop_bodies
from ownweights.traffic.retention import prune
from tests.traffic.samples import ask
from tests.traffic.test_query import DAY_S, FIRST, some_records, value_of

NOW = FIRST + 10 * DAY_S
PROMPTS = ["Answer in a word. " * 9, "Answer in two words. " * 9]  # long enough to be shared


class StoreMachine(RuleBasedStateMachine):
    """A store and a plain list, told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.project = Project(Path(self.folder.name) / "p")
        self.store = TrafficStore.open(self.project)
        self.kept: dict[str, Record] = {}  # by id, in the order they came
        self.pruned: set[str] = set()
        self.all: list[Record] = []  # ever made, for adding again
        self.added = 0

    @rule(number=st.integers(1, 7), seed=st.integers(0, 10**6))
    def add(self, number: int, seed: int) -> None:
        rng = random.Random(seed)
        made: list[Record] = []
        for record in some_records(number, seed):
            self.added += 1
            messages = [{"role": "system", "content": rng.choice(PROMPTS)},
                        {"role": "user", "content": f"question {self.added}"}]  # fmt: skip
            request = ask(messages=messages)
            made.append(replace(record, request=request, source_id=f"id-{self.added}"))
        assert self.store.add(made) == (number, 0)
        self.kept |= {record.id: record for record in made}
        self.all += made

    @precondition(lambda self: self.all)
    @rule(seed=st.integers(0, 10**6))
    def add_again(self, seed: int) -> None:
        """What is there, with bodies or without, is not added; what went comes back."""
        rng = random.Random(seed)
        some = rng.sample(self.all, min(len(self.all), 5))
        known = {(record.workload, record.source_id) for record in self.kept.values()}
        fresh = [record for record in some if (record.workload, record.source_id) not in known]
        assert self.store.add(some) == (len(fresh), len(some) - len(fresh))
        self.kept |= {record.id: record for record in fresh}
        self.pruned -= {record.id for record in fresh}

    @rule(rows=st.integers(0, 4), bodies=st.integers(0, 10))
    def prune(self, rows: int, bodies: int) -> None:
        rows_until, bodies_until = FIRST + rows * DAY_S / 4, FIRST + bodies * DAY_S / 3
        gone = {one for one, record in self.kept.items() if record.at < rows_until}
        late = {one for one, record in self.kept.items() if record.at < bodies_until}
        report = prune(self.store, NOW, before=rows_until, bodies_before=bodies_until)
        assert (report.records, report.bodies) == (len(gone), len(late - gone - self.pruned))
        self._forget(gone)
        self.pruned |= late - gone

    @precondition(lambda self: self.kept)
    @rule(seed=st.integers(0, 10**6))
    def delete_some(self, seed: int) -> None:
        some = random.Random(seed).sample(sorted(self.kept), min(len(self.kept), 3))
        report = erase(self.store, Whose(ids=tuple(some)))
        assert report.records == len(some)
        self._forget(set(some))

    @rule(name=st.sampled_from(["s1", "s2", "eve"]))
    def delete_of(self, name: str) -> None:
        whose = Whose(user=name) if name == "eve" else Whose(session=name)
        gone = {one for one, r in self.kept.items() if name in (r.session, r.end_user)}
        assert {one.id for one in find(self.store.database, whose)} == gone
        assert erase(self.store, whose).records == len(gone)
        assert find(self.store.database, whose) == []
        self._forget(gone)

    @precondition(lambda self: self.kept)
    @rule(seed=st.integers(0, 10**6))
    def drop_bodies_that_may_be_gone(self, seed: int) -> None:
        """Again and again, and of rows that are not there."""
        some = random.Random(seed).sample(sorted(self.kept), min(len(self.kept), 2))
        seqs = [one.seq for one in find(self.store.database, Whose(ids=tuple(some)))]
        with self.store.database.transaction():
            drop_bodies(self.store.database, [*seqs, 10**9], {}, now=NOW)
        self.pruned |= set(some)
        self.store.verify(repair=True)  # the parts were not told

    @rule()
    def compact(self) -> None:
        compact(self.store.database, self.store.shelf)
        assert self.store.verify().dead_items == 0

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = TrafficStore.open(self.project)

    @rule()
    def repair(self) -> None:
        report = self.store.verify(repair=True)
        assert (report.is_sound, report.repaired) == (True, 0)

    @rule()
    def lose_the_tallies(self) -> None:
        self.store.database.execute("UPDATE tally SET records = records + 1, lat_2 = 7")
        self.store.database.execute("DELETE FROM seen WHERE kind = 'session'")
        self.store.verify(repair=True)

    @precondition(lambda self: len(self.kept) > len(self.pruned))
    @rule(seed=st.integers(0, 10**6))
    def lose_a_segment(self, seed: int) -> None:
        """What verify names is what a repair takes out."""
        paths = sorted(self.project.bodies_dir.glob("*.seg"))
        random.Random(seed).choice(paths).unlink()
        self.reopen()
        lost = set(self.store.verify().damaged)
        assert lost <= self.kept.keys() - self.pruned
        assert self.store.verify(repair=True).repaired == len(lost)
        self._forget(lost)

    @invariant()
    def tallies_are_what_counting_gives(self) -> None:
        database, records = self.store.database, list(self.kept.values())
        assert tally_faults(database) == []
        assert count(database, RecordFilter()) == len(records)
        for dimension in ("workload", "day", "model"):
            found = dict(facets(database, RecordFilter(), dimension))
            assert found == Counter(value_of(record, dimension) for record in records)
        told = stats(database, RecordFilter())
        assert sum(one.pruned for one in told) == len(self.pruned)
        assert sum(one.cost_usd for one in told) == pytest.approx(
            sum(r.cost_usd or 0.0 for r in records), abs=1e-8
        )
        assert distinct(database) == {
            workload: (
                len({r.prompt_hash for r in records if r.workload == workload}),
                len({r.session for r in records if r.workload == workload and r.session}),
            )
            for workload in {r.workload for r in records}
        }

    @invariant()
    def bodies_are_what_was_added(self) -> None:
        found = {record.id: record for record in self.store.records()}
        expected = {one: r for one, r in self.kept.items() if one not in self.pruned}
        assert found.keys() == expected.keys()
        for one, record in expected.items():
            assert (found[one].request, found[one].response) == (record.request, record.response)
            assert found[one].at == record.at

    @invariant()
    def store_is_sound(self) -> None:
        report = self.store.verify()
        assert report.faults == ()
        assert (report.records, report.pruned) == (len(self.kept), len(self.pruned))

    def teardown(self) -> None:
        with contextlib.closing(self.store):
            self.store.verify(repair=True)
            prune(self.store, NOW, before=NOW)
            assert list(self.project.bodies_dir.glob("*.seg")) == []
            assert self.store.database.query("SELECT count(*) FROM part") == [(0,)]
            assert self.store.database.query("SELECT count(*) FROM tally") == [(0,)]
            assert self.store.database.query("SELECT count(*) FROM seen") == [(0,)]
        self.folder.cleanup()

    def _forget(self, ids: set[str]) -> None:
        self.kept = {one: record for one, record in self.kept.items() if one not in ids}
        self.pruned -= ids


def test_store_always_holds_what_a_list_holds() -> None:
    few = settings(max_examples=12, stateful_step_count=14)
    run_state_machine_as_test(StoreMachine, settings=few)
