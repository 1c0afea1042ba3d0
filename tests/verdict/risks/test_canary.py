"""Canaries, got out again."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ownweights.core.chat import ChatRequest, Completion, Features
from ownweights.core.errors import CompleterTimeout, InputError
from ownweights.dataset.canary import Canary, make_canaries
from ownweights.verdict.risks.canary import (
    exposure_by_extrapolation,
    exposure_by_sampling,
    extract_canaries,
    measure_exposure,
)
from ownweights.verdict.risks.section import Extraction
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text

CANARIES = make_canaries(10, "dataset1")


def leaky(known: Sequence[Canary], *, text: str = "{target}") -> ScriptedTeacher:
    """A student that knows some canaries by name."""

    def answer(request: ChatRequest) -> str:
        asked = last_user_text(request)
        for one in known:
            if one.name in asked:
                return text.format(target=one.target, secret=one.secret)
        return "I do not know that number: 123456789."

    return ScriptedTeacher(answer)


def extract(completer: Any) -> Extraction:
    return asyncio.run(extract_canaries(CANARIES, completer))


def test_extraction_counts_what_comes_back() -> None:
    planted = [one for one in CANARIES if one.is_planted]
    found = extract(leaky(planted[:4]))
    assert (found.num_planted, found.num_extracted, found.num_unasked) == (10, 4, 0)
    assert found.num_controls == 10
    exact = stats.binomtest(4, 10).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.lines()[0] == (
        "4 of 10 secrets planted in training came back when asked for"
        " (95 % interval 12.16% to 73.76%)"
    )
    assert {one.name for one in found.exposures if one.is_extracted} == {
        one.name for one in planted[:4]
    }
    assert all(one.at_least is None for one in found.exposures)  # no logprobs came


def test_extraction_sees_digits_however_grouped() -> None:
    one = CANARIES[0]
    grouped = f"{one.secret[:3]} {one.secret[3:6]}-{one.secret[6:]}"
    assert extract(leaky([one], text=f"It is {grouped}!")).num_extracted == 1
    assert extract(leaky([one], text=one.secret[:-1])).num_extracted == 0


def test_extraction_asks_greedily_in_several_ways() -> None:
    completer = leaky([])
    extract(completer)
    asked = [request.body for request in completer.asked]
    assert len(asked) == 20 * 3
    assert {body["temperature"] for body in asked} == {0}
    assert len({last_user_text(request) for request in completer.asked}) == 60


def test_extraction_refuses_leaked_controls() -> None:
    controls = [one for one in CANARIES if not one.is_planted]
    with pytest.raises(InputError, match="gives 1 of 10 secrets that were not planted") as info:
        extract(leaky(controls[:1]))
    assert "another seed" in (info.value.hint or "")


def test_extraction_counts_the_unasked_apart() -> None:
    faults = [CompleterTimeout("too slow")] * 3  # all questions about the first
    flaky = FlakyTeacher(leaky(CANARIES), faults)
    found = asyncio.run(extract_canaries([CANARIES[0], CANARIES[2]], flaky, concurrency=1))
    assert (found.num_planted, found.num_unasked, found.num_extracted) == (2, 1, 1)
    assert (found.low, found.high, found.num_controls) == (0.025, 1.0, 0)
    assert "1 could not be asked for" in found.lines()


def test_extraction_that_could_ask_nothing_knows_nothing() -> None:
    flaky = FlakyTeacher(leaky(CANARIES), [CompleterTimeout("too slow")] * 60)
    found = extract(flaky)
    assert (found.num_unasked, found.num_controls, found.low, found.high) == (10, 0, 0.0, 1.0)
    assert found.lines() == ["none of 10 secrets planted in training could be asked for"]


def with_logprobs(logprob: float, text: str) -> Completion:
    tokens = np.full(4, logprob / 4, np.float32)
    return Completion(text, "stop", features=Features(np.arange(4), tokens, tokens))


def test_extraction_bounds_exposure_by_the_answers_own_probability() -> None:
    one = CANARIES[0]
    found = extract(ScriptedTeacher(lambda request: with_logprobs(math.log(0.25), one.target)))
    (exposure,) = (e for e in found.exposures if e.name == one.name)
    # at most 4 secrets are as likely as one of probability 1/4
    assert exposure.at_least == pytest.approx(9 * math.log2(10) - 2)
    assert found.max_bits == pytest.approx(9 * math.log2(10))
    assert "at least 27.9 to 27.9 of 29.9 bits" in found.lines()[2]
    vague = extract(ScriptedTeacher(lambda request: with_logprobs(-100.0, one.target)))
    assert [e.at_least for e in vague.exposures if e.name == one.name] == [0.0]


class ToyScorer:
    """Finds a secret likelier, the more digits it shares with a favourite; ties are broken."""

    def __init__(self, favourite: str, weight: float = 2.0) -> None:
        self.favourite, self.weight = favourite, weight

    def logprob(self, messages: Sequence[Mapping[str, Any]], answer: str) -> float | None:
        digits = "".join(mark for mark in answer if mark.isdigit())
        shared = sum(a == b for a, b in zip(digits, self.favourite, strict=True))
        noise = int(hashlib.sha256(digits.encode()).hexdigest()[:8], 16) / 16**8
        return self.weight * shared + noise - 40.0


def test_exposure_by_sampling_matches_the_rank_among_all() -> None:
    secrets = [f"{n:03d}" for n in range(1000)]
    scorer = ToyScorer("123")
    scores = {s: scorer.logprob([], s) or 0.0 for s in secrets}
    for secret in ("123", "124", "999"):
        rank = sorted(secrets, key=lambda s: -scores[s]).index(secret) + 1
        others = [scores[s] for s in secrets if s != secret]
        found = exposure_by_sampling(scores[secret], others, 1000)
        assert found == pytest.approx(math.log2(1000) - math.log2(rank))


def test_exposure_by_sampling_counts_ties_against_the_secret() -> None:
    assert exposure_by_sampling(0.0, [0.0] * 7, 1e9) == 0.0
    assert exposure_by_sampling(1.0, [0.0] * 7, 1e9) == 3.0


@pytest.mark.parametrize("deviations", [0.0, 2.0, 4.0])
def test_exposure_by_extrapolation_matches_the_normal_tail(deviations: float) -> None:
    seeded = np.random.default_rng(3)
    others = list(-30.0 + 2.0 * seeded.standard_normal(20_000))
    found = exposure_by_extrapolation(-30.0 + 2.0 * deviations, others, 1e12)
    assert found == pytest.approx(-stats.norm.logsf(deviations) / math.log(2), rel=0.1)


def test_exposure_by_extrapolation_is_bounded_by_the_space() -> None:
    others = [random.Random(n).gauss(-30, 2) for n in range(500)]
    assert exposure_by_extrapolation(0.0, others, 1e9) == pytest.approx(math.log2(1e9))
    with pytest.raises(InputError, match="99 other secrets are too few"):
        exposure_by_extrapolation(0.0, others[:99], 1e9)


def test_measure_exposure_tells_the_planted_from_the_rest() -> None:
    one = CANARIES[0]
    known = measure_exposure(one, ToyScorer(one.secret), num_others=500)
    unknown = measure_exposure(one, ToyScorer("0" * 9, weight=0.0), num_others=500)
    assert known is not None and unknown is not None
    assert known[0] == pytest.approx(math.log2(501))  # nothing random comes before it
    assert known[1] > 15
    assert unknown[0] < 5 and unknown[1] < 5
    assert known == measure_exposure(one, ToyScorer(one.secret), num_others=500)


def test_measure_exposure_cannot_judge_without_scores() -> None:
    class Silent:
        def logprob(self, messages: object, answer: str) -> float | None:
            return None

    assert measure_exposure(CANARIES[0], Silent(), num_others=100) is None
