"""The learned gate: how likely the student is to do no harm, from the state its prompt left it in.

In: prompt states and harms of develop. Out: one weight a dimension and a bias, which is all that a
route needs. The state is seen along its first principal components only, as develop holds a few
hundred units and a state has hundreds of dimensions; a logistic regression on those is folded back
into weights on the state itself and rounded to float16, two bytes a dimension. Invariants: the
folded gate is the regression up to that rounding (test_gate_folds_into_weights_on_the_state); a
state that says nothing is not preferred, however well it can be learned by heart
(test_tune_leaves_a_gate_that_only_learned_by_heart).
Why the last state and principal components: they sorted better than the mean state and than random
projections (dev/LOG.md).
"""

from __future__ import annotations

import numpy as np

from ownweights.verdict.confidence.fit import Floats, Line, fit_logistic
from ownweights.verdict.confidence.score import GATE, Confidence

MAX_COMPONENTS = 16
ROWS_PER_COMPONENT = 10  # fewer develop rows than this for each: fewer components


def fit_gate(states: Floats, harms: Floats) -> Line:
    """The regression on principal components, as a line in the states. Shapes: states (n, E)"""
    count = max(1, min(MAX_COMPONENTS, len(states) // ROWS_PER_COMPONENT, states.shape[1]))
    center = states.mean(0)
    axes = np.linalg.svd(states - center, full_matrices=False)[2][:count].T  # (E, count)
    line = fit_logistic((states - center) @ axes, harms)
    weights = axes @ (line.weights / line.scale)
    shift = float(line.center @ (line.weights / line.scale))
    return Line(weights, center, np.ones(len(center)), line.bias - shift)


def gate_confidence(states: Floats, harms: Floats, *, answers: str) -> Confidence:
    """The gate fitted on all of develop, in the form that a certificate keeps."""
    line = fit_gate(states, harms)
    unit = float(np.abs(line.weights).max()) or 1.0
    weights = (line.weights / unit).astype(np.float16).astype(np.float64)
    bias = line.bias - float(line.center @ weights) * unit
    return Confidence(GATE, answers, tuple(weights.tolist()), (), (unit,), bias)
