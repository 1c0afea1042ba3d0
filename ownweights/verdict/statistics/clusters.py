"""A mean over many requests, when requests come in groups that are alike.

In: for each group the sum of a quantity and how many requests it holds. Out: the mean a request and
its interval; of a share, one that knows that it is a share. Groups are taken to be independent,
requests within one need not be; what varies is which groups came. The ratio of two sums is
linearised, with Student's t for groups - 1 degrees of freedom. Invariants: with one request a group
it is the t interval of a mean (test_ratio_interval_matches_ttest); it covers where groups are alike
inside (test_ratio_interval_covers_in_simulation); one group shows no spread and has no interval.
Where few groups hold most requests, the spread of a share shows too late, or never. So its interval
is that of Clopper and Pearson for as many draws as the spread stands for, but for no more than the
sizes allow, were each group all alike (test_share_interval_covers_heavy_groups); with one request a
group it is theirs (test_share_interval_matches_clopper_pearson).
What no group shows, such as a size that none has, no interval knows.
Source: Cochran, Sampling Techniques, 3rd edition, section 6.3; Cameron and Miller, J. Human
Resources 50 (2015); Korn and Graubard, Survey Methodology 24 (1998); Kish, Survey Sampling (1965).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ownweights.verdict.statistics.binomial import Floats


class RatioInterval(NamedTuple):
    """Sum over sum; `low` and `high` are None where nothing says how it varies."""

    value: float
    low: float | None
    high: float | None


def ratio_interval(sums: ArrayLike, counts: ArrayLike, *, level: float = 0.95) -> RatioInterval:
    """The mean a request and its interval.

    Shapes: (groups,) each, groups ≥ 1; counts above 0
    """
    y, n = _groups(sums, counts)
    groups, value = y.size, float(y.sum() / n.sum())
    if groups < 2:
        return RatioInterval(value, None, None)
    spread = float(np.square(y - value * n).sum()) * groups / (groups - 1)
    error = math.sqrt(spread) / float(n.sum())
    reach = float(special.stdtrit(groups - 1, (1 + level) / 2)) * error
    return RatioInterval(value, value - reach, value + reach)


def share_interval(hits: ArrayLike, counts: ArrayLike, *, level: float = 0.95) -> RatioInterval:
    """The share of requests that are hits, and its interval within [0, 1].

    Shapes: (groups,) each, groups ≥ 1; 0 ≤ hits ≤ counts, counts above 0
    """
    y, n = _groups(hits, counts)
    assert ((y >= 0) & (y <= n)).all(), "no more hits than a group holds requests"
    value, spread = float(y.sum() / n.sum()), float(np.square(y - y.sum() / n.sum() * n).sum())
    draws = float(n.sum() ** 2 / np.square(n).sum())  # were each group all alike
    if spread > 0:
        draws = min(draws, value * (1.0 - value) * float(n.sum()) ** 2 / spread)
    seen, others, tail = value * draws, (1.0 - value) * draws, (1.0 - level) / 2
    low = float(special.betaincinv(seen, others + 1.0, tail)) if seen > 0 else 0.0
    high = float(special.betaincinv(seen + 1.0, others, 1.0 - tail)) if others > 0 else 1.0
    return RatioInterval(value, low, high)


def _groups(sums: ArrayLike, counts: ArrayLike) -> tuple[Floats, Floats]:
    y, n = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    assert y.shape == n.shape and y.ndim == 1 and y.size, "one sum and one count a group"
    assert (n > 0).all(), "a group holds at least one request"
    return y, n
