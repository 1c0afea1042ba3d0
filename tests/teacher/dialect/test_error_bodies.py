"""An error of one API is the same kind of error to the other's client."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from ownweights.teacher.dialect import chat_error, messages_error
from ownweights.teacher.wire import error_body
from tests.teacher.dialect.oracles import anthropic_client, openai_client

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529)
THEIRS = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize("status", STATUSES)
def test_errors_raise_the_client_class_of_their_status(status: int) -> None:
    ours = messages_error(status, error_body("no", kind="invalid_request_error"))
    with (
        anthropic_client(json.dumps(ours).encode(), status) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[])
    assert (caught.value.status_code, caught.value.api_message) == (status, "no")
    assert caught.value.type == ours["error"]["type"]
    body = chat_error(status, THEIRS)
    with (
        openai_client(json.dumps(body).encode(), status) as chat,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        chat.chat.completions.create(model="m", messages=[])
    assert refused.value.status_code == status
    assert "Overloaded" in str(refused.value)
    assert refused.value.code == "overloaded_error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (402, "billing_error"),
        (403, "permission_error"), (404, "not_found_error"), (408, "timeout_error"),
        (409, "conflict_error"), (413, "request_too_large"), (418, "invalid_request_error"),
        (422, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error"),
        (502, "api_error"), (503, "api_error"), (504, "timeout_error"), (529, "overloaded_error"),
    ],
)  # fmt: skip
def test_messages_error_has_the_type_of_its_status(status: int, kind: str) -> None:
    said = error_body("no", kind="whatever", code="odd")
    assert messages_error(status, said) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
    }


def test_messages_error_names_the_field() -> None:
    said = error_body("has no like", kind="invalid_request_error", param="logit_bias")
    assert messages_error(400, said)["error"]["message"] == "logit_bias: has no like"
    named = error_body("logit_bias: no", kind="invalid_request_error", param="logit_bias")
    assert messages_error(400, named)["error"]["message"] == "logit_bias: no"


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        ("invalid_request_error", "invalid_request_error"),
        ("authentication_error", "authentication_error"),
        ("permission_error", "permission_error"),
        ("billing_error", "insufficient_quota"),
        ("not_found_error", "invalid_request_error"),
        ("rate_limit_error", "rate_limit_error"),
        ("api_error", "server_error"),
        ("timeout_error", "server_error"),
        ("overloaded_error", "server_error"),
        ("brand_new_error", "server_error"),
    ],
)
def test_chat_error_keeps_the_other_type_as_its_code(theirs: str, kind: str) -> None:
    status = 500 if kind == "server_error" else 400
    body = chat_error(status, {"type": "error", "error": {"type": theirs, "message": "no"}})
    assert body == error_body("no", kind=kind, code=theirs)


def test_unknown_error_inside_a_stream_is_the_servers() -> None:
    event = {"type": "error", "error": {"type": "brand_new_error", "message": "no"}}
    assert chat_error(None, event) == error_body("no", kind="server_error", code="brand_new_error")


@pytest.mark.parametrize("theirs", ["api_error", "overloaded_error", "rate_limit_error"])
def test_errors_inside_a_stream_come_back_as_they_were(theirs: str) -> None:
    event = {"type": "error", "error": {"type": theirs, "message": "no"}}
    assert messages_error(None, chat_error(None, event)) == event


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"code": "insufficient_quota"}, "billing_error"),
        ({"type": "rate_limit_error"}, "rate_limit_error"),
        ({"code": "rate_limit_exceeded", "type": "requests"}, "rate_limit_error"),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, "authentication_error"),
        ({"type": "server_error"}, "api_error"),
        ({"type": 3, "code": None}, "api_error"),
    ],
)
def test_messages_error_inside_a_stream_goes_by_its_words(said: Any, kind: str) -> None:
    assert messages_error(None, {"error": {"message": "no", **said}})["error"]["type"] == kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "plain"}, "plain"),
        ({"message": "top"}, "top"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": {"message": ""}}, "the teacher did not say what went wrong"),
        (None, "the teacher did not say what went wrong"),
        ("<html>", "the teacher did not say what went wrong"),
        ([], "the teacher did not say what went wrong"),
    ],
)
def test_error_of_any_shape_says_what_it_says(body: Any, message: str) -> None:
    assert messages_error(500, body)["error"]["message"] == message
    assert chat_error(500, body) == error_body(message, kind="server_error", code="api_error")
