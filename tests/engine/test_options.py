"""What of a request the engine honours, and what it refuses by name."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.chat import ChatRequest
from ownweights.core.errors import Ineligible, InputError
from ownweights.engine.options import read_ask
from ownweights.engine.wire import Ask

USER = {"role": "user", "content": "hi"}


def ask(messages: Any = (USER,), **fields: Any) -> Ask:
    body = {"model": "m", "messages": list(messages), **fields}
    return read_ask(7, "s", ChatRequest(body), is_stream=False)


def test_read_ask_is_greedy_and_open_ended_by_default() -> None:
    assert ask() == Ask(7, "s", [USER], max_tokens=None, temperature=0.0, seed=0, is_stream=False)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 4}, 4),
        ({"max_tokens": None}, None),
    ],
)
def test_read_ask_honours_both_limits(fields: dict[str, Any], limit: int | None) -> None:
    assert ask(**fields).max_tokens == limit


def test_read_ask_honours_temperature_and_seed() -> None:
    found = ask(temperature=1, seed=-3)
    assert found.temperature == 1.0
    assert found.seed == 2**63 - 3


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"top_p": 1, "n": 1, "stop": None, "logit_bias": {}, "tools": [], "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": 0.0, "frequency_penalty": 0, "logprobs": False, "top_logprobs": None},
    ],
)
def test_read_ask_takes_what_changes_nothing(fields: dict[str, Any]) -> None:
    assert ask(**fields) == ask()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("tool_choice", "auto"),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("stop", "\n"),
        ("n", 2),
        ("top_p", 0.5),
        ("logit_bias", {"1": 2}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("presence_penalty", 0.1),
        ("frequency_penalty", -0.1),
        ("audio", {}),
        ("reasoning_effort", "low"),
        ("never_heard_of", None),
    ],
)
def test_read_ask_refuses_what_it_cannot_honour(field: str, value: Any) -> None:
    with pytest.raises(Ineligible) as refusal:
        ask(**{field: value})
    assert refusal.value.field == field
    assert str(refusal.value) == f"the engine cannot honour {field!r} as asked"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool", "content": "4"}, "messages.role"),
        ({"role": "function", "content": "4"}, "messages.role"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "messages.tool_calls"),
        ({"role": "user", "content": "hi", "name": "Ann"}, "messages.name"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.content"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}, "messages.content"),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "messages.content"),
        ({"role": "user", "content": "\ud83d"}, "messages.content"),
    ],
)
def test_read_ask_refuses_messages_it_cannot_read(message: dict[str, Any], field: str) -> None:
    with pytest.raises(Ineligible) as refusal:
        ask([USER, message])
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, "hi"),
        ({"role": "assistant", "content": None}, ""),
        ({"role": "assistant", "content": "a", "tool_calls": [], "refusal": None}, "a"),
        ({"role": "developer", "content": "be brief"}, "be brief"),
    ],
)
def test_read_ask_reads_either_spelling_of_a_text(message: dict[str, Any], content: str) -> None:
    assert ask([message]).messages == [{"role": message["role"], "content": content}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 0}, "max_tokens must be a positive integer, got 0"),
        ({"max_completion_tokens": True}, "max_completion_tokens must be a positive integer"),
        ({"max_tokens": "5"}, "max_tokens must be a positive integer, got '5'"),
        ({"temperature": 2.5}, "temperature must be from 0 to 2, got 2.5"),
        ({"temperature": "hot"}, "temperature must be from 0 to 2, got 'hot'"),
        ({"temperature": float("nan")}, "temperature must be from 0 to 2, got nan"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"messages": []}, "'messages' must be a non-empty list"),
    ],
)
def test_read_ask_refuses_malformed_values(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refusal:
        ask(**fields)
    assert said in str(refusal.value)


def test_read_ask_leaves_the_body_alone() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    }
    read_ask(1, "s", ChatRequest(body), is_stream=True)
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
