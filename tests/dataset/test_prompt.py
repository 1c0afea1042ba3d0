"""What a request asks, as the text that is split and compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.prompt import (
    MAX_COMPARED_CHARS,
    comparison_key,
    comparison_text,
    first_user_text,
    prompt_key,
)
from tests.dataset.records import body

TALK = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": "second"},
]


def test_first_user_text_is_the_opening_question() -> None:
    assert first_user_text(body(TALK)) == "first"


def test_first_user_text_is_empty_when_nobody_asks() -> None:
    assert first_user_text(body([{"role": "assistant", "content": "hello"}])) == ""


def test_first_user_text_reads_text_parts() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert first_user_text(body([{"role": "user", "content": parts}])) == "a b"


def test_comparison_text_of_one_question_is_the_question() -> None:
    assert comparison_text(body("where is it?")) == "where is it?"


def test_comparison_text_of_a_conversation_is_all_of_it() -> None:
    assert comparison_text(body(TALK)) == "first\nyes?\nsecond"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_comparison_text_leaves_out_the_system_prompt(role: str) -> None:
    said = [{"role": role, "content": "be brief"}, *TALK]
    assert comparison_text(body(said)) == comparison_text(body(TALK, system=None))


def test_comparison_text_counts_tool_calls() -> None:
    def asked(city: str) -> str:
        call = {"type": "function", "function": {"name": "find", "arguments": city}}
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        return comparison_text(body([TALK[0], said, {"role": "tool", "content": "found"}]))

    assert asked("Bern") != asked("Rome")
    assert asked("Bern").endswith("\nfound")


def test_comparison_text_of_a_prefilled_answer_holds_both() -> None:
    said = [TALK[0], {"role": "assistant", "content": "{"}]
    assert comparison_text(body(said)) == "first\n{"


@pytest.mark.parametrize("text", ["Play it!", "play  IT", " play, it ", "ＰＬＡＹ it"])
def test_prompt_key_folds_case_punctuation_and_width(text: str) -> None:
    assert prompt_key(text) == "play it"


def test_prompt_key_keeps_what_normalising_would_empty() -> None:
    assert prompt_key(" 👍 ") == "👍"
    assert prompt_key("👍") != prompt_key("👎")


@given(st.text(max_size=60))
def test_prompt_key_is_empty_for_nothing_but_white_space(text: str) -> None:
    assert bool(prompt_key(text)) == bool(text.strip())


def test_comparison_key_keeps_both_ends_of_a_long_text() -> None:
    middle = "word " * MAX_COMPARED_CHARS
    key = comparison_key(body(f"begin {middle} end"))
    assert len(key) == MAX_COMPARED_CHARS
    assert key.startswith("begin word")
    assert key.endswith("word end")
