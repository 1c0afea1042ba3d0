"""How sure a student is: scores of an answer or of its prompt, chosen on develop, and calibrated.

    score      one number from features: what a certificate names and a route recomputes
    fit        logistic regression, folds by unit, the area that says how well a score sorts
    gate       the learned score of the prompt's state, known before anything is generated
    agreement  the student asked again, with dice
    tune       the choice among all of them on develop, with what each costs
    calibrate  how often a score comes to harm: isotonic, shown against what was seen

Nothing here can make a certificate untrue, for thresholds are tested on certify; a bad score only
makes it refuse, or serve less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.verdict.confidence.fit import risk_coverage_area
    from ownweights.verdict.confidence.score import (
        AGREEMENT,
        GATE,
        LOGISTIC,
        PLAIN_KINDS,
        Confidence,
        plain_scores,
    )
    from ownweights.verdict.confidence.tune import Compared, Tuned, Wanted, tune_confidence

__all__ = [
    "AGREEMENT",
    "GATE",
    "LOGISTIC",
    "PLAIN_KINDS",
    "Compared",
    "Confidence",
    "Tuned",
    "Wanted",
    "plain_scores",
    "risk_coverage_area",
    "tune_confidence",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(
            ["AGREEMENT", "GATE", "LOGISTIC", "PLAIN_KINDS", "Confidence", "plain_scores"], "score"
        ),
        **dict.fromkeys(["Compared", "Tuned", "Wanted", "tune_confidence"], "tune"),
        "risk_coverage_area": "fit",
    },
)
