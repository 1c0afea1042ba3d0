"""Learning a score and saying how well it sorts, with every unit scored by who has not seen it.

In: columns of numbers and harms, one row an answer, and the fold of each row's unit. Out: log-odds
of no harm. Invariants: the fit is the minimum of its penalised loss
(test_fit_logistic_matches_scipy); a unit's rows are in one fold
(test_unit_part_is_the_same_for_a_unit).
Source of the curve: El-Yaniv and Wiener, JMLR 11 (2010); Geifman et al., arXiv:1805.08206.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
RIDGE = 1.0  # one unit of penalty on each standardised weight
NUM_GROUPS = 20  # of units, left out in turn for a standard error


class Line(NamedTuple):
    """Log-odds of no harm: (columns - center) / scale @ weights + bias."""

    weights: Floats
    center: Floats
    scale: Floats
    bias: float

    def __call__(self, columns: Floats) -> Floats:
        return (columns - self.center) / self.scale @ self.weights + self.bias


Fit = Callable[[Floats, Floats], Callable[[Floats], Floats]]  # (columns, harms) → score of columns


def unit_part(unit: str, parts: int, *, salt: str = "") -> int:
    """Which of so many parts a unit belongs to, by hash."""
    digest = hashlib.sha256((salt + unit).encode("utf-8", "surrogatepass")).digest()
    return (digest[0] if not salt else int.from_bytes(digest[:8], "big")) % parts


def fit_logistic(columns: Floats, harms: Floats) -> Line:
    """Ridge logistic regression of "no harm" by Newton steps."""
    center, spread = columns.mean(0), columns.std(0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    x = np.column_stack([(columns - center) / scale, np.ones(len(columns))])
    penalty = np.append(np.full(columns.shape[1], RIDGE), 1e-3)
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        chance = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30.0, 30.0)))
        slope = x.T @ (1.0 - harms - chance) - penalty * weights
        curve = (x.T * (chance * (1.0 - chance))) @ x + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return Line(weights[:-1], center, scale, float(weights[-1]))


def cross_fit(fit: Fit, columns: Floats, harms: Floats, folds: Ints) -> Floats:
    """The score of each row by a fit on the other folds; 0 where there are no others."""
    scores = np.zeros(len(columns))
    for fold in np.unique(folds):
        held = folds == fold
        if not held.all():
            scores[held] = fit(columns[~held], harms[~held])(columns[held])
    return scores


def risk_coverage_area(scores: Floats, harms: Floats, min_coverage_frac: float = 0.0) -> float:
    """Mean harm among the surest, averaged over how many are served: smaller sorts better."""
    n = len(scores)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, n)
    totals = np.concatenate([[0.0], np.cumsum(harms[order])])
    served = np.arange(max(1, min(n, math.ceil(min_coverage_frac * n))), n + 1)
    # within a tie the order is chance: its harm counts evenly
    harmed = np.interp(served, np.append(0, ends), totals[np.append(0, ends)])
    return float((harmed / served).mean())


def gain_of(
    better: Floats, worse: Floats, harms: Floats, groups: Ints, *, min_coverage_frac: float = 0.0
) -> tuple[float, float]:
    """How much smaller the first score's area is, and the standard error of that.

    By the jackknife over groups of units; without two groups nothing is known, and it is infinite.
    Source: Efron, Annals of Statistics 9 (1981), the delete-a-group form
    """

    def gain(kept: NDArray[np.bool_]) -> float:
        start = min_coverage_frac
        before = risk_coverage_area(worse[kept], harms[kept], start)
        return before - risk_coverage_area(better[kept], harms[kept], start)

    whole, names = gain(np.ones(len(harms), np.bool_)), np.unique(groups)
    if len(names) < 2:
        return whole, math.inf
    left = np.array([gain(groups != name) for name in names])
    count = len(names)
    return whole, float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
