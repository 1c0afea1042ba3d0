"""Streams of one dialect spell, event by event, the answer in the other."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.dialect import (
    ChatStream,
    MessagesStream,
    chat_answer,
    event_bytes,
    messages_answer,
)
from ownweights.teacher.sse import event_data
from ownweights.teacher.wire import assemble
from tests.teacher.dialect.oracles import check_answer, read_chat_stream, read_messages_stream
from tests.teacher.dialect.worlds import (
    Json,
    chat_answers,
    chunks_of,
    events_of,
    messages_answers,
    spoiled,
)

EVENT = TypeAdapter[Any](RawMessageStreamEvent)


def to_chat(events: list[Json], **options: Any) -> list[Json]:
    """The chunks of a whole stream, each of them a chunk to OpenAI's types."""
    stream = ChatStream(created=7, **options)
    chunks = [chunk for event in events for chunk in stream.feed(event)]
    for chunk in chunks:
        check_answer(ChatCompletionChunk, chunk)
    assert stream.is_whole
    return chunks


def to_messages(chunks: list[Json]) -> list[Json]:
    """The events of a whole stream, each of them an event to Anthropic's types."""
    stream = MessagesStream()
    events = [event for chunk in chunks for event in stream.feed(chunk)] + stream.close()
    for event in events:
        check_event(event)
    assert stream.is_whole
    check_order(events)
    return events


def check_event(event: Json) -> None:
    read = EVENT.validate_python(event)
    assert not read.model_extra
    assert json.loads(read.model_dump_json(exclude_unset=True)) == event


def check_order(events: list[Json]) -> None:
    """One start, then blocks one after the other, each with a piece or of a call, then the end."""
    kinds = [event["type"] for event in events]
    assert (kinds[0], *kinds[-2:]) == ("message_start", "message_delta", "message_stop")
    place, is_open, num_pieces, is_text = -1, False, 0, False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == place + 1
            place, is_open, num_pieces = event["index"], True, 0
            is_text = event["content_block"]["type"] == "text"
        else:
            assert is_open and event["index"] == place
            num_pieces += event["type"] == "content_block_delta"
            is_open = event["type"] == "content_block_delta"
            assert is_open or num_pieces or not is_text
    assert not is_open


@given(st.data())
def test_chat_stream_always_spells_chat_answer(data: st.DataObject) -> None:
    body = data.draw(messages_answers())
    whole = chat_answer(body, created=7)
    chunks = to_chat(data.draw(events_of(body)), include_usage=True)
    put = read_chat_stream(chunks).model_dump(exclude_unset=True, mode="json")
    expected = dict(whole["choices"][0]["message"])
    said = put["choices"][0]["message"]
    assert said["content"] == expected["content"]
    assert said.get("refusal") == expected["refusal"]
    assert _calls(said) == _calls(expected)
    assert put["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert {name: put[name] for name in ("id", "model", "created", "usage")} == {
        name: whole[name] for name in ("id", "model", "created", "usage")
    }
    ours = assemble(chunks)  # as the gateway puts it together for the record
    assert ours is not None
    assert _calls(ours["choices"][0]["message"]) == _calls(expected)


def _calls(message: Json) -> list[Any]:
    """Id, name and arguments, however these are spelled."""
    return [
        (one["id"], one["function"]["name"], json.loads(one["function"]["arguments"]))
        for one in message.get("tool_calls") or ()
    ]


@given(st.data())
def test_messages_stream_always_spells_messages_answer(data: st.DataObject) -> None:
    body = data.draw(chat_answers())
    events = to_messages(data.draw(chunks_of(body)))
    put = read_messages_stream(events).model_dump(mode="json")
    for block in put["content"]:
        block.pop("parsed_output", None)
    assert put == Message.model_validate(messages_answer(body)).model_dump(mode="json")


@given(st.data())
def test_streams_of_anything_end_or_are_garbled(data: st.DataObject) -> None:
    body = data.draw(chat_answers())
    events = data.draw(events_of(data.draw(messages_answers())))
    for stream, pieces in (
        (MessagesStream(), data.draw(spoiled({"all": data.draw(chunks_of(body))}))),
        (ChatStream(created=7), data.draw(spoiled({"all": events}))),
    ):
        try:
            for piece in pieces["all"] if isinstance(pieces["all"], list) else [pieces["all"]]:
                stream.feed(piece)
        except CompleterGarbled:
            continue  # and nothing else leaves


# Messages → chat


def start(**usage: int) -> Json:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
               "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": 3, "output_tokens": 1, **usage}}  # fmt: skip
    return {"type": "message_start", "message": message}


def block(place: int, **content: Any) -> Json:
    return {"type": "content_block_start", "index": place, "content_block": content}


def delta(place: int, kind: str, **said: str) -> Json:
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind, **said}}


def stop(place: int) -> Json:
    return {"type": "content_block_stop", "index": place}


def end(reason: str = "end_turn", **usage: Any) -> list[Json]:
    counts = {"output_tokens": 5, **usage}
    told = {"stop_reason": reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": told, "usage": counts}, {"type": "message_stop"}]


def test_each_piece_of_text_leaves_at_once() -> None:
    stream = ChatStream(created=7)
    assert [c["choices"][0]["delta"] for c in stream.feed(start())] == [{"role": "assistant"}]
    assert stream.feed({"type": "ping"}) == []
    assert stream.feed(block(0, type="text", text="")) == []
    (chunk,) = stream.feed(delta(0, "text_delta", text="he"))
    assert chunk["choices"][0]["delta"] == {"content": "he"}
    assert not stream.is_whole


def test_chat_stream_gives_a_call_without_arguments_an_object() -> None:
    events = [start(), block(0, type="tool_use", id="t", name="now", input={}),
              delta(0, "input_json_delta", partial_json=""), stop(0), *end("tool_use")]  # fmt: skip
    (call,) = read_chat_stream(to_chat(events)).choices[0].message.tool_calls or ()
    assert call.function.arguments == "{}"


def test_input_that_comes_with_the_start_of_its_block_is_kept() -> None:
    events = [start(), block(0, type="tool_use", id="t", name="f", input={"a": 1}), stop(0),
              *end("tool_use")]  # fmt: skip
    (call,) = read_chat_stream(to_chat(events)).choices[0].message.tool_calls or ()
    assert call.function.arguments == '{"a":1}'


def test_calls_between_texts_are_counted_by_themselves() -> None:
    events = [
        start(),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        stop(0),
        block(1, type="text", text=""),
        delta(1, "text_delta", text="a"),
        stop(1),
        block(2, type="tool_use", id="t1", name="f", input={}),
        delta(2, "input_json_delta", partial_json='{"n":'),
        delta(2, "input_json_delta", partial_json="1}"),
        stop(2),
        block(3, type="text", text="b"),
        stop(3),
        block(4, type="tool_use", id="t2", name="g", input={}),
        stop(4),
        *end("tool_use"),
    ]
    chunks = to_chat(events)
    indexes = [piece["index"] for chunk in chunks
               for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]  # fmt: skip
    assert indexes == [0, 0, 0, 1, 1]
    said = read_chat_stream(chunks).choices[0].message
    assert said.content == "ab"
    assert [c.function.arguments for c in said.tool_calls or ()] == ['{"n":1}', "{}"]


def test_usage_comes_last_and_only_where_asked_for() -> None:
    events = [start(cache_read_input_tokens=10), *end(input_tokens=4, output_tokens=9)]
    last = to_chat(events, include_usage=True)[-1]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 14
    assert last["usage"]["completion_tokens"] == 9
    assert all("usage" not in chunk for chunk in to_chat(events))


def test_events_of_new_types_are_passed_over() -> None:
    new = [{"type": "sparkle", "glitter": 3}, delta(0, "sparkle_delta", sparkle="x")]
    assert to_chat([start(), *new, *end()]) == to_chat([start(), *end()])


def test_error_event_ends_a_chat_stream() -> None:
    stream = ChatStream(created=7)
    stream.feed(start())
    said = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    (chunk,) = stream.feed(said)
    assert chunk["error"]["message"] == "Overloaded"
    assert chunk["error"]["code"] == "overloaded_error"
    assert stream.has_failed and not stream.is_whole
    assert stream.feed(delta(0, "text_delta", text="more")) == []
    with pytest.raises(openai.APIError, match="Overloaded"):
        read_chat_stream([chunk])


NO_TEXT = {"type": "text_delta", "text": 5}
NO_INPUT = {"type": "input_json_delta", "partial_json": {"a": 1}}
CALL = block(0, type="tool_use", id="t", name="look", input={})


@pytest.mark.parametrize(
    "events",
    [
        [delta(0, "text_delta", text="x")],
        [start(), start()],
        [{"type": "message_start"}],
        [start(), block(0, type="server_tool_use", id="s", name="web_search", input={})],
        [start(), block(0, type="hologram")],
        [start(), delta(0, "input_json_delta", partial_json="{}")],
        [start(), block(0, type="text", text=["x"])],
        [start(), block(0, type="text", text=""), {**delta(0, "text_delta"), "delta": NO_TEXT}],
        [start(), block(0, type="tool_use", id="t", name=None, input={})],
        [start(), block(0, type="tool_use", id=7, name="look", input={})],
        [start(), CALL, {**delta(0, "input_json_delta"), "delta": NO_INPUT}],
        [start(), {"type": "message_stop"}],
        [start(), end("pause_turn")[0]],
        [start(), end("compaction")[0]],
        [{"no": "type"}],
        ["x"],
    ],
)
def test_chat_stream_of_something_else_is_garbled(events: list[Any]) -> None:
    stream = ChatStream(created=7)
    for event in events[:-1]:
        stream.feed(event)
    with pytest.raises(CompleterGarbled):
        stream.feed(events[-1])


# chat → Messages


def chunk(said: Any = None, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": said or {}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "gpt",
            "choices": [choice], **more}  # fmt: skip


def piece(arguments: str | None = None, name: str | None = None, **more: Any) -> Json:
    function = {"arguments": arguments, "name": name}
    function = {key: value for key, value in function.items() if value is not None}
    return {"tool_calls": [{**more, "function": function}]}


DONE_CALLS = chunk({}, "tool_calls")


def blocks_of(*chunks: Json) -> list[Any]:
    return [one.model_dump(exclude_none=True) for one in
            read_messages_stream(to_messages(list(chunks))).content]  # fmt: skip


def inputs(*chunks: Json) -> list[Any]:
    return [(one["name"], one["input"]) for one in blocks_of(*chunks)]


def test_first_piece_of_text_is_not_lost() -> None:
    stream = MessagesStream()
    events = stream.feed(chunk({"role": "assistant", "content": "Hi"}))
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_delta",
    ]  # fmt: skip
    assert events[-1]["delta"] == {"type": "text_delta", "text": "Hi"}


def test_answer_begins_once_and_without_an_empty_block() -> None:
    events = to_messages([chunk({"role": "assistant", "content": ""}), chunk({}, "stop")])
    assert [event["type"] for event in events] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip


def test_text_beside_an_empty_list_of_calls_is_text() -> None:
    said = {"content": "hi", "tool_calls": []}
    assert blocks_of(chunk(said), chunk({"tool_calls": None}), chunk({}, "stop")) == [
        {"type": "text", "text": "hi"}
    ]


def test_reasoning_of_a_server_is_no_text() -> None:
    said = [chunk({"reasoning_content": "hm"}), chunk({"reasoning": "hm"}), chunk({"content": "a"})]
    assert blocks_of(*said, chunk({}, "stop")) == [{"type": "text", "text": "a"}]


def test_parallel_calls_are_blocks_of_their_own() -> None:
    assert inputs(
        chunk(piece("", "f", index=0, id="a")),
        chunk(piece('{"n":', index=0)),
        chunk(piece("1}", index=0)),
        chunk(piece('{"n":2}', "g", index=1, id="b")),
        DONE_CALLS,
    ) == [("f", {"n": 1}), ("g", {"n": 2})]


def test_calls_whose_index_is_always_zero_are_told_by_their_ids() -> None:
    assert inputs(
        chunk(piece('{"n":1}', "f", index=0, id="a")),
        chunk(piece('{"n":2}', "f", index=0, id="b")),
        DONE_CALLS,
    ) == [("f", {"n": 1}), ("f", {"n": 2})]


def test_calls_without_an_index_are_told_by_their_ids() -> None:
    assert inputs(
        chunk(piece('{"n":', "f", id="a")),
        chunk(piece("1}")),
        chunk(piece('{"n":2}', "f", id="b")),
        DONE_CALLS,
    ) == [("f", {"n": 1}), ("f", {"n": 2})]


def test_id_and_name_may_come_with_every_piece() -> None:
    pieces = [chunk(piece(part, "f", index=0, id="a")) for part in ('{"n"', ":1", "}")]
    assert inputs(*pieces, DONE_CALLS) == [("f", {"n": 1})]


def test_call_without_arguments_has_an_empty_object() -> None:
    events = to_messages([chunk(piece("", "now", index=0, id="a")), DONE_CALLS])
    assert "content_block_delta" not in [event["type"] for event in events]
    assert inputs(chunk(piece(None, "now", index=0, id="a")), DONE_CALLS) == [("now", {})]


def test_calls_without_ids_get_some() -> None:
    found = blocks_of(
        chunk(piece("{}", "f", index=0)), chunk(piece("{}", "g", index=1, id="")), DONE_CALLS
    )
    assert [one["id"] for one in found] == ["c_0", "c_1"]


def test_text_after_a_call_is_a_block_after_it() -> None:
    found = blocks_of(
        chunk({"content": "a"}), chunk(piece("{}", "f", index=0, id="x")),
        chunk({"content": "b"}), DONE_CALLS,
    )  # fmt: skip
    assert [one["type"] for one in found] == ["text", "tool_use", "text"]


def test_several_pieces_in_one_chunk_all_count() -> None:
    two = {"content": "a", "tool_calls": [
        *piece("{}", "f", index=0, id="x")["tool_calls"],
        *piece("{}", "g", index=1, id="y")["tool_calls"]]}  # fmt: skip
    assert [one["type"] for one in blocks_of(chunk(two), DONE_CALLS)] == [
        "text", "tool_use", "tool_use",
    ]  # fmt: skip


def test_counts_that_come_after_the_end_are_told() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    after = {**chunk(usage=usage), "choices": []}
    events = to_messages([chunk({"content": "a"}), chunk({}, "stop"), after])
    assert events[-2]["usage"]["input_tokens"] == 9
    assert events[-2]["usage"]["output_tokens"] == 2
    beside = to_messages([chunk({"content": "a"}), chunk({}, "stop", usage=usage)])
    assert beside == events


def test_stream_that_breaks_off_ends_in_an_error() -> None:
    stream = MessagesStream()
    events = stream.feed(chunk({"content": "half"}))
    (failed,) = stream.close()
    assert failed["type"] == "error"
    assert stream.has_failed and not stream.is_whole
    assert stream.close() == []
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        read_messages_stream([*events, failed])


def test_error_chunk_ends_a_messages_stream() -> None:
    stream = MessagesStream()
    said = {"error": {"message": "slow down", "code": "rate_limit_error", "type": "x"}}
    (event,) = stream.feed(said)
    assert event == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down"},
    }
    assert (stream.feed(chunk({"content": "more"})), stream.close()) == ([], [])


@pytest.mark.parametrize(
    "chunks",
    [
        ["x"],
        [{"choices": 3}],
        [{"choices": [3]}],
        [{"choices": [{"index": 1, "delta": {"content": "x"}}]}],
        [chunk({}, "function_call")],
        [chunk({}, "eos")],
        [chunk({"function_call": {"name": "f", "arguments": ""}})],
        [chunk({"audio": {"id": "a"}})],
        [chunk({"tool_calls": "f"})],
        [chunk({"tool_calls": [{"index": 0}]})],
        [chunk(piece("{}", index=0, id="a"))],
        [
            chunk(piece("{", "f", index=0, id="a")),
            chunk(piece("{}", "g", index=1, id="b")),
            chunk(piece("}", index=0)),
        ],
        [
            chunk(piece("{", "f", index=0, id="a")),
            chunk({"content": "x"}),
            chunk(piece("}", index=0)),
        ],
    ],
)
def test_messages_stream_of_something_else_is_garbled(chunks: list[Any]) -> None:
    stream = MessagesStream()
    for one in chunks[:-1]:
        stream.feed(one)
    with pytest.raises(CompleterGarbled):
        stream.feed(chunks[-1])


def test_event_bytes_name_the_event() -> None:
    event = {"type": "content_block_stop", "index": 0}
    written = event_bytes(event)
    assert written.startswith(b"event: content_block_stop\ndata: {")
    assert [json.loads(data) for data in event_data(written)] == [event]
