"""The mean of grouped requests: against scipy, by hand, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ownweights.verdict.statistics.clusters import ratio_interval, share_interval

NUM_TRIALS = 1500


def test_ratio_interval_matches_ttest() -> None:
    """One request a group: the interval of a mean, as scipy has it."""
    values = np.random.default_rng(1).gamma(2.0, size=40)
    found = ratio_interval(values, np.ones(40), level=0.9)
    known = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(known.low), pytest.approx(known.high))


def test_ratio_interval_matches_a_sum_by_hand() -> None:
    """Sums 6, 1 and 3 of 3, 1 and 1 requests: mean 2, residuals 0, -1 and 1."""
    found = ratio_interval([6.0, 1.0, 3.0], [3, 1, 1])
    error = math.sqrt(2.0 * 3 / 2) / 5
    assert found.value == 2.0
    assert found.low == pytest.approx(2.0 - stats.t.ppf(0.975, 2) * error)
    assert found.high == pytest.approx(2.0 + stats.t.ppf(0.975, 2) * error)


def test_ratio_interval_of_one_group_has_no_bounds() -> None:
    assert ratio_interval([4.0], [2]) == (2.0, None, None)


def test_ratio_interval_covers_in_simulation() -> None:
    """Requests of one session alike, sessions of unequal length: naive intervals are too short."""
    rng, hits, naive = np.random.default_rng(2), 0, 0
    for _ in range(NUM_TRIALS):
        counts = 1 + rng.poisson(4, size=60)
        sums = counts * rng.normal(
            1.0, 1.0, size=60
        )  # every request of a session is worth the same
        found = ratio_interval(sums, counts)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1.0 <= found.high
        alone = stats.ttest_1samp(np.repeat(sums / counts, counts), 0.0).confidence_interval(0.95)
        naive += alone.low <= 1.0 <= alone.high
    assert hits / NUM_TRIALS == pytest.approx(0.95, abs=0.02)
    assert naive / NUM_TRIALS < 0.8


def test_share_interval_matches_clopper_pearson() -> None:
    """One request a group, or groups of one size that are all alike: as scipy has it for groups."""
    known = stats.binomtest(38, 40).proportion_ci(0.9, "exact")
    hits = np.repeat([1.0, 0.0], [38, 2])
    for size in (1, 7):
        found = share_interval(size * hits, np.full(40, size), level=0.9)
        assert found.value == pytest.approx(0.95)
        assert (found.low, found.high) == (pytest.approx(known.low), pytest.approx(known.high))


def test_share_interval_of_all_or_nothing_is_as_sure_as_its_units() -> None:
    known = stats.binomtest(40, 40).proportion_ci(0.95, "exact")
    every = share_interval(np.full(40, 3.0), np.full(40, 3))
    assert every == (1.0, pytest.approx(known.low), 1.0)
    none = share_interval(np.zeros(40), np.full(40, 3))
    assert none == (0.0, 0.0, pytest.approx(1.0 - known.low))
    assert share_interval([2.0], [2]) == (1.0, pytest.approx(0.025), 1.0)


@pytest.mark.parametrize("served", [0.8, 0.98])
def test_share_interval_covers_heavy_groups(served: float) -> None:
    """A few groups hold most requests: the spread alone covers in three of four cases, or less."""
    rng, hits, naive = np.random.default_rng(3), 0, 0
    for _ in range(NUM_TRIALS):
        counts = np.minimum(rng.zipf(1.7, 300), 2_000)
        sums = counts * (rng.random(300) < served)
        found, alone = share_interval(sums, counts), ratio_interval(sums, counts)
        assert found.low is not None and found.high is not None
        assert alone.low is not None and alone.high is not None
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
        hits += found.low <= served <= found.high
        naive += alone.low <= served <= alone.high
    assert hits / NUM_TRIALS >= 0.94
    assert naive / NUM_TRIALS < 0.8
