"""What audits say: on, back, or wait; and that reading them again says the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ownweights.route.evidence import MISSED, STEP_AUDITS, Audit, Evidence, Kind, Watch, fold
from ownweights.route.evidence import next_standing as decide_next
from ownweights.route.rollout import Standing, first_standing
from ownweights.verdict.statistics.detector import alarm_delays

WATCH = Watch(alpha=0.05, beta=0.10, delta=0.05, audit_frac=0.02, run_length=10_000)
CANARY = first_standing("r1", "canary")
WIDER = CANARY.next()
SERVED = Standing("r1")


def audits(standing: Standing, harms, *, kind: Kind = "audit", chance: float = 1.0) -> list[Audit]:
    return [
        Audit(f"q{i}", float(i), standing.stage, kind, harm, chance, 0, standing.share)
        for i, harm in enumerate(harms)
    ]


def next_of(standing: Standing, found: list[Audit]):
    return decide_next(standing, fold(found, WATCH), WATCH)


def test_evidence_is_replayed_from_its_audits() -> None:
    rng = np.random.default_rng(0)
    found = [
        Audit(
            f"q{i}", float(i), "served", rng.choice(["audit", "failure"]),
            rng.choice([0.0, 1.0, None, MISSED]), 0.06, int(rng.integers(80)),
        )
        for i in range(60)
    ]  # fmt: skip
    step_by_step = Evidence.start(WATCH)
    for one in found:
        step_by_step = step_by_step.after(one, WATCH)
    assert fold(found, WATCH) == step_by_step == fold(found, WATCH)


def test_rollout_goes_on_after_enough_good_audits() -> None:
    assert next_of(CANARY, audits(CANARY, [0.0] * (STEP_AUDITS - 1))) is None
    assert next_of(CANARY, audits(CANARY, [0.0] * STEP_AUDITS)) == WIDER


def test_rollout_counts_only_audits_of_its_own_step() -> None:
    before = audits(CANARY, [0.0] * STEP_AUDITS)
    assert next_of(WIDER, before) is None
    assert next_of(WIDER, [*before, *audits(WIDER, [0.0] * (STEP_AUDITS - 1))]) is None
    assert next_of(WIDER, [*before, *audits(WIDER, [0.0] * STEP_AUDITS)]) == SERVED


def test_rollout_serves_only_what_live_answers_have_proved() -> None:
    """Nine in a hundred is within a limit of ten, and no proof of it."""
    harms = [float(i % 11 == 10) for i in range(110)]
    assert next_of(CANARY, audits(CANARY, harms)) == WIDER
    assert next_of(WIDER, audits(WIDER, harms)) is None


def test_rollout_that_is_frozen_goes_no_further_but_back() -> None:
    frozen = dataclasses.replace(CANARY, is_frozen=True)
    assert next_of(frozen, audits(CANARY, [0.0] * 200)) is None
    assert isinstance(next_of(frozen, audits(CANARY, [1.0] * 200)), str)


@pytest.mark.parametrize("harm", [1.0, None])
def test_rollout_goes_back_when_harm_rises(harm) -> None:
    assert "harm has risen above 10 %" in str(next_of(CANARY, audits(CANARY, [harm] * 9)))


def test_rollout_never_goes_back_for_answers_that_nobody_got() -> None:
    shadow = first_standing("r1", "shadow")
    assert next_of(shadow, audits(shadow, [1.0] * 500, kind="shadow")) is None
    assert next_of(shadow, audits(shadow, [0.0] * STEP_AUDITS, kind="shadow")) == CANARY
    proved = fold(audits(shadow, [0.0] * 500, kind="shadow"), WATCH)
    assert proved.stake.p_value < WATCH.delta


def test_audit_that_the_teacher_missed_says_nothing() -> None:
    good = audits(CANARY, [0.0] * 20)
    found, known = fold([*good, *audits(CANARY, [MISSED] * 500)], WATCH), fold(good, WATCH)
    assert (found.detector, found.stake) == (known.detector, known.stake)
    assert (found.num_missed, found.num_judged) == (500, 20)


def run_until_back(rng, harm: float, *, before: float = 0.03, most: int = 4_000) -> int:
    """Audits of a served route from the jump of harm to the rollback."""
    evidence, quiet = Evidence.start(WATCH), 49
    for i in range(100 + most):
        rate = before if i < 100 else harm
        one = Audit(f"q{i}", 0.0, "served", "audit", float(rng.random() < rate), 0.02, quiet)
        evidence = evidence.after(one, WATCH)
        if isinstance(decide_next(SERVED, evidence, WATCH), str):
            return i - 99
    return most


def test_rollback_comes_within_the_audits_foretold() -> None:
    """One audit in fifty requests: as fast in audits as a detector that sees nothing else."""
    foretold = alarm_delays(WATCH.beta, WATCH.run_length, before=0.03, after=0.5)[1]
    assert foretold is not None
    rng = np.random.default_rng(1)
    delays = [run_until_back(rng, 0.5) for _ in range(100)]
    assert np.mean([delay <= foretold for delay in delays]) >= 0.8
    assert min(delays) > 0


def test_rollback_is_rare_while_harm_is_within_the_limit() -> None:
    rng = np.random.default_rng(2)
    backs = [run_until_back(rng, 0.05, before=0.05, most=500) < 500 for _ in range(40)]
    assert sum(backs) == 0


def of_sessions(rng, standing: Standing, harm: float, length: int, *, num: int) -> list[Audit]:
    """Audits of sessions in which either all goes wrong or nothing."""
    return [
        Audit(
            f"q{i}/{turn}", float(i), standing.stage, "audit", outcome, 1.0, 0, standing.share,
            unit=f"s{i}", seen_at=float(i) if turn else None,
        )
        for i, outcome in enumerate((rng.random(num) < harm).astype(float).tolist())
        for turn in range(length)
    ]  # fmt: skip


def is_passed(standing: Standing, found: list[Audit]) -> bool:
    """Whether a rollout would ever have gone on to `served` from these audits."""
    evidence = Evidence.start(WATCH)
    for one in found:
        evidence = evidence.after(one, WATCH)
        if decide_next(standing, evidence, WATCH) is not None:
            return evidence.detector.is_alarmed is False
    return False


def test_rollout_promotes_wrongly_within_delta_whatever_the_sessions() -> None:
    """Harm of .12 lies in whole sessions of ten; taken one by one the audits prove what is not."""
    assert WIDER is not None
    rng = np.random.default_rng(3)
    runs = [of_sessions(rng, WIDER, 0.12, 10, num=100) for _ in range(40)]
    loose = [[dataclasses.replace(a, unit="", seen_at=None) for a in run] for run in runs]
    assert np.mean([is_passed(WIDER, run) for run in runs]) <= WATCH.delta + 0.03
    assert np.mean([is_passed(WIDER, run) for run in loose[:15]]) >= 0.2


def test_rollback_by_mistake_is_rare_whatever_the_sessions() -> None:
    """Harm at half the limit, in sessions of twenty: not one alarm in 20 runs of 1,000 audits."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        found = of_sessions(rng, CANARY, 0.05, 20, num=50)
        assert not fold(found, WATCH).detector.is_alarmed
    loose = [dataclasses.replace(a, seen_at=None) for a in found]
    assert fold(loose, WATCH).num_units == 20 * fold(found, WATCH).num_units


def test_long_sessions_that_do_worse_raise_an_alarm_though_units_are_within_the_limit() -> None:
    """Of the sessions .05 do harm, ten times as long: a third of the answers, for audits."""
    rng, alarms = np.random.default_rng(11), list[int]()
    for _ in range(5):
        evidence, quiet, num_requests = Evidence.start(WATCH), 0, 0
        while not evidence.detector.is_alarmed and num_requests < 50_000:
            harm, seen_at = float(rng.random() < 0.05), None
            for lot in rng.random(10 if harm else 1).tolist():
                num_requests, quiet = num_requests + 1, quiet + 1
                if lot < WATCH.audit_frac:
                    one = Audit("q", 0.0, "served", "audit", harm, WATCH.audit_frac, quiet - 1,
                                unit="s", seen_at=seen_at)  # fmt: skip
                    evidence, quiet, seen_at = evidence.after(one, WATCH), 0, 0.0
        alarms.append(num_requests)
    assert max(alarms) < 10_000


def test_session_without_end_is_bet_on_once_a_day() -> None:
    """For the detector; as a proof, and at a step, it counts once."""
    hours = [Audit(f"q{h}", 3600.0 * h, "canary", "audit", 1.0, unit="s",
                   seen_at=3600.0 * (h - 1) if h else None) for h in range(72)]  # fmt: skip
    days = fold(hours, WATCH)
    assert (days.detector.num_seen, days.at_step, days.stake.num_seen) == (3, 1, 1)
    assert days.num_judged == 72


def requests_until_back(rng, harm: float, missed: float, *, most: int) -> int | None:
    """Requests served until the alarm, one in fifty audited, some of the audits missed."""
    evidence, num_requests = Evidence.start(WATCH), 0
    for i, gap in enumerate(rng.geometric(WATCH.audit_frac, most).tolist()):
        num_requests += gap
        found = MISSED if rng.random() < missed else float(rng.random() < harm)
        one = Audit(f"q{i}", 0.0, "served", "audit", found, WATCH.audit_frac, gap - 1)
        evidence = evidence.after(one, WATCH)
        if evidence.detector.is_alarmed:
            return num_requests
    return None


def test_audits_missed_hide_no_harm() -> None:
    """Sixty in a hundred missed: twice the limit is found all the same, harm within it is none."""
    rng = np.random.default_rng(5)
    harmful = [requests_until_back(rng, 0.20, 0.6, most=1_000) for _ in range(10)]
    assert None not in harmful
    assert not any(requests_until_back(rng, 0.08, 0.6, most=1_000) for _ in range(10))


def test_rollout_is_looked_at_only_now_and_then() -> None:
    """Six harms in 50 are too many, and stay so until the hundredth."""
    harms = [float(i % 8 == 7 and i < 50) for i in range(100)]
    assert next_of(CANARY, audits(CANARY, harms[:99])) is None
    assert next_of(CANARY, audits(CANARY, harms)) == WIDER
    assert next_of(CANARY, audits(CANARY, [*harms, 1.0])) == WIDER  # as the last look said


def test_rollout_serves_only_what_answers_at_this_step_prove() -> None:
    """Good for 200 units, then harmful: once it serves in three runs of four, now within delta."""
    assert WIDER is not None
    rng = np.random.default_rng(6)
    passed = 0
    for _ in range(100):
        evidence = fold(audits(CANARY, (rng.random(200) < 0.03).astype(float).tolist()), WATCH)
        for one in audits(WIDER, (rng.random(200) < 0.12).astype(float).tolist()):
            evidence = evidence.after(one, WATCH)
            if decide_next(WIDER, evidence, WATCH) == SERVED:
                passed += 1
                break
    assert passed <= 8


def test_rollout_serves_a_good_student_soon() -> None:
    assert WIDER is not None
    rng, looks = np.random.default_rng(7), []
    for _ in range(30):
        found = audits(WIDER, (rng.random(400) < 0.02).astype(float).tolist())
        looks += [next((n for n in range(50, 401, 50) if next_of(WIDER, found[:n]) == SERVED), 999)]
    assert np.median(looks) <= 100


def of_requests(rng, *, harm: float, failure: float, num: int, share: float = 0.3) -> list[Audit]:
    """What a canary shows of `num` requests: a share is served, some fail, the rest is unsure."""
    found, unsure = list[Audit](), 0
    for i, lot in enumerate(rng.random(num).tolist()):
        kind: Kind = "failure" if lot < failure else "audit"
        if lot >= failure + share:
            unsure += 1
            continue
        harmed = 1.0 if kind == "failure" else float(rng.random() < harm)
        found += [Audit(f"q{i}", 0.0, "canary", kind, harmed, share=0.05, unsure=unsure)]
        unsure = 0
    return found


def test_failures_within_their_limit_are_no_harm_among_those_served() -> None:
    """Both claims hold (.30 x .08 + .02 = .044; .08), though .1375 of what was tried went wrong."""
    rng = np.random.default_rng(8)
    for _ in range(6):
        found = of_requests(rng, harm=0.08, failure=0.02, num=4_000)
        evidence = fold(found, WATCH)
        assert evidence.alarm_frac < 1.0
        assert evidence.step_asked == pytest.approx(4_000, abs=20)
        assert evidence.num_failures == evidence.step_failures
        assert evidence.num_judged + evidence.num_failures == len(found)
        mixed = [dataclasses.replace(one, kind="audit") for one in found]
        assert fold(mixed, WATCH).detector.mean_evidence > 10 * evidence.detector.mean_evidence


def test_rollback_comes_when_failures_rise() -> None:
    """Every fifth request fails: above the limit for all, though what is served is right."""
    found = of_requests(np.random.default_rng(9), harm=0.0, failure=0.2, num=400)
    assert "failures have risen above 5 %" in str(next_of(CANARY, found))
    assert "failures" in str(next_of(SERVED, audits(SERVED, [1.0] * 20, kind="failure")))


def failing_sessions(rng, failure: float, length: int, *, num: int) -> list[Audit]:
    """Sessions of which some fail from end to end; the others are answered well."""
    return [
        Audit(
            f"q{i}/{turn}", float(i), "canary", "failure" if fails else "audit", float(fails),
            share=0.05, unit=f"s{i}", seen_at=float(i) if turn else None,
        )
        for i, fails in enumerate((rng.random(num) < failure).tolist())
        for turn in range(length)
    ]  # fmt: skip


def test_failures_of_one_session_are_bet_on_once_a_day() -> None:
    """.03 of the sessions fail, of .05 allowed: each one alone would else raise the alarm."""
    rng = np.random.default_rng(10)
    for _ in range(10):
        found = failing_sessions(rng, 0.03, 10, num=200)
        assert not fold(found, WATCH).failures.is_alarmed
    loose = [dataclasses.replace(a, seen_at=None) for a in found]
    assert fold(loose, WATCH).failures.is_alarmed
    assert fold(found, WATCH).num_failures == fold(loose, WATCH).num_failures > 0
    days = [Audit(f"q{h}", 3600.0 * h, "canary", "failure", 1.0, unit="s",
                  seen_at=3600.0 * (h - 1) if h else None) for h in range(72)]  # fmt: skip
    assert fold(days, WATCH).failures.num_seen == 3


def test_five_units_that_fail_in_a_row_raise_an_alarm() -> None:
    failed = failing_sessions(np.random.default_rng(0), 1.0, 10, num=5)
    assert fold(failed, WATCH).failures.is_alarmed
    assert not fold(failed[:40], WATCH).failures.is_alarmed
    good = failing_sessions(np.random.default_rng(0), 0.0, 1, num=1_000)
    assert fold([*good, *failed], WATCH).failures.is_alarmed


def test_rollout_waits_while_failures_are_above_their_limit() -> None:
    shadow = first_standing("r1", "shadow")
    failed = audits(shadow, [1.0] * 5, kind="failure")
    good = audits(shadow, [0.0] * STEP_AUDITS, kind="shadow")
    assert next_of(shadow, good) == CANARY
    assert next_of(shadow, [*failed, *good]) is None
    assert next_of(shadow, audits(shadow, [1.0] * 500, kind="failure")) is None
    unsure = [dataclasses.replace(one, unsure=1) for one in good]
    assert next_of(shadow, [*failed, *unsure]) == CANARY


def test_audits_served_before_a_failure_are_not_lost() -> None:
    """They are steps of the detector with the next audit, or missed with it."""
    failure = Audit("a", 0.0, "served", "failure", 1.0, quiet=30)
    judged, missed = (Audit("b", 0.0, "served", "audit", h, 0.02, 9) for h in (0.0, MISSED))
    assert fold([failure, judged], WATCH).detector.num_seen == 40
    assert fold([failure, missed, judged], WATCH).detector.num_seen == 10
    assert fold([failure, missed, judged], WATCH).failures.num_seen == 51
