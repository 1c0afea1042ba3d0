"""How often does a score come to harm? Isotonic: surer is never said to be worse.

In: judged rows. Out: a small table, a row a range of scores: the share of harm that a monotone fit
on develop predicts for it, and what was seen on certify, one request a unit, so that the intervals
hold. What is never served is left out. It is shown, and used for nothing: the threshold is tested,
not read off here. Why seen on certify and not on develop: a range's share would be predicted from
the very units that it is shown beside; even cross-fitting does that, for rows of one range are
predicted by fits on their neighbours (test_ranges_flatter_a_cross_fit). Invariants: the fit is the
least-squares monotone one (test_isotonic_matches_brute_force, test_isotonic_matches_scipy); what is
predicted knows nothing of what is seen (test_calibration_does_not_flatter_noise).
Sources: Ayer et al., Annals of Mathematical Statistics 26 (1955); Zadrozny and Elkan, KDD 2002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ownweights.verdict.certificate import Calibrated
from ownweights.verdict.confidence.fit import Floats
from ownweights.verdict.judged import ANSWERED, Judged, draw_one_per_unit
from ownweights.verdict.statistics.binomial import clopper_pearson_interval

MAX_BINS = 10
MIN_PER_BIN = 20


def calibration_table(rows: Iterable[Judged]) -> tuple[Calibrated, ...]:
    """Predicted and observed harm over the ranges of the scores, least sure first.

    Ranges hold about equally many certify units, and scores that are equal stay together. Fewer
    than MIN_PER_BIN units, in develop or certify, are no table.
    """
    rows = list(rows)
    learned, shown = (_scores_and_harms(rows, split) for split in ("develop", "certify"))
    if min(len(learned[0]), len(shown[0])) < MIN_PER_BIN:
        return ()
    scores, harms = shown
    predicted = fit_isotonic(*learned)(scores)
    table: list[Calibrated] = []
    for held in _bins(scores):
        n, harmed = int(held.sum()), float(harms[held].sum())
        low, high = clopper_pearson_interval(round(harmed), n, 0.05)
        inside, expected = scores[held], float(predicted[held].mean())
        table.append(
            Calibrated(
                float(inside.min()), float(inside.max()), n, expected, harmed, low=low, high=high
            )
        )
    return tuple(table)


def _scores_and_harms(rows: Iterable[Judged], split: str) -> tuple[Floats, Floats]:
    drawn = draw_one_per_unit(row for row in rows if row.split == split)
    kept = [row for row in drawn if row.status == ANSWERED and math.isfinite(row.score)]
    return np.array([row.score for row in kept]), np.array([row.counted_harm for row in kept])


def fit_isotonic(scores: Floats, harms: Floats) -> Callable[[Floats], Floats]:
    """Harm as a falling function of the score: lines between those seen, flat outside."""
    known, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    means = np.bincount(place, weights=harms) / counts
    fitted = -pool_adjacent_violators(-means, counts)
    return lambda asked: np.interp(asked, known, fitted)


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


def _bins(scores: Floats) -> list[np.ndarray]:
    """Rows by range of score, least sure first; equal scores are in one range."""
    count = max(1, min(MAX_BINS, len(scores) // MIN_PER_BIN))
    starts = np.sort(scores)[np.arange(1, count) * len(scores) // count]
    places = np.searchsorted(np.unique(starts), scores, side="right")
    return [places == place for place in np.unique(places)]
