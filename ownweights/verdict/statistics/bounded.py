"""Evidence about the mean of losses in [0, 1] that are not just 0 or 1.

In: losses of independent units. Out: a p-value of "the mean is above `limit`". Two ways: Hoeffding
and Bentkus need only the sum; betting needs the losses in an order fixed before they were seen, and
is sharper when they vary little. Both are one-sided: a mean above the limit never looks like
evidence (test_bounded_p_values_never_certify_a_high_mean).
Sources: Angelopoulos et al., Learn then Test (arXiv:2110.01052), Proposition 2; Waudby-Smith and
Ramdas, Estimating means of bounded random variables by betting (arXiv:2010.09686).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ownweights.verdict.statistics.binomial import Floats, binomial_p_value

BET_CAP = 0.75  # share of the largest stake that cannot lose everything


def hoeffding_bentkus_p_value(totals: ArrayLike, n: ArrayLike, limit: float) -> Floats:
    """p-value of "the mean loss is above `limit`" from the sum of n losses in [0, 1]."""
    total, size = np.broadcast_arrays(np.asarray(totals, np.float64), np.asarray(n, np.float64))
    mean = np.minimum(total / np.maximum(size, 1.0), limit)
    entropy = special.rel_entr(mean, limit) + special.rel_entr(1.0 - mean, 1.0 - limit)
    # a sum one rounding error above a whole number must not cost a whole harm
    bentkus = math.e * binomial_p_value(np.ceil(total - 1e-9), size, limit)
    return np.minimum(1.0, np.minimum(np.exp(-size * entropy), bentkus))


def betting_p_value(losses: NDArray[np.float64], limit: float) -> float:
    """p-value of "the mean loss is above `limit`" from losses in [0, 1], in their given order.

    A gambler who bets that losses fall below the limit multiplies a stake that has no tendency to
    grow when they do not; one over the largest stake ever held is a p-value (Ville).
    """
    n = len(losses)
    if n == 0:
        return 1.0
    steps = np.arange(1, n + 1, dtype=np.float64)
    means = (0.5 + np.cumsum(losses)) / (steps + 1)
    spreads = (0.25 + np.cumsum((losses - means) ** 2)) / (steps + 1)
    past_mean = np.concatenate([[0.5], means[:-1]])
    past_spread = np.concatenate([[0.25], spreads[:-1]])
    gap = limit - past_mean
    bet = np.clip(gap / (past_spread + gap**2), 0.0, BET_CAP / (1.0 - limit))
    log_wealth = np.cumsum(np.log1p(bet * (limit - losses)))
    return min(1.0, math.exp(-max(0.0, float(log_wealth.max()))))
