"""Exact binomial evidence about a rate of harm: p-values and Clopper-Pearson bounds.

In: counts of harms among independent trials, numbers or arrays. Out: the probability that so few
harms show when the rate is at the limit (small = evidence that the rate is below it), and bounds
that hold with the confidence asked for. Nothing observed proves nothing: n = 0 gives p = 1 and the
interval [0, 1]. Invariants: equal to scipy's binomtest (test_binomial_p_value_matches_binomtest,
test_clopper_pearson_matches_binomtest).
Source: Clopper and Pearson, Biometrika 26 (1934).
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


def binomial_p_value(harms: ArrayLike, n: ArrayLike, limit: float) -> Floats:
    """P(Binomial(n, limit) ≤ harms): the p-value of "the rate of harm is above `limit`"."""
    k, size = np.broadcast_arrays(np.asarray(harms, np.float64), np.asarray(n, np.float64))
    is_open = k < size
    # the incomplete beta function has no value at k = n, where the tail is everything
    first, second = np.where(is_open, size - k, 1.0), np.where(is_open, k + 1.0, 1.0)
    tail = special.betainc(first, second, 1.0 - limit)
    return cast(Floats, np.where(is_open, tail, 1.0))


def clopper_pearson_upper(harms: int, n: int, delta: float) -> float:
    """The rate that the true one exceeds with probability at most `delta`."""
    if n == 0 or harms >= n:
        return 1.0
    return float(special.betaincinv(harms + 1, n - harms, 1.0 - delta))


def clopper_pearson_lower(harms: int, n: int, delta: float) -> float:
    """The rate that the true one falls below with probability at most `delta`."""
    if n == 0 or harms == 0:
        return 0.0
    return float(special.betaincinv(harms, n - harms + 1, delta))


def clopper_pearson_interval(harms: int, n: int, delta: float) -> tuple[float, float]:
    """Both bounds, `delta` shared equally between the two sides."""
    half = delta / 2
    return clopper_pearson_lower(harms, n, half), clopper_pearson_upper(harms, n, half)
