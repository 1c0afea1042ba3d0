"""How often does a score come to harm? Isotonic: surer is never said to be worse.

In: develop rows with score and harm. Out: a small table, a row a range of scores: the share of harm
that the other folds predict for it, and what was seen. One request a unit, so that the intervals
hold; what is never served is left out. Shown, and used for nothing: the threshold is tested on
certify, not read off here. Invariants: the fit is the least-squares monotone one
(test_isotonic_matches_brute_force, test_isotonic_matches_scipy); no row is predicted by a fit that
has seen its unit (test_calibration_does_not_flatter_noise).
Sources: Ayer et al., Annals of Mathematical Statistics 26 (1955); Zadrozny and Elkan, KDD 2002.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ownweights.verdict.certificate import Calibrated
from ownweights.verdict.confidence.fit import FOLDS, Floats, cross_fit, unit_part
from ownweights.verdict.judged import ANSWERED, Judged, draw_one_per_unit
from ownweights.verdict.statistics.binomial import clopper_pearson_interval

MAX_BINS = 10
MIN_PER_BIN = 20


def calibration_table(rows: Iterable[Judged]) -> tuple[Calibrated, ...]:
    """Predicted and observed harm over the ranges of the develop scores, least sure first.

    Ranges hold about equally many units, and scores that are equal stay together; too few units for
    two ranges are one, and fewer than MIN_PER_BIN are none
    """
    drawn = draw_one_per_unit(row for row in rows if row.split == "develop")
    drawn = [row for row in drawn if row.status == ANSWERED and math.isfinite(row.score)]
    if len(drawn) < MIN_PER_BIN:
        return ()
    scores = np.array([row.score for row in drawn])
    harms = np.array([row.counted_harm for row in drawn])
    folds = np.array([unit_part(row.unit, FOLDS, salt="ownweights-isotonic-1") for row in drawn])
    predicted = cross_fit(fit_isotonic, scores[:, None], harms, folds)
    table: list[Calibrated] = []
    for held in _bins(scores):
        n, harmed = int(held.sum()), float(harms[held].sum())
        low, high = clopper_pearson_interval(round(harmed), n, 0.05)
        inside = scores[held]
        table.append(Calibrated(
            float(inside.min()), float(inside.max()), n, float(predicted[held].mean()), harmed,
            low, high,
        ))  # fmt: skip
    return tuple(table)


def fit_isotonic(columns: Floats, harms: Floats) -> _Steps:
    """The monotone fit of harm on one column of scores; straight lines between scores it saw."""
    scores, place = np.unique(columns[:, 0], return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    means = np.bincount(place, weights=harms) / counts
    return _Steps(scores, -pool_adjacent_violators(-means, counts))


def pool_adjacent_violators(values: Floats, weights: Floats) -> Floats:
    """The nearest non-decreasing values by weighted least squares. Shapes: (n,), (n,) → (n,)"""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, mass, many = blocks.pop()
            mean = (before * mass + mean * total) / (mass + total)
            total, count = total + mass, count + many
        blocks.append((mean, total, count))
    return np.repeat([mean for mean, _, _ in blocks], [count for _, _, count in blocks])


class _Steps:
    """A fitted curve: values at scores, lines between them, flat outside."""

    def __init__(self, scores: Floats, values: Floats) -> None:
        self.scores, self.values = scores, values

    def __call__(self, columns: Floats) -> Floats:
        return np.interp(columns[:, 0], self.scores, self.values)


def _bins(scores: Floats) -> list[np.ndarray]:
    """Rows by range of score, least sure first; equal scores are in one range."""
    count = max(1, min(MAX_BINS, len(scores) // MIN_PER_BIN))
    starts = np.sort(scores)[np.arange(1, count) * len(scores) // count]
    places = np.searchsorted(np.unique(starts), scores, side="right")
    return [places == place for place in np.unique(places)]
