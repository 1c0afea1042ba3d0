"""The OpenAI dialect: bodies to chunks and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ownweights.core.chat import Usage
from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.sse import decode_events, event_data
from ownweights.teacher.wire import (
    assemble,
    chunk_events,
    completion_body,
    error_body,
    parse_completion,
    parse_usage,
    usage_body,
)

CALLS = [
    {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "book", "arguments": "{}"}},
]


def body_of(text: str, usage: Usage | None = None) -> dict[str, Any]:
    return completion_body(
        text, completion_id="c", model="m", finish_reason="stop", created=5, usage=usage
    )


def events_of(body: dict[str, Any], *, include_usage: bool = False) -> tuple[list[Any], bool]:
    raw = b"".join(chunk_events(body, include_usage=include_usage))
    return decode_events(event_data(raw))


def test_completion_body_is_what_the_official_client_reads() -> None:
    read = ChatCompletion.model_validate(body_of("hi", Usage(3, 2)), strict=True)
    assert read.choices[0].message.content == "hi"
    assert read.usage is not None
    assert read.usage.total_tokens == 5


def test_chunk_events_are_what_the_official_client_reads() -> None:
    events, is_done = events_of(body_of("two words", Usage(3, 2)), include_usage=True)
    chunks = [ChatCompletionChunk.model_validate(event) for event in events]
    assert is_done
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "two words"
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []


@given(st.text())
def test_assemble_undoes_chunk_events(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    body = body_of(text, Usage(1, 2))
    events, _ = events_of(body, include_usage=True)
    again = assemble(events)
    assert again is not None
    choice = again["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": text}
    assert choice["finish_reason"] == "stop"
    assert (again["id"], again["model"], again["created"]) == ("c", "m", 5)
    assert again["usage"] == usage_body(Usage(1, 2))


@given(st.text(min_size=1))
def test_chunk_events_split_by_words_loses_nothing(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    events, _ = events_of(body_of(text))
    pieces = [event["choices"][0]["delta"].get("content") or "" for event in events]
    assert "".join(pieces) == text


def test_assemble_joins_tool_calls() -> None:
    body = body_of("")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": CALLS}
    body["choices"][0]["finish_reason"] = "tool_calls"
    events, _ = events_of(body)
    again = assemble(events)
    assert again is not None
    assert again["choices"][0]["message"]["tool_calls"] == CALLS
    assert again["choices"][0]["message"]["content"] is None


def test_assemble_joins_arguments_that_come_in_pieces() -> None:
    first = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"x"'}}
    second = {"index": 0, "function": {"arguments": ": 1}"}}
    events = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in (first, second)
    ]
    again = assemble(events)
    assert again is not None
    call = again["choices"][0]["message"]["tool_calls"][0]
    assert (call["id"], call["function"]["arguments"]) == ("a", '{"x": 1}')


def test_assemble_keeps_several_choices_apart() -> None:
    events = [
        {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}
        for index, text in ((1, "b1"), (0, "a1"), (1, "b2"))
    ]
    again = assemble(events)
    assert again is not None
    assert [c["message"]["content"] for c in again["choices"]] == ["a1", "b1b2"]


def test_assemble_cut_off_stream_has_no_finish_reason() -> None:
    events, _ = events_of(body_of("one two three"))
    again = assemble(events[:3])
    assert again is not None
    assert again["choices"][0]["finish_reason"] is None
    assert again["choices"][0]["message"]["content"] == "one two "


@pytest.mark.parametrize(
    "events",
    [
        [],
        [7, "text", None, []],
        [{"error": {"message": "no"}}],
        [{"choices": "none"}],
    ],
)
def test_assemble_without_chunks_is_none(events: list[Any]) -> None:
    assert assemble(events) is None


@pytest.mark.parametrize(
    "piece",
    [
        7,
        {"index": "first", "delta": {"content": "x"}},
        {"index": 0, "delta": "text"},
        {"index": 0, "delta": {"tool_calls": [3]}},
        {"index": 0, "delta": {"tool_calls": [{"index": 9}]}},
        {"index": 0, "delta": {"tool_calls": [{"index": "a"}]}},
        {"index": 0, "delta": {"tool_calls": [{"function": {"name": 5, "arguments": {"a": 1}}}]}},
        {"index": 0, "delta": {"content": 7}},
    ],
)
def test_assemble_passes_over_nonsense(piece: Any) -> None:
    sound = {"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}
    again = assemble([{"choices": [piece]}, {"choices": [sound]}])
    assert again is not None
    assert again["choices"][0]["message"]["content"] == "ok"


def test_parse_completion_reads_the_first_choice() -> None:
    read = parse_completion(body_of("hello", Usage(4, 1)))
    assert (read.text, read.finish_reason, read.model) == ("hello", "stop", "m")
    assert read.usage == Usage(4, 1)
    assert read.body == body_of("hello", Usage(4, 1))


def test_parse_completion_tool_call_has_no_text() -> None:
    body = body_of("")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": CALLS}
    read = parse_completion(body)
    assert read.text is None
    assert read.message["tool_calls"] == CALLS


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "expected a JSON object, got list"),
        (None, "expected a JSON object, got NoneType"),
        ({}, "has no 'choices'"),
        ({"choices": []}, "has no 'choices'"),
        ({"choices": [3]}, "has no 'choices'"),
        ({"choices": [{}]}, "first choice has no 'message'"),
        ({"choices": [{"message": "hi"}]}, "first choice has no 'message'"),
        ({"choices": [{"message": {"content": 5}}]}, "content is a int, expected text"),
    ],
)
def test_parse_completion_garbage_is_garbled(body: Any, says: str) -> None:
    with pytest.raises(CompleterGarbled, match=says):
        parse_completion(body)


@pytest.mark.parametrize("value", [None, [], {"prompt_tokens": "many"}, 5])
def test_parse_usage_without_counts_is_none(value: Any) -> None:
    assert parse_usage(value) is None


def test_error_body_has_openai_shape() -> None:
    body = error_body("what", kind="invalid_request_error", code="c", param="p")
    assert json.loads(json.dumps(body)) == {
        "error": {"message": "what", "type": "invalid_request_error", "param": "p", "code": "c"}
    }
