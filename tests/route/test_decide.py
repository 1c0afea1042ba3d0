"""The student's answer is sent, or it is not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ownweights.core.errors import ArtefactError
from ownweights.route import decide
from ownweights.route.decide import decide_before, decides_before
from tests.route.samples import GATE, answer_of, read_of, route_of

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


@pytest.mark.parametrize(("state", "serve"), [(1.0, True), (0.75, True), (0.74, False)])
def test_decide_before_is_decide(state: float, serve: bool) -> None:
    """Whatever the answer turns out to be: a stream cannot be taken back."""
    route = route_of(confidence=GATE, threshold=0.5)
    before = decide_before(route, read_of(state))
    assert (before.serve, before.score) == (serve, pytest.approx(2 * state - 1))
    assert decides_before(route)
    for reason in ("stop", "length"):
        answer = answer_of("", reason=reason)
        assert answer.features is not None
        told = dataclasses.replace(answer.features, prompt_state=read_of(state).prompt_state)
        assert decide(route, dataclasses.replace(answer, features=told)) == before


def test_decide_before_serves_nothing_that_was_not_read() -> None:
    route = route_of(confidence=GATE, threshold=-1e300)
    for features in (None, answer_of().features, read_of(math.nan)):
        assert decide_before(route, features) == (False, -math.inf, "below_threshold")


def test_decide_before_serves_nothing_where_the_score_needs_the_answer() -> None:
    assert not decides_before(ROUTE)
    low = route_of(threshold=-1e300)
    assert not decide_before(low, answer_of().features).serve
    assert not decide_before(low, read_of(1.0)).serve


def test_decide_by_agreement_needs_the_samples() -> None:
    numbers = {"weights": [0.0] * 7 + [1.0], "center": [0.0] * 8, "scale": [1.0] * 8}
    confidence = {"kind": "agreement", "samples": 4, "check": "exact", **numbers}
    route, answer = route_of(confidence=confidence, threshold=0.75), answer_of()
    assert answer.features is not None
    for agreement, serve in ((1.0, True), (0.75, True), (0.5, False), (None, False)):
        told = dataclasses.replace(answer.features, agreement=agreement)
        assert decide(route, dataclasses.replace(answer, features=told)).serve is serve


def test_decide_unknown_confidence_is_an_error() -> None:
    with pytest.raises(ArtefactError, match="'gut feeling'"):
        decide(route_of(confidence={"kind": "gut feeling"}), answer_of())
