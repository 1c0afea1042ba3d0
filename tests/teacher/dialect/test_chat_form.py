"""A Messages exchange has the chat form that it can be learned from, or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.teacher.dialect import as_chat, chat_answer, chat_request, messages_request
from tests.teacher.dialect.worlds import Json, chat_requests, messages_answers

ASKED = {
    "model": "claude",
    "max_tokens": 9,
    "system": "Answer in one word.",
    "messages": [{"role": "user", "content": "hello"}],
}


def answer(*blocks: Json, **fields: Any) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(blocks) or [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
        **fields,
    }


@given(chat_requests(), messages_answers())
def test_as_chat_always_is_both_translations(body: Json, response: Json) -> None:
    request = messages_request(body).body
    found = as_chat(request, response, created=7)
    assert found is not None
    asked, answered = found
    whole = chat_request(request).body
    assert asked == {k: v for k, v in whole.items() if not k.startswith("stream")}
    assert answered == chat_answer(response, created=7)


@given(st.booleans())
def test_as_chat_of_a_stream_is_that_of_the_whole(is_stream: bool) -> None:
    assert as_chat({**ASKED, "stream": is_stream}, answer()) == as_chat(ASKED, answer())


def test_as_chat_of_an_exchange() -> None:
    asked, answered = as_chat(ASKED, answer(), created=7) or ({}, None)
    assert asked["messages"] == [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "hello"},
    ]
    assert answered is not None
    assert answered["choices"][0]["message"]["content"] == "hi"
    assert answered["created"] == 7


def test_as_chat_without_an_answer_has_none() -> None:
    assert as_chat(ASKED, None) == (chat_request(ASKED).body, None)


@pytest.mark.parametrize("cut", [{"stop_reason": None}, {"stop_reason": "max_tokens"}])
def test_as_chat_of_an_answer_that_was_cut_off_ends_at_its_length(cut: Json) -> None:
    _, answered = as_chat(ASKED, answer(**cut)) or ({}, None)
    assert answered is not None
    assert answered["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("request_fields", "response"),
    [
        ({"top_k": 5}, answer()),
        ({"thinking": {"type": "adaptive"}}, answer()),
        ({"messages": "x"}, answer()),
        ({}, answer(stop_reason="pause_turn")),
        ({}, answer({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        ({}, "not json"),
        ({}, {"type": "error", "error": {"type": "api_error", "message": "no"}}),
    ],
)
def test_as_chat_of_what_chat_cannot_say_is_none(request_fields: Json, response: Any) -> None:
    assert as_chat({**ASKED, **request_fields}, response) is None


def test_as_chat_of_no_request_is_none() -> None:
    assert as_chat("x", answer()) is None
