"""A mean over many requests, when requests come in groups that are alike.

In: for each group the sum of a quantity and how many requests it holds. Out: the mean a request and
its interval. Groups are taken to be independent, requests within one need not be; what varies is
which groups came. The ratio of two sums is linearised, with Student's t for groups - 1 degrees of
freedom. Invariants: with one request a group it is the t interval of a mean
(test_ratio_interval_matches_ttest); it covers where groups are alike inside
(test_ratio_interval_covers_in_simulation); one group shows no spread and has no interval.
Source: Cochran, Sampling Techniques, 3rd edition, section 6.3; Cameron and Miller, J. Human
Resources 50 (2015).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class RatioInterval(NamedTuple):
    """Sum over sum; `low` and `high` are None where nothing says how it varies."""

    value: float
    low: float | None
    high: float | None


def ratio_interval(sums: ArrayLike, counts: ArrayLike, *, level: float = 0.95) -> RatioInterval:
    """The mean a request and its interval.

    Shapes: (groups,) each, groups ≥ 1; counts above 0
    """
    y, n = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    assert y.shape == n.shape and y.ndim == 1 and y.size, "one sum and one count a group"
    assert (n > 0).all(), "a group holds at least one request"
    groups, value = y.size, float(y.sum() / n.sum())
    if groups < 2:
        return RatioInterval(value, None, None)
    spread = float(np.square(y - value * n).sum()) * groups / (groups - 1)
    error = math.sqrt(spread) / float(n.sum())
    reach = float(special.stdtrit(groups - 1, (1 + level) / 2)) * error
    return RatioInterval(value, value - reach, value + reach)
