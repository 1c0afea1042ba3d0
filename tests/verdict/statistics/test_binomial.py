"""Binomial evidence against scipy's own exact test, and by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.verdict.statistics import (
    binomial_p_value,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
)

EXACT = 1e-9  # two correct incomplete beta functions differ by rounding alone
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
rates = st.floats(0.001, 0.999)


@given(counts, rates)
def test_binomial_p_value_matches_binomtest(count: tuple[int, int], limit: float) -> None:
    k, n = count
    expected = stats.binomtest(k, n, limit, alternative="less").pvalue
    assert float(binomial_p_value(k, n, limit)) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_binomial_p_value_takes_arrays() -> None:
    found = binomial_p_value([0, 1, 2], [2, 2, 2], 0.5)
    assert found == pytest.approx([0.25, 0.75, 1.0], abs=EXACT)


def test_binomial_p_value_of_nothing_proves_nothing() -> None:
    assert float(binomial_p_value(0, 0, 0.1)) == 1.0


@given(counts, st.floats(0.001, 0.5))
def test_clopper_pearson_matches_binomtest(count: tuple[int, int], delta: float) -> None:
    k, n = count
    upper = stats.binomtest(k, n, alternative="less").proportion_ci(1 - delta, "exact").high
    lower = stats.binomtest(k, n, alternative="greater").proportion_ci(1 - delta, "exact").low
    assert clopper_pearson_upper(k, n, delta) == pytest.approx(upper, abs=1e-8)
    assert clopper_pearson_lower(k, n, delta) == pytest.approx(lower, abs=1e-8)


@given(counts, rates, st.floats(0.001, 0.5))
def test_clopper_pearson_always_agrees_with_the_p_value(
    count: tuple[int, int], limit: float, delta: float
) -> None:
    """A limit is proved exactly when the upper bound is below it."""
    k, n = count
    p, bound = float(binomial_p_value(k, n, limit)), clopper_pearson_upper(k, n, delta)
    if abs(p - delta) > EXACT and abs(bound - limit) > EXACT:
        assert (p <= delta) == (bound <= limit)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_clopper_pearson_interval_covers_at_least_95_percent(rate: float) -> None:
    """Coverage by enumerating every outcome of 60 trials."""
    n = 60
    covered = 0.0
    for k in range(n + 1):
        low, high = clopper_pearson_interval(k, n, 0.05)
        covered += stats.binom.pmf(k, n, rate) * (low <= rate <= high)
    assert covered >= 0.95


def test_clopper_pearson_of_nothing_is_everything() -> None:
    assert clopper_pearson_interval(0, 0, 0.05) == (0.0, 1.0)


def test_clopper_pearson_at_the_ends() -> None:
    low, high = clopper_pearson_interval(0, 20, 0.05)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 20), abs=EXACT)
    assert clopper_pearson_interval(20, 20, 0.05)[1] == 1.0


def test_binomial_p_value_is_uniform_or_larger_at_the_limit() -> None:
    """P(p ≤ x) ≤ x when the rate is the limit: what makes it a p-value."""
    n, limit = 83, 0.1
    p_values = binomial_p_value(np.arange(n + 1), n, limit)
    weights = stats.binom.pmf(np.arange(n + 1), n, limit)
    for level in (0.01, 0.03, 0.05, 0.2, 0.5):
        assert weights[p_values <= level].sum() <= level + EXACT
