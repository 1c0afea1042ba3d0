"""The gate on the prompt's state: what it learns, what it is, and that it knows nothing else."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import ArtefactError
from ownweights.verdict.confidence import GATE, PLAIN_KINDS, Confidence, risk_coverage_area
from ownweights.verdict.confidence.fit import fit_logistic
from ownweights.verdict.confidence.gate import MAX_COMPONENTS, fit_gate, gate_confidence
from ownweights.verdict.confidence.score import pack, unpack
from tests.verdict.confidence.state_worlds import WIDTH, draw_states, features, harms_along

HALF = 2.0**-11  # relative rounding of float16


def made(seed: int = 0, n: int = 300, strength: float = 1.5) -> tuple[Confidence, np.ndarray]:
    rng = np.random.default_rng(seed)
    states = draw_states(rng, n)
    harms = harms_along(rng, states, strength)
    return gate_confidence(states, harms, answers="text"), states


def test_gate_learns_what_the_state_says() -> None:
    """On fresh prompts it sorts nearly as well as the direction that harm follows."""
    gate, _ = made()
    rng = np.random.default_rng(1)
    states = draw_states(rng, 2000)
    harms = harms_along(rng, states, 1.5)
    scores = np.array([gate.score_before(features(-1.0, state)) for state in states])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    best = risk_coverage_area(-(states - 5.0) @ turn[0], harms)
    assert best < risk_coverage_area(scores, harms) < best + 0.02
    assert best < harms.mean() - 0.1


@pytest.mark.parametrize("n", [300, 45])
def test_gate_folds_into_weights_on_the_state(n: int) -> None:
    """Another way to the same numbers: components by the covariance's eigenvectors."""
    rng = np.random.default_rng(2)
    states = draw_states(rng, n)
    harms = harms_along(rng, states, 1.5)
    count = min(MAX_COMPONENTS, n // 10)
    values, vectors = np.linalg.eigh(np.cov(states.T))
    axes = vectors[:, np.argsort(-values)[:count]]
    seen = (states - states.mean(0)) @ axes
    expected = fit_logistic(seen, harms)(seen)
    assert np.allclose(fit_gate(states, harms)(states), expected, atol=1e-6)
    gate = gate_confidence(states, harms, answers="text")
    told = [gate.score_before(features(-1.0, state)) for state in states]
    unit = gate.scale[0]
    # each weight is off by at most half a step of float16, each state is a float32
    room = HALF * unit * np.abs(states - states.mean(0)).sum(1).max() + 1e-4
    assert np.abs(np.array(told) - expected).max() <= room


def test_gate_of_hardly_any_rows_is_a_gate() -> None:
    for harms in (np.zeros(3), np.array([0.0, 1.0, 0.0])):
        gate = gate_confidence(draw_states(np.random.default_rng(0), 3), harms, answers="text")
        gate.refuse_odd_numbers()


def test_gate_of_one_state_for_all_says_the_rate() -> None:
    states = np.ones((50, WIDTH))
    harms = np.repeat([0.0, 1.0], [40, 10])
    gate = gate_confidence(states, harms, answers="text")
    score = gate.score_before(features(-1.0, states[0]))
    assert score == pytest.approx(math.log(40 / 10), abs=0.01)


def test_gate_is_blind_to_the_answer() -> None:
    gate, states = made()
    known = gate.score_before(features(-1.0, states[0]))
    for reason, text in (("stop", "a"), ("length", "a"), ("stop", ""), (None, None)):
        for logprob in (-0.1, math.nan):
            assert gate.score(features(logprob, states[0]), reason, text) == known
    assert dataclasses.replace(gate, answers="json").score(
        features(-1.0, states[0]), "stop", "{"
    ) == (known)
    assert gate.decides_before_generating


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_no_other_kind_decides_before_generating(kind: str) -> None:
    one = Confidence(kind)
    assert not one.decides_before_generating
    assert one.score_before(features(-1.0, np.ones(WIDTH))) == -math.inf


@pytest.mark.parametrize(
    "state", [None, np.ones(WIDTH - 1), np.ones(0), np.full(WIDTH, np.nan), np.full(WIDTH, np.inf)]
)
def test_gate_does_not_serve_what_it_cannot_read(state: np.ndarray | None) -> None:
    gate, _ = made()
    assert gate.score_before(features(-1.0, state)) == -math.inf
    assert gate.score_before(None) == -math.inf


@given(st.integers(0, 1000))
def test_gate_survives_json(seed: int) -> None:
    gate, states = made(seed, 30)
    again = Confidence.from_dict(json.loads(json.dumps(gate.to_dict())))
    assert again == gate
    told = features(-1.0, states[0])
    assert again.score_before(told) == gate.score_before(told)


def test_gate_is_small_on_disk() -> None:
    gate, _ = made()
    assert len(json.dumps(gate.to_dict())) < 200 + 2.7 * WIDTH


@given(st.lists(st.floats(-1, 1, width=16), max_size=40))
def test_pack_and_unpack_cancel(weights: list[float]) -> None:
    if weights:
        assert unpack(pack(tuple(weights))) == tuple(weights)


@pytest.mark.parametrize("weights", [(0.1,), (2.0,), (float("nan"),)])
def test_pack_refuses_what_is_no_half(weights: tuple[float, ...]) -> None:
    with pytest.raises(ArtefactError, match="float16 numbers from -1 to 1"):
        pack(weights)


GOOD = {"kind": GATE, "weights": pack((0.5, -1.0)), "scale": [2.0], "bias": 0.1}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights": ""}, "needs packed weights and one scale"),
        ({"weights": "AAA"}, "cannot be read"),
        ({"weights": "AAAA"}, "cannot be read"),
        ({"weights": [0.5]}, "cannot be read"),
        ({"weights": None}, "cannot be read"),
        ({"weights": "AHw="}, "not finite"),  # float16 infinity
        ({"scale": []}, "needs packed weights and one scale"),
        ({"scale": [1.0, 2.0]}, "needs packed weights and one scale"),
        ({"scale": [math.inf]}, "not finite"),
        ({"scale": 2.0}, "lacks its numbers"),
        ({"scale": None}, "lacks its numbers"),
        ({"bias": math.nan}, "not finite"),
        ({"bias": "much"}, "lacks its numbers"),
        ({"answers": "xml"}, "not known here"),
    ],
)
def test_gate_from_dict_refuses(changed: dict[str, object], words: str) -> None:
    assert Confidence.from_dict(GOOD).score_before(features(0.0, np.array([1.0, 1.0]))) == (
        pytest.approx(-0.9)
    )
    with pytest.raises(ArtefactError, match=words):
        Confidence.from_dict({**GOOD, **changed})
    with pytest.raises(ArtefactError, match="lacks its numbers"):
        Confidence.from_dict({name: value for name, value in GOOD.items() if name != "scale"})
