"""Whatever the score is made of, a certificate is wrong as seldom as it says: by simulation.

The worlds are those in which a gate can go wrong: states that say nothing and
are learned by heart, and states that tell.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from ownweights.verdict import Claim, Judged, Spend, Subject, certify
from ownweights.verdict.confidence.tune import Wanted, tune
from tests.verdict.confidence.state_worlds import answers, draw_states, features, units

CLAIM = Claim(min_coverage_frac=0.25)
SPEND = Spend(1, 0.05)
TRIALS = 80


def verdict_of(rng, harm_of, *, num_develop: int = 100, num_certify: int = 300):
    """A gate tuned on develop, the verdict on certify, and whether it is untrue."""

    def draw(n: int):
        states = draw_states(rng, n)
        return states, (rng.random(n) < harm_of(states)).astype(np.float64)

    states, harms = draw(num_develop)
    asked = answers(-rng.gamma(2.0, 1.0, num_develop), states)
    tuned = tune(asked, harms, units(num_develop), Wanted("text", 0.25, streaming=True))

    def scores(found) -> list[float]:
        return [tuned.confidence.score_before(features(-1.0, state)) for state in found]

    certified, certify_harms = draw(num_certify)
    rows = [
        Judged(f"{split}{i}", f"{split}{i}", split, score=score, harm=harm)
        for split, told, seen in (
            ("develop", tuned.develop_scores.tolist(), harms),
            ("certify", scores(certified), certify_harms),
        )
        for i, (score, harm) in enumerate(zip(told, seen.tolist(), strict=True))
    ]
    verdict = certify(CLAIM, Subject("tickets"), rows, SPEND)
    if verdict.threshold is None:
        return verdict, False
    fresh = draw_states(rng, 5000)
    served, risk = np.array(scores(fresh)) >= verdict.threshold, harm_of(fresh)
    return verdict, bool((risk * served).mean() > CLAIM.alpha or risk[served].mean() > CLAIM.beta)


def test_certificates_hold_where_a_gate_only_learned_by_heart() -> None:
    """Harm a hair above the limit whatever the state: any certificate at all is wrong."""
    rng = np.random.default_rng(31)
    found = [verdict_of(rng, lambda states: np.full(len(states), 0.1001)) for _ in range(TRIALS)]
    assert all(is_wrong == verdict.issued for verdict, is_wrong in found)
    limit = SPEND.delta + 3 * math.sqrt(SPEND.delta * (1 - SPEND.delta) / TRIALS)
    assert np.mean([is_wrong for _, is_wrong in found]) <= limit


@pytest.mark.parametrize("num_develop", [60, 300])
def test_certificates_of_a_telling_gate_hold_and_are_had(num_develop: int) -> None:
    rng, width = np.random.default_rng(32), 24
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]

    def harm_of(states: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(3.0 - 4.0 * (states - 5.0) @ turn[0]))

    found = [
        verdict_of(rng, harm_of, num_develop=num_develop, num_certify=500)
        for _ in range(TRIALS // 4)
    ]
    assert np.mean([verdict.issued for verdict, _ in found]) >= 0.7
    assert sum(is_wrong for _, is_wrong in found) <= 3
