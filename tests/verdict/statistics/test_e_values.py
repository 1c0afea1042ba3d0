"""Many e-values at once: against every subset of a few, and by simulation under dependence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.verdict.statistics.e_values import e_bh, mean_e_value

DELTA = 0.05
TRIALS = 20_000
few_e_values = st.lists(
    st.one_of(st.floats(0, 400), st.sampled_from([0.0, 20.0, 40.0, 60.0, 80.0, math.inf])),
    min_size=1,
    max_size=7,
)


def largest_supported_set(e_values: list[float], delta: float) -> set[int]:
    """Of all sets in which each e-value is at least K/(size·δ), the largest."""
    every, found = range(len(e_values)), set()
    for size in range(1, len(e_values) + 1):
        for chosen in itertools.combinations(every, size):
            if all(e_values[i] >= len(e_values) / (size * delta) for i in chosen):
                found = set(chosen) | found
    return found


def gaussian_e_values(rng, correlation: float, shifts: np.ndarray) -> np.ndarray:
    """Likelihood ratios of normals that share a part; a shift of 0 is a false claim."""
    shared = rng.standard_normal((TRIALS, 1))
    own = rng.standard_normal((TRIALS, len(shifts)))
    draws = shifts + math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    return np.exp(3.0 * draws - 4.5)


@given(few_e_values, st.sampled_from([0.05, 0.2, 0.5]))
def test_e_bh_matches_every_subset(e_values: list[float], delta: float) -> None:
    found = set(np.flatnonzero(e_bh(e_values, delta)).tolist())
    assert found == largest_supported_set(e_values, delta)


@given(few_e_values, st.randoms())
def test_e_bh_always_ignores_the_order(e_values: list[float], random) -> None:
    order = list(range(len(e_values)))
    random.shuffle(order)
    proved = e_bh(e_values, DELTA)
    assert e_bh([e_values[i] for i in order], DELTA).tolist() == [proved[i] for i in order]


@given(few_e_values, st.integers(0, 6))
def test_e_bh_never_loses_a_claim_to_more_evidence(e_values: list[float], which: int) -> None:
    before = e_bh(e_values, DELTA)
    after = e_bh([e * (10 if i == which else 1) for i, e in enumerate(e_values)], DELTA)
    assert (after | ~before).all()


def test_e_bh_of_known_values() -> None:
    assert e_bh([20.0], DELTA).tolist() == [True]
    assert e_bh([19.9], DELTA).tolist() == [False]
    assert e_bh([39.0, 39.0], DELTA).tolist() == [True, True]  # neither would stand alone
    assert e_bh([39.0, 1.0], DELTA).tolist() == [False, False]
    assert e_bh([1.0, 81.0, 0.0, 40.0], DELTA).tolist() == [False, True, False, True]
    assert e_bh([], DELTA).tolist() == []


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_true", [0, 6])
def test_e_bh_errs_within_delta_under_dependence(correlation: float, num_true: int) -> None:
    """The mean share of false claims among the proved, of 20 workloads."""
    shifts = np.where(np.arange(20) < num_true, 4.0, 0.0)
    proved = e_bh(gaussian_e_values(np.random.default_rng(1), correlation, shifts), DELTA)
    false_frac = proved[:, num_true:].sum(-1) / np.maximum(proved.sum(-1), 1)
    assert false_frac.mean() <= DELTA + 3 * false_frac.std() / math.sqrt(TRIALS)
    assert not num_true or proved[:, :num_true].mean() > 0.5


def test_e_bh_errs_within_delta_when_one_wins_what_others_lose() -> None:
    """The worst dependence: exactly one of 20 false claims looks proved, as often as it may."""
    rng = np.random.default_rng(2)
    e_values = np.zeros((TRIALS, 20))
    e_values[np.arange(TRIALS), rng.integers(0, 20, TRIALS)] = 20 / DELTA
    e_values[rng.random(TRIALS) >= DELTA] = 0.0
    wrong = e_bh(e_values, DELTA).any(-1)
    assert wrong.any()
    assert wrong.mean() <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / TRIALS)


def test_e_bh_matches_one_row_at_a_time() -> None:
    e_values = np.random.default_rng(3).exponential(40.0, (50, 8))
    assert e_bh(e_values, DELTA).tolist() == [e_bh(row, DELTA).tolist() for row in e_values]


@pytest.mark.parametrize("correlation", [0.0, 0.7, 1.0])
def test_mean_e_value_errs_within_delta_under_dependence(correlation: float) -> None:
    e_values = gaussian_e_values(np.random.default_rng(4), correlation, np.zeros(10))
    wrong = (mean_e_value(e_values) >= 1 / DELTA).mean()
    assert wrong <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / TRIALS)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_mean_e_value_always_lies_among_its_parts(e_values: list[float]) -> None:
    found = float(mean_e_value(e_values))
    assert found == pytest.approx(math.fsum(e_values) / len(e_values), abs=1e-9)
    assert min(e_values) * (1 - 1e-9) <= found <= max(e_values) * (1 + 1e-9)


@pytest.mark.parametrize("wrong", [[-1.0], [math.nan], 3.0])
def test_e_values_refuse_what_is_none(wrong) -> None:
    with pytest.raises(AssertionError, match="e-values are numbers of at least 0"):
        e_bh(wrong, DELTA)
    with pytest.raises(AssertionError, match="e-values are numbers of at least 0"):
        mean_e_value(wrong)
    with pytest.raises(AssertionError, match="delta lies between 0 and 1, got 0"):
        e_bh([1.0], 0)
    with pytest.raises(AssertionError, match="no e-values have no mean"):
        mean_e_value([])
