"""Whether a student's answer may be sent: its score against the certified threshold.

In: a route and the student's completion; or, where the route's score is known before the answer,
what the student knew once it had read the prompt. Out: a Decision. Invariants: what cannot be
scored is never served (test_decide_unscorable_goes_to_the_teacher); before the answer and after it
the decision is the same (test_decide_before_is_decide).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ownweights.core.chat import Completion, Features
from ownweights.route.route import Route

if TYPE_CHECKING:
    from ownweights.verdict.confidence import Confidence

SERVED = "served"
BELOW_THRESHOLD = "below_threshold"


class Decision(NamedTuple):
    """Serve the student's answer or not; `score` is -inf where there was none."""

    serve: bool
    score: float
    reason: str


def confidence_of(route: Route) -> Confidence:
    """How a route scores answers."""
    from ownweights.verdict.confidence import Confidence  # with numpy

    return Confidence.from_dict(route.confidence)


def decide(route: Route, completion: Completion) -> Decision:
    """Serve exactly when the answer scores at least the route's threshold."""
    confidence = confidence_of(route)
    score = confidence.score(completion.features, completion.finish_reason, completion.text)
    return _at(route, score)


def decides_before(route: Route) -> bool:
    """Whether the route's score is known before the answer is, so that it may be streamed."""
    return confidence_of(route).decides_before_generating


def decide_before(route: Route, features: Features | None) -> Decision:
    """`decide` when only the prompt was read; never to serve where the score needs the answer."""
    return _at(route, confidence_of(route).score_before(features))


def _at(route: Route, score: float) -> Decision:
    if not math.isfinite(score) or score < route.threshold:
        return Decision(False, score if math.isfinite(score) else -math.inf, BELOW_THRESHOLD)
    return Decision(True, score, SERVED)
