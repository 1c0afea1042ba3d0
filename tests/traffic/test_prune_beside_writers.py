"""Several processes and threads add, prune, erase, verify and read one store: nothing is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.erase import Whose, erase
from ownweights.traffic.query import RecordFilter, count, facets, page, stats
from ownweights.traffic.recount import tally_faults
from ownweights.traffic.retention import prune
from ownweights.traffic.search import SearchCounts, search
from tests.traffic.samples import make, run_together
from tests.traffic.test_query import DAY_S, FIRST

NOW = FIRST + 10 * DAY_S
ADD = """
import sys
from dataclasses import replace
from pathlib import Path
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from tests.traffic.samples import make
folder, name, day, total = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
sys.stdin.readline()
added = 0
with TrafficStore.open(Project(folder)) as store:
    for n in range(0, total, 5):
        made = [replace(make(f"{name} {k}", at=day, session=name), source_id=f"{name}-{k}")
                for k in range(n, n + 5)]
        added += store.add(made)[0]
print(added)
"""
PRUNE = """
import sys
from pathlib import Path
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic.retention import prune
folder, until, turns = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
rows = sys.argv[4] == "rows"
sys.stdin.readline()
taken = 0
with TrafficStore.open(Project(folder)) as store:
    for _ in range(turns):
        given = {"before": until} if rows else {"bodies_before": until}
        report = prune(store, until, **given)
        taken += report.records + report.bodies
print(taken)
"""
VERIFY = """
import sys
from pathlib import Path
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
folder, turns = Path(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
faults = set()
with TrafficStore.open(Project(folder)) as store:
    for _ in range(turns):
        faults |= set(store.verify().faults)
print(sorted(faults))
"""


def some(name: str, number: int, *, day: float) -> list[Record]:
    return [
        replace(make(f"{name} {n}", f"{name} says {n}", at=FIRST + day * DAY_S, session=name),
                source_id=f"{name}-{n}", key_id="k")
        for n in range(number)
    ]  # fmt: skip


def names_of(store: TrafficStore) -> Counter[str]:
    return Counter(str(record.session) for record in store.records())


def together(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own, from the same moment; an error in one is an error here."""
    gate, failed = threading.Barrier(len(works)), list[BaseException]()

    def run(work: Callable[[], object]) -> None:
        try:
            gate.wait()
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("what", ["rows", "bodies"])
def test_processes_add_while_another_prunes(project: Project, what: str) -> None:
    if project.server is not None:
        pytest.skip("its processes know the project's folder alone")
    with TrafficStore.open(project) as store:
        store.add(some("old", 60, day=0))
    until = FIRST + 2 * DAY_S
    root = project.root
    added, more, taken, _ = run_together(
        [
            (ADD, root, "new", FIRST + 5 * DAY_S, 60),
            (ADD, root, "late", FIRST + 1 * DAY_S, 60),  # old before it comes
            (PRUNE, root, until, 12, what),
            (VERIFY, root, 3),
        ]
    )
    assert (int(added), int(more)) == (60, 60)
    with TrafficStore.open(project) as store:
        rows, bodies = (until, None) if what == "rows" else (None, until)
        last = prune(store, NOW, before=rows, bodies_before=bodies)
        assert int(taken) + last.records + last.bodies == 120
        assert names_of(store) == {"new": 60}
        assert count(store.database, RecordFilter()) == (60 if what == "rows" else 180)
        assert tally_faults(store.database) == []
        report = store.verify(repair=True)
        assert (report.faults, report.repaired) == ((), 0)
        assert names_of(store) == {"new": 60}


def test_verify_beside_writers_and_pruners_sees_no_damage(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add(some("old", 40, day=0))
    root = project.root
    *_, faults = run_together(
        [
            (ADD, root, "new", FIRST + 5 * DAY_S, 50),
            (PRUNE, root, FIRST + 2 * DAY_S, 8, "bodies"),
            (VERIFY, root, 6),
        ]
    )
    assert faults.strip() == "[]"


def test_threads_prune_the_same_records_once(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add(some("old", 80, day=0) + some("new", 20, day=5))
    taken: list[int] = []

    def work() -> None:
        with TrafficStore.open(project) as own:
            taken.append(prune(own, NOW, before=FIRST + 2 * DAY_S).records)

    together(work, work, work)
    assert sum(taken) == 80
    with TrafficStore.open(project) as store:
        assert names_of(store) == {"new": 20}
        assert store.verify().faults == ()


def test_threads_erase_and_prune_bodies_of_the_same_records(project: Project) -> None:
    with TrafficStore.open(project) as store:
        store.add(some("eve", 40, day=0) + some("bob", 40, day=0) + some("new", 10, day=5))

    def erase_eve() -> None:
        with TrafficStore.open(project) as own:
            erase(own, Whose(session="eve"))

    def prune_bodies() -> None:
        with TrafficStore.open(project) as own:
            prune(own, NOW, bodies_before=FIRST + 2 * DAY_S)

    together(erase_eve, prune_bodies)
    with TrafficStore.open(project) as store:
        assert names_of(store) == {"new": 10}
        (one,) = stats(store.database, RecordFilter())
        assert (one.records, one.pruned) == (50, 40)
        assert page(store.database, RecordFilter(session="eve")) == []
        assert store.verify().faults == ()


def test_threads_add_the_same_records_once(project: Project) -> None:
    records = some("same", 120, day=3)
    results: list[tuple[int, int]] = []

    def work() -> None:
        with TrafficStore.open(project) as own:
            for start in range(0, 120, 10):
                results.append(own.add(records[start : start + 10]))

    TrafficStore.open(project).close()
    together(work, work, work)
    assert sum(added for added, _ in results) == 120
    assert sum(known for _, known in results) == 240
    with TrafficStore.open(project) as store:
        assert dict(facets(store.database, RecordFilter(), "key_id")) == {"k": 120}
        assert store.verify().faults == ()


def test_reading_and_searching_go_on_while_records_go(project: Project) -> None:
    """A reader gets each record that stays, once and whole, whatever goes meanwhile."""
    with TrafficStore.open(project) as store:
        store.add([one for n in range(120)
                   for one in (some(f"old{n}", 1, day=0) + some(f"new{n}", 1, day=5))])  # fmt: skip
    stays = {f"new{n}" for n in range(120)}
    done = threading.Event()

    def go() -> None:
        try:
            with TrafficStore.open(project) as own:
                for n in range(0, 120, 10):
                    erase(own, Whose(session=f"old{n}"))
                prune(own, NOW, before=FIRST + 2 * DAY_S)
        finally:
            done.set()

    def read() -> None:
        with TrafficStore.open(project) as own:
            is_last = False
            while not is_last:
                is_last = done.is_set()
                found = [str(record.session) for record in own.records()]
                assert len(found) == len(set(found))
                assert stays <= set(found)

    def look() -> None:
        with TrafficStore.open(project) as own:
            is_last = False
            while not is_last:
                is_last = done.is_set()
                counts = SearchCounts()
                hits = list(search(own, "says 0", only=RecordFilter(), counts=counts))
                assert counts.unreadable == 0
                assert len({hit.id for hit in hits}) == len(hits) >= len(stays)

    together(go, read, look)
    with TrafficStore.open(project) as store:
        assert set(names_of(store)) == stays
        assert store.verify().faults == ()
