"""Many e-values at once: which workloads are proved, and what several of one workload say together.

In: e-values, each with a mean of at most 1 when its claim is false, however they hang together.
Out: the claims that stand although many were tried, or one e-value for them all. An e-value is a
stake at a time fixed or chosen by what was seen, never the largest stake of the past. Invariants:
the proved claims are the largest set that supports itself (test_e_bh_matches_every_subset); on
average at most δ of them are false (test_e_bh_errs_within_delta_under_dependence).
Sources: Wang and Ramdas, False discovery rate control with e-values (arXiv:2009.02824); Vovk and
Wang, E-values: Calibration, combination and applications (arXiv:1912.06116).
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ownweights.verdict.statistics.binomial import Floats


def e_bh(e_values: ArrayLike, delta: float) -> NDArray[np.bool_]:
    """Which claims stand: those of the k largest e-values, for the largest k with e_k ≥ K/(kδ).

    K is the number of all claims that were tried, the hopeless ones too.
    Shapes: e_values (..., K) → (..., K)
    """
    assert 0.0 < delta < 1.0, f"delta lies between 0 and 1, got {delta}"
    values = _checked(e_values)
    num_claims = values.shape[-1]
    falling = -np.sort(-values, axis=-1)
    ranks = np.arange(1, num_claims + 1)
    needed = num_claims / (ranks * delta)
    num_proved = np.where(falling >= needed, ranks, 0).max(axis=-1, initial=0)
    cutoffs = np.concatenate([[np.inf], needed])[num_proved]
    return values >= cutoffs[..., None]


def mean_e_value(e_values: ArrayLike) -> Floats:
    """One e-value for all of them, whatever their dependence.

    Shapes: e_values (..., K) → (...)
    """
    values = _checked(e_values)
    assert values.shape[-1] > 0, "no e-values have no mean"
    return cast(Floats, values.mean(axis=-1))


def _checked(e_values: ArrayLike) -> Floats:
    values = np.asarray(e_values, np.float64)
    assert values.ndim > 0 and (values >= 0).all(), "e-values are numbers of at least 0"
    return values
