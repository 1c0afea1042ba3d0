"""Paired tests against the likelihood they come from, enumeration, and published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from ownweights.verdict.statistics.paired import (
    mcnemar_better_p_value,
    mcnemar_p_value,
    tango_interval,
    tango_p_value,
    tango_statistic,
)

EXACT = 1e-9  # two correct closed forms differ by rounding alone
OPTIMISER = 1e-5  # a bounded scalar search places its maximum this well
EXCESS = 0.025  # by which an asymptotic test may err more often than δ = .05 at these sizes
tables = st.integers(1, 200).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n))
    )
)


def every_table(n: int) -> list[tuple[int, int]]:
    return [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]


def statistic_by_search(b: int, c: int, n: int, difference: float) -> float:
    """Maximise the trinomial likelihood under the restriction, then the score by its variance."""

    def minus_likelihood(rate: float) -> float:
        cells = [(b, rate + difference), (c, rate), (n - b - c, 1 - 2 * rate - difference)]
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    found = optimize.minimize_scalar(
        minus_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    )
    variance = n * (2 * found.x + difference - difference**2)
    return (b - c - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize("difference", [-0.6, -0.1, -0.02, 0.05, 0.4])
def test_tango_matches_restricted_likelihood(difference: float) -> None:
    for b, c in every_table(9):
        expected = statistic_by_search(b, c, 9, difference)
        assert tango_statistic(b, c, 9, difference) == pytest.approx(expected, abs=OPTIMISER)


@given(tables)
def test_tango_at_no_difference_is_mcnemars_score(table: tuple[int, int, int]) -> None:
    b, c, n = table
    expected = (b - c) / math.sqrt(b + c) if b + c else 0.0
    assert tango_statistic(b, c, n, 0.0) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("counts", "delta", "published"),
    [
        ((0, 1, 44), 0.10, (-0.096, 0.037)),  # Tango 1998, two ways to disinfect lenses
        ((9, 3, 32), 0.05, (-0.027, 0.390)),  # Tango 1998, as R's ratesci checks it
        ((1, 7, 21), 0.05, (-0.517, -0.026)),  # Fagerland et al., Bentur's airway trial
        ((28, 25, 618), 0.10, (-0.0148, 0.0247)),  # R's PropCIs, scoreci.mp(25, 28, 618)
    ],
)
def test_tango_interval_matches_published_examples(
    counts: tuple[int, int, int], delta: float, published: tuple[float, float]
) -> None:
    assert tango_interval(*counts, delta) == pytest.approx(published, abs=6e-4)


@given(tables, st.floats(0.0, 0.9), st.floats(0.01, 0.4))
def test_tango_interval_always_agrees_with_the_p_value(
    table: tuple[int, int, int], margin: float, delta: float
) -> None:
    """A margin is proved exactly when the lower bound is above it."""
    p_value, lower = tango_p_value(*table, margin), tango_interval(*table, 2 * delta)[0]
    if abs(p_value - delta) > EXACT and abs(lower + margin) > EXACT:
        assert (p_value <= delta) == (lower >= -margin)


@given(tables, st.floats(0.001, 0.5))
def test_tango_interval_always_holds_the_observed_difference(
    table: tuple[int, int, int], delta: float
) -> None:
    b, c, n = table
    low, high = tango_interval(b, c, n, delta)
    assert -1.0 <= low <= (b - c) / n <= high <= 1.0
    assert tango_interval(c, b, n, delta) == (-high, -low)


def test_tango_statistic_always_falls_with_the_difference() -> None:
    """What lets one root be the bound."""
    differences = np.linspace(-0.99, 0.99, 199)
    for b, c in every_table(10):
        values = [tango_statistic(b, c, 10, d) for d in differences]
        assert (np.diff(values) < EXACT).all()


@pytest.mark.parametrize(("n", "margin"), [(30, 0.1), (60, 0.05), (80, 0.1)])
def test_tango_errs_little_more_than_delta(n: int, margin: float) -> None:
    """At the margin, by enumerating every outcome, however often the two differ."""
    rejected = [(b, c) for b, c in every_table(n) if tango_p_value(b, c, n, margin) <= 0.05]
    better, worse = np.array(rejected).T
    for rate in (0.0, 0.01, 0.05, 0.1, 0.2, 0.44):
        cells = [rate, rate + margin, 1 - 2 * rate - margin]
        counts = np.stack([better, worse, n - better - worse], axis=1)
        assert stats.multinomial.pmf(counts, n, cells).sum() <= 0.05 + EXCESS


@pytest.mark.parametrize("difference", [-0.1, 0.0, 0.2])
def test_tango_interval_covers_about_90_percent(difference: float) -> None:
    n, delta = 40, 0.10
    covered = 0.0
    cells = [0.15 + max(difference, 0), 0.15 + max(-difference, 0)]
    for b, c in every_table(n):
        weight = stats.multinomial.pmf([b, c, n - b - c], n, [*cells, 1 - sum(cells)])
        if weight > 1e-7:
            low, high = tango_interval(b, c, n, delta)
            covered += float(weight) * (low <= difference <= high)
    assert covered >= 1 - delta - EXCESS


def test_tango_certifies_identical_answers_once_there_are_enough() -> None:
    """No discordant pair at all, where other McNemar-like tests have nothing to say."""
    assert tango_p_value(0, 0, 20, 0.05) > 0.05
    assert tango_p_value(0, 0, 60, 0.05) < 0.05
    z = stats.norm.ppf(0.95)
    assert tango_interval(0, 0, 60, 0.1)[0] == pytest.approx(-(z**2) / (60 + z**2), abs=EXACT)


def test_tango_of_nothing_proves_nothing() -> None:
    assert tango_p_value(0, 0, 0, 0.05) == 1.0
    assert tango_interval(0, 0, 0, 0.05) == (-1.0, 1.0)
    assert tango_statistic(0, 0, 0, -0.05) == 0.0


def test_tango_at_the_ends() -> None:
    assert tango_interval(0, 30, 30, 0.05)[0] == -1.0
    assert tango_interval(30, 0, 30, 0.05)[1] == 1.0
    assert tango_p_value(0, 30, 30, 0.05) == pytest.approx(1.0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_matches_binomtest(b: int, c: int) -> None:
    if b + c:
        both = stats.binomtest(b, b + c, 0.5).pvalue
        one = stats.binomtest(b, b + c, 0.5, alternative="greater").pvalue
        assert mcnemar_p_value(b, c) == pytest.approx(both, rel=1e-7, abs=1e-12)
        assert mcnemar_better_p_value(b, c) == pytest.approx(one, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(3, 10), (10, 3), (0, 6), (7, 7)])
def test_mcnemar_matches_statsmodels(b: int, c: int) -> None:
    tests = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tests.mcnemar([[20, b], [c, 30]], exact=True).pvalue
    assert mcnemar_p_value(b, c) == pytest.approx(expected, abs=EXACT)


def test_mcnemar_matches_enumeration_of_signs() -> None:
    """Every way that seven discordant pairs could have fallen."""
    wins = np.array([bin(signs).count("1") for signs in range(2**7)])
    for b in range(8):
        extreme = abs(wins - 3.5) >= abs(b - 3.5)
        assert mcnemar_p_value(b, 7 - b) == pytest.approx(extreme.mean(), abs=EXACT)
        assert mcnemar_better_p_value(b, 7 - b) == pytest.approx((wins >= b).mean(), abs=EXACT)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_mcnemar_p_values_are_valid(level: float) -> None:
    pairs = 31
    weights = stats.binom.pmf(np.arange(pairs + 1), pairs, 0.5)
    both = np.array([mcnemar_p_value(b, pairs - b) for b in range(pairs + 1)])
    one = np.array([mcnemar_better_p_value(b, pairs - b) for b in range(pairs + 1)])
    assert weights[both <= level].sum() <= level + EXACT
    assert weights[one <= level].sum() <= level + EXACT


def test_mcnemar_of_nothing_proves_nothing() -> None:
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_better_p_value(0, 0) == 1.0


def test_paired_refuses_impossible_counts() -> None:
    with pytest.raises(AssertionError, match="3 better and 4 worse are more than 6 requests"):
        tango_statistic(3, 4, 6, 0.0)
    with pytest.raises(AssertionError, match="cannot be negative, got -1 and 2"):
        mcnemar_p_value(-1, 2)
    with pytest.raises(AssertionError, match=r"at least 0 and below 1, got 1\.0"):
        tango_p_value(0, 0, 5, 1.0)
    with pytest.raises(AssertionError, match=r"between -1 and 1, got -1\.0"):
        tango_statistic(0, 0, 5, -1.0)
    with pytest.raises(AssertionError, match=r"delta lies between 0 and 1, got 0\.0"):
        tango_interval(0, 0, 5, 0.0)
