"""Ask the student, judge it, certify it, and keep what was found: the verdict of one student.

    develop ─ ask ─ judge ─ tune the confidence ┐
    claim, check, confidence are fixed          ├─ book an attempt ─ certify ─ ask ─ judge ─ verdict
    nothing of certify has been looked at       ┘

In: a dataset, whoever answers for the student, the claim. Out: a Verdict and its artefact
`.own/verdict/<id>/` with certificate.json or refusal.json, and judged.jsonl from which anyone can
recompute it. Invariants: certify requests are asked only after the attempt is booked
(test_run_asks_certify_only_after_booking); the same plan again returns the stored verdict
(test_run_same_plan_returns_stored_verdict).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ownweights.core.artefact import canonical_json
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible, UsageError
from ownweights.core.project import Project
from ownweights.core.strict import Limits, check_value
from ownweights.verdict.certificate import Claim, Subject, Verdict
from ownweights.verdict.checks import (
    Check,
    check_named,
    check_word,
    choose_check,
    judged_text,
)
from ownweights.verdict.confidence import AGREEMENT, Confidence, Tuned, Wanted, tune
from ownweights.verdict.confidence.agreement import complete_with_agreement
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.floor import Outcome, measure_floor
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE, Judged, unit_hash
from ownweights.verdict.ledger import DatabaseLedger, Ledger, Opened
from ownweights.verdict.risks.measure import measure_risks
from ownweights.verdict.slices import slice_keys
from ownweights.verdict.store import stored_verdict, write_verdict

Progress = Callable[[float, float | None, str], None]  # (done, total, stage)
GREEDY = {"temperature": 0}  # how students are asked here, and then by a route


class Asked(Protocol):
    """What a verdict needs of a dataset's example."""

    @property
    def id(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def request(self) -> Mapping[str, Any]: ...
    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def target(self) -> str: ...
    @property
    def references(self) -> Sequence[str]: ...
    @property
    def model(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


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
    """How a verdict is run; none of it changes what is claimed, except `decoding`."""

    workload: str = ""  # empty: what the dataset's card says
    concurrency: int = 32
    timeout_s: float = 60.0
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])  # laid over GREEDY
    # what the gateway would keep from the student, and why: None is eligible
    ineligible: Callable[[Mapping[str, Any]], str | None] | None = None
    ledger: Ledger | None = None  # None: the project's own
    keeps_answers: bool = False
    agreement: int = 0  # answers drawn beside each greedy one: a score may be made of them
    streaming: bool = False  # only a score that is known before the answer will do

    def __post_init__(self) -> None:
        limits = Limits(at_least=0, at_most=86400, is_open=True)
        check_value(self.timeout_s, float, limits, "timeout_s")
        check_value(self.concurrency, int, Limits(at_least=1, at_most=4096), "concurrency")


def run_verdict(
    dataset: Examined,
    completer: Completer,
    project: Project,
    student_id: str,
    *,
    claim: Claim | None = None,
    check: Check | Judging | str | None = None,
    on_progress: Progress | None = None,
    options: RunOptions | None = None,
) -> Verdict:
    """Judge a student on a dataset and write the certificate or the refusal.

    Raises: CompleterError when the student answers nothing at all; an attempt that was booked by
    then stays open, and the same call continues it
    """
    run = _Run(
        dataset, completer, project, student_id, claim or Claim(), check, on_progress,
        options or RunOptions(),
    )  # fmt: skip
    return asyncio.run(run.verdict())


async def run_verdict_async(
    dataset: Examined,
    completer: Completer,
    project: Project,
    student_id: str,
    *,
    claim: Claim | None = None,
    check: Check | Judging | str | None = None,
    on_progress: Progress | None = None,
    options: RunOptions | None = None,
) -> Verdict:
    """`run_verdict` inside a running event loop."""
    run = _Run(
        dataset, completer, project, student_id, claim or Claim(), check, on_progress,
        options or RunOptions(),
    )  # fmt: skip
    return await run.verdict()


@dataclass(frozen=True)
class _Run:
    dataset: Examined
    completer: Completer
    project: Project
    student_id: str
    claim: Claim
    check_wanted: Check | Judging | str | None
    on_progress: Progress | None
    options: RunOptions

    async def verdict(self) -> Verdict:
        started = time.monotonic()
        develop = list(self.dataset.examples("develop"))
        check = self._check(develop)
        outcomes = await self._ask(develop, "develop", self._sampling(check))
        harms = await self._judge(check, develop, outcomes, "develop")
        tuned = self._tune(check, develop, outcomes, harms)
        confidence = tuned.confidence
        ledger = self.options.ledger or DatabaseLedger(self.project)
        certify_all = list(self.dataset.examples("certify"))
        opened = self._book(ledger, check, certify_all)
        if opened.verdict_id and (stored := stored_verdict(self.project, opened.verdict_id)):
            return stored
        usable = [one for one in certify_all if unit_hash(one.unit) in opened.units]
        sampling = self._sampling(check) if confidence.kind == AGREEMENT else None
        certify_outcomes = await self._ask(usable, "certify", sampling)
        certify_harms = await self._judge(check, usable, certify_outcomes, "certify")
        beside = await self._beside(check, usable, certify_outcomes)
        keys = slice_keys([*develop, *usable])
        certify_scores = [_score(confidence, outcome) for outcome in certify_outcomes]
        rows = [
            _row(example, split, outcome, harm, score=score, slices=keys.pop(0))
            for split, examples, found, judged, scores in (
                ("develop", develop, outcomes, harms, tuned.develop_scores.tolist()),
                ("certify", usable, certify_outcomes, certify_harms, certify_scores),
            )
            for example, outcome, harm, score in zip(examples, found, judged, scores, strict=True)
        ]
        rows = [*rows[: len(develop)], *_with_pairs(rows[len(develop) :], *beside)]
        subject = self._subject(check, tuned, [*develop, *usable])
        spend = Spend(opened.k, opened.delta_spent, opened.num_used)
        asked, found = [*develop, *usable], [*outcomes, *certify_outcomes]
        risks = await measure_risks(
            self.dataset, zip(asked, found, strict=True), completer=self.completer,
            model=self.student_id, timeout_s=self.options.timeout_s,
            concurrency=self.options.concurrency,
        )  # fmt: skip
        verdict = dataclasses.replace(certify(self.claim, subject, rows, spend), risks=risks)
        answers_kept = _answers(asked, found) if self.options.keeps_answers else ()
        facts: dict[str, Any] = {"seconds": round(time.monotonic() - started, 3)}
        if isinstance(check, Judging):
            facts["judge"] = dict(check.spent)
        verdict = write_verdict(self.project, verdict, rows, answers=answers_kept, facts=facts)
        ledger.close(subject.workload, opened.k, verdict.id)
        return verdict

    @property
    def workload(self) -> str:
        identity = self.dataset.card.get("identity", {})
        return self.options.workload or str(identity.get("workload", ""))

    @property
    def decoding(self) -> dict[str, Any]:
        return {**GREEDY, **self.options.decoding}

    def _check(self, develop: Sequence[Asked]) -> Check | Judging:
        if isinstance(self.check_wanted, str):
            return check_named(self.check_wanted, self.project.root)
        return self.check_wanted or choose_check(one.target for one in develop)

    def _sampling(self, check: Check | Judging) -> Check | None:
        """What compares sampled answers with the greedy one; None where none are drawn."""
        if not self.options.agreement:
            return None
        if isinstance(check, Judging):
            raise UsageError(
                f"the agreement of {self.options.agreement} sampled answers needs a check that"
                f" compares two answers by a rule, and {check.name!r} is none",
                hint="leave `agreement` out, or judge this workload by a check",
            )
        return check

    def _tune(
        self,
        check: Check | Judging,
        develop: Sequence[Asked],
        outcomes: Sequence[Outcome],
        harms: Sequence[float | None],
    ) -> Tuned:
        wanted = Wanted(
            answers="json" if check_word(check.name) == "json" else "text",
            min_coverage_frac=self.claim.min_coverage_frac,
            samples=self.options.agreement,
            check=check.name,
            streaming=self.options.streaming,
        )
        return tune(
            [done if isinstance(done, Completion) else None for done in outcomes],
            np.array([1.0 if harm is None else harm for harm in harms]),
            [example.unit for example in develop],
            wanted,
        )

    async def _judge(
        self,
        check: Check | Judging,
        examples: Sequence[Asked],
        outcomes: Sequence[Outcome],
        stage: str,
    ) -> list[float | None]:
        if not isinstance(check, Judging):
            return _judge(check, examples, outcomes)
        return await check.judge_all(examples, outcomes, stage=stage, on_progress=self.on_progress)

    async def _beside(
        self, check: Check | Judging, examples: Sequence[Asked], outcomes: Sequence[Outcome]
    ) -> tuple[Sequence[float | None], Mapping[int, tuple[float, float]]]:
        """What claims C and D need of certify: how much better, and the teacher's own noise."""
        wanted, differences = self.claim.paired, list[float | None]()
        if "C" in wanted and isinstance(check, Preferring):
            differences = list(check.differences)
        if "D" not in wanted:
            return differences, {}

        async def harm_of(asked: Sequence[Asked], given: Sequence[Outcome]) -> list[float | None]:
            return await self._judge(check, asked, given, "noise floor")

        is_judge = isinstance(check, Judging)
        return differences, await measure_floor(examples, outcomes, harm_of, one_pair=is_judge)

    def _book(self, ledger: Ledger, check: Check | Judging, examples: Sequence[Asked]) -> Opened:
        plan = {
            "claim": self.claim.plan(),
            "student": self.student_id,
            "dataset": self.dataset.id,
            "check": check.name,
            "decoding": self.decoding,
            **({"judge": dict(check.identity)} if isinstance(check, Judging) else {}),
            **({"agreement": self.options.agreement} if self.options.agreement else {}),
            **({"streaming": True} if self.options.streaming else {}),
        }
        units = [unit_hash(example.unit) for example in examples]
        return ledger.open(self.workload, plan, units, self.claim.delta)

    async def _ask(
        self, examples: Sequence[Asked], stage: str, sampling: Check | None = None
    ) -> list[Outcome]:
        """Every example's outcome, at most `concurrency` at a time."""
        outcomes: list[Outcome] = [FAILED] * len(examples)
        waiting = iter(enumerate(examples))
        failures: list[CompleterError] = []
        num_done = 0

        async def worker() -> None:
            nonlocal num_done
            for index, example in waiting:
                try:
                    outcomes[index] = await self._ask_one(example, sampling)
                except CompleterError as error:
                    failures.append(error)
                num_done += 1
                if self.on_progress:
                    self.on_progress(num_done, len(examples), stage)

        await asyncio.gather(*(worker() for _ in range(max(1, self.options.concurrency))))
        if examples and len(failures) == len(examples):
            raise failures[0]
        return outcomes

    async def _ask_one(self, example: Asked, sampling: Check | None) -> Outcome:
        if self.options.ineligible and self.options.ineligible(example.request):
            return INELIGIBLE
        body = {key: v for key, v in example.request.items() if not key.startswith("stream")}
        body |= {"model": self.student_id, "messages": list(example.messages), **self.decoding}
        request, timeout_s = ChatRequest(body), self.options.timeout_s
        try:
            if sampling is None:
                return await self.completer.complete(request, timeout_s=timeout_s)
            return await complete_with_agreement(
                self.completer, request, sampling, samples=self.options.agreement,
                timeout_s=timeout_s,
            )  # fmt: skip
        except (Ineligible, ContextTooLong):
            return INELIGIBLE

    def _subject(self, check: Check | Judging, tuned: Tuned, examples: Sequence[Asked]) -> Subject:
        identity, facts = (self.dataset.card.get(key, {}) for key in ("identity", "facts"))
        records, units = facts.get("records", {}), facts.get("units", {})
        num_records, num_units = records.get("num", 0), units.get("certify", 0)
        return Subject(
            workload=self.workload,
            student=self.student_id,
            dataset=self.dataset.id,
            check=check.name,
            is_graded=check.is_graded,
            confidence=tuned.confidence.to_dict(),
            decoding=self.decoding,
            teachers=tuple(sorted({example.model for example in examples})),
            split_by=str(identity.get("split_by", "prompt")),
            period=(records["first_at"], records["last_at"]) if "first_at" in records else None,
            units_per_record=num_units / num_records if num_units and num_records else 0.08,
            unanswered=int(facts.get("without_answer", {}).get("certify", 0)),
            judge=_plain(check.facts) if isinstance(check, Judging) else {},
            compared=tuple(one.to_dict() for one in tuned.compared),
        )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that a verdict equals what is read from its file."""
    return json.loads(canonical_json(dict(facts)))


def _judge(
    check: Check, examples: Sequence[Asked], outcomes: Sequence[Outcome]
) -> list[float | None]:
    return [
        check.harm(judged_text(check, done), example.references)
        if isinstance(done, Completion)
        else None
        for example, done in zip(examples, outcomes, strict=True)
    ]


def _row(
    example: Asked,
    split: str,
    outcome: Outcome,
    harm: float | None,
    *,
    score: float,
    slices: Mapping[str, str],
) -> Judged:
    unit = unit_hash(example.unit)
    if isinstance(outcome, str):
        return Judged(example.id, unit, split, outcome, slices=slices)
    return Judged(example.id, unit, split, ANSWERED, score, harm, slices)


def _with_pairs(
    rows: Sequence[Judged],
    differences: Sequence[float | None],
    pairs: Mapping[int, tuple[float, float]],
) -> list[Judged]:
    """The certify rows with what claims C and D are decided from."""
    return [
        dataclasses.replace(
            row,
            difference=differences[index] if differences else None,
            pair=pairs.get(index),
        )
        for index, row in enumerate(rows)
    ]


def _score(confidence: Confidence, outcome: Outcome) -> float:
    if isinstance(outcome, str):
        return -math.inf
    return confidence.score(outcome.features, outcome.finish_reason, outcome.text)


def _answers(examples: Sequence[Asked], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "id": example.id,
            "answer": done.text if isinstance(done, Completion) else None,
            "references": list(example.references),
        }
        for example, done in zip(examples, outcomes, strict=True)
    ]
