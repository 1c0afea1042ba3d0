"""Examples made of several: what is exchanged, and what stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.example import Example
from ownweights.student import swap
from ownweights.student.swap import Messages, Swapper
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
    kinds, countries = ("bar", "café", "inn"), ("Oman", "Peru", "Chad")
    wanted = {f"find a {kind} in {country}" for kind in kinds for country in countries}
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


def test_swapped_gives_no_value_that_its_answer_does_not_agree_with() -> None:
    reviews = [
        ("review: loved it", {"quote": "loved it", "mood": "good"}),
        ("review: a joy", {"quote": "a joy", "mood": "good"}),
        ("review: broke at once", {"quote": "broke at once", "mood": "bad"}),
        ("review: no use", {"quote": "no use", "mood": "bad"}),
    ]
    examples = [example_of(asked, answer) for asked, answer in reviews]
    assert {asked for asked, _ in made(examples, 0)} == {"review: a joy"}
    assert {asked for asked, _ in made(examples, 2)} == {"review: no use"}


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        ("is Oman near Oman", {"country": "Oman"}),  # said twice
        ("the Romans", {"country": "Oman"}),  # inside a word
        ("an Oman\u0301 bar", {"country": "Oman"}),  # before a mark of its last letter
        ("where is it", {"country": "Oman"}),  # not said at all
        ("Oman Oman Oman", {"country": "Oman Oman"}),  # said twice, overlapping
        ("is it in Oman", {"country": "Oman", "again": "Oman"}),  # the answer has it twice
        ("a trip to Oman", {"country": "Oman", "title": "Trip to Oman"}),  # in another value
        ("a trip to oman air", {"country": "oman", "title": "Oman"}),  # but for capitals
        ("my country is", {"country": "country"}),  # also a key
        ("three of them", {"country": 3}),
        ("of  two blanks", {"country": "  "}),
    ],
)
def test_swapped_leaves_alone_what_is_not_said_exactly_once(asked: str, slots: Any) -> None:
    donor = ("we are in Chad now", {"slots": {key: "Chad" if key == "country" else value
                                             for key, value in slots.items()}})  # fmt: skip
    examples = bars((asked, {"slots": slots}), donor)
    assert all('"country": "Chad"' not in answer for _, answer in made(examples, 3))


def test_swapped_exchanges_none_of_two_values_that_overlap() -> None:
    flights = [
        ("fly Oman Air", {"airline": "Oman Air", "country": "Oman"}),
        ("fly Delta Jet", {"airline": "Delta Jet", "country": "Delta"}),
        ("from Chad", {"country": "Chad"}),
    ]
    assert made([example_of(asked, answer) for asked, answer in flights], 0) == set()


@pytest.mark.parametrize("target", ["plain text", "", "{", "[" * 100_000, "null", "{}", "NaN",
                                    '["Oman"]', '"Oman"'])  # fmt: skip
def test_swapped_leaves_other_answers_alone(target: str) -> None:
    donor = example_of("find a bar in Chad", target.replace("Oman", "Chad"))
    examples = [*bars(), example_of("find a bar in Oman", target), donor]
    assert made(examples, 3) == set()


def test_swapped_exchanges_nothing_for_what_is_there_already() -> None:
    asked = "from Oman not to Peru"
    examples = bars((asked, {"intent": "Find", "slots": {"country": "Oman"}}))
    assert {asked for asked, _ in made(examples, 3)} == {"from Chad not to Peru"}


@pytest.mark.parametrize(
    "other", ["\\1", "\\g<0>", 'say "x"', "a\\", ":", "{", "x\ny", "é", "x\u2028y"]
)
def test_swapped_takes_any_text_as_it_is(other: str) -> None:
    examples = [
        example_of("use a , please", {"sep": ","}),
        example_of(f"use {other}", {"sep": other}),
    ]
    ((asked, answer),) = made(examples, 0)
    assert (asked, json.loads(answer)) == (f"use a {other} please", {"sep": other})


def test_swapped_reads_what_a_punctuation_mark_is_not() -> None:
    examples = [
        example_of("use : please", '{"sep":":"}'),
        example_of("use ; please", '{"sep":";"}'),
    ]
    assert made(examples, 0) == {("use ; please", '{"sep":";"}')}


def test_swapped_reads_the_user_s_last_message_only() -> None:
    system = {"role": "system", "content": "You find places."}
    example = example_of("find a bar in Oman", BARS[0][1], before=[system])
    swapper = Swapper([*bars(), example], seed=1)
    one = next(filter(None, (swapper.swapped(3, epoch) for epoch in range(20))))
    assert one[0][0] == system
    tool = example_of("find a bar in Oman", BARS[0][1], after=[{"role": "tool", "content": "Oman"}])
    assert made([*bars(), tool], 3) == set()


def test_swapped_leaves_alone_what_an_earlier_turn_mentions() -> None:
    earlier: Messages = [
        {"role": "user", "content": "what is free?"},
        {"role": "assistant", "content": "Only a bar in Oman."},
    ]
    example = example_of("find a bar in Oman", BARS[0][1], before=earlier)
    assert made([*bars(), example], 3) == set()


def test_swapped_keeps_how_an_answer_is_spelt() -> None:
    ascii_answer = '{"intent": "Find", "slots": {"kind": "caf\\u00e9"}}'
    inn = example_of("an señor", '{"intent": "Find", "slots": {"kind": "señor"}}')
    answers = {answer for _, answer in made([inn, example_of("a café", ascii_answer)], 1)}
    assert answers == {'{"intent": "Find", "slots": {"kind": "se\\u00f1or"}}'}


TEXT = st.text(st.sampled_from('ab ":,\\{}é\n/'), max_size=6)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=6))
def test_swapped_answers_always_follow_from_their_requests(parts: list[tuple[str, ...]]) -> None:
    examples = [
        example_of(f"{words} say {one} and {two}", {"a": {"b": one}, "c": [two]})
        for words, one, two in parts
    ]
    for index, (words, _, _) in enumerate(parts):
        for asked, answer in made(examples, index, epochs=3):
            new = json.loads(answer)
            assert asked == f"{words} say {new['a']['b']} and {new['c'][0]}"
