"""Fits, folds and the error of a gain, each against another way to compute it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from ownweights.verdict.confidence.fit import (
    RIDGE,
    cross_fit,
    fit_logistic,
    gain_of,
    risk_coverage_area,
    unit_part,
)

FIT_TOLERANCE = 1e-4  # scipy's minimiser stops there


def penalised_loss(weights, x, harms):
    odds = x @ weights[:-1] + weights[-1]
    likely = np.logaddexp(0, -odds) * (1 - harms) + np.logaddexp(0, odds) * harms
    return likely.sum() + 0.5 * RIDGE * weights[:-1] @ weights[:-1] + 0.5e-3 * weights[-1] ** 2


@pytest.mark.parametrize("is_graded", [False, True])
def test_fit_logistic_matches_scipy(is_graded: bool) -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(80, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, 3.0]
    chance = 1 / (1 + np.exp(columns[:, 0] + 1))
    harms = chance if is_graded else (rng.random(80) < chance).astype(np.float64)
    line = fit_logistic(columns, harms)
    x = (columns - columns.mean(0)) / columns.std(0)
    best = optimize.minimize(penalised_loss, np.zeros(4), (x, harms), tol=1e-10).x
    assert np.allclose([*line.weights, line.bias], best, atol=FIT_TOLERANCE)
    assert np.allclose(line(columns), x @ best[:-1] + best[-1], atol=10 * FIT_TOLERANCE)


def test_fit_logistic_survives_a_constant_column_and_one_kind_of_harm() -> None:
    columns = np.column_stack([np.ones(20), np.arange(20.0)])
    for harm in (0.0, 1.0):
        line = fit_logistic(columns, np.full(20, harm))
        assert np.isfinite(line(columns)).all()
        assert np.sign(line(columns)).tolist() == [1.0 - 2.0 * harm] * 20


@given(st.text(max_size=20), st.integers(1, 20), st.sampled_from(["", "salt"]))
def test_unit_part_is_the_same_for_a_unit(unit: str, parts: int, salt: str) -> None:
    assert 0 <= unit_part(unit, parts, salt=salt) < parts
    assert unit_part(unit, parts, salt=salt) == unit_part(str(unit), parts, salt=salt)


def test_unit_part_fills_every_part_evenly() -> None:
    for salt in ("", "salt"):
        counts = np.bincount([unit_part(f"unit {i}", 5, salt=salt) for i in range(5000)])
        assert len(counts) == 5
        assert counts.min() > 900


def test_cross_fit_never_shows_a_row_to_its_own_fit() -> None:
    rows = np.arange(12.0)[:, None]
    folds, seen = np.arange(12) % 3, []

    def fit(columns, harms):
        seen.append(set(columns[:, 0]))
        assert len(harms) == len(columns)
        return lambda held: np.full(len(held), float(len(seen)))

    scores = cross_fit(fit, rows, np.zeros(12), folds)
    for row, score in enumerate(scores):
        assert row not in seen[int(score) - 1]
    assert [len(part) for part in seen] == [8, 8, 8]


def test_cross_fit_with_a_single_fold_says_nothing() -> None:
    assert (
        cross_fit(fit_logistic, np.ones((3, 1)), np.ones(3), np.zeros(3, int)).tolist() == [0] * 3
    )


def test_gain_of_matches_leaving_each_group_out() -> None:
    rng = np.random.default_rng(3)
    better, worse, harms = rng.random(60), rng.random(60), (rng.random(60) < 0.4) * 1.0
    groups = np.arange(60) % 6
    gain, error = gain_of(better, worse, harms, groups, min_coverage_frac=0.1)
    areas = [
        [risk_coverage_area(one[kept], harms[kept], 0.1) for one in (worse, better)]
        for kept in [groups >= 0, *(groups != group for group in range(6))]
    ]
    gains = [before - after for before, after in areas]
    assert gain == pytest.approx(gains[0])
    spread = sum((one - np.mean(gains[1:])) ** 2 for one in gains[1:])
    assert error == pytest.approx(math.sqrt(5 / 6 * spread))


def test_gain_of_is_near_the_true_spread_of_gains() -> None:
    """The jackknife's error against the spread of the gain over fresh draws."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(150):
        better, worse = rng.random(300), rng.random(300)
        harms = (rng.random(300) < 1 - better).astype(np.float64)
        found.append(gain_of(better, worse, harms, np.arange(300) % 20))
    gains, errors = np.array(found).T
    assert 0.7 < errors.mean() / gains.std() < 1.4


def test_gain_of_one_group_is_never_sure() -> None:
    assert gain_of(np.arange(4.0), np.zeros(4), np.ones(4), np.zeros(4, int))[1] == math.inf
