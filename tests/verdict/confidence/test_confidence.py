"""Confidence: what may be served at all, what each kind of score is, and which kind is chosen."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.chat import Completion, Features
from ownweights.core.errors import ArtefactError
from ownweights.verdict.confidence import (
    PLAIN_KINDS,
    Confidence,
    plain_scores,
    risk_coverage_area,
    tune_confidence,
)

KNOWN = Features(
    token_ids=np.array([5, 6, 7, 8], np.int32),
    token_logprobs=np.array([-0.5, -2.0, -0.25, -1.0], np.float32),
    margins=np.array([1.0, 0.5, 2.0, 0.5], np.float32),
)


def features(logprobs: list[float], margins: list[float] | None = None) -> Features:
    values = np.array(logprobs, np.float32)
    found = values * 0 + 1 if margins is None else np.array(margins, np.float32)
    return Features(np.arange(len(values), dtype=np.int32), values, found)


@pytest.mark.parametrize(
    ("kind", "score"),
    [
        ("sum_logprob", -3.75),
        ("mean_logprob", -0.9375),
        ("min_logprob", -2.0),
        ("mean_3_lowest", -3.5 / 3),
        ("first_logprob", -0.5),
        ("min_margin", 0.5),
        ("mean_margin", 1.0),
    ],
)
def test_confidence_plain_kinds_are_what_they_say(kind: str, score: float) -> None:
    assert Confidence(kind).score(KNOWN, "stop", "text") == pytest.approx(score)


def test_confidence_logistic_is_a_log_odds() -> None:
    weights = tuple(0.1 * (i + 1) for i in range(len(PLAIN_KINDS)))
    ones = (2.0,) * len(PLAIN_KINDS)
    plain = plain_scores(KNOWN)
    assert plain is not None
    expected = float(((plain - 2.0) / 2.0) @ np.array(weights)) + 0.75
    found = Confidence("logistic", "text", weights, ones, ones, 0.75)
    assert found.score(KNOWN, "stop", "text") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "finish_reason", "text"),
    [
        (KNOWN, "length", "cut of"),
        (KNOWN, "content_filter", "text"),
        (KNOWN, None, "text"),
        (KNOWN, "stop", ""),
        (KNOWN, "stop", " \n"),
        (KNOWN, "stop", None),
        (None, "stop", "text"),
        (features([]), "stop", "text"),
        (features([-1.0, math.nan]), "stop", "text"),
        (features([-1.0], [math.nan]), "stop", "text"),
    ],
    ids=[
        "cut",
        "filtered",
        "unended",
        "empty",
        "blank",
        "none",
        "bare",
        "no_tokens",
        "nan",
        "nan2",
    ],
)
def test_confidence_never_serves(
    found: Features | None, finish_reason: str | None, text: str | None
) -> None:
    for kind in PLAIN_KINDS:
        assert Confidence(kind).score(found, finish_reason, text) == -math.inf


def test_confidence_of_json_answers_needs_json() -> None:
    strict = Confidence("sum_logprob", "json")
    assert strict.score(KNOWN, "stop", '{"a": 1}') == pytest.approx(-3.75)
    assert strict.score(KNOWN, "stop", '{"a": 1') == -math.inf
    assert strict.score(KNOWN, "stop", '{"a": 1, "a": 2}') == -math.inf


def test_confidence_stays_finite_with_impossible_tokens() -> None:
    found = features([-math.inf, -1.0], [math.inf, 0.0])
    for kind in PLAIN_KINDS:
        assert math.isfinite(Confidence(kind).score(found, "stop", "text"))


numbers = st.tuples(*[st.floats(-5, 5)] * len(PLAIN_KINDS))
scales = st.tuples(*[st.floats(0.1, 5)] * len(PLAIN_KINDS))


@given(st.sampled_from(PLAIN_KINDS), st.sampled_from(["text", "json"]))
def test_confidence_survives_json(kind: str, answers: str) -> None:
    known = Confidence(kind, answers)
    assert Confidence.from_dict(json.loads(json.dumps(known.to_dict()))) == known


@given(numbers, numbers, scales, st.floats(-3, 3))
def test_confidence_learned_numbers_survive_json(
    weights: tuple[float, ...], center: tuple[float, ...], scale: tuple[float, ...], bias: float
) -> None:
    known = Confidence("logistic", "json", weights, center, scale, bias)
    again = Confidence.from_dict(json.loads(json.dumps(known.to_dict())))
    assert again == known
    assert again.score(KNOWN, "stop", "{}") == known.score(KNOWN, "stop", "{}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "confidence None for 'text' answers is not known"),
        ({"kind": "entropy"}, "confidence 'entropy' for 'text' answers is not known"),
        ({"kind": "sum_logprob", "answers": "xml"}, "for 'xml' answers is not known"),
        ({"kind": "logistic", "weights": [1.0]}, "needs 7 weights, centers and scales"),
        ({"kind": "sum_logprob", "weights": [1.0]}, "needs 0 weights"),
        (
            {"kind": "logistic", "weights": [1] * 7, "center": [0] * 7, "scale": [0] * 7},
            "needs 7 weights",
        ),
    ],
)
def test_confidence_from_dict_refuses(data: dict[str, object], words: str) -> None:
    with pytest.raises(ArtefactError, match=words):
        Confidence.from_dict(data)


def test_risk_coverage_area_by_hand() -> None:
    harms = np.array([0.0, 1.0, 0.0])
    found = risk_coverage_area(np.array([3.0, 2.0, 1.0]), harms)
    assert found == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    from_two = risk_coverage_area(np.array([3.0, 2.0, 1.0]), harms, 0.5)
    assert from_two == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_risk_coverage_area_shares_harm_within_a_tie() -> None:
    harms = np.array([1.0, 0.0, 0.0, 1.0])
    assert risk_coverage_area(np.zeros(4), harms) == pytest.approx(0.5)


@given(st.integers(0, 10_000))
def test_risk_coverage_area_is_always_smallest_for_the_perfect_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    harms = (rng.random(40) < 0.3).astype(np.float64)
    perfect = risk_coverage_area(-harms, harms)
    assert perfect <= risk_coverage_area(rng.random(40), harms) + 1e-12
    assert risk_coverage_area(harms, harms) >= perfect


def completions(
    lowest: np.ndarray, others: np.ndarray, margins: np.ndarray | None = None
) -> list[Completion | None]:
    """Answers of four tokens: one as unlikely as `lowest`, the rest as `others`."""
    found: list[Completion | None] = []
    for index, (low, rest) in enumerate(zip(lowest, others, strict=True)):
        margin = 1.0 if margins is None else float(margins[index])
        logprobs = [float(rest), float(low), float(rest), float(rest)]
        found.append(Completion("a", "stop", features=features(logprobs, [margin] * 4)))
    return found


def units(n: int) -> list[str]:
    return [f"unit {i}" for i in range(n)]


def test_tune_finds_the_kind_that_tells() -> None:
    """Harm depends on the margin alone, and the log-probabilities are noise."""
    rng, n = np.random.default_rng(4), 600
    margins = rng.uniform(0, 4, n)
    harms = (rng.random(n) < 1 / (1 + np.exp(3 * (margins - 1)))).astype(np.float64)
    noise = -rng.gamma(2.0, 1.0, n)
    tuned = tune_confidence(completions(noise, noise, margins), harms, units(n))
    scores = [
        tuned.score(one.features, one.finish_reason, one.text)
        for one in completions(noise, noise, margins)
        if one
    ]
    plain = risk_coverage_area(margins, harms)
    assert risk_coverage_area(np.array(scores), harms) <= plain + 0.01


def test_tune_learns_what_no_plain_kind_says() -> None:
    """Harm follows the lowest token and the margin together: the learned score sorts better."""
    rng, n = np.random.default_rng(5), 900
    low, margins = -rng.uniform(0, 4, n), rng.uniform(0, 4, n)
    harms = (rng.random(n) < 1 / (1 + np.exp(2 * (low + margins)))).astype(np.float64)
    tuned = tune_confidence(completions(low, -np.full(n, 0.01), margins), harms, units(n))
    assert tuned.kind == "logistic"
    fresh_low, fresh_margins = -rng.uniform(0, 4, n), rng.uniform(0, 4, n)
    fresh = (rng.random(n) < 1 / (1 + np.exp(2 * (fresh_low + fresh_margins)))).astype(np.float64)
    asked = completions(fresh_low, -np.full(n, 0.01), fresh_margins)
    learned = np.array([tuned.score(o.features, "stop", "a") for o in asked if o])
    best_plain = min(risk_coverage_area(x, fresh) for x in (fresh_low, fresh_margins))
    assert risk_coverage_area(learned, fresh) < best_plain


def test_tune_does_not_flatter_noise() -> None:
    """Features that say nothing: on fresh requests the chosen score sorts no better than chance."""
    rng, n = np.random.default_rng(6), 500
    gains = []
    for _ in range(10):
        harms = (rng.random(n) < 0.3).astype(np.float64)
        low, rest, margins = -rng.gamma(2, 1, n), -rng.gamma(2, 1, n), rng.gamma(2, 1, n)
        tuned = tune_confidence(completions(low, rest, margins), harms, units(n))
        fresh = (rng.random(n) < 0.3).astype(np.float64)
        scores = np.array(
            [tuned.score(o.features, "stop", "a") for o in completions(low, rest, margins) if o]
        )
        gains.append(fresh.mean() - risk_coverage_area(scores, fresh))
    assert abs(np.mean(gains)) < 0.02


def test_tune_scores_units_out_of_fold() -> None:
    """Twenty units, forty like requests each: folds by row would know every unit by heart."""
    rng, repeats, learned = np.random.default_rng(7), 40, {"unit": 0, "row": 0}
    for _ in range(8):
        low, rest, margins = (np.repeat(rng.gamma(2, 1, 20), repeats) for _ in range(3))
        harms = np.repeat((rng.random(20) < 0.5).astype(np.float64), repeats)
        asked = completions(-low, -rest, margins)
        names = {"unit": [f"unit {i // repeats}" for i in range(len(low))], "row": units(len(low))}
        for by, named in names.items():
            learned[by] += tune_confidence(asked, harms, named).kind == "logistic"
    assert learned["unit"] <= 3
    assert learned["row"] >= 6


def test_tune_is_blind_to_the_order_of_requests() -> None:
    rng, n = np.random.default_rng(9), 200
    low = -rng.uniform(0, 4, n)
    harms = (rng.random(n) < -low / 5).astype(np.float64)
    order, asked = rng.permutation(n), completions(low, low)
    shuffled = tune_confidence(
        [asked[i] for i in order], harms[order], [units(n)[i] for i in order]
    )
    assert shuffled.kind == tune_confidence(asked, harms, units(n)).kind


def test_tune_leaves_out_what_is_never_served() -> None:
    rng, n = np.random.default_rng(8), 300
    low = -rng.uniform(0, 4, n)
    harms = (low < -2).astype(np.float64)
    cut = Completion("a", "length", features=features([-0.01]))
    mixed = [*completions(low, low), None, cut]
    tuned = tune_confidence(mixed, np.append(harms, [1.0, 1.0]), [*units(n), "x", "y"])
    assert tuned == tune_confidence(completions(low, low), harms, units(n))


def test_tune_without_any_answer_still_gives_a_score() -> None:
    tuned = tune_confidence([None], np.array([1.0]), ["unit"], answers="json")
    assert tuned == Confidence("sum_logprob", "json")


def test_tune_survives_constant_harm_and_features() -> None:
    same = completions(np.full(30, -1.0), np.full(30, -1.0))
    for harm in (0.0, 1.0):
        tuned = tune_confidence(same, np.full(30, harm), units(30))
        assert math.isfinite(tuned.score(KNOWN, "stop", "a"))
