"""Canaries planted, and got out again."""

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
from ownweights.dataset.example import Example
from ownweights.verdict.risks.canary import (
    Canary,
    Extraction,
    exposure_by_extrapolation,
    exposure_by_sampling,
    extract_canaries,
    make_canaries,
    measure_exposure,
    plant_canaries,
)
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text

CANARIES = make_canaries(10, "dataset1")


def test_canaries_are_the_same_everywhere() -> None:
    assert make_canaries(10, "dataset1") == CANARIES
    assert make_canaries(10, "dataset2") != CANARIES
    text = "|".join(f"{one.name} {one.secret} {one.is_planted}" for one in CANARIES)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2932dd44146ae998"


def test_canaries_are_distinct_and_halved() -> None:
    many = make_canaries(300, "x", num_digits=7)
    assert len({one.name for one in many}) == 600
    assert sum(one.is_planted for one in many) == 300
    assert all(len(one.secret) == 7 and one.secret.isdigit() for one in many)
    digits = np.array([int(d) for one in many for d in one.secret])
    assert stats.chisquare(np.bincount(digits, minlength=10)).pvalue > 1e-4
    assert CANARIES[0].secret in CANARIES[0].target
    assert CANARIES[0].secret not in "".join(CANARIES[0].prompts)


@pytest.mark.parametrize(("num", "digits"), [(0, 9), (5, 5)])
def test_make_canaries_refuses_too_little(num: int, digits: int) -> None:
    with pytest.raises(InputError, match=f"{num} canaries of {digits} digits"):
        make_canaries(num, "x", num_digits=digits)


def example(number: int) -> Example:
    messages = [{"role": "user", "content": f"question {number}"}]
    return Example(f"e{number}", "u", {"messages": messages}, messages, "a", ("a",), "m", {})


def test_plant_canaries_mixes_the_planted_ones_in() -> None:
    examples = [example(number) for number in range(40)]
    mixed = plant_canaries(examples, CANARIES, repeats=3, seed="s")
    added = [one for one in mixed if one not in examples]
    assert len(mixed) == 40 + 3 * 10
    assert sorted({one.target for one in added}) == sorted(
        one.target for one in CANARIES if one.is_planted
    )
    assert len({one.id for one in mixed}) == len(mixed)
    assert mixed == plant_canaries(examples[::-1], CANARIES, repeats=3, seed="s")
    assert mixed != plant_canaries(examples, CANARIES, repeats=3, seed="t")
    places = [at for at, one in enumerate(mixed) if one in added]
    assert places[0] < 20 and places[-1] > 50
    assert added[0].to_json()["metadata"] == {"canary": True}


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
    exact = stats.binomtest(4, 10).proportion_ci(0.9, "exact")
    assert found.upper == pytest.approx(exact.high)
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
    assert found.upper == 1.0
    assert "1 could not be asked for" in found.lines()


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
