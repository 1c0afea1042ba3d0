"""p-values for losses from 0 to 1: one-sided, valid by simulation, useful when losses are low."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ownweights.verdict.statistics import (
    betting_p_value,
    binomial_p_value,
    hoeffding_bentkus_p_value,
)

TRIALS = 2_000


def hoeffding_bentkus_by_hand(total: float, n: int, limit: float) -> float:
    """The formula of Learn then Test, Proposition 2, written out."""
    mean = min(total / n, limit)
    entropy = (mean * math.log(mean / limit) if mean else 0.0) + (1 - mean) * math.log(
        (1 - mean) / (1 - limit)
    )
    return min(1.0, math.exp(-n * entropy), math.e * stats.binom.cdf(math.ceil(total), n, limit))


@pytest.mark.parametrize("total", [0.0, 0.5, 3.0, 7.25, 12.0, 60.0])
@pytest.mark.parametrize("limit", [0.05, 0.1, 0.4])
def test_hoeffding_bentkus_matches_its_formula(total: float, limit: float) -> None:
    found = float(hoeffding_bentkus_p_value(total, 100, limit))
    assert found == pytest.approx(hoeffding_bentkus_by_hand(total, 100, limit), rel=1e-9)


def test_hoeffding_bentkus_takes_arrays() -> None:
    found = hoeffding_bentkus_p_value([0.0, 5.0], [100, 0], 0.1)
    assert found[0] == pytest.approx(0.9**100, rel=1e-6)
    assert found[1] == 1.0


@given(st.integers(1, 300), st.floats(0.01, 0.5), st.data())
def test_hoeffding_bentkus_always_asks_more_than_the_binomial(
    n: int, limit: float, data: st.DataObject
) -> None:
    """On harms of 0 and 1 the exact test is at least as sharp."""
    k = data.draw(st.integers(0, n))
    wide, exact = hoeffding_bentkus_p_value(k, n, limit), binomial_p_value(k, n, limit)
    assert float(wide) >= float(exact) * (1 - 1e-9)


@pytest.mark.parametrize("p_value", ["betting", "hoeffding_bentkus"])
def test_bounded_p_values_never_certify_a_high_mean(p_value: str) -> None:
    """True mean .6 against a limit of .1: a two-sided test would reject with p near 0."""
    losses = np.random.default_rng(1).uniform(0.2, 1.0, 500)
    found = (
        betting_p_value(losses, 0.1)
        if p_value == "betting"
        else float(hoeffding_bentkus_p_value(losses.sum(), 500, 0.1))
    )
    assert found > 0.9


@pytest.mark.parametrize("n", [50, 400])
def test_betting_p_value_is_valid_at_the_limit(n: int) -> None:
    rng, level, limit = np.random.default_rng(2), 0.05, 0.1
    draws = (rng.random((TRIALS, n)) < limit).astype(np.float64)
    rejected = np.mean([betting_p_value(row, limit) <= level for row in draws])
    assert rejected <= level + 3 * math.sqrt(level * (1 - level) / TRIALS)


def test_betting_p_value_is_sharp_where_losses_vary_little() -> None:
    """Every loss .05 against a limit of .1: what counts of harms could not show."""
    losses = np.full(200, 0.05)
    assert betting_p_value(losses, 0.1) < float(hoeffding_bentkus_p_value(10.0, 200, 0.1))
    assert betting_p_value(losses, 0.1) < 0.01


def test_betting_p_value_shrinks_with_good_evidence() -> None:
    values = [betting_p_value(np.zeros(n), 0.1) for n in (10, 50, 200)]
    assert values[0] > values[1] > values[2]
    assert values[2] < 1e-4


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.01, 0.9))
def test_betting_p_value_always_lies_between_0_and_1(losses: list[float], limit: float) -> None:
    assert 0.0 < betting_p_value(np.array(losses, np.float64), limit) <= 1.0


def test_betting_p_value_of_nothing_proves_nothing() -> None:
    assert betting_p_value(np.empty(0), 0.1) == 1.0
