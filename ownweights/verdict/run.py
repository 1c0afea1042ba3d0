"""Judge a student, certify it, and keep what was found: the verdict of one student.

    develop ─ ask ─ judge ─ tune the confidence ┐
    claim, check, confidence are fixed          ├─ book an attempt ─ certify ─ ask ─ judge ─ verdict
    nothing of certify has been looked at       ┘
                develop.py                                        run.py

In: a Trial and what its first phase found. Out: a Verdict and its artefact `.own/verdict/<id>/`
with certificate.json or refusal.json, and judged.jsonl from which anyone can recompute it.
`run_verdict` does both phases in a row. Invariants: certify requests are asked only after the
attempt is booked (test_run_asks_certify_only_after_booking); the same plan again returns the stored
verdict (test_run_same_plan_returns_stored_verdict); judged again, what was void stays void
(test_run_judges_a_void_verdict_again_and_it_stays_void).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.core.artefact import canonical_json
from ownweights.core.completer import Completer
from ownweights.core.project import Project
from ownweights.verdict.asking import Answers, answer_split, judge
from ownweights.verdict.certificate import Claim, Subject, Verdict
from ownweights.verdict.checks import Check
from ownweights.verdict.confidence import AGREEMENT, Confidence
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.develop import Developed, develop, sampling_check
from ownweights.verdict.floor import Outcome, measure_floor
from ownweights.verdict.judged import Judged, unit_hash
from ownweights.verdict.ledger import Opened
from ownweights.verdict.risks.measure import measure_risks
from ownweights.verdict.risks.section import Risks
from ownweights.verdict.signing import own_fingerprint
from ownweights.verdict.slices import slice_keys
from ownweights.verdict.store import stored_verdict, write_verdict
from ownweights.verdict.trial import (
    Asked,
    Examined,
    Judging,
    Preferring,
    Progress,
    RunOptions,
    Trial,
)
from ownweights.verdict.voiding import void_certificate, void_reason


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
    trial = Trial(
        dataset, completer, project, student_id, claim or Claim(), check, on_progress,
        options or RunOptions(),
    )  # fmt: skip
    return asyncio.run(_both_phases(trial))


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
    trial = Trial(
        dataset, completer, project, student_id, claim or Claim(), check, on_progress,
        options or RunOptions(),
    )  # fmt: skip
    return await _both_phases(trial)


async def _both_phases(trial: Trial) -> Verdict:
    return await certify_student(trial, await develop(trial))


async def certify_student(trial: Trial, developed: Developed) -> Verdict:
    """The second phase: book an attempt, ask and judge certify, decide, and keep the verdict."""
    started = time.monotonic()
    own_fingerprint(trial.project)  # a key that cannot be read is told before anything is spent
    opened = trial.ledger.open(*trial.booking(developed.check))
    if opened.verdict_id and (stored := stored_verdict(trial.project, opened.verdict_id)):
        return stored
    answers = await _answer_certify(trial, developed, opened)
    # claims C and D first: a judge knows by how much only of the answers that it judged last
    rows = _rows(developed, answers, await _beside(trial, developed.check, answers))
    subject = _subject(trial, developed, answers)
    spend = Spend(opened.k, opened.delta_spent, opened.num_used)
    verdict = certify(trial.claim, subject, rows, spend)
    verdict = dataclasses.replace(verdict, risks=await _risks(trial, developed, answers))
    kept = [*developed.answers.kept(), *answers.kept()] if trial.options.keeps_answers else ()
    facts = _facts(developed, started)
    verdict = write_verdict(trial.project, verdict, rows, answers=kept, facts=facts)
    trial.ledger.close(trial.workload, opened.k, verdict.id)
    _stay_void(trial.project, opened.verdict_id, verdict.id)
    return verdict


def _stay_void(project: Project, before: str | None, now: str) -> None:
    """What voided the verdict that an attempt led to before voids the one that it leads to now."""
    if before and (voided := void_reason(project, before)):
        void_certificate(project, now, reason=voided.reason, by=voided.by, at=voided.at)


async def _answer_certify(trial: Trial, developed: Developed, opened: Opened) -> Answers:
    """Certify's answers, of the units that are this attempt's."""
    check, is_sampled = developed.check, developed.tuned.confidence.kind == AGREEMENT
    usable = [
        one for one in trial.dataset.examples("certify") if unit_hash(one.unit) in opened.units
    ]
    sampling = sampling_check(trial, check) if is_sampled else None
    return await answer_split(trial, check, usable, "certify", sampling)


async def _risks(trial: Trial, developed: Developed, answers: Answers) -> Risks:
    """What else was seen in the answers to both splits; nothing of the decision rests on it."""
    asked = [*developed.answers.examples, *answers.examples]
    found = [*developed.answers.outcomes, *answers.outcomes]
    return await measure_risks(
        trial.dataset, zip(asked, found, strict=True), completer=trial.completer,
        model=trial.student_id, timeout_s=trial.options.timeout_s,
        concurrency=trial.options.concurrency,
    )  # fmt: skip


Beside = tuple[Sequence[float | None], Mapping[int, tuple[float, float]]]


async def _beside(trial: Trial, check: Check | Judging, answers: Answers) -> Beside:
    """What claims C and D need of certify: how much better, and the teacher's own noise."""
    wanted, differences = trial.claim.paired, list[float | None]()
    if "C" in wanted and isinstance(check, Preferring):
        differences = list(check.differences)
    if "D" not in wanted:
        return differences, {}

    async def harm_of(asked: Sequence[Asked], given: Sequence[Outcome]) -> list[float | None]:
        return await judge(trial, check, asked, given, "noise floor")

    is_judge = isinstance(check, Judging)
    floor = await measure_floor(answers.examples, answers.outcomes, harm_of, one_pair=is_judge)
    return differences, floor


def _rows(developed: Developed, answers: Answers, beside: Beside) -> list[Judged]:
    """Develop and certify as the verdict is decided from them."""
    before = developed.answers.examples
    keys = slice_keys([*before, *answers.examples])
    scores = [_score(developed.tuned.confidence, outcome) for outcome in answers.outcomes]
    certified = answers.rows(scores, keys[len(before) :])
    return [*developed.rows(keys[: len(before)]), *_with_pairs(certified, *beside)]


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


def _subject(trial: Trial, developed: Developed, answers: Answers) -> Subject:
    identity, facts = (trial.dataset.card.get(key, {}) for key in ("identity", "facts"))
    check, examples = developed.check, [*developed.answers.examples, *answers.examples]
    return Subject(
        workload=trial.workload,
        student=trial.student_id,
        dataset=trial.dataset.id,
        check=check.name,
        is_graded=check.is_graded,
        confidence=developed.tuned.confidence.to_dict(),
        decoding=trial.decoding,
        teachers=tuple(sorted({example.model for example in examples})),
        teacher_state=_plain(trial.options.teacher_state),
        split_by=str(identity.get("split_by", "prompt")),
        period=_period(facts),
        units_per_record=trial.units_per_record,
        unanswered=int(facts.get("skipped", {}).get("certify", {}).get("error", 0)),
        timeout_s=float(trial.options.timeout_s),
        judge=_plain(check.facts) if isinstance(check, Judging) else {},
        compared=tuple(one.to_dict() for one in developed.tuned.compared),
    )


def _period(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """When the dataset's answers were given; None where that is not known of every one of them."""
    period = facts.get("period")
    if not period or facts.get("undated") != 0:
        return None
    first, last = period
    return float(first), float(last)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that a verdict equals what is read from its file."""
    return json.loads(canonical_json(dict(facts)))


def _facts(developed: Developed, started: float) -> dict[str, Any]:
    """What a verdict took, for its card."""
    seconds = round(developed.seconds + time.monotonic() - started, 3)
    spent = {"judge": dict(developed.check.spent)} if isinstance(developed.check, Judging) else {}
    return {"seconds": seconds, **spent}
