"""How far the threshold may be loosened when only the risk among all requests counts (claim A).

                 strict ──────────────────────────► loose
    bound on the risk    .021   .033   .049   .058       α = .05
                                       └ deployed

In: thresholds fixed before any harm was seen, then scores and harms of the units. The risk among
all requests can only rise as more are served, so each bound is spent at the full δ and no threshold
pays for another. Out: the loosest threshold whose upper bound, and that of every stricter one, is
within α. Claim A alone is met by serving next to nothing, so it is no certificate by itself; what
conformal risk control would serve is advice, for its risk is within α on average over draws of the
units, not with confidence.
Invariants: equal to testing every threshold (test_rcps_matches_brute_force) and to the walk of
fixed_sequence.py without claim B (test_rcps_matches_the_walk_without_claim_b); the chance that the
deployed risk is above α is at most δ (test_rcps_breaks_its_limit_within_delta).
Sources: Bates et al., Distribution-free, risk-controlling prediction sets (arXiv:2101.02703);
Angelopoulos et al., Conformal risk control (arXiv:2208.02814).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ownweights.verdict.statistics.binomial import Floats, clopper_pearson_upper
from ownweights.verdict.statistics.bounded import hoeffding_bentkus_p_value

TINY = 1e-12
UpperBound = Callable[[float, int, float], float]  # (harms, n, delta) → risk


@dataclass(frozen=True, slots=True)
class Controlled:
    """A threshold, what it serves of the units, and the bound on its risk among all requests."""

    threshold: float
    n: int
    n_served: int
    harms: float
    losses: float
    risk_upper: float


def binomial_upper(harms: float, n: int, delta: float) -> float:
    """The rate that the true one exceeds with probability at most `delta`; harms of 0 and 1."""
    assert harms == int(harms), f"harms that are not all 0 or 1 have another bound, got {harms}"
    return clopper_pearson_upper(int(harms), n, delta)


def hoeffding_bentkus_upper(harms: float, n: int, delta: float) -> float:
    """The mean that the true one exceeds with probability at most `delta`; harms from 0 to 1."""
    from scipy.optimize import brentq

    def excess(limit: float) -> float:
        return float(hoeffding_bentkus_p_value(harms, n, limit)) - delta

    if n == 0 or harms >= n or excess(1.0 - TINY) >= 0:
        return 1.0
    # the p-value falls as the limit rises, so the far end of the root's bracket is the safe one
    root = cast(float, brentq(excess, max(harms / n, TINY), 1.0 - TINY, xtol=TINY))
    return min(1.0, root + TINY)


def rcps_threshold(
    scores: Floats,
    harms: Floats,
    *,
    thresholds: Floats,
    alpha: float,
    delta: float,
    losses: float = 0.0,
    upper: UpperBound = binomial_upper,
) -> Controlled | None:
    """The loosest threshold proved to keep claim A, or None when the strictest is not.

    `losses` count against the student at every threshold; harms between 0 and 1 need
    `hoeffding_bentkus_upper`.
    Shapes: scores, harms (n,), one entry a unit; thresholds (J,) strict to loose
    """
    served, harmed = _counts(thresholds, scores, harms)
    n, chosen = len(scores), None
    for threshold, n_served, harm in zip(thresholds, served, harmed, strict=True):
        bound = upper(float(harm) + losses, n, delta)
        if bound > alpha:
            break
        chosen = Controlled(float(threshold), n, int(n_served), float(harm), losses, bound)
    return chosen


def advisory_crc_threshold(
    scores: Floats, harms: Floats, *, thresholds: Floats, alpha: float, losses: float = 0.0
) -> float | None:
    """The loosest threshold whose risk is within `alpha` on average; advice, never a certificate.

    Shapes: scores, harms (n,), one entry a unit; thresholds (J,) strict to loose
    """
    _, harmed = _counts(thresholds, scores, harms)
    passed = (harmed + losses + 1.0) / (len(scores) + 1) <= alpha
    num_passed = int(np.logical_and.accumulate(passed).sum())
    return float(thresholds[num_passed - 1]) if num_passed else None


def _counts(thresholds: Floats, scores: Floats, harms: Floats) -> tuple[NDArray[np.int64], Floats]:
    """How many units each threshold serves, and the harm among them."""
    assert (np.diff(thresholds) < 0).all(), "thresholds go from strict to loose"
    assert ((harms >= 0) & (harms <= 1)).all(), "harms lie in [0, 1]"
    order = np.argsort(-scores, kind="stable")
    totals = np.concatenate([[0.0], np.cumsum(harms[order])])
    served = np.searchsorted(-scores[order], -thresholds, side="right")
    return cast(NDArray[np.int64], served), totals[served]
