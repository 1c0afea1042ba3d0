"""What develop foretells of certifying."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ownweights.verdict import Claim, Subject
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.judged import ANSWERED, FAILED, Judged
from ownweights.verdict.ledger import Opened
from ownweights.verdict.preview import Preview, preview
from ownweights.verdict.statistics import attempt_delta
from tests.verdict.score_worlds import ALWAYS_WRONG, INFORMATIVE, USELESS, World

DELTA = attempt_delta(0.05, 1)


def rows(world: World, rng, n: int, split: str = "develop") -> list[Judged]:
    scores, harms = world.draw(rng, n)
    return [
        Judged(f"{split}{i}", f"{split}{i}", split, ANSWERED, float(s), float(h))
        for i, (s, h) in enumerate(zip(scores, harms, strict=True))
    ]


def would(n: int, *, k: int = 1, num_used: int = 0, verdict_id: str | None = None) -> Opened:
    """The attempt that a ledger would open."""
    units = frozenset(str(i) for i in range(n))
    return Opened(k, attempt_delta(0.05, k), units, num_used, verdict_id)


def seen(world: World, n: int, *, seed: int = 0, claim: Claim | None = None, **known) -> Preview:
    develop = rows(world, np.random.default_rng(seed), 400)
    return preview(claim or Claim(), develop, would(n, **known))


def test_preview_expects_what_then_comes() -> None:
    """Forty worlds: where a certificate was expected one comes, about as wide."""
    expected, found = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        develop = rows(INFORMATIVE, rng, 400)
        told = preview(Claim(), develop, would(600))
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
    units = few.needed.units
    assert units is not None and few.fewest < units
    assert few.needed.records == math.ceil((units - 40) / 0.08)
    assert f"about {few.needed.records:,} fresh requests bring those missing" in few.sentence()
    enough = seen(INFORMATIVE, units)
    assert enough.coverage_frac > 0.3
    assert enough.needed.units == units  # the rates and the attempt are the same
    assert "to expect: a certificate" in enough.sentence()
    assert f"on {units:,} certify units" in enough.sentence()
    assert "fresh requests" not in enough.sentence()


def test_preview_units_needed_suffice_nine_times_in_ten() -> None:
    """Certify like the develop that was seen: rows drawn from it with replacement."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        develop = rows(INFORMATIVE, rng, 400)
        units = preview(Claim(), develop, would(40)).needed.units
        assert units is not None
        drawn = rng.integers(0, 400, units)
        again = [
            Judged(f"c{i}", f"c{i}", "certify", ANSWERED, develop[j].score, develop[j].harm)
            for i, j in enumerate(drawn)
        ]
        found.append(certify(Claim(), Subject(), [*develop, *again], Spend(1, DELTA)).issued)
    assert np.mean(found) > 0.8  # 0.9 within three standard errors


def test_preview_counts_failures_against_the_student() -> None:
    develop = rows(INFORMATIVE, np.random.default_rng(0), 400)
    failed = [Judged(f"f{i}", f"f{i}", "develop", FAILED) for i in range(100)]
    told = preview(Claim(), [*develop, *failed], would(2_000))
    assert told.coverage_frac == 0.0
    assert told.num_answered == 400
    assert told.num_develop == 500


@pytest.mark.parametrize("claim", [Claim(), Claim(beta=0.02), Claim(paired=("C", "D"))])
@pytest.mark.parametrize("k", [1, 4])
def test_preview_blocks_only_what_no_outcome_certifies(claim: Claim, k: int) -> None:
    """One unit fewer than `fewest`, all perfect, is refused; with `fewest` it is certified."""
    develop = [Judged(f"d{i}", f"d{i}", "develop", ANSWERED, float(i), 0.0) for i in range(100)]
    least = preview(claim, develop, would(0, k=k)).fewest
    for n, is_possible in ((least - 1, False), (least, True)):
        told = preview(claim, develop, would(n, k=k))
        assert (told.blocked is None) is is_possible
        rest = [Judged(f"c{i}", f"c{i}", "certify", ANSWERED, 1000.0, 0.0) for i in range(n)]
        found = certify(claim, Subject(), [*develop, *rest], Spend(k, attempt_delta(0.05, k)))
        assert found.issued is is_possible


def test_preview_blocks_a_student_that_may_answer_nothing() -> None:
    mute = [Judged(f"d{i}", f"d{i}", "develop", ANSWERED, -math.inf, 0.0) for i in range(100)]
    told = preview(Claim(), mute, would(5_000))
    assert told.blocked is not None and "the strictest threshold needs 10.0%" in told.blocked
    assert "to expect: no outcome could certify: too few of the develop" in told.sentence()


def test_preview_leaves_claims_c_and_d_their_share_of_the_error() -> None:
    alone, beside = (seen(INFORMATIVE, 600, claim=Claim(paired=p)) for p in ((), ("C", "D")))
    assert alone.delta_spent == beside.delta_spent == DELTA
    assert alone.fewest < beside.fewest
    assert alone.needed.units is not None and beside.needed.units is not None
    assert alone.needed.units < beside.needed.units


def test_preview_says_what_was_judged_before() -> None:
    told = seen(INFORMATIVE, 600, k=2, verdict_id="abc").sentence()
    assert "attempt 2 has judged exactly this: verdict abc" in told
    assert "would spend" not in told


def test_preview_shows_where_develop_fails() -> None:
    develop = rows(INFORMATIVE, np.random.default_rng(0), 400)
    cut = [
        dataclasses.replace(row, slices={"k": "good" if row.harm == 0 else "bad"})
        for row in develop
    ]
    told = preview(Claim(), cut, would(600))
    assert [(one.value, one.is_failing) for one in told.slices] == [("bad", True), ("good", False)]


def test_preview_without_develop_or_certify() -> None:
    nothing = preview(Claim(), [], would(100))
    assert (nothing.coverage_frac, nothing.harm_frac) == (0.0, 0.0)
    unservable = [Judged("a", "a", "develop", ANSWERED, -math.inf, 0.0)]
    assert preview(Claim(), unservable, would(100)).coverage_frac == 0.0
