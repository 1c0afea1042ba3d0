"""How noisy the teacher is: which recorded answers are compared, and how they are counted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.chat import Completion
from ownweights.verdict.checks import check_named
from ownweights.verdict.floor import MAX_ANSWERS, Beside, draw_twins, measure_floor
from ownweights.verdict.judged import FAILED, INELIGIBLE
from tests.verdict.worlds import FakeExample


def example(name: str, says: str, *, asks: str = "q", unit: str = "u", **known: Any) -> FakeExample:
    messages = [{"role": "user", "content": asks}]
    references = known.pop("references", (says,))
    return FakeExample(
        name, unit, {"messages": messages, **known}, messages, says, references
    )  # fmt: skip


def floor(
    examples: Sequence[FakeExample], answers: Sequence[Any], **known: Any
) -> dict[int, tuple[float, float]]:
    async def harm_of(asked: Sequence[Beside], given_: Sequence[Completion]) -> list[float | None]:
        return [
            check_named("exact").harm(done.text, one.references)
            for one, done in zip(asked, given_, strict=True)
        ]

    outcomes = [a if a in (FAILED, INELIGIBLE) else Completion(a, "stop") for a in answers]
    return asyncio.run(measure_floor(examples, outcomes, harm_of, **known))


def test_draw_twins_takes_one_request_a_unit() -> None:
    many = [example(f"{q}{i}", f"a{i}", asks=q, unit="one") for q in "xy" for i in range(3)]
    alone = [example("z", "a", asks="z", unit="two")]
    (found,) = draw_twins([*many, *alone])
    assert len(found.answers) == 3
    assert sorted(found.answers) == ["a0", "a1", "a2"]


def test_draw_twins_keeps_multiplicities() -> None:
    """Nine equal answers and one other: a list of distinct ones would say that they never agree."""
    says = ["yes"] * 9 + ["no"]
    examples = [example(f"e{i}", s, references=("yes", "no")) for i, s in enumerate(says)]
    (found,) = draw_twins(examples, 10)
    assert sorted(found.answers) == sorted(says)


def test_draw_twins_never_pairs_other_forms_of_a_request() -> None:
    plain = example("a", "x")
    tools = example("b", "x", tools=[{"type": "function"}])
    other = example("c", "x", asks="Q")
    assert draw_twins([plain, tools, other]) == []
    assert len(draw_twins([plain, example("d", "y", temperature=0.7)])) == 1  # sampling may differ


def test_draw_twins_leaves_out_what_was_not_answered() -> None:
    assert draw_twins([example("a", "x"), example("b", "", references=())]) == []


@given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=2, max_size=12), st.randoms())
@settings(max_examples=60, deadline=None)
def test_draw_twins_is_blind_to_the_answers(says: list[str], random: Any) -> None:
    examples = [example(f"e{i}", s) for i, s in enumerate(says)]
    blank = [example(f"e{i}", "same") for i in range(len(says))]
    (found,), (same,) = draw_twins(examples), draw_twins(blank)
    assert found.index == same.index
    assert found.answers[0] == says[found.index]
    assert len(found.answers) == min(len(says), MAX_ANSWERS)
    order = list(range(len(says)))
    random.shuffle(order)
    (moved,) = draw_twins([examples[i] for i in order])
    assert (order[moved.index], moved.answers) == (found.index, found.answers)


@given(st.lists(st.sampled_from("xyz"), min_size=2, max_size=8), st.sampled_from("xyzw"))
@settings(max_examples=60, deadline=None)
def test_floor_matches_all_ordered_pairs(says: list[str], student: str) -> None:
    examples = [example(f"e{i}", s) for i, s in enumerate(says)]
    ((index, found),) = floor(examples, [student] * len(says)).items()
    pairs = [(a, b) for i, a in enumerate(says) for j, b in enumerate(says) if i != j]
    assert found[0] == pytest.approx(np.mean([a != b for a, b in pairs]))
    assert found[1] == pytest.approx(np.mean([a != student for a in says]))
    assert index == draw_twins(examples)[0].index


def test_floor_of_one_pair_compares_both_with_the_same_answer() -> None:
    says = [f"a{i}" for i in range(6)]
    examples = [example(f"e{i}", s) for i, s in enumerate(says)]
    first = draw_twins(examples)[0].answers[0]
    assert list(floor(examples, [first] * 6, one_pair=True).values()) == [(1.0, 0.0)]
    assert list(floor(examples, ["other"] * 6, one_pair=True).values()) == [(1.0, 1.0)]


def test_floor_asks_a_judge_for_two_comparisons_a_unit() -> None:
    asked: list[tuple[str, str]] = []

    async def harm_of(beside: Sequence[Beside], given_: Sequence[Completion]) -> list[float | None]:
        asked.extend(
            (one.target, done.text or "") for one, done in zip(beside, given_, strict=True)
        )
        assert all(one.references == (one.target,) for one in beside)
        return [0.0] * len(beside)

    examples = [example(f"{u}{i}", f"{u}{i}", asks=u, unit=u) for u in "pqr" for i in range(5)]
    outcomes = [Completion("mine", "stop")] * len(examples)
    asyncio.run(measure_floor(examples, outcomes, harm_of, one_pair=True))
    assert len(asked) == 6
    for (first, other), (again, student) in zip(asked[::2], asked[1::2], strict=True):
        assert first == again
        assert other[0] == first[0] and other != first
        assert student == "mine"


def test_floor_counts_what_nobody_could_judge_against_the_student() -> None:
    async def harm_of(beside: Sequence[Beside], given_: Sequence[Completion]) -> list[float | None]:
        return [None] * len(beside)

    examples = [example("a", "x"), example("b", "y")]
    found = asyncio.run(measure_floor(examples, [Completion("z", "stop")] * 2, harm_of))
    assert list(found.values()) == [(0.0, 1.0)]


@pytest.mark.parametrize("status", [FAILED, INELIGIBLE])
def test_floor_leaves_out_what_the_student_did_not_answer(status: str) -> None:
    examples = [example("a", "x"), example("b", "y")]
    assert floor(examples, [status, status]) == {}


def test_floor_of_one_more_draw_is_the_teachers_own() -> None:
    """Over many units a student that answers as the teacher does lies as far as the teacher."""
    rng = np.random.default_rng(2)
    examples, answers = [], []
    for u in range(1500):
        weights = rng.dirichlet([0.6] * 4)
        for i in range(4):
            says = "abcd"[rng.choice(4, p=weights)]
            examples.append(example(f"{u}-{i}", says, asks=str(u), unit=str(u)))
            answers.append("abcd"[rng.choice(4, p=weights)])
    for one_pair in (False, True):
        pairs = np.array(list(floor(examples, answers, one_pair=one_pair).values()))
        gaps = pairs[:, 0] - pairs[:, 1]
        assert len(gaps) == 1500
        assert abs(gaps.mean()) < 4 * gaps.std() / np.sqrt(len(gaps))
        assert 0.2 < pairs[:, 0].mean() < 0.8


def test_floor_reads_examples_only_through_what_they_declare() -> None:
    one = Beside("i", "u", {}, [], "t", ("t",), "m", {})
    assert dataclasses.asdict(one)["references"] == ("t",)
