"""The ledger, in memory and on disk: each unit once, each plan one attempt, all within δ."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.database import has_database
from ownweights.core.errors import SettingsError
from ownweights.core.project import Project, Server
from ownweights.verdict.ledger import DatabaseLedger, Ledger, MemoryLedger
from ownweights.verdict.statistics import attempt_delta

PLAN: dict[str, Any] = {"student": "s1", "claim": {"alpha": 0.05}}


def plan(student: str) -> dict[str, Any]:
    return {**PLAN, "student": student}


@pytest.fixture
def project(address: Path | Server, tmp_path: Path) -> Project:
    return Project(tmp_path, server=address if isinstance(address, Server) else None)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
    elif request.param == "sqlite":
        yield DatabaseLedger(Project(tmp_path))
    else:
        with request.getfixturevalue("postgres").new_schema() as server:
            yield DatabaseLedger(Project(tmp_path, server=server))


def test_ledger_hands_out_each_unit_once(ledger: Ledger) -> None:
    first = ledger.open("tickets", plan("s1"), ["a", "b", "a"], 0.05)
    second = ledger.open("tickets", plan("s2"), ["b", "c", "d"], 0.05)
    assert (first.k, first.units, first.num_used) == (1, {"a", "b"}, 0)
    assert (second.k, second.units, second.num_used) == (2, {"c", "d"}, 1)


def test_ledger_spends_less_on_every_attempt(ledger: Ledger) -> None:
    spent = [ledger.open("tickets", plan(f"s{k}"), [f"u{k}"], 0.05).delta_spent for k in (1, 2, 3)]
    assert spent == pytest.approx([attempt_delta(0.05, k) for k in (1, 2, 3)])


def test_ledger_same_plan_is_same_attempt(ledger: Ledger) -> None:
    first = ledger.open("tickets", PLAN, ["a", "b"], 0.05)
    assert ledger.open("tickets", PLAN, ["b", "a"], 0.05) == first  # a run that was cut off goes on
    ledger.close("tickets", first.k, "verdict-1")
    again = ledger.open("tickets", PLAN, ["a", "b"], 0.05)
    assert (again.k, again.units, again.verdict_id) == (1, {"a", "b"}, "verdict-1")


def test_ledger_other_claim_is_another_attempt(ledger: Ledger) -> None:
    ledger.open("tickets", PLAN, ["a"], 0.05)
    looser = {**PLAN, "claim": {"alpha": 0.2}}
    assert ledger.open("tickets", looser, ["a", "b"], 0.05).units == {"b"}


def test_ledger_books_nothing_without_unseen_units(ledger: Ledger) -> None:
    ledger.open("tickets", plan("s1"), ["a"], 0.05)
    for student in ("s2", "s3"):
        found = ledger.open("tickets", plan(student), ["a"], 0.05)
        assert (found.k, found.units, found.num_used) == (2, frozenset(), 1)
    fresh = ledger.open("tickets", plan("s4"), ["b"], 0.05)
    assert fresh.k == 2


def test_ledger_refuses_a_larger_delta(ledger: Ledger) -> None:
    """It would spend .0304 + .0304 of a budget of .05; nothing is booked."""
    ledger.open("tickets", plan("s1"), ["a"], 0.05)
    for look in (ledger.peek, ledger.open):
        with pytest.raises(
            SettingsError, match=r"earlier attempt on this workload named 0\.05:"
        ) as caught:
            look("tickets", plan("s2"), ["b"], 0.20)
        assert caught.value.hint == "certify with delta = 0.05 or less"
    assert ledger.open("letters", plan("s2"), ["b"], 0.20).k == 1  # a budget of its own
    assert ledger.open("tickets", plan("s1"), ["a"], 0.05).k == 1  # the same plan is the same still
    second = ledger.open("tickets", plan("s2"), ["b"], 0.05)
    assert (second.k, second.delta_spent) == (2, attempt_delta(0.05, 2))


def test_ledger_takes_a_smaller_delta_and_holds_to_it(ledger: Ledger) -> None:
    for k, delta in enumerate((0.1, 0.1, 0.03, 0.03), 1):
        found = ledger.open("tickets", plan(f"s{k}"), [f"u{k}"], delta)
        assert (found.k, found.delta_spent) == (k, attempt_delta(delta, k))
    with pytest.raises(SettingsError, match=r"named 0\.03: all attempts share"):
        ledger.open("tickets", plan("s5"), ["u5"], 0.1)
    again = ledger.open("tickets", plan("s1"), ["u1"], 0.1)
    assert (again.k, again.units) == (1, {"u1"})  # booked before the smaller one was named


@given(st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=12))
def test_ledger_always_spends_within_the_first_delta(deltas: list[float]) -> None:
    ledger, spent = MemoryLedger(), list[float]()
    for number, delta in enumerate(deltas):
        try:
            spent.append(ledger.open("w", plan(f"s{number}"), [f"u{number}"], delta).delta_spent)
        except SettingsError:
            assert delta > min(deltas[:number])
    assert sum(spent) < deltas[0]


@given(st.floats(1e-12, 1 - 1e-12), st.integers(1, 200))
def test_ledger_always_takes_the_same_delta_again(delta: float, num: int) -> None:
    """What was named is read back from what was spent: rounding must not refuse it."""
    ledger = MemoryLedger()
    for number in range(min(num, 20)):
        ledger.open("w", plan(f"s{number}"), [f"u{number}"], delta)


def test_ledger_peek_is_what_open_gives(ledger: Ledger) -> None:
    """Of a new plan, of one that was booked, of one that was judged, and where nothing is left."""
    for student, units in (
        ("s1", ["a", "b"]),
        ("s2", ["b", "c"]),
        ("s1", ["a", "b"]),
        ("s3", ["a"]),
    ):
        seen = ledger.peek("tickets", plan(student), units, 0.05)
        opened = ledger.open("tickets", plan(student), units, 0.05)
        assert seen == opened
    ledger.close("tickets", 1, "verdict-1")
    assert ledger.peek("tickets", plan("s1"), ["a", "b"], 0.05).verdict_id == "verdict-1"


def test_ledger_peek_changes_nothing(ledger: Ledger) -> None:
    for _ in range(3):
        found = ledger.peek("tickets", plan("s1"), ["a", "b", "a"], 0.05)
        assert (found.k, found.units, found.num_used) == (1, {"a", "b"}, 0)
        assert found.delta_spent == attempt_delta(0.05, 1)
    ledger.open("tickets", plan("s1"), ["a"], 0.05)
    for student in ("s2", "s3", "s2"):
        found = ledger.peek("tickets", plan(student), ["a", "b", "c"], 0.05)
        assert (found.k, found.units, found.num_used) == (2, {"b", "c"}, 1)
    assert ledger.open("tickets", plan("s4"), ["b", "c"], 0.05).k == 2


def test_database_ledger_peek_makes_no_database(project: Project) -> None:
    DatabaseLedger(project).peek("tickets", PLAN, ["a"], 0.05)
    assert not has_database(project.database)
    assert not project.database_path.exists()


def test_ledger_keeps_workloads_apart(ledger: Ledger) -> None:
    ledger.open("tickets", plan("s1"), ["a"], 0.05)
    other = ledger.open("letters", plan("s1"), ["a"], 0.05)
    assert (other.k, other.units) == (1, {"a"})


def test_ledger_close_of_what_is_not_booked_changes_nothing(ledger: Ledger) -> None:
    ledger.open("tickets", PLAN, ["a"], 0.05)
    ledger.close("tickets", 7, "verdict-7")
    ledger.close("letters", 1, "verdict-8")
    assert ledger.open("tickets", PLAN, ["a"], 0.05).verdict_id is None


def test_database_ledger_outlives_the_process(project: Project) -> None:
    first = DatabaseLedger(project).open("tickets", plan("s1"), ["a"], 0.05)
    second = DatabaseLedger(project).open("tickets", plan("s2"), ["a", "b"], 0.05)
    assert (first.k, second.k, second.units) == (1, 2, {"b"})


def test_database_ledger_gives_a_unit_to_one_of_many_at_once(project: Project) -> None:
    """Whoever books first has the units, also when all look at the same moment."""
    names = [f"u{i}" for i in range(30)]
    DatabaseLedger(project).open("other", PLAN, ["x"], 0.05)

    def book(number: int) -> frozenset[str]:
        return DatabaseLedger(project).open("tickets", plan(f"s{number}"), names, 0.05).units

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(book, range(6)))
    assert sum(map(len, found)) == 30
    assert frozenset.union(*found) == set(names)
