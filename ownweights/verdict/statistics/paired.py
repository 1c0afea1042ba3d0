"""Two answerers on the same n requests, once all are judged: is the student much worse?

                     teacher passes   teacher fails
    student passes       both            better
    student fails        worse           neither

In: the two counts in which they differ, and n. Out: Tango's score test of "worse by the margin or
more", an interval for the difference (better - worse)/n, and exact McNemar p-values of "no
difference". Nothing observed proves nothing: p = 1 and the interval [-1, 1]. Tango's error is
close to δ rather than below it (test_tango_errs_little_more_than_delta); McNemar's is never above
(test_mcnemar_p_values_are_valid). Invariants: the statistic is the score at the restricted maximum
of the likelihood (test_tango_matches_restricted_likelihood); the interval holds what the test does
not refute (test_tango_interval_always_agrees_with_the_p_value).
Source: Tango, Statistics in Medicine 17 (1998) 891-908; McNemar, Psychometrika 12 (1947).
"""

from __future__ import annotations

import math
from typing import cast

from scipy import special

from ownweights.verdict.statistics.binomial import binomial_p_value

EDGE = 1.0 - 1e-10  # differences beyond it are as good as one


def tango_statistic(better: int, worse: int, n: int, difference: float) -> float:
    """Standard errors by which the observed difference exceeds a supposed true `difference`."""
    _check_counts(better, worse, n)
    assert -1.0 < difference < 1.0, f"a difference lies between -1 and 1, got {difference}"
    rate = _restricted_worse(better, worse, n, difference)
    variance = n * (2.0 * rate + difference * (1.0 - difference))
    return (better - worse - n * difference) / math.sqrt(variance) if variance > 0 else 0.0


def tango_p_value(better: int, worse: int, n: int, margin: float) -> float:
    """p-value of "the student is worse by `margin` or more": small when it is not inferior."""
    assert 0.0 <= margin < 1.0, f"a margin is at least 0 and below 1, got {margin}"
    statistic = tango_statistic(better, worse, n, -margin)
    return float(special.ndtr(-statistic)) if n else 1.0


def tango_interval(better: int, worse: int, n: int, delta: float) -> tuple[float, float]:
    """Bounds for the difference, `delta` shared equally between the two sides."""
    assert 0.0 < delta < 1.0, f"delta lies between 0 and 1, got {delta}"
    return _lower(better, worse, n, delta / 2), -_lower(worse, better, n, delta / 2)


def mcnemar_p_value(better: int, worse: int) -> float:
    """Exact two-sided p-value of "neither is better"."""
    _check_counts(better, worse, better + worse)
    return min(1.0, 2.0 * float(binomial_p_value(min(better, worse), better + worse, 0.5)))


def mcnemar_better_p_value(better: int, worse: int) -> float:
    """Exact one-sided p-value of "the student is no better"; exchange the counts for "no worse"."""
    _check_counts(better, worse, better + worse)
    return float(binomial_p_value(worse, better + worse, 0.5))


def _check_counts(better: int, worse: int, n: int) -> None:
    assert better >= 0 and worse >= 0, f"counts cannot be negative, got {better} and {worse}"
    assert better + worse <= n, f"{better} better and {worse} worse are more than {n} requests"


def _restricted_worse(better: int, worse: int, n: int, difference: float) -> float:
    """The likeliest rate of `worse` among those for which the rate of `better` is that plus d.

    The larger root of 2n·p² + B·p - worse·d·(1 - d) = 0.
    """
    if not n:
        return max(0.0, -difference)
    slope = (2 * n - better + worse) * difference - better - worse
    constant = -worse * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, slope * slope - 8.0 * n * constant))
    # of two equal forms, the one that does not subtract nearly equal numbers
    rate = (root - slope) / (4.0 * n) if slope <= 0 else -2.0 * constant / (slope + root)
    return min(max(rate, 0.0, -difference), (1.0 - difference) / 2.0)


def _lower(better: int, worse: int, n: int, delta: float) -> float:
    """The difference that the observed one exceeds by the quantile of `delta`."""
    from scipy.optimize import brentq

    quantile = -float(special.ndtri(delta))

    def excess(difference: float) -> float:
        return tango_statistic(better, worse, n, difference) - quantile

    if not n or excess(-EDGE) <= 0:
        return -1.0
    highest = min((better - worse) / n, EDGE)
    return cast(float, brentq(excess, -EDGE, highest)) if excess(highest) < 0 else highest
