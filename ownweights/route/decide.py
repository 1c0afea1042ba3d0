"""Whether a student's answer may be sent: its score against the certified threshold.

In: a route and the student's completion. Out: a Decision. Invariant: what cannot be scored is never
served (test_decide_unscorable_goes_to_the_teacher).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ownweights.core.chat import Completion
from ownweights.route.route import Route
from ownweights.verdict.confidence import Confidence

SERVED = "served"
BELOW_THRESHOLD = "below_threshold"


class Decision(NamedTuple):
    """Serve the student's answer or not; `score` is -inf where there was none."""

    serve: bool
    score: float
    reason: str


def decide(route: Route, completion: Completion) -> Decision:
    """Serve exactly when the answer scores at least the route's threshold."""
    confidence = Confidence.from_dict(route.confidence)
    score = confidence.score(completion.features, completion.finish_reason, completion.text)
    if not math.isfinite(score) or score < route.threshold:
        return Decision(False, score if math.isfinite(score) else -math.inf, BELOW_THRESHOLD)
    return Decision(True, score, SERVED)
