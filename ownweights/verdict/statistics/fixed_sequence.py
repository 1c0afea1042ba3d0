"""How far the threshold may be loosened with both risks proved: fixed-sequence Learn-Then-Test.

                 strict ──────────────────────────────► loose
    threshold    λ₁      λ₂      λ₃      λ₄      λ₅
    p            .001    .004    .020    .210            stop: .210 > δ_k
                                 └ deployed

In: thresholds fixed by the *develop* scores, then scores and harms of the *certify* units. At each
threshold p = max(p_A, p_B): A, harms among served over all units against α; B, harms among served
over the served against β. The walk goes from strict to loose while p ≤ δ_k and deploys the last
threshold that passed; if the first fails, none is. Which threshold is first is chosen with the
*develop* harms alone, so it costs no error: the strictest thresholds serve so few units that a
single harm, or none, would end the walk. Invariants: the chance that a deployed threshold
breaks A or B is at most δ_k, whatever the score (tests/verdict/test_certificate_simulation.py);
equal to testing every threshold by hand (test_walk_matches_brute_force).
Losses that count against the student without being served (errors, time-outs) are added to A at
every threshold.
Source: Angelopoulos et al., Learn then Test (arXiv:2110.01052), section 2 (fixed sequence testing;
several risks at once by the largest p-value).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ownweights.verdict.statistics.binomial import binomial_p_value

Floats = NDArray[np.float64]
RiskTest = Callable[[Floats, Floats | NDArray[np.int64], float], Floats]  # (harms, n, limit) → p
STEP_FRAC = 0.01  # of the develop units: how much each threshold loosens
ROOM = 50.0  # how far below δ the p-value must lie that develop promises for the first threshold


@dataclass(frozen=True, slots=True)
class Limits:
    """The two risks to be proved, and the error that may be spent on proving them."""

    alpha: float
    beta: float
    delta: float


@dataclass(frozen=True, slots=True)
class Step:
    """What the certify units say at one threshold."""

    threshold: float
    n: int
    n_served: int
    harms: float
    losses: float
    p_all: float
    p_served: float

    @property
    def p_value(self) -> float:
        return max(self.p_all, self.p_served)


@dataclass(frozen=True, slots=True)
class Walk:
    """The thresholds looked at, strict to loose, and the one to deploy (None: refuse)."""

    steps: tuple[Step, ...]
    chosen: Step | None


def develop_thresholds(
    scores: Floats, min_coverage_frac: float, *, step_frac: float = STEP_FRAC
) -> Floats:
    """Thresholds, strict to loose, that accept min_coverage_frac, + step, ... 1 of `scores`.

    A score of -inf is one that nobody serves: thresholds that would reach it are left out, so the
    result is empty when fewer than `min_coverage_frac` of the scores can be served at all.
    """
    if not len(scores):
        return np.empty(0)
    num_steps = math.floor((1.0 - min_coverage_frac) / step_frac + 1e-9)
    fracs = np.append(min_coverage_frac + step_frac * np.arange(num_steps + 1), 1.0)
    ranks = np.ceil(fracs * len(scores) - 1e-9).astype(np.int64).clip(1, len(scores))
    found = np.sort(scores)[::-1][ranks - 1]
    return np.unique(found[np.isfinite(found)])[::-1]


def start_of_walk(
    thresholds: Floats,
    scores: Floats,
    harms: Floats,
    limits: Limits,
    *,
    n: int,
    losses_frac: float = 0.0,
    test: RiskTest = binomial_p_value,
) -> int:
    """The threshold to test first on `n` certify units, as an index: where a pass is most likely.

    That is the strictest threshold whose p-value, were certify like develop, lies `ROOM` times
    below δ; or the one with the smallest where none does. Decided without certify, it changes the
    chance of success only, never that of a wrong certificate.
    Shapes: thresholds (J,) strict to loose; scores, harms (m,) of develop
    """
    if not len(thresholds):
        return 0
    p_values = expected_p_values(
        thresholds, scores, harms, limits, n=n, losses_frac=losses_frac, test=test
    )
    is_safe = p_values <= limits.delta / ROOM
    return int(is_safe.argmax() if is_safe.any() else p_values.argmin())


def expected_p_values(
    thresholds: Floats,
    scores: Floats,
    harms: Floats,
    limits: Limits,
    *,
    n: int,
    losses_frac: float = 0.0,
    test: RiskTest = binomial_p_value,
) -> Floats:
    """The p-value at each threshold, were `n` certify units like these of develop.

    Half a harm is added: seeing none does not mean that there are none.
    Shapes: thresholds (J,); scores, harms (m,) of develop, m > 0 → (J,)
    """
    served, harmed = _counts(thresholds, scores, harms)
    scale = n / len(scores)
    expected = (harmed + 0.5) * scale
    p_all = test(expected + losses_frac * n, np.full(len(thresholds), float(n)), limits.alpha)
    p_served = test(expected, np.asarray(served * scale, np.float64), limits.beta)
    return np.maximum(p_all, p_served)


def walk_thresholds(
    thresholds: Floats,
    scores: Floats,
    harms: Floats,
    limits: Limits,
    *,
    losses: float = 0.0,
    test: RiskTest = binomial_p_value,
) -> Walk:
    """Loosen while both risks are proved on the certify units; choose the last that was.

    Shapes: thresholds (J,) strict to loose; scores, harms (n,), one entry a unit
    """
    n, served, harmed = len(scores), *_counts(thresholds, scores, harms)
    p_all = test(harmed + losses, np.full(len(thresholds), n), limits.alpha)
    p_served = test(harmed, served, limits.beta)
    passed = np.maximum(p_all, p_served) <= limits.delta
    num_passed = len(passed) if passed.all() else int(passed.argmin())
    steps = tuple(
        Step(
            float(thresholds[j]), n, int(served[j]), float(harmed[j]), losses,
            float(p_all[j]), float(p_served[j]),
        )
        for j in range(min(num_passed + 1, len(thresholds)))
    )  # fmt: skip
    return Walk(steps, steps[num_passed - 1] if num_passed else None)


def _counts(thresholds: Floats, scores: Floats, harms: Floats) -> tuple[NDArray[np.int64], Floats]:
    """How many units each threshold serves, and the harm among them."""
    order = np.argsort(-scores, kind="stable")
    totals = np.concatenate([[0.0], np.cumsum(harms[order])])
    served = np.searchsorted(-scores[order], -thresholds, side="right")
    return cast(NDArray[np.int64], served), totals[served]
