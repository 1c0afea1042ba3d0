"""Gates that people use and that guarantee nothing: what ours is measured against, never used.

Shapes: thresholds (J,) strict to loose; scores, harms (n,). Each returns the threshold it would
deploy, or None.
"""

from __future__ import annotations

import numpy as np

from ownweights.verdict.statistics import binomial_p_value


def counts(thresholds, scores, harms):
    served = (scores[None, :] >= thresholds[:, None]).sum(1)
    harmed = ((scores[None, :] >= thresholds[:, None]) * harms[None, :]).sum(1)
    return served, harmed


def point_estimate_gate(thresholds, scores, harms, limits):
    """The loosest threshold whose observed rates are within the limits."""
    served, harmed = counts(thresholds, scores, harms)
    passes = (harmed <= limits.alpha * len(scores)) & (harmed <= limits.beta * served)
    return thresholds[np.flatnonzero(passes)[-1]] if passes.any() else None


def uncorrected_gate(thresholds, scores, harms, limits):
    """The loosest threshold whose Clopper-Pearson bounds are within the limits, at will."""
    served, harmed = counts(thresholds, scores, harms)
    passes = (binomial_p_value(harmed, len(scores), limits.alpha) <= limits.delta) & (
        binomial_p_value(harmed, served, limits.beta) <= limits.delta
    )
    return thresholds[np.flatnonzero(passes)[-1]] if passes.any() else None


def select_then_verify_gate(thresholds, scores, harms, limits):
    """70 % of the units pick the loosest threshold by its bounds, 30 % verify it by point estimate.

    Source: the threshold calibration of TRACER, re-implemented
    """
    cut = int(0.7 * len(scores))
    chosen = uncorrected_gate(thresholds, scores[:cut], harms[:cut], limits)
    if chosen is None:
        return None
    served, harmed = counts(np.array([chosen]), scores[cut:], harms[cut:])
    rest = len(scores) - cut
    holds = harmed[0] <= limits.alpha * rest and harmed[0] <= limits.beta * served[0]
    return chosen if holds else None
