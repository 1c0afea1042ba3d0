"""Chat requests are kept whole, and refused by name when they are not chat requests."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.chat import ROLES, ChatRequest, Completion, Usage, check_chat_body
from ownweights.core.errors import InputError

USER = {"role": "user", "content": "hi"}


def test_chat_request_keeps_unknown_fields() -> None:
    body = {"model": "m", "messages": [USER], "some_new_field": {"deep": [1]}}
    assert ChatRequest.checked(body).body == body


def test_chat_request_of_builds_a_body() -> None:
    request = ChatRequest.of([USER], "m", temperature=0)
    assert request.body == {"model": "m", "messages": [USER], "temperature": 0}


def test_chat_request_views_have_defaults() -> None:
    request = ChatRequest.checked({"messages": [USER]})
    assert (request.model, request.is_stream, request.messages) == ("", False, [USER])
    assert ChatRequest.checked({"messages": [USER], "stream": True}).is_stream


def test_chat_request_with_fields_leaves_the_original() -> None:
    request = ChatRequest.of([USER], "m")
    other = request.with_fields(model="n", stream=True)
    assert (request.model, request.is_stream) == ("m", False)
    assert (other.model, other.is_stream) == ("n", True)


@pytest.mark.parametrize("role", ROLES)
def test_check_chat_body_accepts_every_role(role: str) -> None:
    request = ChatRequest.checked({"messages": [{"role": role, "content": "x"}]})
    assert request.messages[0]["role"] == role


@pytest.mark.parametrize("content", ["text", "", None, [], [{"type": "text", "text": "x"}]])
def test_check_chat_body_accepts_text_null_and_parts(content: Any) -> None:
    assert check_chat_body({"messages": [{"role": "user", "content": content}]}) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "request: expected a JSON object, got NoneType"),
        ([USER], "request: expected a JSON object, got list"),
        ({}, "request: 'messages' must be a non-empty list"),
        ({"messages": []}, "request: 'messages' must be a non-empty list"),
        ({"messages": "hi"}, "request: 'messages' must be a non-empty list"),
        ({"messages": ["hi"]}, "request.messages[0]: expected an object, got str"),
        (
            {"messages": [USER, {"role": "bot", "content": "x"}]},
            f"request.messages[1]: role 'bot' is not one of {', '.join(ROLES)}",
        ),
        (
            {"messages": [{"content": "x"}]},
            f"request.messages[0]: role None is not one of {', '.join(ROLES)}",
        ),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "request.messages[0]: content must be text, null, or a list of content parts",
        ),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "request.messages[0]: content must be text, null, or a list of content parts",
        ),
    ],
)
def test_check_chat_body_names_what_is_wrong(body: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_chat_body(body)
    assert caught.value.what == message


def test_check_chat_body_says_where_it_read() -> None:
    with pytest.raises(InputError, match=r"^a\.jsonl:7: 'messages'"):
        ChatRequest.checked({}, where="a.jsonl:7")


def test_usage_adds_up() -> None:
    assert Usage(3, 4).total_tokens == 7


def test_completion_values_are_frozen() -> None:
    completion = Completion("x", "stop")
    with pytest.raises(AttributeError):
        completion.text = "y"  # pyright: ignore
    assert completion.features is None
