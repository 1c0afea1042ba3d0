"""The share of δ that each attempt may spend."""

from __future__ import annotations

import math

import pytest

from ownweights.verdict.statistics import attempt_delta


def test_attempt_delta_of_the_first_attempts() -> None:
    assert attempt_delta(0.05, 1) == pytest.approx(0.0303964, abs=1e-6)
    assert attempt_delta(0.05, 2) == pytest.approx(0.0303964 / 4, abs=1e-6)


def test_budget_never_exceeds_delta() -> None:
    spent = [attempt_delta(0.05, k) for k in range(1, 100_001)]
    assert sum(spent) < 0.05
    assert sum(spent) == pytest.approx(0.05, rel=1e-4)  # and nothing is wasted


def test_attempt_delta_falls_with_the_square() -> None:
    assert math.isclose(attempt_delta(0.1, 3) * 9, attempt_delta(0.1, 1))


def test_attempt_delta_counts_from_one() -> None:
    with pytest.raises(AssertionError, match="attempts count from 1, got 0"):
        attempt_delta(0.05, 0)
