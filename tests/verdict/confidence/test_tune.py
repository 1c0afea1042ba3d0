"""The choice among scores: what is worth its cost, and what only looks so."""

from __future__ import annotations

import numpy as np
import pytest

from ownweights.core.chat import Completion
from ownweights.core.errors import UsageError
from ownweights.verdict.confidence import (
    AGREEMENT,
    GATE,
    LOGISTIC,
    PLAIN_KINDS,
    Confidence,
    Wanted,
    risk_coverage_area,
)
from ownweights.verdict.confidence.fit import FOLDS, cross_fit, unit_part
from ownweights.verdict.confidence.gate import fit_gate
from ownweights.verdict.confidence.tune import tune
from tests.verdict.confidence.state_worlds import (
    WIDTH,
    answers,
    draw_states,
    features,
    harms_along,
    units,
)


def noise(rng, n: int) -> np.ndarray:
    return -rng.gamma(2.0, 1.0, n)


def test_tune_prefers_a_gate_that_knows_more() -> None:
    """Harm follows the prompt's state, and the answer's probabilities are noise."""
    rng, n = np.random.default_rng(0), 600
    states = draw_states(rng, n)
    harms = harms_along(rng, states, 2.0)
    tuned = tune(answers(noise(rng, n), states), harms, units(n))
    assert tuned.confidence.kind == GATE
    assert [one.kind for one in tuned.compared if one.is_chosen] == [GATE]
    fresh = draw_states(rng, n)
    fresh_harms = harms_along(rng, fresh, 2.0)
    scores = [tuned.confidence.score_before(features(-1.0, state)) for state in fresh]
    assert risk_coverage_area(np.array(scores), fresh_harms) < 0.7 * fresh_harms.mean()


def test_tune_leaves_the_gate_where_the_answer_says_more() -> None:
    rng, n = np.random.default_rng(1), 600
    states = draw_states(rng, n)
    logprobs = noise(rng, n)
    harms = (rng.random(n) < 1 / (1 + np.exp(3 * (logprobs + 2)))).astype(np.float64)
    tuned = tune(answers(logprobs, states), harms, units(n))
    assert tuned.confidence.kind in (*PLAIN_KINDS, LOGISTIC)


def test_tune_leaves_a_gate_that_only_learned_by_heart() -> None:
    """States wider than there are units: in sample a line tells every harm, and it means nothing.

    Forty like requests a unit, so that folds by row would see every unit in training.
    """
    chosen = {"unit": 0, "row": 0}
    for seed in range(12):
        rng, repeats = np.random.default_rng(seed), 40
        states = np.repeat(rng.normal(size=(15, WIDTH)), repeats, axis=0)
        harms = np.repeat((rng.random(15) < 0.4).astype(np.float64), repeats)
        asked = answers(noise(rng, len(harms)), states)
        names = {"unit": [f"unit {i // repeats}" for i in range(len(harms))],
                 "row": units(len(harms))}  # fmt: skip
        for by, named in names.items():
            chosen[by] += tune(asked, harms, named).confidence.kind == GATE
    assert chosen["row"] == 12
    assert chosen["unit"] <= 2


def test_tune_prefers_neither_for_nothing() -> None:
    """All is noise: what costs more is chosen as rarely as two standard errors say."""
    dear = 0
    for seed in range(60):
        rng, n = np.random.default_rng(seed), 150
        asked = answers(noise(rng, n), draw_states(rng, n), rng.integers(0, 6, n) / 5)
        harms = (rng.random(n) < 0.3).astype(np.float64)
        wanted = Wanted(samples=5, check="exact")
        dear += tune(asked, harms, units(n), wanted).confidence.kind in (GATE, AGREEMENT)
    assert dear <= 6


def test_tune_prefers_agreement_that_knows_more() -> None:
    rng, n = np.random.default_rng(2), 500
    agreements = rng.integers(0, 9, n) / 8
    harms = (rng.random(n) < 0.9 - 0.85 * agreements).astype(np.float64)
    tuned = tune(
        answers(noise(rng, n), draw_states(rng, n), agreements), harms, units(n),
        Wanted("text", 0.1, samples=8, check="exact"),
    )  # fmt: skip
    found = tuned.confidence
    assert (found.kind, found.samples, found.check) == (AGREEMENT, 8, "exact")
    assert Confidence.from_dict(found.to_dict()) == found
    surest, least = (found.score(features(-1.0, None, a), "stop", "a") for a in (1.0, 0.0))
    assert surest > least
    assert found.score(features(-1.0), "stop", "a") == -np.inf  # a sample did not come
    assert found.score(features(-1.0, None, 1.0), "length", "a") == -np.inf
    (row,) = [one for one in tuned.compared if one.kind == AGREEMENT]
    assert (row.calls, row.wait_tokens, row.is_chosen) == (9, 4.0, True)


def test_tune_says_what_each_score_costs() -> None:
    rng, n = np.random.default_rng(3), 100
    states = draw_states(rng, n)
    tuned = tune(answers(noise(rng, n), states), harms_along(rng, states, 0.5), units(n))
    assert {one.kind for one in tuned.compared} == {*PLAIN_KINDS, LOGISTIC, GATE}
    assert [one.area for one in tuned.compared] == sorted(one.area for one in tuned.compared)
    for one in tuned.compared:
        assert (one.calls, one.wait_tokens) == (1, 1.0 if one.kind == GATE else 4.0)
    assert sum(one.is_chosen for one in tuned.compared) == 1


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_tune_for_streaming_is_a_gate_however_good(strength: float) -> None:
    rng, n = np.random.default_rng(4), 200
    states = draw_states(rng, n)
    asked = answers(noise(rng, n), states)
    harms = harms_along(rng, states, strength)
    tuned = tune(asked, harms, units(n), Wanted(streaming=True))
    assert tuned.confidence.decides_before_generating
    assert np.isfinite(tuned.develop_scores).all()


def test_tune_for_streaming_needs_states() -> None:
    rng = np.random.default_rng(5)
    some = answers(noise(rng, 10), draw_states(rng, 10))
    without = answers(noise(rng, 10))
    other_width = answers(noise(rng, 10), np.ones((10, 3)))
    odd = answers(noise(rng, 10), np.full((10, WIDTH), np.nan))
    for asked in (without, [*some, *without], [*some, *other_width], [*some, *odd], [None]):
        harms = np.zeros(len(asked))
        with pytest.raises(UsageError, match="needs the state of the prompt") as info:
            tune(asked, harms, units(len(asked)), Wanted(streaming=True))
        assert "streaming" in (info.value.hint or "")
        assert tune(asked, harms, units(len(asked))).confidence.kind != GATE


def test_tune_scores_develop_as_it_will_score_others() -> None:
    """In sample a fit of noise looks good; the scores that develop gets do not."""
    looks, tells = [], []
    for seed in range(12):
        rng, n = np.random.default_rng(seed), 120
        states = draw_states(rng, n)
        harms = (rng.random(n) < 0.4).astype(np.float64)
        tuned = tune(answers(noise(rng, n), states), harms, units(n), Wanted(streaming=True))
        in_sample = [tuned.confidence.score_before(features(-1.0, state)) for state in states]
        looks.append(harms.mean() - risk_coverage_area(np.array(in_sample), harms))
        tells.append(harms.mean() - risk_coverage_area(tuned.develop_scores, harms))
    assert np.mean(looks) > 0.08
    assert abs(np.mean(tells)) < 0.04


def test_tune_scores_of_a_plain_kind_are_its_scores() -> None:
    rng, n = np.random.default_rng(6), 200
    logprobs = noise(rng, n)
    harms = (rng.random(n) < 1 / (1 + np.exp(3 * (logprobs + 2)))).astype(np.float64)
    asked: list[Completion | None] = [
        None, *answers(logprobs), Completion("a", "length", features=features(-0.1)),
    ]  # fmt: skip
    tuned = tune(asked, np.array([1.0, *harms, 1.0]), units(n + 2))
    assert tuned.develop_scores[0] == tuned.develop_scores[-1] == -np.inf
    if tuned.confidence.kind in PLAIN_KINDS:
        told = [tuned.confidence.score(one.features, "stop", "a") for one in asked[1:-1] if one]
        assert tuned.develop_scores[1:-1].tolist() == told


def test_tune_scores_develop_on_the_scale_of_the_final_fit() -> None:
    """Few values, as an agreement has: a threshold among develop's must serve others, too."""
    rng, n = np.random.default_rng(8), 200
    agreements = np.where(rng.random(n) < 0.8, 1.0, 0.5)
    harms = (agreements < 1).astype(np.float64)
    asked = answers(np.full(n, -0.1), None, agreements)
    tuned = tune(asked, harms, units(n), Wanted(samples=2, check="exact"))
    assert tuned.confidence.kind == AGREEMENT
    final = [tuned.confidence.score(one.features, "stop", "a") for one in asked if one]
    assert tuned.develop_scores.tolist() == final


def test_tune_keeps_each_folds_values_and_the_order_of_the_unseen() -> None:
    rng, n = np.random.default_rng(9), 150
    states = draw_states(rng, n)
    harms = harms_along(rng, states, 1.0)
    tuned = tune(answers(noise(rng, n), states), harms, units(n), Wanted(streaming=True))
    final = np.array([tuned.confidence.score_before(features(-1.0, state)) for state in states])
    folds = np.array([unit_part(unit, FOLDS) for unit in units(n)])
    unseen = cross_fit(fit_gate, states.astype(np.float32).astype(np.float64), harms, folds)
    for fold in range(FOLDS):
        held = folds == fold
        assert sorted(tuned.develop_scores[held]) == sorted(final[held])
        order = np.argsort(unseen[held])
        assert (np.diff(tuned.develop_scores[held][order]) >= 0).all()
    assert not np.array_equal(np.argsort(final), np.argsort(tuned.develop_scores))


def test_tune_counts_what_a_gate_cannot_take_back() -> None:
    """Half of the answers are cut off, which only those who saw them can know: they must win."""
    rng, n = np.random.default_rng(7), 400
    states = draw_states(rng, n)
    is_cut = rng.random(n) < 0.5
    asked = [
        Completion("a", "length" if cut else "stop", features=features(-0.1, state))
        for cut, state in zip(is_cut, states, strict=True)
    ]
    tuned = tune(asked, is_cut.astype(np.float64), units(n))
    areas = {one.kind: one.area for one in tuned.compared}
    assert tuned.confidence.kind != GATE
    assert areas[GATE] > 2 * areas["sum_logprob"]


def test_tune_of_nothing_gives_a_score() -> None:
    tuned = tune([None, None], np.ones(2), ["a", "b"], Wanted("json", 0.1, 5, "json"))
    assert tuned.confidence == Confidence("sum_logprob", "json")
    assert tuned.develop_scores.tolist() == [-np.inf] * 2
    assert tuned.compared == ()
