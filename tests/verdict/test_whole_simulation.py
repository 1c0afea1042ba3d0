"""The whole procedure in simulation: tuning, thresholds, draw, walk and budget together.

A student's answers are drawn with token probabilities; the score is tuned on develop, as in a run,
and the truth at the deployed threshold is measured on many fresh requests.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from ownweights.core.chat import Completion, Features
from ownweights.verdict import Claim, Judged, Spend, Subject, certify, tune_confidence
from ownweights.verdict.ledger import MemoryLedger
from ownweights.verdict.statistics import Limits, develop_thresholds, walk_thresholds

CLAIM = Claim(min_coverage_frac=0.25)
SPEND = Spend(1, 0.05)


def draw(rng, n, *, harm_frac, telling):
    """n answers and their harms; harm shows in the probabilities by as much as `telling`."""
    harms = (rng.random(n) < harm_frac).astype(np.float64)
    found: list[Completion | None] = []
    for harm in harms:
        scale = 0.2 + telling * harm
        logprobs = -rng.gamma(2.0, scale, 6).astype(np.float32)
        margins = rng.gamma(2.0, 1.0, 6).astype(np.float32)
        features = Features(np.arange(6, dtype=np.int32), logprobs, margins)
        found.append(Completion("a", "stop", features=features))
    return found, harms


def verdict_of(rng, *, harm_frac, telling, n=400):
    """A tuned score and the verdict on fresh certify answers, and its truth on many more."""
    develop, develop_harms = draw(rng, 250, harm_frac=harm_frac, telling=telling)
    tuned = tune_confidence(develop, develop_harms, [f"u{i}" for i in range(250)])

    def scores(found):
        return [tuned.score(one.features, one.finish_reason, one.text) for one in found]

    certify_found, harms = draw(rng, n, harm_frac=harm_frac, telling=telling)
    rows = [
        Judged(f"{split}{i}", f"{split}{i}", split, score=score, harm=harm)
        for split, found, judged in (
            ("develop", develop, develop_harms), ("certify", certify_found, harms),
        )
        for i, (score, harm) in enumerate(zip(scores(found), judged, strict=True))
    ]  # fmt: skip
    verdict = certify(CLAIM, Subject("tickets"), rows, SPEND)
    if not verdict.issued:
        return verdict, False
    fresh, fresh_harms = draw(rng, 3000, harm_frac=harm_frac, telling=telling)
    served = np.array(scores(fresh)) >= verdict.threshold
    is_wrong = (fresh_harms * served).mean() > CLAIM.alpha or fresh_harms[
        served
    ].mean() > CLAIM.beta
    return verdict, bool(is_wrong)


@pytest.mark.parametrize(("harm_frac", "telling"), [(0.11, 0.0), (0.3, 0.0), (0.95, 1.0)])
def test_whole_procedure_refuses_students_without_merit(harm_frac: float, telling: float) -> None:
    rng = np.random.default_rng(21)
    issued = [verdict_of(rng, harm_frac=harm_frac, telling=telling)[0].issued for _ in range(20)]
    assert np.mean(issued) <= SPEND.delta + 3 * math.sqrt(SPEND.delta * (1 - SPEND.delta) / 20)


def test_whole_procedure_certifies_a_student_that_knows_what_it_knows() -> None:
    rng = np.random.default_rng(22)
    found = [verdict_of(rng, harm_frac=0.2, telling=0.8) for _ in range(12)]
    assert np.mean([verdict.issued for verdict, _ in found]) > 0.9
    assert np.mean([verdict.coverage_frac for verdict, _ in found]) > 0.5
    assert sum(is_wrong for _, is_wrong in found) <= 2


def first_issued(rng, *, is_careless, num_students=10, n=300):
    """Whether any of many students, each just above the limit, gets a certificate.

    The careless spend all of δ on every student; the honest book each with units of its own.
    """
    ledger = MemoryLedger()
    for student in range(num_students):
        opened = ledger.open("tickets", {"student": student}, [f"unit of {student}"], 0.05)
        limits = Limits(0.05, 0.10, 0.05 if is_careless else opened.delta_spent)
        thresholds = develop_thresholds(rng.random(250), 0.25, step_frac=0.05)
        harms = (rng.random(n) < 0.1001).astype(np.float64)
        if walk_thresholds(thresholds, rng.random(n), harms, limits).chosen:
            return True
    return False


def test_budget_holds_where_trying_again_does_not() -> None:
    """Ten tries at full δ give a wrong certificate often; by the ledger the promise holds."""
    rng, trials = np.random.default_rng(23), 300
    careless = np.mean([first_issued(rng, is_careless=True) for _ in range(trials)])
    honest = np.mean([first_issued(rng, is_careless=False) for _ in range(trials)])
    assert careless > 3 * 0.05
    assert honest <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
