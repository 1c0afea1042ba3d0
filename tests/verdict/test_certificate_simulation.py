"""Are certificates wrong no more often than they say? Worlds of known truth, 2,000 draws each."""

from __future__ import annotations

import numpy as np
import pytest

from ownweights.verdict.statistics import (
    Limits,
    attempt_delta,
    develop_thresholds,
    start_of_walk,
    walk_thresholds,
)
from tests.verdict.gates import point_estimate_gate, uncorrected_gate
from tests.verdict.score_worlds import (
    ALWAYS_WRONG,
    ANTI_INFORMATIVE,
    INFORMATIVE,
    USELESS,
    least_favourable_all,
    least_favourable_served,
)

TRIALS = 2_000
LIMITS = Limits(alpha=0.05, beta=0.10, delta=0.05)
MIN_COVERAGE = 0.10
LEAST_FAVOURABLE_SERVED = least_favourable_served(LIMITS)
LEAST_FAVOURABLE_ALL = least_favourable_all(LIMITS)


def run(world, rng, n, *, limits=LIMITS, min_coverage=MIN_COVERAGE, n_develop=500):
    """One draw: (threshold of the certificate or None, thresholds, scores, harms)."""
    develop = world.draw(rng, n_develop)
    thresholds = develop_thresholds(develop[0], min_coverage)
    scores, harms = world.draw(rng, n)
    first = start_of_walk(thresholds, *develop, limits, n=n)
    chosen = walk_thresholds(thresholds[first:], scores, harms, limits).chosen
    return (chosen.threshold if chosen else None), thresholds, scores, harms


def at_most(share, limit, trials=TRIALS):
    return share <= limit + 3 * np.sqrt(limit * (1 - limit) / trials)


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize(
    "world",
    [INFORMATIVE, LEAST_FAVOURABLE_SERVED, LEAST_FAVOURABLE_ALL, ANTI_INFORMATIVE],
    ids=["informative", "least_favourable_served", "least_favourable_all", "anti_informative"],
)
def test_certificate_is_wrong_at_most_delta_of_the_time(world, n):
    rng = np.random.default_rng(n)
    wrong = np.mean([world.breaks(run(world, rng, n)[0], LIMITS) for _ in range(TRIALS)])
    assert at_most(wrong, LIMITS.delta)


def test_certificate_spends_its_error_in_the_least_favourable_world():
    """A gate that never certified would pass the tests above; this one is not that."""
    rng = np.random.default_rng(5)
    wrong = [run(LEAST_FAVOURABLE_SERVED, rng, 3000)[0] is not None for _ in range(TRIALS)]
    assert LIMITS.delta / 5 <= np.mean(wrong) <= LIMITS.delta + 0.015


@pytest.mark.parametrize("world", [USELESS, ALWAYS_WRONG], ids=["useless", "always_wrong"])
def test_certificate_refuses_students_that_do_harm(world):
    rng = np.random.default_rng(6)
    assert all(run(world, rng, 1000)[0] is None for _ in range(TRIALS))


@pytest.mark.parametrize("n", [300, 1000])
def test_certificate_covers_what_an_uncorrected_gate_covers(n):
    rng = np.random.default_rng(7)
    ours, theirs = [], []
    for _ in range(TRIALS):
        chosen, thresholds, scores, harms = run(INFORMATIVE, rng, n)
        loose = uncorrected_gate(thresholds, scores, harms, LIMITS)
        ours.append(0.0 if chosen is None else 1.0 - chosen)
        theirs.append(0.0 if loose is None else 1.0 - loose)
    assert np.mean(np.array(ours) > 0) > 0.85
    assert np.mean(ours) >= 0.9 * np.mean(theirs)


def test_naive_gates_are_wrong_far_more_often_than_delta():
    """Why the sequence is walked: the same draws, judged by the gates that people use."""
    rng = np.random.default_rng(8)
    point, uncorrected = [], []
    for _ in range(400):
        _, thresholds, scores, harms = run(LEAST_FAVOURABLE_SERVED, rng, 3000)
        point.append(point_estimate_gate(thresholds, scores, harms, LIMITS) is not None)
        uncorrected.append(uncorrected_gate(thresholds, scores, harms, LIMITS) is not None)
    assert np.mean(point) > 0.5
    assert np.mean(uncorrected) > 2 * LIMITS.delta


def test_certificate_attempts_together_stay_within_delta():
    """Five students in a row on fresh data, each just above the limit: any certificate is wrong."""
    rng, trials = np.random.default_rng(9), 1_000
    wrong = 0
    for _ in range(trials):
        spent = (Limits(0.05, 0.10, attempt_delta(LIMITS.delta, k)) for k in range(1, 6))
        wrong += any(
            run(LEAST_FAVOURABLE_SERVED, rng, 1000, limits=limits)[0] is not None
            for limits in spent
        )
    assert at_most(wrong / trials, LIMITS.delta, trials)


def test_certificate_needs_one_request_a_session():
    """Sessions of ten like requests: counting rows is wrong too often, one a session is not."""
    rng, trials, sessions, per_session = np.random.default_rng(10), 500, 200, 10
    by_row = by_unit = 0
    for _ in range(trials):
        thresholds = develop_thresholds(rng.random(500), MIN_COVERAGE)
        scores, harms = LEAST_FAVOURABLE_SERVED.draw(rng, sessions)
        rows = (np.repeat(scores, per_session), np.repeat(harms, per_session))
        by_row += walk_thresholds(thresholds, *rows, LIMITS).chosen is not None
        by_unit += walk_thresholds(thresholds, scores, harms, LIMITS).chosen is not None
    assert by_row / trials > 3 * LIMITS.delta
    assert at_most(by_unit / trials, LIMITS.delta, trials)
