"""From judged requests to a certificate or a refusal: the one place where the decision is made.

In: a claim, the judged develop and certify rows, the error that this attempt may spend. Out: a
Verdict. Develop fixes the thresholds; certify, one request a unit, decides how far to go. A pure
function of its arguments, so that anyone who has the rows gets the same verdict
(test_verify_recomputes_the_verdict). What counts against the student:

  answered, judged            its harm, where it is served
  answered, nobody can judge  as a harm, where it is served
  error or time-out           as a harm among all requests at every threshold; never as served
  ineligible                  nothing: the teacher answers, and coverage shrinks
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownweights.core.errors import InputError
from ownweights.verdict.certificate import (
    ByRequest,
    Claim,
    Corrected,
    Examples,
    Subject,
    Verdict,
)
from ownweights.verdict.claims import Ladder, decide_claims, paired_assumptions
from ownweights.verdict.confidence.calibrate import calibration_table
from ownweights.verdict.judge.agreement import corrected_harm
from ownweights.verdict.judge.probes import refuse_invalid
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE, Judged, draw_one_per_unit
from ownweights.verdict.slices import slice_table
from ownweights.verdict.statistics import (
    Limits,
    RiskTest,
    Step,
    Walk,
    attempt_delta,
    binomial_p_value,
    clopper_pearson_interval,
    develop_thresholds,
    hoeffding_bentkus_p_value,
    served_without_harm,
    start_of_walk,
    units_needed,
    walk_thresholds,
)
from ownweights.verdict.statistics.clusters import share_interval
from ownweights.verdict.statistics.corrections import Confusion

JUDGE = "judge"  # the check's name where harm is a judge's word
METHOD = "fixed-sequence Learn-Then-Test, p = max of two {} p-values, one hash-drawn request a unit"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spend:
    """The attempt, the error it spends, and how many wanted units earlier attempts had used."""

    attempt: int
    delta: float
    num_used: int = 0


def certify(
    claim: Claim, subject: Subject, rows: Sequence[Judged], spend: Spend | None = None
) -> Verdict:
    """The verdict that the judged develop and certify rows support.

    Raises: InvalidJudge when the harms are those of a judge that its probes do not bear out
    """
    if subject.judge or subject.check == JUDGE:
        refuse_invalid(subject.judge)
    booked = spend or Spend(1, attempt_delta(claim.delta, 1))
    spend = dataclasses.replace(booked, delta=claim.delta_each(booked.delta))  # of A with B
    develop = [row for row in rows if row.split == "develop"]
    drawn = draw_one_per_unit(row for row in rows if row.split == "certify")
    scores = np.array([row.score for row in drawn], np.float64)
    harms = np.array([row.counted_harm for row in drawn], np.float64)
    _check_harms(harms, subject)
    losses = sum(row.status == FAILED for row in drawn)
    limits = Limits(claim.alpha, claim.beta, spend.delta)
    test = hoeffding_bentkus_p_value if subject.is_graded else binomial_p_value
    thresholds = _thresholds(claim, limits, develop, n=len(drawn), test=test)
    walk = walk_thresholds(thresholds, scores, harms, limits, losses=float(losses), test=test)
    found = _verdict(claim, subject, walk, spend, rows=rows, drawn=drawn)
    if not claim.paired:
        return found
    expected = _expected_end(thresholds, limits, develop, n=len(drawn), test=test)
    ladder = Ladder(tuple(map(float, thresholds)), expected, found.threshold)
    return dataclasses.replace(
        found,
        delta_spent=booked.delta,
        assumptions=(
            *_assumptions(subject, booked, found.coverage_low),
            *paired_assumptions(claim),
        ),
        paired=decide_claims(claim, rows, ladder, spend.delta),
    )


def _expected_end(
    thresholds: Floats, limits: Limits, develop: Sequence[Judged], *, n: int, test: RiskTest
) -> int:
    """Where the walk would end were certify like develop; behind the last where it would refuse."""
    scores = np.resize(np.array([row.score for row in develop], np.float64), n)
    harms = np.resize(np.array([row.counted_harm for row in develop], np.float64), n)
    losses = n * _count(develop, FAILED) / max(1, len(develop))
    walk = walk_thresholds(thresholds, scores, harms, limits, losses=losses, test=test)
    return walk.steps.index(walk.chosen) if walk.chosen else len(thresholds)


def _thresholds(
    claim: Claim, limits: Limits, develop: Sequence[Judged], *, n: int, test: RiskTest
) -> Floats:
    """What develop says to test, from the threshold where a pass is likely to the loosest."""
    scores = np.array([row.score for row in develop], np.float64)
    harms = np.array([row.counted_harm for row in develop], np.float64)
    thresholds = develop_thresholds(scores, claim.min_coverage_frac)
    losses_frac = _count(develop, FAILED) / max(1, len(develop))
    first = start_of_walk(
        thresholds, scores, harms, limits, n=n, losses_frac=losses_frac, test=test
    )
    return thresholds[first:]


def _check_harms(harms: Floats, subject: Subject) -> None:
    is_binary = bool(np.isin(harms, (0.0, 1.0)).all())
    if not is_binary and not (subject.is_graded and ((harms >= 0) & (harms <= 1)).all()):
        allowed = "from 0 to 1" if subject.is_graded else "0 or 1"
        raise InputError(
            f"check {subject.check!r} says harms other than {allowed}",
            hint="a check whose harm lies between 0 and 1 must say that it is_graded",
        )


def _verdict(
    claim: Claim,
    subject: Subject,
    walk: Walk,
    spend: Spend,
    *,
    rows: Sequence[Judged],
    drawn: Sequence[Judged],
) -> Verdict:
    nothing = Step(math.inf, len(drawn), 0, 0.0, 0.0, 1.0, 1.0)
    step = walk.chosen or (walk.steps[0] if walk.steps else nothing)
    issued = walk.chosen is not None
    low, high = clopper_pearson_interval(step.n_served, step.n, 0.05) if issued else (0.0, 0.0)
    return Verdict(
        issued=issued,
        claim=claim,
        subject=subject,
        attempt=spend.attempt,
        delta_spent=spend.delta,
        n=step.n,
        n_served=step.n_served,
        harms=step.harms,
        losses=_count(drawn, FAILED),
        unjudged=sum(row.status == ANSWERED and row.harm is None for row in drawn),
        ineligible=_count(drawn, INELIGIBLE),
        num_used=spend.num_used,
        p_all=step.p_all,
        p_served=step.p_served,
        threshold=step.threshold if issued else None,
        coverage_frac=step.n_served / step.n if issued else 0.0,
        coverage_low=low,
        coverage_high=high,
        method=METHOD.format("Hoeffding-Bentkus" if subject.is_graded else "exact binomial"),
        assumptions=_assumptions(subject, spend, low),
        expires=_expiry(subject),
        reasons=() if issued else _reasons(claim, spend, step, rows=rows, drawn=drawn),
        slices=slice_table(drawn, claim.beta),
        needed=None if issued else _needed(claim, subject, spend, step, rows=rows),
        corrected=_corrected(subject, drawn),
        calibration=calibration_table(rows),
        by_request=_by_request(rows, step.threshold),
    )


def _by_request(rows: Sequence[Judged], threshold: float) -> ByRequest:
    """All certify requests of the attempt at a threshold, each counted once."""
    asked = [row for row in rows if row.split == "certify"]
    served = [row for row in asked if row.status == ANSWERED and row.score >= threshold]
    harms = math.fsum(row.counted_harm for row in served)
    found = ByRequest(len(asked), len(served), harms, _count(asked, FAILED))
    if not asked:
        return found
    num, num_served = Counter(row.unit for row in asked), Counter(row.unit for row in served)
    units = sorted(num)  # so that the order of the rows is nothing to the last digit
    _, low, high = share_interval([num_served[u] for u in units], [num[u] for u in units])
    return dataclasses.replace(found, coverage_low=low, coverage_high=high)


def _corrected(subject: Subject, drawn: Sequence[Judged]) -> Corrected | None:
    """What people would have found, as far as they measured the judge."""
    answered = [row.counted_harm for row in drawn if row.status == ANSWERED]
    if "agreement" not in subject.judge or len(answered) < 2:
        return None
    seen = Confusion(**subject.judge["agreement"]["confusion"])
    said = int(sum(answered))
    found = corrected_harm(seen, said, len(answered))
    return Corrected(said / len(answered), found.value, found.low, found.high)


def _count(rows: Sequence[Judged], status: str) -> int:
    return sum(row.status == status for row in rows)


def _reasons(
    claim: Claim, spend: Spend, step: Step, *, rows: Sequence[Judged], drawn: Sequence[Judged]
) -> tuple[str, ...]:
    """Why no threshold was deployed, in plain words; never empty."""
    develop = [row for row in rows if row.split == "develop"]
    reasons: list[str] = []
    if spend.num_used:
        reasons.append(
            f"{spend.num_used} certify units were used by earlier attempts on this workload and"
            " cannot be used again: fresh traffic is needed"
        )
    if not develop:
        return (*reasons, "the dataset holds no develop requests to tune thresholds on")
    if math.isinf(step.threshold):
        served = sum(row.score > -math.inf for row in develop) / len(develop)
        reasons.append(
            f"only {served:.1%} of the develop requests got an answer that may be served; the"
            f" strictest threshold needs {claim.min_coverage_frac:.1%}"
        )
        return tuple(reasons)
    reasons += _too_few(claim, spend, step)
    if not reasons or step.harms:
        reasons += _too_harmful(claim, spend, step)
    if step.losses:
        reasons.append(f"{step.losses:g} requests ended in an error or time-out and count as harm")
    unjudged = sum(row.status == ANSWERED and row.harm is None for row in drawn)
    if unjudged:
        reasons.append(f"{unjudged} answers could not be judged and count as harm")
    return tuple(reasons)


def _too_few(claim: Claim, spend: Spend, step: Step) -> list[str]:
    need_served = served_without_harm(claim.beta, spend.delta)
    need_all = served_without_harm(claim.alpha, spend.delta)
    holds = f"too few independent units: certify holds {step.n}"
    if step.n_served < need_served:
        return [f"{holds}, {step.n_served} of them served at the first threshold, which needs"
                f" at least {need_served} served without a harm"]  # fmt: skip
    if step.n < need_all:
        return [f"{holds}, and the claim about all requests needs at least {need_all}"]
    return []


def _too_harmful(claim: Claim, spend: Spend, step: Step) -> list[str]:
    found: list[str] = []
    served = f"{step.harms:g} of the {step.n_served} served at the first threshold came to harm"
    if step.p_served > spend.delta:
        found.append(f"{served}: that does not prove a rate of at most {claim.beta:.1%}"
                     f" (p = {step.p_served:.3g} > {spend.delta:.3g})")  # fmt: skip
    if step.p_all > spend.delta:
        count = step.harms + step.losses
        found.append(f"{count:g} of all {step.n} came to harm at the first threshold: that does"
                     f" not prove a rate of at most {claim.alpha:.1%}"
                     f" (p = {step.p_all:.3g} > {spend.delta:.3g})")  # fmt: skip
    return found


def _needed(
    claim: Claim, subject: Subject, spend: Spend, step: Step, *, rows: Sequence[Judged]
) -> Examples:
    """What the next attempt would need at the rates seen so far, develop and certify together."""
    if math.isinf(step.threshold):
        return Examples(None, None, "no number of certify examples helps while hardly any answer"
                        " may be served: a better student is needed")  # fmt: skip
    judged = draw_one_per_unit(rows)
    served = [row for row in judged if row.score >= step.threshold]
    rate = sum(row.counted_harm for row in served) / len(served) if served else 0.0
    coverage = len(served) / len(judged)
    losses = _count(judged, FAILED) / len(judged)
    next_delta = claim.delta_each(attempt_delta(claim.delta, spend.attempt + 1))
    limits = Limits(claim.alpha, claim.beta, next_delta)
    needed = units_needed(rate, coverage, losses, limits)
    records = None if needed.units is None else math.ceil(needed.units / subject.units_per_record)
    return Examples(needed.units, records, needed.reason)


def _assumptions(subject: Subject, spend: Spend, coverage_low: float) -> tuple[str, ...]:
    period = "one recorded set of requests"
    if subject.period:
        first, last = map(_day, subject.period)
        period = f"one recorded period ({first} to {last})"
    left_out = (
        f"the claim is about requests that the teacher answered: {subject.unanswered} of the"
        " recorded certify requests have no answer to compare with and are left out"
    )
    seen = (
        f"{spend.num_used} certify units that earlier attempts had seen are left out, with every"
        " request of theirs that came since: the claim is about the others"
    )
    return (
        *((left_out,) if subject.unanswered else ()),
        *((seen,) if spend.num_used else ()),
        f"future requests of workload {subject.workload!r} are like those certified: the data come"
        f" from {period}, which shadow traffic newer than the student would lift",
        f"units (by {subject.split_by}) are independent of each other; requests within one need"
        f" not be: rates are those of {subject.counted}, however many requests a unit holds",
        f"harm is what the check {subject.check!r} says against the teacher's recorded answers; the"
        " claim is relative to the teacher, not to the truth",
        f"the confidence 1 - delta is over the draw of certify units, not over single requests;"
        f" this is attempt {spend.attempt}, which spends {spend.delta:.4g}",
        "an answer that could not be judged counts as harm; an error or time-out counts as harm"
        " among all requests",
        *_judge_assumptions(subject, coverage_low),
    )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _judge_assumptions(subject: Subject, coverage_low: float) -> tuple[str, ...]:
    """What rests on a judge's word, and how far it is known to be wrong."""
    judge = subject.judge
    if not judge:
        return ()
    model = judge.get("model", "")
    agreement = judge.get("agreement")
    known = (
        "no person has measured this judge on this workload: how often it is wrong is not known"
        if agreement is None
        else _missed(agreement, coverage_low)
    )
    own = (f"the judge {model} is a teacher of this workload and may prefer its own words",)
    return (
        f"harm is the word of the judge {model}, both orders agreeing; what it leaves open is harm",
        known,
        *(own if model in subject.teachers else ()),
    )


def _missed(agreement: Mapping[str, Any], coverage_low: float) -> str:
    """By how much people may find worse than the claim, among all and among those served."""
    high, labels = agreement["missed_high"], agreement["labelled"] + agreement.get("unsaid", 0)
    among_served = (
        f"; among those served by up to {min(1.0, high / coverage_low):.1%}, if they are"
        f" {coverage_low:.1%} of all or more, which is 97.5 % sure"
        if coverage_low
        else ""
    )
    return (
        f"the judge misses harm in at most {high:.1%} of all answers (from {labels} labels by"
        " people; where they could not say, it is taken to have missed; 95 % sure, an error of its"
        " own beside that of the claim): by so much more than the claim says may people find worse"
        f" among all{among_served}"
    )


def _expiry(subject: Subject) -> tuple[str, ...]:
    teachers = ", ".join(subject.teachers) or "the teacher"
    return (
        "the student, the check, the confidence score, the decoding or the pruned prompt changes",
        f"the endpoint behind {teachers} is no longer the one that was recorded",
        "a monitor of live traffic alarms, or the traffic's mix of requests changes",
    )
