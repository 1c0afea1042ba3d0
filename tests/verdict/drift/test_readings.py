"""What is read off one answer: wrapping, refusal, script, score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from ownweights.verdict.checks import Check, check_named
from ownweights.verdict.drift.readings import (
    CHANNEL_FEATURES,
    FEATURES,
    is_refusal,
    no_answer,
    read_answer,
    script_of,
    unwrap,
)

JSON = check_named("json")
FENCED = '```json\n{"a": 1}\n```'


def read(
    text: str, prompt: str = "What is it?", references: Sequence[str] = ('{"a": 1}',),
    check: Check | None = JSON,
) -> dict[str, float]:  # fmt: skip
    return dict(zip(FEATURES, read_answer(text, prompt, references, check).tolist(), strict=True))


def test_channels_share_out_all_features() -> None:
    assert sorted(sum(CHANNEL_FEATURES.values(), ())) == sorted(FEATURES)


def test_readings_tell_format_from_capability() -> None:
    plain, fenced, wrong = read('{"a": 1}'), read(FENCED), read('{"a": 2}')
    assert (plain["score"], fenced["score"], wrong["score"]) == (1.0, 1.0, 0.0)
    assert (plain["wrapped"], fenced["wrapped"], wrong["wrapped"]) == (0.0, 1.0, 0.0)
    assert (plain["json"], fenced["json"]) == (1.0, 0.0)
    assert (plain["fence"], fenced["fence"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("plain", "plain"),
        ("  plain \n", "plain"),
        (FENCED, '{"a": 1}'),
        ("Here you are:\n```\nx = 1\ny = 2\n```\nGood luck!", "x = 1\ny = 2"),
        ("```python\nx\n```\nand\n```python\ny\n```", "```python\nx\n```\nand\n```python\ny\n```"),
        ("```python\nnever closed", "```python\nnever closed"),
        ("inline ```code``` stays", "inline ```code``` stays"),
        ("```\n```", ""),
        ("", ""),
    ],
)
def test_unwrap_takes_the_only_block(text: str, inner: str) -> None:
    assert unwrap(text) == inner
    assert unwrap(unwrap(text)) == unwrap(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, I cannot do that.",
        "Sorry, but I cannot help you.",
        "As an AI language model, I must decline.",
        "I won't write this.",
        "I am unable to comply with the request.",
        "This is not appropriate, and I would rather not.",
        "We do not endorse such behaviour.",
        "Es tut mir leid, aber das geht nicht.",
        "Lo siento, no puedo ayudar con eso.",
        "Je ne peux pas répondre.",
    ],
)
def test_is_refusal_knows_words_that_decline(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[No]",
        "The parcel comes on Monday. Sorry for the delay!",
        "You can't miss it: turn left.",
        "No, 17077 is a prime number.",
        '{"action": "reschedule", "day": "Monday"}',
        "The band's song 'I Will Survive' is from 1978.",
        "Step 1. " + "Divide. " * 60 + "I cannot find a divisor, so it is prime.",
        "Ich kann gut kochen.",
    ],
)
def test_is_refusal_lets_answers_be(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("text", "script"),
    [("Hello", "LATIN"), ("Привет, world", "CYRILLIC"), ("你好", "CJK"), ("γειά", "GREEK"),
     ("123 ?!", None), ("", None)],
)  # fmt: skip
def test_script_of_is_that_of_most_letters(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_readings_see_an_answer_in_another_script() -> None:
    assert read("It is so")["script"] == 1.0
    assert read("Это так")["script"] == 0.0
    assert read("Это так", prompt="Что это?")["script"] == 1.0
    assert math.isnan(read("42")["script"])
    assert math.isnan(read("It is so", prompt="1 + 1 =")["script"])


@pytest.mark.parametrize(
    ("text", "has_list"),
    [("- a\n- b", 1.0), ("1. a\n2) b", 1.0), ("• a\n\n• b", 1.0), ("- only one", 0.0),
     ("a - b - c\nd - e", 0.0), ("1.5 and\n2.5", 0.0), ("", 0.0)],
)  # fmt: skip
def test_readings_see_lists(text: str, has_list: float) -> None:
    assert read(text)["list"] == has_list


@pytest.mark.parametrize(
    ("text", "is_json"), [("[1]", 1.0), ('{"a": 1} ', 1.0), ("1", 0.0), ("true", 0.0), ("{", 0.0)]
)
def test_readings_count_objects_and_lists_as_json(text: str, is_json: float) -> None:
    assert read(text)["json"] == is_json


def test_readings_without_a_check_have_no_score() -> None:
    found = read("x", check=None)
    assert math.isnan(found["score"])
    assert math.isnan(found["wrapped"])
    assert found["length"] == 1.0


def test_readings_nobody_can_judge_are_not_zero() -> None:
    found = read("x", references=("not JSON",))
    assert math.isnan(found["score"])
    assert math.isnan(found["wrapped"])


def test_no_answer_has_no_features() -> None:
    assert no_answer().shape == (len(FEATURES),)
    assert np.isnan(no_answer()).all()


class Half:
    """A graded check: half the harm for a wrapped answer."""

    name = "half"
    is_graded = True

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        return 0.5 if "```" in (answer or "") else 0.25


def test_readings_of_a_graded_check_keep_its_grades() -> None:
    found = read(FENCED, check=Half())
    assert (found["score"], found["wrapped"]) == (0.75, 1.0)
