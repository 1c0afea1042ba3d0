"""The threshold for claim A alone: against testing every threshold, and in worlds of known risk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.verdict.statistics import (
    Limits,
    binomial_p_value,
    hoeffding_bentkus_p_value,
    walk_thresholds,
)
from ownweights.verdict.statistics.rcps import (
    Controlled,
    advisory_crc_threshold,
    binomial_upper,
    hoeffding_bentkus_upper,
    rcps_threshold,
)

ALPHA, DELTA = 0.05, 0.10
TRIALS = 1_000
GRID = np.linspace(0.99, 0.0, 100)
ROUNDING = 1e-9


def drawn(seed: int, n: int = 300, *, num_scores: int = 0):
    """Scores and harms of n units; `num_scores` makes ties."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n) if not num_scores else rng.integers(0, num_scores, n) / num_scores
    return scores, (rng.random(n) < 0.4 * (1 - scores) ** 2).astype(np.float64)


def brute_force(scores, harms, losses: float) -> float | None:
    """Every threshold t such that the bound at t, and at all above it, is within the limit."""

    def bound(threshold: float) -> float:
        k = int(harms[scores >= threshold].sum() + losses)
        return float(stats.beta.ppf(1 - DELTA, k + 1, len(scores) - k)) if k < len(scores) else 1.0

    bounds = {t: bound(t) for t in GRID}
    good = [t for t in GRID if all(bounds[u] <= ALPHA for u in GRID if u >= t)]
    return min(good) if good else None


def true_risk(threshold: float) -> float:
    """Of the world that is drawn: harm .4(1 - s)² at score s, uniform."""
    return 0.4 * (1 - threshold) ** 3 / 3


@pytest.mark.parametrize("num_scores", [0, 12])
@pytest.mark.parametrize("losses", [0, 4])
@pytest.mark.parametrize("seed", range(6))
def test_rcps_matches_brute_force(seed: int, losses: int, num_scores: int) -> None:
    scores, harms = drawn(seed, num_scores=num_scores)
    found = rcps_threshold(scores, harms, thresholds=GRID, alpha=ALPHA, delta=DELTA, losses=losses)
    assert (found.threshold if found else None) == brute_force(scores, harms, losses)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_rcps_matches_the_walk_without_claim_b(seed: int, graded: bool) -> None:
    scores, harms = drawn(seed)
    harms = harms * np.random.default_rng(seed).random(300) if graded else harms
    p_value = hoeffding_bentkus_p_value if graded else binomial_p_value

    def claim_a(harmed, n, limit):
        return p_value(harmed, n, limit) if limit == ALPHA else np.zeros(len(harmed))

    walk = walk_thresholds(GRID, scores, harms, Limits(ALPHA, 1.0, DELTA), test=claim_a)
    upper = hoeffding_bentkus_upper if graded else binomial_upper
    found = rcps_threshold(scores, harms, thresholds=GRID, alpha=ALPHA, delta=DELTA, upper=upper)
    assert walk.chosen is not None
    assert found is not None
    assert (found.threshold, found.n_served) == (walk.chosen.threshold, walk.chosen.n_served)


def test_rcps_says_what_was_counted() -> None:
    scores, harms = np.array([0.9, 0.8, 0.7, -np.inf]), np.array([0.0, 1.0, 0.0, 1.0])
    thresholds = np.array([0.85, 0.75])
    found = rcps_threshold(scores, harms, thresholds=thresholds, alpha=0.99, delta=0.2, losses=1.0)
    bound = stats.beta.ppf(0.8, 3, 2)
    assert found == Controlled(0.75, 4, 2, 1.0, 1.0, pytest.approx(bound, abs=ROUNDING))


def test_rcps_stops_before_the_first_bound_above_the_limit() -> None:
    scores, harms = np.linspace(1, 0, 400), np.zeros(400)
    harms[200:230] = 1.0
    found = rcps_threshold(scores, harms, thresholds=GRID, alpha=ALPHA, delta=DELTA)
    assert found is not None
    assert 0.4 < found.threshold < 0.5
    assert found.risk_upper <= ALPHA


def test_rcps_serves_all_without_harm_and_none_with_too_few() -> None:
    scores = np.linspace(1, 0, 100)
    found = rcps_threshold(scores, np.zeros(100), thresholds=GRID, alpha=ALPHA, delta=DELTA)
    assert found is not None
    assert found.threshold == GRID[-1]
    few, nothing = scores[:20], np.empty(0)
    for some in (few, nothing):
        harms = np.zeros(len(some))
        assert rcps_threshold(some, harms, thresholds=GRID, alpha=ALPHA, delta=DELTA) is None
    assert rcps_threshold(scores, scores, thresholds=nothing, alpha=ALPHA, delta=DELTA) is None


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_rcps_breaks_its_limit_within_delta(delta: float) -> None:
    broken = 0
    for seed in range(TRIALS):
        found = rcps_threshold(*drawn(seed, 400), thresholds=GRID, alpha=ALPHA, delta=delta)
        broken += found is not None and true_risk(found.threshold) > ALPHA
    assert broken / TRIALS <= delta + 3 * math.sqrt(delta * (1 - delta) / TRIALS)


def test_rcps_breaks_its_limit_within_delta_in_the_least_favourable_world() -> None:
    """A risk that is nothing, then a hair above the limit at once."""
    broken, rng = 0, np.random.default_rng(1)
    for _ in range(TRIALS):
        scores = rng.random(300)
        harms = ((scores < 0.5) & (scores >= 0.4) & (rng.random(300) < 0.501)).astype(np.float64)
        found = rcps_threshold(
            scores, harms, thresholds=np.array([0.5, 0.4]), alpha=ALPHA, delta=DELTA
        )
        broken += found is not None and found.threshold == 0.4
    assert 0 < broken / TRIALS <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / TRIALS)


@pytest.mark.parametrize("seed", range(8))
def test_advisory_crc_matches_brute_force(seed: int) -> None:
    scores, harms = drawn(seed, 120, num_scores=0 if seed % 2 else 15)
    risks = [harms[scores >= t].sum() / 120 for t in GRID]
    good = [t for t, r in zip(GRID, risks, strict=True) if (120 * r + 1) / 121 <= ALPHA]
    found = advisory_crc_threshold(scores, harms, thresholds=GRID, alpha=ALPHA)
    assert found == (min(good) if good else None)


def test_advisory_crc_keeps_its_limit_on_average_only() -> None:
    """The mean risk is within the limit; single draws break it more often than a bound would."""
    found = [
        advisory_crc_threshold(*drawn(seed, 200), thresholds=GRID, alpha=ALPHA)
        for seed in range(TRIALS)
    ]
    deployed = np.array([0.0 if t is None else true_risk(t) for t in found])
    assert deployed.mean() <= ALPHA + 3 * deployed.std() / math.sqrt(TRIALS)
    assert (deployed > ALPHA).mean() > 0.2


@pytest.mark.parametrize("seed", range(5))
def test_advisory_crc_serves_at_least_what_is_proved(seed: int) -> None:
    scores, harms = drawn(seed)
    proved = rcps_threshold(scores, harms, thresholds=GRID, alpha=ALPHA, delta=DELTA, losses=2.0)
    advised = advisory_crc_threshold(scores, harms, thresholds=GRID, alpha=ALPHA, losses=2.0)
    assert proved is not None
    assert advised is not None
    assert advised <= proved.threshold


def test_advisory_crc_refuses_when_there_are_too_few() -> None:
    for n, served in ((0, False), (18, False), (19, True)):
        found = advisory_crc_threshold(np.ones(n), np.zeros(n), thresholds=GRID, alpha=ALPHA)
        assert (found is not None) == served


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.001, 0.5))
def test_hoeffding_bentkus_upper_always_inverts_its_p_value(
    n: int, mean: float, delta: float
) -> None:
    bound = hoeffding_bentkus_upper(mean * n, n, delta)
    assert mean <= bound + ROUNDING
    if bound < 1.0:
        assert float(hoeffding_bentkus_p_value(mean * n, n, bound)) <= delta + 1e-6
        lower = max(mean, bound - 1e-6)
        assert float(hoeffding_bentkus_p_value(mean * n, n, lower)) >= delta - 1e-6


def test_upper_bounds_of_nothing_are_one() -> None:
    assert hoeffding_bentkus_upper(0.0, 0, DELTA) == 1.0
    assert hoeffding_bentkus_upper(5.0, 5, DELTA) == 1.0
    assert hoeffding_bentkus_upper(0.5, 1, 1e-9) == 1.0
    assert binomial_upper(0.0, 0, DELTA) == 1.0


@given(st.integers(1, 200), st.data())
def test_hoeffding_bentkus_upper_is_never_below_the_exact(n: int, data: st.DataObject) -> None:
    harms = data.draw(st.integers(0, n))
    exact = binomial_upper(float(harms), n, DELTA)
    assert hoeffding_bentkus_upper(float(harms), n, DELTA) >= exact - ROUNDING


def test_rcps_refuses_what_breaks_its_proof() -> None:
    scores, harms = drawn(1)
    with pytest.raises(AssertionError, match="thresholds go from strict to loose"):
        rcps_threshold(scores, harms, thresholds=GRID[::-1], alpha=ALPHA, delta=DELTA)
    with pytest.raises(AssertionError, match=r"harms lie in \[0, 1\]"):
        rcps_threshold(scores, harms * 2, thresholds=GRID, alpha=ALPHA, delta=DELTA)
    with pytest.raises(AssertionError, match="harms that are not all 0 or 1 have another bound"):
        rcps_threshold(scores, harms * 0.3, thresholds=GRID[-1:], alpha=ALPHA, delta=DELTA)
