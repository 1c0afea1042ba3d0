"""A student on trial: who is asked, on which dataset, for which claim, judged by what.

In: what a caller of `run_verdict` gives. Out: a `Trial`, which both phases of a verdict read, and
the plan that the ledger knows an attempt by. What a verdict needs of datasets and judges is here as
protocols, so that it imports neither. Invariants: the same trial makes the same plan
(test_run_same_plan_returns_stored_verdict); options that say nothing of what is claimed are no part
of it (test_run_is_blind_to_concurrency); the time-out is (test_run_time_out_is_part_of_the_plan).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ownweights.core.completer import Completer
from ownweights.core.project import Project
from ownweights.core.strict import Limits, check_value
from ownweights.verdict.asked import Asked
from ownweights.verdict.certificate import Claim
from ownweights.verdict.checks import Check
from ownweights.verdict.floor import Outcome
from ownweights.verdict.judged import unit_hash
from ownweights.verdict.ledger import DatabaseLedger, Ledger

Progress = Callable[[float, float | None, str], None]  # (done, total, stage)
GREEDY = {"temperature": 0}  # how students are asked here, and then by a route
UNITS_PER_RECORD = 0.08  # certify units that a record brings, where a dataset does not say


class Examined(Protocol):
    """What a verdict needs of a dataset."""

    @property
    def id(self) -> str: ...
    @property
    def card(self) -> Mapping[str, Any]: ...
    def examples(self, split: str, /) -> Sequence[Asked]: ...


@runtime_checkable
class Judging(Protocol):
    """A check that sees the requests and takes its time: verdict/judge has one.

    It is asked on develop first, where it may raise InvalidJudge: nothing is booked by then.
    `identity` is part of the plan, `facts` stand in the certificate, `spent` on the verdict's card.
    """

    @property
    def name(self) -> str: ...
    @property
    def is_graded(self) -> bool: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def spent(self) -> Mapping[str, Any]: ...

    async def judge_all(
        self, examples: Sequence[Asked], outcomes: Sequence[Outcome], *, stage: str,
        on_progress: Progress | None = None,
    ) -> list[float | None]:  # fmt: skip
        """The harm of each outcome, None where there is none or nobody could judge it."""
        ...


@runtime_checkable
class Preferring(Protocol):
    """A judge that also says by how much: 1 where the student is better, 0 alike, -1 worse."""

    @property
    def differences(self) -> Sequence[float | None]:
        """Of the answers judged last; None where nobody could say."""
        ...


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a verdict is run; none of it changes what is claimed, except `decoding` and `timeout_s`:
    an answer that comes later is a loss here, and the teacher's on a route.
    """

    workload: str = ""  # empty: what the dataset's card says
    concurrency: int = 32
    timeout_s: float = 10.0  # for each answer, as a route waits
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])  # laid over GREEDY
    # what the gateway would keep from the student, and why: None is eligible
    ineligible: Callable[[Mapping[str, Any]], str | None] | None = None
    # who the teacher was (baseline, models, fingerprints), for the certificate; not of the plan
    teacher_state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ledger: Ledger | None = None  # None: the project's own
    keeps_answers: bool = False
    agreement: int = 0  # answers drawn beside each greedy one: a score may be made of them
    streaming: bool = False  # only a score that is known before the answer will do

    def __post_init__(self) -> None:
        limits = Limits(at_least=0, at_most=86400, is_open=True)
        check_value(self.timeout_s, float, limits, "timeout_s")
        check_value(self.concurrency, int, Limits(at_least=1, at_most=4096), "concurrency")


@dataclass(frozen=True, slots=True)
class Trial:
    """One student to be judged on one dataset. `check` None is chosen by the develop targets."""

    dataset: Examined
    completer: Completer
    project: Project
    student_id: str
    claim: Claim = field(default_factory=Claim)
    check: Check | Judging | str | None = None
    on_progress: Progress | None = None
    options: RunOptions = field(default_factory=RunOptions)

    @property
    def workload(self) -> str:
        identity = self.dataset.card.get("identity", {})
        return self.options.workload or str(identity.get("workload", ""))

    @property
    def decoding(self) -> dict[str, Any]:
        return {**GREEDY, **self.options.decoding}

    @property
    def ledger(self) -> Ledger:
        return self.options.ledger or DatabaseLedger(self.project)

    @property
    def units_per_record(self) -> float:
        """Certify units that one more record brings, as far as this dataset shows."""
        facts = self.dataset.card.get("facts", {})
        records, units = facts.get("records", {}), facts.get("units", {})
        num_records, num_units = records.get("num", 0), units.get("certify", 0)
        return num_units / num_records if num_units and num_records else UNITS_PER_RECORD

    def plan(self, check: Check | Judging) -> dict[str, Any]:
        """What is judged and claimed: the ledger knows an attempt by it."""
        return {
            "claim": self.claim.plan(),
            "student": self.student_id,
            "dataset": self.dataset.id,
            "check": check.name,
            "decoding": self.decoding,
            "timeout_s": self.options.timeout_s,
            **({"judge": dict(check.identity)} if isinstance(check, Judging) else {}),
            **({"agreement": self.options.agreement} if self.options.agreement else {}),
            **({"streaming": True} if self.options.streaming else {}),
        }

    def booking(self, check: Check | Judging) -> tuple[str, dict[str, Any], list[str], float]:
        """What a ledger must know to open an attempt, or to say what one would be."""
        units = [unit_hash(example.unit) for example in self.dataset.examples("certify")]
        return self.workload, self.plan(check), units, self.claim.delta
