"""Isotonic calibration: the fit against brute force, the table against what it claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import isotonic_regression

from ownweights.verdict.confidence.calibrate import (
    MAX_BINS,
    MIN_PER_BIN,
    calibration_table,
    fit_isotonic,
    pool_adjacent_violators,
)
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE, Judged

values_and_weights = st.lists(
    st.tuples(st.floats(-3, 3).map(lambda x: round(x, 3)), st.integers(1, 5)), min_size=1,
    max_size=8,
)  # fmt: skip


def brute_force(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The best of all ways to cut the row into blocks with non-decreasing means."""
    n, best, least = len(values), values, np.inf
    for cuts in itertools.product([False, True], repeat=n - 1):
        bounds = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]
        fit = np.concatenate([
            np.full(b - a, np.average(values[a:b], weights=weights[a:b]))
            for a, b in itertools.pairwise(bounds)
        ])  # fmt: skip
        loss = float((weights * (values - fit) ** 2).sum())
        if (np.diff(fit) >= -1e-12).all() and loss < least:
            best, least = fit, loss
    return best


@given(values_and_weights)
def test_isotonic_matches_brute_force(rows: list[tuple[float, int]]) -> None:
    values, weights = np.array(rows, np.float64).T
    found = pool_adjacent_violators(values, weights)
    assert np.allclose(found, brute_force(values, weights), atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_isotonic_matches_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = np.sort(rng.normal(size=n)) + rng.normal(size=n), rng.uniform(0.1, 3, n)
    expected = isotonic_regression(values, weights=weights).x
    assert np.allclose(pool_adjacent_violators(values, weights), expected, atol=1e-9)


@given(st.integers(0, 10_000))
def test_isotonic_always_falls_with_the_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 40) / 3
    harms = (rng.random(40) < 0.4).astype(np.float64)
    fitted = fit_isotonic(scores, harms)
    grid = np.linspace(-2, 6, 50)
    assert (np.diff(fitted(grid)) <= 1e-12).all()
    assert fitted(scores).sum() == pytest.approx(harms.sum())
    assert fitted(np.array([-9.0])) == fitted(scores.min()[None])


def rows_of(scores, harms, *, split="certify") -> list[Judged]:
    return [
        Judged(f"{split}{i}", f"{split}{i}", split, score=float(score),
               harm=None if harm < 0 else float(harm))
        for i, (score, harm) in enumerate(zip(scores, harms, strict=True))
    ]  # fmt: skip


def table_of(scores, harms, learned=None):
    """The table of certify rows, with develop rows that say the same where none are given."""
    develop = (scores, harms) if learned is None else learned
    return calibration_table([*rows_of(*develop, split="develop"), *rows_of(scores, harms)])


def draw(rng, n: int):
    scores = rng.random(n)
    return scores, (rng.random(n) < 0.6 * (1 - scores)).astype(np.float64)


def test_calibration_says_what_is_so() -> None:
    """P(harm) known by score: predicted and seen are near it, and intervals mostly hold it."""
    rng, misses, ranges = np.random.default_rng(0), 0, 0
    for _ in range(20):
        scores, harms = draw(rng, 800)
        table = table_of(scores, harms, draw(rng, 800))
        assert len(table) == MAX_BINS
        assert sum(one.n for one in table) == 800
        for one in table:
            held = (scores >= one.score_low) & (scores <= one.score_high)
            truth = (0.6 * (1 - scores[held])).mean()
            assert (one.n, one.harms) == (held.sum(), harms[held].sum())
            assert abs(one.predicted - truth) < 0.15
            ranges += 1
            misses += not one.low <= truth <= one.high
    assert misses <= stats.binom.ppf(0.999, ranges, 0.05)


def test_calibration_shows_a_score_that_promises_too_much() -> None:
    """Develop was easier than certify: the intervals leave the promise behind."""
    rng = np.random.default_rng(5)
    scores = rng.random(800)
    harms = (rng.random(800) < 0.3 + 0.5 * (1 - scores)).astype(np.float64)
    table = table_of(scores, harms, draw(rng, 800))
    assert sum(one.predicted < one.low for one in table) >= 7


def test_calibration_intervals_match_scipy() -> None:
    scores = np.repeat([1.0, 2.0], 50)
    harms = np.repeat([1.0, 0.0, 0.0], [20, 30, 50])
    first, second = table_of(scores, harms)
    for one, seen in ((first, 20), (second, 0)):
        known = stats.binomtest(seen, 50).proportion_ci(0.95, "exact")
        assert (one.low, one.high) == pytest.approx((known.low, known.high))
        assert one.predicted == pytest.approx(seen / 50)


def link_of(predicted, seen) -> float:
    """How what is predicted for ranges goes with what is seen in them, were both noise."""
    return float(((np.asarray(predicted) - 0.4) * (np.asarray(seen) - 0.4)).mean())


def links(make) -> np.ndarray:
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found.append(make(rng.random(200), (rng.random(200) < 0.4).astype(np.float64), rng))
    return np.array(found)


def test_calibration_does_not_flatter_noise() -> None:
    def link(scores, harms, rng) -> float:
        other = rng.random(200), (rng.random(200) < 0.4).astype(np.float64)
        table = table_of(scores, harms, other)
        return link_of([one.predicted for one in table], [one.harms / one.n for one in table])

    found = links(link)
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(len(found))


def test_ranges_flatter_a_cross_fit() -> None:
    """Why develop is not shown beside a fit on its own folds: noise would look calibrated."""

    def link(scores, harms, rng) -> float:
        folds, predicted = np.arange(200) % 5, np.zeros(200)
        for fold in range(5):
            held = folds == fold
            predicted[held] = fit_isotonic(scores[~held], harms[~held])(scores[held])
        ranges = np.array_split(np.argsort(scores), 10)
        return link_of([predicted[r].mean() for r in ranges], [harms[r].mean() for r in ranges])

    found = links(link)
    assert found.mean() > 4 * found.std() / np.sqrt(len(found))


def test_calibration_draws_one_request_a_unit() -> None:
    rng = np.random.default_rng(1)
    rows = [*rows_of(*draw(rng, 600), split="develop"), *rows_of(*draw(rng, 600))]
    doubled = rows + [
        Judged(f"again{i}", row.unit, row.split, row.status, row.score, row.harm)
        for i, row in enumerate(rows)
    ]
    assert sum(one.n for one in calibration_table(doubled)) == 600


def test_calibration_leaves_out_what_is_never_served() -> None:
    rng = np.random.default_rng(2)
    rows = [*rows_of(*draw(rng, 100), split="develop"), *rows_of(*draw(rng, 100))]
    more = [
        Judged(f"{status}{split}", f"{status}{split}", split, status, harm=harm)
        for split in ("develop", "certify")
        for status, harm in ((FAILED, None), (INELIGIBLE, None), (ANSWERED, 1.0))
    ]
    assert calibration_table([*rows, *more]) == calibration_table(rows)


def test_calibration_counts_what_nobody_could_judge_as_harm() -> None:
    table = table_of(np.arange(40.0), np.full(40, -1))
    assert [one.harms for one in table] == [20, 20]
    assert [one.predicted for one in table] == [1.0, 1.0]


@pytest.mark.parametrize(("n", "ranges"), [(0, 0), (MIN_PER_BIN - 1, 0), (MIN_PER_BIN, 1), (45, 2)])
def test_calibration_of_few_units_has_few_ranges(n: int, ranges: int) -> None:
    some = np.arange(40), np.arange(40) % 2
    assert len(table_of(np.arange(n), np.arange(n) % 2, some)) == ranges
    assert bool(table_of(*some, (np.arange(n), np.arange(n) % 2))) == (n >= MIN_PER_BIN)


def test_calibration_keeps_equal_scores_together() -> None:
    scores = np.repeat([0.0, 1.0, 2.0], [150, 30, 20])
    table = table_of(scores, np.arange(200) % 3 == 0)
    spans = [(one.score_low, one.score_high) for one in table]
    assert len(spans) == 3
    assert all(low > high for (_, high), (low, _) in itertools.pairwise(spans))
    assert sum(one.n for one in table) == 200


def test_calibration_of_one_score_is_the_rate() -> None:
    (one,) = table_of(np.zeros(100), np.arange(100) < 25)
    assert (one.score_low, one.score_high, one.n, one.harms) == (0.0, 0.0, 100, 25)
    assert one.predicted == pytest.approx(0.25)


def test_calibration_of_graded_harm_adds_it_up() -> None:
    (one,) = table_of(np.zeros(30), np.full(30, 0.25))
    assert one.harms == 7.5
    assert one.predicted == pytest.approx(0.25)
    assert one.low < 0.25 < one.high
