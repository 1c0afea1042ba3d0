"""How many units a certificate would need, before they are spent and after a refusal.

In: the rates one expects (or has observed), the limits, the error to spend. Out: the smallest
number of units from which a binomial test succeeds with the wished power, or a reason why no number
would. The power of a binomial test saws up and down with n; the answer is the first n at which it
is reached (test_trials_needed_is_the_first_n_with_power), to within a thousandth where n is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from ownweights.verdict.statistics.binomial import binomial_p_value
from ownweights.verdict.statistics.fixed_sequence import Limits

POWER = 0.9
MAX_UNITS = 2_000_000
MAX_SIZES = 2_000


@dataclass(frozen=True, slots=True)
class Needed:
    """Units that a certificate would need; None with the reason when no number would do."""

    units: int | None
    reason: str


def served_without_harm(limit: float, delta: float) -> int:
    """The fewest trials, none of them a harm, that prove a rate below `limit`."""
    return math.ceil(math.log(delta) / math.log1p(-limit) - 1e-12)


def trials_needed(rate: float, limit: float, delta: float, *, power: float = POWER) -> int | None:
    """The fewest trials that prove a true `rate` to be below `limit` with probability `power`."""
    if rate >= limit:
        return None
    low = served_without_harm(limit, delta)
    high = max(2 * low, 16)
    while not _powers(np.array([high]), rate, limit, delta)[0] >= power:
        low, high = high, 2 * high
        if high > MAX_UNITS:
            return None
    # power saws: look all over the last doubling, at every n while that is cheap
    sizes = np.unique(np.linspace(max(1, low), high, MAX_SIZES).astype(np.int64))
    return int(sizes[int((_powers(sizes, rate, limit, delta) >= power).argmax())])


def units_needed(
    rate_served: float, coverage_frac: float, loss_frac: float, limits: Limits
) -> Needed:
    """Units for the joint certificate at these rates, or why no number of them would do."""
    rate_all = rate_served * coverage_frac + loss_frac
    for rate, limit, among in (
        (rate_served, limits.beta, "of the requests served"),
        (rate_all, limits.alpha, "of all requests"),
    ):
        if rate >= limit:
            return Needed(None, f"{rate:.1%} {among} came to harm, which is not below {limit:.1%}:"
                                " no number of examples would certify that")  # fmt: skip
    if coverage_frac <= 0:
        return Needed(None, "no request is served at the first threshold")
    served = trials_needed(rate_served, limits.beta, limits.delta)
    every = trials_needed(rate_all, limits.alpha, limits.delta)
    if served is None or every is None:
        return Needed(None, f"the observed rates are so near their limits that more than"
                            f" {MAX_UNITS:,} units would be needed")  # fmt: skip
    units = max(math.ceil(served / coverage_frac), every)
    return Needed(units, f"about {units:,} units at the observed rates, with power {POWER:.0%}")


def _powers(sizes: np.ndarray, rate: float, limit: float, delta: float) -> np.ndarray:
    """P(the test succeeds) at each size: so few harms that the p-value is at most `delta`."""
    guess = np.floor(special.bdtrik(delta, sizes, limit))
    allowed = np.full(len(sizes), -1.0)
    for k in (guess - 1, guess, guess + 1):  # the inverse is a real number, and may just miss
        passes = (k >= 0) & (binomial_p_value(np.maximum(k, 0), sizes, limit) <= delta)
        allowed = np.where(passes, k, allowed)
    return np.where(allowed < 0, 0.0, binomial_p_value(np.maximum(allowed, 0), sizes, rate))
