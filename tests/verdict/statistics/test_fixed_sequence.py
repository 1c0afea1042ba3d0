"""The walk from strict to loose against testing every threshold by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ownweights.verdict.statistics import (
    Limits,
    develop_thresholds,
    hoeffding_bentkus_p_value,
    start_of_walk,
    walk_thresholds,
)

LIMITS = Limits(0.05, 0.10, 0.05)


def drawn(seed: int, n: int = 200, *, num_scores: int = 0):
    """Scores and harms of n units; `num_scores` makes ties."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n) if not num_scores else rng.integers(0, num_scores, n) / num_scores
    harms = (rng.random(n) < 0.3 * (1 - scores) ** 2).astype(np.float64)
    return scores, harms


def brute_force(thresholds, scores, harms, limits, losses=0):
    """Every threshold, one by one, with scipy's binomtest; the last before the first failure."""
    chosen = None
    for threshold in thresholds:
        served = [h for s, h in zip(scores, harms, strict=True) if s >= threshold]
        p_all = stats.binom.cdf(sum(served) + losses, len(scores), limits.alpha)
        p_served = stats.binom.cdf(sum(served), len(served), limits.beta) if served else 1.0
        if max(p_all, p_served) > limits.delta:
            break
        chosen = threshold
    return chosen


@pytest.mark.parametrize("num_scores", [0, 12])
@pytest.mark.parametrize("losses", [0, 3])
@pytest.mark.parametrize("seed", range(15))
def test_walk_matches_brute_force(seed: int, losses: int, num_scores: int) -> None:
    thresholds = develop_thresholds(drawn(seed + 100, num_scores=num_scores)[0], 0.1)
    scores, harms = drawn(seed, num_scores=num_scores)
    walk = walk_thresholds(thresholds, scores, harms, LIMITS, losses=losses)
    found = walk.chosen.threshold if walk.chosen else None
    assert found == brute_force(thresholds, scores, harms, LIMITS, losses)


def test_walk_steps_say_what_was_counted() -> None:
    scores, harms = np.array([0.9, 0.8, 0.7, -np.inf]), np.array([0.0, 1.0, 0.0, 1.0])
    walk = walk_thresholds(np.array([0.75]), scores, harms, LIMITS, losses=2.0)
    (step,) = walk.steps
    assert (step.n, step.n_served, step.harms, step.losses) == (4, 2, 1.0, 2.0)
    assert step.p_all == pytest.approx(stats.binom.cdf(3, 4, 0.05))
    assert step.p_served == pytest.approx(stats.binom.cdf(1, 2, 0.10))
    assert step.p_value == max(step.p_all, step.p_served)


def test_walk_ends_with_the_first_failure() -> None:
    scores, harms = np.linspace(1, 0, 400), np.zeros(400)
    harms[200:260] = 1.0  # a stretch of harm in the middle
    thresholds = develop_thresholds(scores, 0.1)
    walk = walk_thresholds(thresholds, scores, harms, LIMITS)
    assert walk.chosen == walk.steps[-2]
    assert walk.steps[-1].p_value > LIMITS.delta
    assert all(step.p_value <= LIMITS.delta for step in walk.steps[:-1])


def test_walk_goes_to_the_end_without_harm() -> None:
    scores = np.linspace(1, 0, 300)
    walk = walk_thresholds(develop_thresholds(scores, 0.2), scores, np.zeros(300), LIMITS)
    assert walk.chosen is not None
    assert walk.chosen.n_served == 300
    assert walk.chosen == walk.steps[-1]


def test_walk_refuses_when_the_strictest_fails() -> None:
    scores = np.linspace(1, 0, 300)
    walk = walk_thresholds(develop_thresholds(scores, 0.1), scores, np.ones(300), LIMITS)
    assert walk.chosen is None
    assert len(walk.steps) == 1


def test_walk_without_thresholds_or_units_refuses() -> None:
    nothing = np.empty(0)
    assert walk_thresholds(nothing, nothing, nothing, LIMITS).steps == ()
    walk = walk_thresholds(np.array([0.5]), nothing, nothing, LIMITS)
    assert walk.chosen is None
    assert walk.steps[0].p_value == 1.0


def test_walk_needs_both_risks() -> None:
    """Claim A alone is met by serving few; B refuses, and losses alone make A refuse."""
    scores, harms = np.linspace(1, 0, 1000), np.zeros(1000)
    harms[:30] = 1.0  # 30 % of the first hundred, 3 % of all
    thresholds = develop_thresholds(scores, 0.1)
    first = walk_thresholds(thresholds, scores, harms, LIMITS).steps[0]
    assert first.p_all <= LIMITS.delta < first.p_served
    lossy = walk_thresholds(thresholds, scores, np.zeros(1000), LIMITS, losses=60.0).steps[0]
    assert lossy.p_served <= LIMITS.delta < lossy.p_all


def test_walk_takes_another_test() -> None:
    scores, harms = np.linspace(1, 0, 400), np.full(400, 0.01)
    walk = walk_thresholds(np.array([0.5]), scores, harms, LIMITS, test=hoeffding_bentkus_p_value)
    assert walk.chosen is not None
    assert walk.chosen.harms == pytest.approx(2.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=80), st.floats(0.01, 1.0))
@settings(max_examples=60)
def test_develop_thresholds_always_loosen_from_the_first(
    values: list[float], min_coverage_frac: float
) -> None:
    scores = np.array(values)
    found = develop_thresholds(scores, min_coverage_frac)
    accepted = [(scores >= threshold).mean() for threshold in found]
    assert accepted[0] >= min_coverage_frac - 1e-9
    assert accepted[-1] == 1.0
    assert all(np.diff(accepted) > 0)


def test_develop_thresholds_start_at_the_least_coverage() -> None:
    found = develop_thresholds(np.arange(1000) / 1000, 0.10)
    assert found[0] == pytest.approx(0.900)
    assert found[1] == pytest.approx(0.890)
    assert found[-1] == 0.0
    assert len(found) == 91


def test_develop_thresholds_never_reach_the_unservable() -> None:
    scores = np.array([-np.inf] * 6 + [0.1, 0.2, 0.3, 0.4])
    assert develop_thresholds(scores, 0.1).min() == 0.1
    assert develop_thresholds(scores, 0.5).size == 0
    assert develop_thresholds(np.empty(0), 0.5).size == 0


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("losses_frac", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_start_of_walk_matches_brute_force(seed: int, losses_frac: float, n: int) -> None:
    """scipy's incomplete beta for fractional counts, threshold by threshold."""
    scores, harms = drawn(seed, 400)
    thresholds = develop_thresholds(scores, 0.1)
    p_values = []
    for threshold in thresholds:
        is_served = scores >= threshold
        k, m = (harms[is_served].sum() + 0.5) * n / 400, is_served.sum() * n / 400
        every = stats.beta.sf(LIMITS.alpha, k + losses_frac * n + 1, n - k - losses_frac * n)
        served = stats.beta.sf(LIMITS.beta, k + 1, m - k) if k < m else 1.0
        p_values.append(max(every, served))
    safe = [j for j, p in enumerate(p_values) if p <= LIMITS.delta / 50]
    expected = safe[0] if safe else int(np.argmin(p_values))
    found = start_of_walk(thresholds, scores, harms, LIMITS, n=n, losses_frac=losses_frac)
    assert found == expected


def test_start_of_walk_is_the_strictest_where_any_would_do() -> None:
    scores = np.linspace(1, 0, 2_000)
    thresholds = develop_thresholds(scores, 0.1)
    assert start_of_walk(thresholds, scores, np.zeros(2_000), LIMITS, n=5_000) == 0


def test_start_of_walk_of_nothing_is_the_first() -> None:
    nothing = np.empty(0)
    assert start_of_walk(nothing, nothing, nothing, LIMITS, n=10) == 0
