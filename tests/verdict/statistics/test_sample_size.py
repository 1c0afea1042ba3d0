"""How many units a certificate needs: against brute force, closed forms, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ownweights.verdict.statistics import (
    Limits,
    binomial_p_value,
    served_without_harm,
    trials_needed,
    units_needed,
)

LIMITS = Limits(0.05, 0.10, 0.05)


def brute_power(n: int, rate: float, limit: float, delta: float) -> float:
    passing = [k for k in range(n + 1) if stats.binom.cdf(k, n, limit) <= delta]
    return float(stats.binom.cdf(passing[-1], n, rate)) if passing else 0.0


@pytest.mark.parametrize(
    ("rate", "limit"), [(0.0, 0.1), (0.02, 0.1), (0.04, 0.1), (0.02, 0.05), (0.1, 0.3)]
)
def test_trials_needed_is_the_first_n_with_power(rate: float, limit: float) -> None:
    found = trials_needed(rate, limit, 0.05)
    sizes = range(1, 500)
    first = next(n for n in sizes if brute_power(n, rate, limit, 0.05) >= 0.9)
    assert found == first


@pytest.mark.parametrize(
    ("limit", "rate", "published"),
    [
        (0.01, 0.003, 1050),
        (0.01, 0.005, 2550),
        (0.02, 0.005, 460),
        (0.02, 0.01, 1280),
        (0.05, 0.02, 340),
        (0.05, 0.03, 860),
        (0.005, 0.001, 1550),
    ],
)
def test_trials_needed_agrees_with_known_sizes(limit: float, rate: float, published: int) -> None:
    """Sizes found by simulation elsewhere, rounded up there to a size that keeps its power."""
    found = trials_needed(rate, limit, 0.05)
    assert found is not None
    assert 0.9 * published <= found <= published


def test_trials_needed_gives_the_power_it_promises() -> None:
    n = trials_needed(0.03, 0.10, 0.03)
    assert n is not None
    harms = np.random.default_rng(3).binomial(n, 0.03, 20_000)
    assert (binomial_p_value(harms, n, 0.10) <= 0.03).mean() >= 0.89


def test_trials_needed_without_harm_is_the_closed_form() -> None:
    for limit, known in ((0.05, 59), (0.02, 149), (0.01, 299)):
        assert served_without_harm(limit, 0.05) == known
        assert trials_needed(0.0, limit, 0.05) == known


def test_served_without_harm_is_just_enough() -> None:
    n = served_without_harm(0.1, 0.0304)
    assert 0.9**n <= 0.0304 < 0.9 ** (n - 1)


def test_trials_needed_knows_the_hopeless() -> None:
    assert trials_needed(0.1, 0.1, 0.05) is None
    assert trials_needed(0.2, 0.1, 0.05) is None
    assert trials_needed(0.09999, 0.1, 0.05) is None  # would need more than anyone has


def test_units_needed_takes_the_harder_of_the_two_claims() -> None:
    few_served = units_needed(0.02, 0.10, 0.0, LIMITS)
    served = trials_needed(0.02, 0.10, 0.05)
    assert served is not None
    assert few_served.units == math.ceil(served / 0.10)
    all_served = units_needed(0.04, 1.0, 0.0, LIMITS)
    assert all_served.units == trials_needed(0.04, 0.05, 0.05)
    assert all_served.reason.startswith("about ")
    assert "power 90%" in all_served.reason


def test_units_needed_counts_losses_among_all() -> None:
    without, lossy = (units_needed(0.04, 0.5, loss, LIMITS).units for loss in (0.0, 0.02))
    assert without is not None
    assert lossy is not None
    assert lossy > without


@pytest.mark.parametrize(
    ("rate", "coverage", "loss", "words"),
    [
        (0.3, 0.1, 0.0, "30.0% of the requests served came to harm, which is not below 10.0%"),
        (0.08, 0.9, 0.0, "7.2% of all requests came to harm, which is not below 5.0%"),
        (0.0, 0.5, 0.06, "6.0% of all requests came to harm"),
        (0.0, 0.0, 0.0, "no request is served at the first threshold"),
        (0.09999, 0.2, 0.0, "so near their limits that more than 2,000,000 units"),
    ],
)
def test_units_needed_says_why_no_number_would_do(
    rate: float, coverage: float, loss: float, words: str
) -> None:
    needed = units_needed(rate, coverage, loss, LIMITS)
    assert needed.units is None
    assert words in needed.reason
