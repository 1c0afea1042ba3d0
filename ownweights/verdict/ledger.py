"""Which certify data have been looked at, and how much error is left: honesty between attempts.

In: a workload and the plan of a verdict (what is judged, against which claim), with the certify
units it wants. Out: an `Opened` attempt: its number k, and the units that no earlier attempt has
seen. Three rules keep all attempts together within δ: attempt k spends only δ_k; no attempt names a
larger δ than one before it; and a unit that one attempt has seen is not used again, for the next
student may have been made to fit it. The same plan asked again is the same attempt: it gets its own
number and units back, and costs nothing. One that finds no unseen unit is not booked, for it looks
at nothing. `peek` says what `open` would give.
Invariants: test_ledger_hands_out_each_unit_once, test_ledger_same_plan_is_same_attempt,
test_ledger_refuses_a_larger_delta, test_ledger_peek_changes_nothing, for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ownweights.core.artefact import hash_json
from ownweights.core.database import has_database, open_database
from ownweights.core.errors import SettingsError
from ownweights.core.ledger import Attempt, book_attempt, close_attempt, list_attempts
from ownweights.core.project import Project
from ownweights.verdict.statistics.budget import attempt_delta

ROUNDING = 1e-6  # a delta is read back from what its attempt may spend, and told in six digits


@dataclass(frozen=True, slots=True)
class Opened:
    """Attempt `k`; `units` are those it may use; `verdict_id` where the plan was judged before."""

    k: int
    delta_spent: float
    units: frozenset[str]
    num_used: int  # units wanted that earlier attempts had seen
    verdict_id: str | None = None


class Ledger(Protocol):
    """Books attempts on certify data."""

    def peek(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        """What `open` would give now, without booking anything; it refuses what `open` would."""
        ...

    def open(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        """Take the attempt of `plan` before any of its certify answers are judged.

        Raises: SettingsError for a `delta` above one that an earlier attempt named
        """
        ...

    def close(self, workload: str, k: int, verdict_id: str) -> None:
        """Note the verdict that attempt `k` led to."""
        ...


class MemoryLedger:
    """A ledger that forgets when the process ends: for tests and rehearsals."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []

    def peek(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        return _peeked(self._past(workload), plan, units, delta)

    def open(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        past = self._past(workload)
        found = _same_plan(past, plan, units)
        if found is None:
            _refuse_larger(past, delta)
            k, fresh = len(past) + 1, _fresh(past, units)
            if not fresh:
                return _unbooked(past, fresh, units, delta)
            entry = _entry(plan, fresh)
            found = Attempt(workload, k, attempt_delta(delta, k), entry, 0.0, hash_json(fresh))
            self._attempts.append(found)
        return _opened(found, past, units)

    def close(self, workload: str, k: int, verdict_id: str) -> None:
        for index, at in enumerate(self._attempts):
            if (at.workload, at.k) == (workload, k):
                self._attempts[index] = Attempt(
                    workload, k, at.delta, at.claim, at.at, at.data_hash, verdict_id
                )

    def _past(self, workload: str) -> list[Attempt]:
        return [attempt for attempt in self._attempts if attempt.workload == workload]


class DatabaseLedger:
    """The ledger in the project's own.db, shared by all processes."""

    def __init__(self, project: Project) -> None:
        self._address = project.database

    def peek(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        if not has_database(self._address):  # and looking makes none
            return _peeked([], plan, units, delta)
        with open_database(self._address) as database:
            return _peeked(list_attempts(database, workload), plan, units, delta)

    def open(
        self, workload: str, plan: Mapping[str, Any], units: Sequence[str], delta: float
    ) -> Opened:
        with open_database(self._address) as database:
            past = list_attempts(database, workload)
            found = _same_plan(past, plan, units)
            if found is None:
                _refuse_larger(past, delta)
                fresh = _fresh(past, units)
                if not fresh:
                    return _unbooked(past, fresh, units, delta)
                found = book_attempt(
                    database,
                    workload,
                    delta_of=lambda k: attempt_delta(delta, k),
                    claim=_entry(plan, fresh),
                    data_hash=hash_json(fresh),
                )
                past = list_attempts(database, workload)
                # another process may have booked a smaller one since
                _refuse_larger([one for one in past if one.k < found.k], delta)
        return _opened(found, past, units)

    def close(self, workload: str, k: int, verdict_id: str) -> None:
        with open_database(self._address) as database:
            for attempt in list_attempts(database, workload):
                if attempt.k == k:
                    close_attempt(database, attempt, verdict_id)


def _entry(plan: Mapping[str, Any], fresh: list[str]) -> dict[str, Any]:
    return {"plan": dict(plan), "plan_hash": hash_json(dict(plan)), "units": fresh}


def _fresh(past: Iterable[Attempt], units: Sequence[str]) -> list[str]:
    seen = {unit for attempt in past for unit in attempt.claim.get("units", ())}
    return sorted(set(units) - seen)


def _same_plan(
    past: Iterable[Attempt], plan: Mapping[str, Any], units: Sequence[str]
) -> Attempt | None:
    wanted = hash_json(dict(plan))
    for attempt in past:
        is_same = attempt.claim.get("plan_hash") == wanted
        if is_same and set(attempt.claim.get("units", ())) <= set(units):
            return attempt
    return None


def _refuse_larger(past: Iterable[Attempt], delta: float) -> None:
    """Raise SettingsError where `delta` is above the smallest that an attempt was booked with."""
    smallest = min((one.delta / attempt_delta(1.0, one.k) for one in past), default=delta)
    if delta > smallest * (1.0 + ROUNDING):
        raise SettingsError(
            f"delta is {delta:g}, but an earlier attempt on this workload named {smallest:.6g}: all"
            " attempts share one error budget, whose size every certificate tells",
            hint=f"certify with delta = {smallest:.6g} or less",
        )


def _unbooked(
    past: Sequence[Attempt], fresh: Sequence[str], units: Sequence[str], delta: float
) -> Opened:
    """The next attempt as it would be; one with nothing to look at is never booked."""
    k, num_used = len(past) + 1, len(set(units)) - len(fresh)
    return Opened(k, attempt_delta(delta, k), frozenset(fresh), num_used)


def _peeked(
    past: Sequence[Attempt], plan: Mapping[str, Any], units: Sequence[str], delta: float
) -> Opened:
    found = _same_plan(past, plan, units)
    if found is None:
        _refuse_larger(past, delta)
        return _unbooked(past, _fresh(past, units), units, delta)
    return _opened(found, past, units)


def _opened(attempt: Attempt, past: Iterable[Attempt], units: Sequence[str]) -> Opened:
    # two processes may have booked at the same moment: the lower number has the units
    earlier = [other for other in past if other.k < attempt.k]
    usable = frozenset(_fresh(earlier, attempt.claim["units"]))
    num_used = len(set(units) - usable)
    return Opened(attempt.k, attempt.delta, usable, num_used, attempt.verdict_id)
