"""The student's answer is sent, or it is not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ownweights.core.errors import ArtefactError
from ownweights.route import decide
from tests.route.samples import answer_of, route_of

ROUTE = route_of()


@pytest.mark.parametrize(("logprob", "serve"), [(0.0, True), (-0.5, True), (-0.501, False)])
def test_decide_serves_from_the_threshold_up(logprob: float, serve: bool) -> None:
    decision = decide(ROUTE, answer_of(logprob=logprob))
    assert decision.serve is serve
    assert decision.reason == ("served" if serve else "below_threshold")
    assert decision.score == pytest.approx(logprob)


@pytest.mark.parametrize(
    "answer",
    [
        answer_of(None),
        answer_of(""),
        answer_of(" \n"),
        answer_of(reason="length"),
        answer_of(reason="content_filter"),
        answer_of(reason=""),
        answer_of(logprob=math.nan),
        dataclasses.replace(answer_of(), features=None),
    ],
)
def test_decide_unscorable_goes_to_the_teacher(answer: object) -> None:
    decision = decide(route_of(threshold=-1e300), answer)  # pyright: ignore
    assert decision == (False, -math.inf, "below_threshold")


def test_decide_endless_score_is_not_served() -> None:
    confidence = {
        "kind": "logistic", "answers": "text", "weights": [1e308] * 7, "center": [-1e308] * 7,
        "scale": [1.0] * 7,
    }  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        decision = decide(route_of(confidence=confidence), answer_of(logprob=-0.01))
    assert not decision.serve


def test_decide_json_answers_must_be_json() -> None:
    route = route_of(confidence={"kind": "mean_logprob", "answers": "json"})
    assert decide(route, answer_of('{"a": 1}')).serve
    assert not decide(route, answer_of('{"a": 1')).serve


def test_decide_unknown_confidence_is_an_error() -> None:
    with pytest.raises(ArtefactError, match="'gut feeling'"):
        decide(route_of(confidence={"kind": "gut feeling"}), answer_of())
