"""What develop foretells of certifying."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ownweights.verdict import Claim, Subject
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.judged import ANSWERED, FAILED, Judged
from ownweights.verdict.preview import preview
from ownweights.verdict.statistics import attempt_delta
from tests.verdict.score_worlds import ALWAYS_WRONG, INFORMATIVE, USELESS, World

DELTA = attempt_delta(0.05, 1)


def rows(world: World, rng, n: int, split: str = "develop") -> list[Judged]:
    scores, harms = world.draw(rng, n)
    return [
        Judged(f"{split}{i}", f"{split}{i}", split, ANSWERED, float(s), float(h))
        for i, (s, h) in enumerate(zip(scores, harms, strict=True))
    ]


def seen(world: World, n: int, *, seed: int = 0, **known):
    develop = rows(world, np.random.default_rng(seed), 400)
    return preview(Claim(), develop, n=n, attempt=1, delta_spent=DELTA, **known)


def test_preview_expects_what_then_comes() -> None:
    """Forty worlds: where a certificate was expected one comes, about as wide."""
    expected, found = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        develop = rows(INFORMATIVE, rng, 400)
        told = preview(Claim(), develop, n=600, attempt=1, delta_spent=DELTA)
        rest = rows(INFORMATIVE, rng, 600, "certify")
        verdict = certify(Claim(), Subject(), [*develop, *rest], Spend(1, DELTA))
        expected.append(told.coverage_frac)
        found.append(verdict.coverage_frac)
    assert np.mean(np.array(expected) > 0) > 0.9
    assert np.mean(np.array(found) > 0) > 0.85
    assert np.mean(expected) == pytest.approx(np.mean(found), abs=0.06)


@pytest.mark.parametrize("world", [USELESS, ALWAYS_WRONG])
def test_preview_expects_a_refusal_where_no_number_helps(world: World) -> None:
    told = seen(world, 5_000)
    assert told.coverage_frac == 0.0
    assert told.needed.units is None
    assert "no number of examples would certify that" in told.needed.reason
    assert "to expect: a refusal" in told.sentence()


def test_preview_says_how_many_units_are_needed() -> None:
    few = seen(INFORMATIVE, 40)
    assert few.coverage_frac == 0.0
    assert few.needed.units is not None
    enough = seen(INFORMATIVE, 20 * few.needed.units)
    assert enough.coverage_frac > 0.3
    assert "to expect: a certificate" in enough.sentence()
    assert f"on {20 * few.needed.units:,} certify units" in enough.sentence()


def test_preview_counts_failures_against_the_student() -> None:
    develop = rows(INFORMATIVE, np.random.default_rng(0), 400)
    failed = [Judged(f"f{i}", f"f{i}", "develop", FAILED) for i in range(100)]
    told = preview(Claim(), [*develop, *failed], n=2_000, attempt=1, delta_spent=DELTA)
    assert told.coverage_frac == 0.0
    assert told.num_answered == 400
    assert told.num_develop == 500


def test_preview_without_develop_or_certify() -> None:
    nothing = preview(Claim(), [], n=100, attempt=1, delta_spent=DELTA)
    assert (nothing.coverage_frac, nothing.harm_frac) == (0.0, 0.0)
    unservable = [Judged("a", "a", "develop", ANSWERED, -math.inf, 0.0)]
    assert preview(Claim(), unservable, n=100, attempt=1, delta_spent=DELTA).coverage_frac == 0.0
    assert "fresh traffic" in seen(INFORMATIVE, 0, num_used=10).sentence()
