"""Who decides what is open, and how sure is sure enough."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from scipy import stats

from ownweights.core.errors import InputError
from ownweights.verdict.judge import (
    Cascade,
    Comparison,
    JudgeOptions,
    decide_by_people,
    trust_threshold,
)
from ownweights.verdict.judge.escalate import MIN_TRUSTED_FRAC
from tests.verdict.judge import judges
from tests.verdict.judge.judges import judge_who, pair, pairs, verdict


def shy(request: str, first: str, second: str) -> str:
    """Careful on even questions, of places on odd ones, silent where the question is 0."""
    number = int(judges.right(request)) // 7 - 142  # 7·i + 1000, rounded
    if number == 0:
        return "no idea"
    return judges.careful(request, first, second) if number % 2 == 0 else verdict("FIRST")


def test_cascade_asks_the_stronger_judge_only_what_is_open() -> None:
    weak, strong = judge_who(shy, name="weak"), judge_who(judges.careful, name="strong")
    given = pairs(40)
    alone = asyncio.run(judge_who(shy).compare(given))
    num_open = sum(one.is_open for one in alone)
    assert 10 < num_open < 30
    found = asyncio.run(Cascade([weak, strong]).compare(given))
    assert [one.outcome for one in found] == [
        "loss" if one.answer == "It is 5." else "tie" for one in given
    ]
    assert [one.by for one in found] == ["strong" if one.is_open else "weak" for one in alone]
    assert strong.spent.calls == 2 * num_open
    assert [one.id for one in found] == [one.id for one in given]


def test_cascade_never_asks_again_what_was_decided() -> None:
    """A stronger judge that would say otherwise is not heard on what is decided."""
    found = asyncio.run(Cascade([judge_who(judges.tie_lover), judge_who(shy)]).compare(pairs(4)))
    assert {one.outcome for one in found} == {"tie"}


def test_cascade_tells_all_its_judges_and_their_cost() -> None:
    prices = JudgeOptions(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    weak, strong = judge_who(judges.first_lover, name="weak", options=prices), judge_who(
        judges.careful, name="strong", options=prices
    )  # fmt: skip
    cascade = Cascade([weak, strong])
    asyncio.run(cascade.compare(pairs(3)))
    assert cascade.identity["name"] == "weak"
    assert [above["name"] for above in cascade.identity["above"]] == ["strong"]
    assert cascade.spent.calls == 12
    assert cascade.spent.usd == pytest.approx((weak.spent.usd or 0) + (strong.spent.usd or 0))
    assert Cascade([weak, judge_who(shy)]).spent.usd is None
    assert Cascade([weak]).identity == weak.identity
    assert cascade.answered_by == ("scripted",)
    assert asyncio.run(cascade.compare([])) == []


def test_people_decide_what_is_open_and_nothing_else() -> None:
    given = [
        Comparison("a", "win"), Comparison("b", "undecided"), Comparison("c", None, why="slow"),
        Comparison("d", "undecided"), Comparison("e", None),
    ]  # fmt: skip
    labels = {"a": ["loss"], "b": ["loss"], "c": ["tie", "tie", "win"], "d": ["win", "loss"]}
    found = decide_by_people(given, labels)
    assert [one.outcome for one in found] == ["win", "loss", "tie", "undecided", None]
    assert [one.by for one in found] == ["", "people", "people", "", ""]


# how sure is sure enough


def brute_force(sure: np.ndarray, right: np.ndarray, limit: float, delta: float) -> float | None:
    """From the surest tenth on, one hundredth more at a time, by scipy's binomial test."""
    found, order = None, np.sort(sure)[::-1]
    fracs = [MIN_TRUSTED_FRAC + k / 100 for k in range(91)]
    for threshold in [order[max(1, math.ceil(f * len(sure) - 1e-9)) - 1] for f in fracs]:
        trusted = right[sure >= threshold]
        wrong = int((~trusted).sum())
        if stats.binomtest(wrong, len(trusted), limit, alternative="less").pvalue > delta:
            break
        found = float(threshold)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_trust_threshold_matches_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sure = np.round(rng.random(300), 2)
    right = rng.random(300) < 0.75 + 0.25 * sure
    found = trust_threshold(sure, right, max_error_frac=0.15)
    assert found == brute_force(sure, right, 0.15, 0.05)


def test_trust_threshold_trusts_all_or_none_where_that_is_right() -> None:
    sure = np.linspace(0, 1, 200)
    assert trust_threshold(sure, np.ones(200, bool), max_error_frac=0.2) == 0.0
    assert trust_threshold(sure, np.zeros(200, bool), max_error_frac=0.2) is None
    assert trust_threshold([], [], max_error_frac=0.2) is None
    few = np.linspace(0, 1, 20)
    assert trust_threshold(few, np.ones(20, bool), max_error_frac=0.1) is None  # 2 prove nothing


def test_trust_threshold_holds_in_simulation() -> None:
    """Trusted judgements err more often than allowed in at most delta of runs."""
    rng, trials, wrong, limit, delta = np.random.default_rng(11), 1500, 0, 0.2, 0.1
    for _ in range(trials):
        sure = rng.random(250)
        # errors rise with doubt; of all judgements surer than s, (1 - s) / 4 · 1.2 + .1 are wrong
        right = rng.random(250) >= 0.1 + 0.6 * (1 - sure) / 2
        found = trust_threshold(sure, right, max_error_frac=limit, delta=delta)
        if found is not None:
            wrong += 0.1 + 0.6 * (1 - found) / 4 > limit
    assert wrong / trials <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)
    assert wrong > 0  # a bound that is never reached would say nothing


@pytest.mark.parametrize(("sure", "right"), [([0.1], [True, False]), ([math.nan], [True])])
def test_trust_threshold_refuses_what_does_not_pair(sure: list[float], right: list[bool]) -> None:
    with pytest.raises(InputError, match="expected as many of each"):
        trust_threshold(sure, right, max_error_frac=0.1)


def test_comparison_of_one_pair_says_by_whom() -> None:
    (found,) = asyncio.run(Cascade([judge_who(judges.careful, name="only")]).compare([pair(1)]))
    assert found.by == "only"
