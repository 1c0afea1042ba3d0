"""Examples made of two: what is exchanged, and what stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.example import Example
from ownweights.student import swap
from ownweights.student.swap import Swapper
from tests.student.answers import example_of

BARS = [
    ("find a bar in Oman", {"intent": "Find", "slots": {"kind": "bar", "country": "Oman"}}),
    ("a café in Peru, please", {"intent": "Find", "slots": {"kind": "café", "country": "Peru"}}),
    ("any inn in Chad?", {"intent": "Find", "slots": {"kind": "inn", "country": "Chad"}}),
]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange whatever may be exchanged."""
    monkeypatch.setattr(swap, "SWAPPED_FRAC", 1.0)
    monkeypatch.setattr(swap, "VALUE_FRAC", 1.0)


def bars(*more: tuple[str, Any]) -> list[Example]:
    return [example_of(asked, answer) for asked, answer in [*BARS, *more]]


def made(examples: list[Example], index: int, epochs: int = 40) -> set[tuple[str, str]]:
    """Everything that an example turns into over some epochs: the question and the answer."""
    swapper = Swapper(examples, seed=1)
    found = [swapper.swapped(index, epoch) for epoch in range(epochs)]
    return {(one[0][-1]["content"], one[1]) for one in found if one is not None}


def test_swapped_exchanges_a_value_in_request_and_answer_alike() -> None:
    for asked, answer in made(bars(), 0):
        slots = json.loads(answer)["slots"]
        assert asked == f"find a {slots['kind']} in {slots['country']}"
        assert slots["kind"] in {"bar", "café", "inn"}
        assert slots["country"] in {"Oman", "Peru", "Chad"}


def test_swapped_makes_every_combination() -> None:
    questions = {asked for asked, _ in made(bars(), 0, epochs=200)}
    wanted = {
        f"find a {k} in {c}" for k in ("bar", "café", "inn") for c in ("Oman", "Peru", "Chad")
    }
    assert questions == wanted - {"find a bar in Oman"}


def test_swapped_is_the_same_for_the_same_seed_epoch_and_index() -> None:
    one, two = Swapper(bars(), seed=3), Swapper(bars(), seed=3)
    drawn = [one.swapped(index, epoch) for index in range(3) for epoch in range(5)]
    assert drawn == [two.swapped(index, epoch) for index in range(3) for epoch in range(5)]
    other = Swapper(bars(), seed=4)
    assert drawn != [other.swapped(index, epoch) for index in range(3) for epoch in range(5)]


def test_swapped_leaves_about_its_share_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "SWAPPED_FRAC", 0.5)
    swapper = Swapper(bars(), seed=1)
    kept = sum(swapper.swapped(0, epoch) is None for epoch in range(1000))
    assert 480 < kept < 650  # half of them, and one in nine of the rest drew its own values


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("is Oman near Oman", {"country": "Oman"}),  # said twice
        ("the Romans", {"country": "Oman"}),  # inside a word
        ("where is it", {"country": "Oman"}),  # not said at all
        ("Oman to Oman City", {"country": "Oman"}),
        ("is it in Oman", {"country": "Oman", "again": "Oman"}),  # the answer has it twice
        ("my country is", {"country": "country"}),  # also a key
        ("in Oman", ["Oman"]),  # not an object
        ("in Oman", "Oman"),
        ("three of them", {"count": 3}),
        ("  ", {"country": "  "}),
    ],
)
def test_swapped_leaves_alone_what_is_not_said_exactly_once(asked: str, answer: Any) -> None:
    assert made(bars((asked, answer)), 3) == set()


@pytest.mark.parametrize("target", ["plain text", "", "{", "[" * 100_000, "null", "{}", "NaN"])
def test_swapped_leaves_other_answers_alone(target: str) -> None:
    examples = [*bars(), example_of("find a bar in Oman", target)]
    assert made(examples, 3) == set()


def test_swapped_exchanges_nothing_for_what_is_there_already() -> None:
    examples = bars(("from Oman not to Peru", {"slots": {"country": "Oman"}}))
    assert {asked for asked, _ in made(examples, 3)} == {"from Chad not to Peru"}


def test_swapped_reads_the_user_s_last_message_only() -> None:
    system = {"role": "system", "content": "You know Oman."}
    example = example_of("find a bar in Oman", BARS[0][1], before=[system])
    swapper = Swapper([*bars(), example], seed=1)
    one = next(filter(None, (swapper.swapped(3, epoch) for epoch in range(20))))
    assert one[0][0] == system
    tool = example_of("find a bar in Oman", BARS[0][1], after=[{"role": "tool", "content": "Oman"}])
    assert made([*bars(), tool], 3) == set()


def test_swapped_keeps_how_an_answer_is_spelt() -> None:
    ascii_answer = '{"slots": {"kind": "caf\\u00e9"}}'
    examples = [*bars(), example_of("a café", ascii_answer)]
    answers = {answer for _, answer in made(examples, 3)}
    assert answers == {'{"slots": {"kind": "bar"}}', '{"slots": {"kind": "inn"}}'}


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=6)), min_size=2, max_size=6))
def test_swapped_answers_always_follow_from_their_requests(pairs: list[tuple[str, str]]) -> None:
    examples = [example_of(f"{words} say {v}", {"a": {"b": v}}) for words, v in pairs]
    for index in range(len(examples)):
        for asked, answer in made(examples, index, epochs=3):
            assert json.loads(answer)["a"]["b"] in asked
