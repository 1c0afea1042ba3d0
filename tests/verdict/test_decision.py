"""The decision: what counts against the student, and what a refusal says."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.verdict import Claim, Judged, Spend, Subject, certify
from ownweights.verdict.certificate import ByRequest, request_warnings
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE
from ownweights.verdict.statistics import attempt_delta, served_without_harm
from ownweights.verdict.statistics.clusters import share_interval

SUBJECT = Subject("tickets", "s1", "d1", "json", teachers=("rented-1",), units_per_record=0.08)
SPEND = Spend(1, attempt_delta(0.05, 1))


def judged(
    split: str, harms: Sequence[float | None], *, status: str = ANSWERED, prefix: str = ""
) -> list[Judged]:
    """One unit a row in a hundred steps, surest first; unservable where it was not answered."""
    is_answered = status == ANSWERED
    return [
        Judged(
            f"{prefix}{split}{i}", f"{prefix}{split}{i}", split, status,
            -(100 * i // len(harms)) / 100 if is_answered else -math.inf,
            harm if is_answered else None,
        )
        for i, harm in enumerate(harms)
    ]  # fmt: skip


def rows(certify_harms: Sequence[float | None], num_develop: int = 300) -> list[Judged]:
    return judged("develop", [0.0] * num_develop) + judged("certify", certify_harms)


def mixed(n: int, harm_every: int) -> list[float | None]:
    return [float(i % harm_every == 0) for i in range(n)]


def test_certify_issues_what_is_proved() -> None:
    found = certify(Claim(), SUBJECT, rows(mixed(1000, 50)), SPEND)
    assert found.issued
    assert (found.n, found.n_served, found.harms) == (1000, 1000, 20.0)
    assert found.coverage_frac == 1.0
    assert found.coverage_low == pytest.approx(0.025 ** (1 / 1000))
    assert found.threshold is not None
    assert found.p_all <= SPEND.delta
    assert (found.reasons, found.needed) == ((), None)
    assert found.method.startswith("fixed-sequence Learn-Then-Test")
    assert "exact binomial" in found.method


def test_certify_spends_the_first_attempt_by_default() -> None:
    found = certify(Claim(), SUBJECT, rows(mixed(1000, 50)))
    assert (found.attempt, found.delta_spent) == (1, attempt_delta(0.05, 1))


def test_certify_later_attempts_must_prove_more() -> None:
    harms = [float(i % 30 == 0) for i in range(1000)]  # 3 % of what is served
    first = certify(Claim(alpha=0.9), SUBJECT, rows(harms), SPEND)
    fifth = certify(Claim(alpha=0.9), SUBJECT, rows(harms), Spend(50, attempt_delta(0.05, 50)))
    assert first.issued
    assert not fifth.issued
    assert "attempt 50, which spends 1.216e-05" in " ".join(fifth.assumptions)


def test_certify_counts_unjudged_as_harm() -> None:
    """Nobody could judge them: the verdict is the one of a student that did harm there."""
    harms = mixed(600, 20)
    unjudged = [None if harm else 0.0 for harm in harms]
    found, harmed = (certify(Claim(), SUBJECT, rows(h), SPEND) for h in (unjudged, harms))
    assert (found.issued, found.threshold, found.harms) == (
        harmed.issued, harmed.threshold, harmed.harms,
    )  # fmt: skip
    assert found.unjudged == 30
    all_unjudged = certify(Claim(), SUBJECT, rows([None] * 600), SPEND)
    assert not all_unjudged.issued
    assert "600 answers could not be judged and count as harm" in all_unjudged.reasons


def test_certify_counts_failures_among_all_and_never_as_served() -> None:
    failed = judged("certify", [None] * 60, status=FAILED, prefix="x")
    found = certify(Claim(), SUBJECT, [*rows([0.0] * 1000), *failed], SPEND)
    assert not found.issued  # 60 of 1,060 is no proof of at most 5 %
    assert (found.losses, found.n) == (60, 1060)
    assert found.n_served == 110
    assert "60 requests ended in an error or time-out and count as harm" in found.reasons
    few = certify(Claim(), SUBJECT, [*rows([0.0] * 1000), *failed[:20]], SPEND)
    assert few.issued
    assert few.coverage_frac == pytest.approx(1000 / 1020)


def test_certify_leaves_ineligible_requests_to_the_teacher() -> None:
    theirs = judged("certify", [None] * 500, status=INELIGIBLE, prefix="x")
    found = certify(Claim(), SUBJECT, [*rows([0.0] * 500), *theirs], SPEND)
    assert found.issued
    assert (found.ineligible, found.coverage_frac) == (500, 0.5)


def test_certify_takes_one_request_a_unit() -> None:
    """Ten like requests a unit are one piece of evidence."""
    few = [
        Judged(f"{unit}-{i}", f"unit {unit}", "certify", ANSWERED, 0.0, 0.0)
        for unit in range(20)
        for i in range(10)
    ]
    found = certify(Claim(), SUBJECT, [*judged("develop", [0.0] * 50), *few], SPEND)
    assert (found.issued, found.n) == (False, 20)


def test_certify_counts_units_and_says_what_requests_show() -> None:
    """600 prompts asked once, 2 wrong; 8 asked fifty times, 5 of them wrong: by request 25.2 %."""
    once = [
        Judged(f"o{i}", f"once {i}", "certify", ANSWERED, 0.0, float(i < 2)) for i in range(600)
    ]
    often = [
        Judged(f"m{i}-{k}", f"often {i}", "certify", ANSWERED, 0.0, float(i < 5))
        for i in range(8)
        for k in range(50)
    ]
    found = certify(Claim(), SUBJECT, [*judged("develop", [0.0] * 300), *once, *often], SPEND)
    assert (found.issued, found.n, found.harms) == (True, 608, 7.0)
    by = found.by_request
    assert by is not None
    assert (by.n, by.n_served, by.harms, by.losses) == (1000, 1000, 252.0, 0)
    least = 0.025 ** (1 / (1000**2 / (600 + 8 * 50**2)))  # all served: as few draws as units allow
    assert (by.coverage_low, by.coverage_high) == (pytest.approx(least), 1.0)
    assert by.harm_all_frac == by.harm_served_frac == 0.252
    every, served = request_warnings(found)
    assert "25.2 % of all requests came to harm, more than 5 %" in every
    assert "25.2 % of those served came to harm, more than 10 %" in served
    alone = certify(Claim(), SUBJECT, [*judged("develop", [0.0] * 300), *once], SPEND)
    assert request_warnings(alone) == []


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_certify_by_request_matches_its_own_count(seed: int) -> None:
    """At the deployed threshold, over all certify rows, whatever became of them."""
    rng = np.random.default_rng(seed)
    known = judged("develop", [0.0] * 100)
    for i in range(600):
        status = str(rng.choice([ANSWERED, FAILED, INELIGIBLE], p=[0.97, 0.01, 0.02]))
        done = status == ANSWERED
        harm = None if rng.random() < 0.01 or not done else float(rng.random() < 0.01)
        score = -float(rng.random()) if done else -math.inf
        known.append(Judged(f"c{i}", f"u{i % 450}", "certify", status, score, harm))
    found = certify(Claim(), SUBJECT, known, SPEND)
    asked = [row for row in known if row.split == "certify"]
    if found.threshold is not None:
        served = [r for r in asked if r.score >= found.threshold and r.status == ANSWERED]
        harms = sum(1.0 if r.harm is None else r.harm for r in served)
        failed = sum(r.status == FAILED for r in asked)
        num = Counter(r.unit for r in asked)
        hits = [sum(r.unit == unit for r in served) for unit in sorted(num)]
        _, low, high = share_interval(hits, [num[unit] for unit in sorted(num)])
        assert found.by_request == ByRequest(600, len(served), harms, failed, low, high)


def test_certify_says_what_later_attempts_leave_out() -> None:
    later = Spend(2, attempt_delta(0.05, 2), num_used=17)
    first, second = (certify(Claim(), SUBJECT, rows([0.0] * 500), s) for s in (SPEND, later))
    words = "17 certify units that earlier attempts had seen are left out"
    assert words in " ".join(second.assumptions)
    assert "are left out" not in " ".join(first.assumptions)


def test_certify_ignores_develop_harm_and_certify_scores_of_develop() -> None:
    """Develop says where to begin; how far to go, certify alone."""
    good, bad = judged("develop", [0.0] * 300), judged("develop", [1.0] * 300)
    certify_rows = judged("certify", mixed(800, 40))
    found = [certify(Claim(), SUBJECT, [*d, *certify_rows], SPEND) for d in (good, bad)]
    assert found[0].calibration != found[1].calibration  # what develop predicts is shown, no more
    shown = [dataclasses.replace(one, calibration=()) for one in found]
    assert shown[0] == shown[1]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_certify_always_gives_the_same_verdict_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = rows([float(x) for x in rng.random(300) < 0.03], num_develop=100)
    mixed_up = [known[i] for i in rng.permutation(len(known))]
    assert certify(Claim(), SUBJECT, known) == certify(Claim(), SUBJECT, mixed_up)


@given(st.integers(0, 10_000), st.sampled_from(["harm", "unjudge", "fail"]))
@settings(max_examples=25, deadline=None)
def test_certify_always_covers_less_when_one_answer_gets_worse(seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    known = rows([float(x) for x in rng.random(400) < 0.05], num_develop=100)
    index = 100 + int(rng.integers(400))
    worse = {
        "harm": dataclasses.replace(known[index], harm=1.0),
        "unjudge": dataclasses.replace(known[index], harm=None),
        "fail": dataclasses.replace(known[index], status=FAILED, score=-math.inf, harm=None),
    }[how]
    before = certify(Claim(), SUBJECT, known, SPEND)
    after = certify(Claim(), SUBJECT, [*known[:index], worse, *known[index + 1 :]], SPEND)
    if how == "fail" and known[index].harm == 1.0:
        return  # it did harm before: now the teacher answers it
    assert after.coverage_frac <= before.coverage_frac


def test_refusal_for_too_few_units_says_how_many() -> None:
    found = certify(Claim(), SUBJECT, rows([0.0] * 3, num_develop=20), SPEND)
    need = served_without_harm(0.10, SPEND.delta)
    assert found.reasons == (
        "too few independent units: certify holds 3, 2 of them served at the first threshold,"
        f" which needs at least {need} served without a harm",
    )
    assert found.needed is not None
    assert found.needed.units is not None
    assert found.needed.records == math.ceil(found.needed.units / 0.08)
    assert not found.issued
    assert found.threshold is None
    assert found.coverage_frac == 0.0


def test_refusal_for_too_few_in_all() -> None:
    found = certify(Claim(min_coverage_frac=0.9), SUBJECT, rows([0.0] * 50), SPEND)
    need = served_without_harm(0.05, SPEND.delta)
    assert found.reasons == (
        "too few independent units: certify holds 50, and the claim about all requests needs at"
        f" least {need}",
    )


def test_refusal_for_harm_says_both_rates() -> None:
    found = certify(Claim(), SUBJECT, rows([1.0] * 500), SPEND)
    served, every = found.reasons
    assert served.startswith("90 of the 90 served at the first threshold came to harm")
    assert "at most 10.0% (p = 1 > 0.0304)" in served
    assert every.startswith("90 of all 500 came to harm at the first threshold")
    assert found.needed is not None
    assert found.needed.units is None


def test_refusal_when_hardly_anything_may_be_served() -> None:
    develop = judged("develop", [0.0] * 5) + [
        Judged(f"d{i}", f"d{i}", "develop", ANSWERED, -math.inf, 1.0) for i in range(95)
    ]
    found = certify(Claim(), SUBJECT, [*develop, *judged("certify", [0.0] * 500)], SPEND)
    assert found.reasons == (
        "only 5.0% of the develop requests got an answer that may be served; the strictest"
        " threshold needs 10.0%",
    )
    assert (found.n, found.n_served) == (500, 0)
    assert found.needed is not None
    assert "a better student is needed" in found.needed.reason


def test_refusal_without_develop() -> None:
    found = certify(Claim(), SUBJECT, judged("certify", [0.0] * 500), SPEND)
    assert found.reasons == ("the dataset holds no develop requests to tune thresholds on",)


def test_refusal_without_anything() -> None:
    found = certify(Claim(), SUBJECT, [], SPEND)
    assert (found.issued, found.n) == (False, 0)
    assert found.reasons


def test_refusal_for_used_units_asks_for_fresh_traffic() -> None:
    spend = Spend(2, attempt_delta(0.05, 2), num_used=400)
    found = certify(Claim(), SUBJECT, judged("develop", [0.0] * 100), spend)
    assert found.reasons[0] == (
        "400 certify units were used by earlier attempts on this workload and cannot be used"
        " again: fresh traffic is needed"
    )
    assert "certify holds 0" in found.reasons[1]
    assert found.num_used == 400


def test_refusal_needs_what_then_certifies() -> None:
    """The examples asked for are enough, most of the time: at the rates that were seen."""
    rng, claim = np.random.default_rng(11), Claim()
    first = certify(claim, SUBJECT, rows(mixed(200, 25)), SPEND)
    assert not first.issued
    assert first.needed is not None
    assert first.needed.units is not None
    spend = Spend(2, attempt_delta(claim.delta, 2))
    issued = [
        certify(
            claim, SUBJECT,
            judged("develop", mixed(300, 50))
            + judged("certify", [float(x) for x in rng.random(first.needed.units) < 0.02]), spend,
        ).issued
        for _ in range(60)
    ]  # fmt: skip
    assert np.mean(issued) > 0.75


def test_certify_refuses_graded_harm_that_nobody_announced() -> None:
    with pytest.raises(InputError, match="check 'json' says harms other than 0 or 1") as info:
        certify(Claim(), SUBJECT, rows([0.5] * 100), SPEND)
    assert "must say that it is_graded" in str(info.value.hint)
    graded = dataclasses.replace(SUBJECT, is_graded=True)
    with pytest.raises(InputError, match="other than from 0 to 1"):
        certify(Claim(), graded, rows([1.5] * 100), SPEND)


def test_certify_of_graded_harm_uses_the_wider_bound() -> None:
    graded = dataclasses.replace(SUBJECT, is_graded=True)
    found = certify(Claim(), graded, rows([0.01] * 800), SPEND)
    assert found.issued
    assert "Hoeffding-Bentkus" in found.method
    exact, wide = (certify(Claim(), s, rows(mixed(300, 25)), SPEND) for s in (SUBJECT, graded))
    assert wide.p_served >= exact.p_served


def test_verdict_names_what_it_rests_on() -> None:
    subject = dataclasses.replace(SUBJECT, period=(0.0, 1.0), unanswered=12, split_by="session")
    found = certify(Claim(), subject, rows(mixed(1000, 50)), SPEND)
    words = " ".join(found.assumptions)
    for part in (
        "one recorded period", "12 of the recorded certify requests have no answer",
        "units (by session) are independent",
        "rates are those of requests drawn one from each session, however many",
        "relative to the teacher, not to the truth",
        "attempt 1, which spends 0.0304", "an error or time-out counts as harm",
    ):  # fmt: skip
        assert part in words
    assert any("rented-1" in one for one in found.expires)


def judged_by(**known: int) -> Subject:
    agreement = {
        "labelled": 90, "missed_high": 0.04, "kappa": None,
        "confusion": {"true_yes": 5, "false_no": 1, "true_no": 84, "false_yes": 0}, **known,
    }  # fmt: skip
    names = ("self", "copy", "padded", "constant", "injection")
    probes = [{"name": n, "asked": 40, "readable": 40, "errors": 0} for n in names]
    judge = {"model": "judge-9", "name": "jury", "probes": probes, "agreement": agreement}
    return dataclasses.replace(SUBJECT, check="judge", judge=judge)


def test_certify_divides_what_the_judge_misses_by_coverage() -> None:
    """Missed in 4 % of all: among the quarter that is served it may be a sixth."""
    theirs = [
        row
        for split, num in (("develop", 900), ("certify", 750))
        for row in judged(split, [None] * num, status=INELIGIBLE, prefix="x")
    ]
    found = certify(Claim(), judged_by(unsaid=10), [*rows([0.0] * 250), *theirs], SPEND)
    assert found.issued and found.coverage_frac == 0.25
    (line,) = (one for one in found.assumptions if "misses harm" in one)
    low = found.coverage_low
    for part in (
        "at most 4.0% of all answers (from 100 labels by people; where they could not say",
        "an error of its own beside that of the claim): by so much more than the claim says",
        f"those served by up to {0.04 / low:.1%}, if they are {low:.1%} of all or more, which is",
    ):
        assert part in line
    refused = certify(Claim(), judged_by(), rows([1.0] * 300), SPEND)
    (line,) = (one for one in refused.assumptions if "misses harm" in one)
    assert line.endswith("may people find worse among all") and "from 90 labels" in line
