"""Events of a stream, put together, are the answer that was streamed."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from ownweights.teacher.dialect import as_chat, whole_message
from tests.teacher.dialect.oracles import check_answer, read_messages_stream
from tests.teacher.dialect.worlds import Json, events_of, messages_answers, spoiled

START = {"type": "message_start", "message": {
    "id": "m", "type": "message", "role": "assistant", "model": "c", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}}  # fmt: skip


def begun(place: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": place, "content_block": block}


def piece(place: int, **delta: Any) -> Json:
    return {"type": "content_block_delta", "index": place, "delta": delta}


@given(st.data())
def test_whole_message_always_matches_the_client(data: st.DataObject) -> None:
    body = data.draw(messages_answers())
    events = data.draw(events_of(body))
    found = whole_message(events)
    assert found == body
    check_answer(Message, found or {})
    theirs = read_messages_stream(event for event in events if event["type"] != "ping")
    put = theirs.model_dump(mode="json")
    for block in put["content"]:
        block.pop("parsed_output", None)
    assert Message.model_validate(found).model_dump(mode="json") == put


@given(st.data())
def test_whole_message_of_anything_raises_nothing(data: st.DataObject) -> None:
    events = data.draw(events_of(data.draw(messages_answers())))
    found = data.draw(spoiled({"all": events}))["all"]
    whole_message(found if isinstance(found, list) else [found])


def test_whole_message_of_a_stream_that_was_cut_off_has_no_end() -> None:
    events = [START, begun(0, type="text", text=""), piece(0, type="text_delta", text="ha"),
              begun(1, type="tool_use", id="t", name="f", input={}),
              piece(1, type="input_json_delta", partial_json='{"a":')]  # fmt: skip
    found = whole_message(events)
    assert found is not None
    assert found["stop_reason"] is None
    assert [block.get("text", block.get("input")) for block in found["content"]] == ["ha", {}]
    asked = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
    _, answered = as_chat(asked, found) or ({}, None)
    assert answered is not None
    assert answered["choices"][0]["finish_reason"] == "length"


def test_whole_message_keeps_citations() -> None:
    events = [START, begun(0, type="text", text=""), piece(0, type="text_delta", text="ha"),
              piece(0, type="citations_delta", citation={"type": "char_location"}),
              piece(0, type="sparkle_delta", sparkle=1)]  # fmt: skip
    assert (whole_message(events) or {})["content"] == [
        {"type": "text", "text": "ha", "citations": [{"type": "char_location"}]}
    ]


@pytest.mark.parametrize("events", [[], [None, 3], [{"type": "ping"}], [begun(0, type="text")]])
def test_whole_message_of_no_answer_is_none(events: list[Any]) -> None:
    assert whole_message(events) is None
