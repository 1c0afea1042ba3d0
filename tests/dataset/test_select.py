"""Which records can be studied, and the reason when one cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ownweights.dataset.select import (
    ANSWERED,
    ASKED,
    HELD_OUT_ONLY,
    LOST,
    answered_reason,
    in_chat,
    skip_reason,
)
from ownweights.traffic import Record
from ownweights.traffic.workload import workload_hash
from tests.dataset.records import answer, body, record

IMAGE = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "x"}}]
CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
LOOP = [
    {"role": "user", "content": "find it"},
    {"role": "assistant", "content": None, "tool_calls": CALL},
    {"role": "tool", "tool_call_id": "c", "content": "found"},
]
CASES: dict[str, Any] = {
    "tools_offered": {"request": body(tools=[{"type": "function"}])},
    "tool_loop": {"request": body(LOOP)},
    "not_text_request": {"request": body([{"role": "user", "content": IMAGE}])},
    "truncated": {"finish": "length"},
    "filtered": {"finish": "content_filter"},
    "tool_call": {"response": answer("let me look", tool_calls=CALL)},
    "no_text": {"response": answer(None)},
    "empty": {"response": answer(" \n")},
    "no_user_message": {"request": body([{"role": "assistant", "content": "hello"}])},
    "too_large": {"request": body("é" * 600)},
    "bad_messages": {"request": body([{"role": "user", "content": [1, None]}])},
    "wrong_roles": {"request": body([{"role": "nobody", "content": "hello"}])},
    "error": {"response": None},
    "by_student": {"role": "student"},
    "inexpressible": {"protocol": "messages"},
    "other_protocol": {"protocol": "embeddings"},
}
MESSAGES = {
    "model": "claude",
    "max_tokens": 50,
    "system": "Answer in one word.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
}


def test_cases_cover_every_reason() -> None:
    assert set(CASES) == {*ASKED, *ANSWERED, *LOST}
    assert set(HELD_OUT_ONLY) == {*ASKED, *ANSWERED}


@pytest.mark.parametrize("reason", CASES)
def test_skip_reason_is(reason: str) -> None:
    assert skip_reason(record(**CASES[reason]), max_message_bytes=1_000) == reason


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"role": "teacher"},
        {"request": body([*LOOP, {"role": "assistant", "content": "it is there"},
                          {"role": "user", "content": "thanks"}])},
        {"request": body([{"role": "user", "content": [{"type": "text", "text": "hi"}]}])},
        {"request": body(tools=[])},
        {"request": body(system=None)},
        {"says": "\u2028"  "x"},
    ],
)  # fmt: skip
def test_skip_reason_is_none_for_a_whole_answer_in_text(fields: dict[str, Any]) -> None:
    assert skip_reason(record(**fields)) is None


def test_skip_reason_counts_the_answer_s_bytes_too() -> None:
    assert skip_reason(record(says="é" * 600), max_message_bytes=1_000) == "too_large"
    assert skip_reason(record(says="é" * 600), max_message_bytes=1_200) is None


def test_skip_reason_of_a_partial_record_is_truncated() -> None:
    assert skip_reason(record(status="partial")) == "truncated"


@pytest.mark.parametrize("content", [5, {"a": 1}, [1, None], [{"type": "text", "text": "a"}, 1]])
def test_skip_reason_of_an_answer_of_no_kind_is_no_text(content: Any) -> None:
    assert skip_reason(record(response=answer(content))) == "no_text"


def test_skip_reason_of_an_answer_by_somebody_else_is_no_text() -> None:
    assert skip_reason(record(response=answer("hi", role="user"))) == "no_text"


@pytest.mark.parametrize("text", [5, None, ["x"]])
def test_skip_reason_of_a_part_without_text_is_not_text_request(text: Any) -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert skip_reason(record(request=body(asked))) == "not_text_request"


def test_skip_reason_names_the_request_before_the_answer() -> None:
    assert skip_reason(record(request=body(LOOP), finish="length")) == "tool_loop"


def test_answered_reason_looks_at_the_answer_alone() -> None:
    assert answered_reason(record(request=body(LOOP))) is None
    assert answered_reason(record(finish="length")) == "truncated"


def test_answered_reason_knows_the_old_function_call() -> None:
    assert answered_reason(record(response=answer("x", function_call={"name": "f"}))) == "tool_call"


def spoken(blocks: Any = "hi", request: Any = None, **fields: Any) -> Record:
    """A record of an exchange in Messages."""
    content = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
    response = {"id": "m", "type": "message", "role": "assistant", "model": "claude",
                "content": content, "stop_reason": fields.pop("stop", "end_turn"),
                "usage": {"input_tokens": 3, "output_tokens": 1}}  # fmt: skip
    given = {"protocol": "messages", "status": "ok", "role": "teacher", **fields}
    asked = request or MESSAGES
    return record(request=asked, response=response, **given)


def test_in_chat_gives_the_chat_form_of_messages() -> None:
    found = in_chat(spoken())
    assert found.protocol == "chat"
    assert [one["role"] for one in found.request["messages"]] == ["system", "user"]
    assert (found.answer_text, found.finish_reason) == ("hi", "stop")
    assert skip_reason(found) is None
    assert found.prompt_hash == workload_hash(body(system="Answer in one word."))


def test_in_chat_leaves_all_else_as_it_is() -> None:
    odd = spoken(request={**MESSAGES, "top_k": 5})
    for one in (record(), record(protocol="responses"), odd):
        assert in_chat(one) is one
    assert skip_reason(in_chat(odd)) == "inexpressible"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"stop": "max_tokens", "status": "partial"}, "truncated"),
        ({"stop": "max_tokens", "status": "ok"}, "truncated"),
        ({"stop": None, "status": "partial"}, "truncated"),
        ({"stop": "refusal", "status": "partial"}, "filtered"),
        ({"blocks": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
          "stop": "tool_use"}, "tool_call"),
        ({"blocks": []}, "no_text"),
        ({"stop": "pause_turn"}, "inexpressible"),
        ({"request": {**MESSAGES, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}},
         "tools_offered"),
        ({"role": "student"}, "by_student"),
        ({"status": "error"}, "error"),
    ],
)  # fmt: skip
def test_skip_reason_of_messages_is_that_of_their_chat_form(fields: Any, reason: str) -> None:
    assert skip_reason(in_chat(spoken(**fields))) == reason


def test_in_chat_of_an_exchange_without_an_answer_is_an_error() -> None:
    lost = in_chat(replace(spoken(), response=None, status="error"))
    assert (lost.protocol, skip_reason(lost)) == ("chat", "error")
