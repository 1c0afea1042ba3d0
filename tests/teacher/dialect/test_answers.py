"""Whole answers of one dialect say the same in the other."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import pytest
from anthropic.types import Message, StopReason
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.dialect import chat_answer, messages_answer
from tests.teacher.dialect.oracles import anthropic_client, check_answer, openai_client
from tests.teacher.dialect.worlds import Json, chat_answers, spoiled


def message(*blocks: Any, **fields: Any) -> Json:
    """A Messages answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 4},
        **fields,
    }


def completion(content: Any = "hi", finish: Any = "stop", **said: Any) -> Json:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **said},
        "finish_reason": finish,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "gpt",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def use(**given: Any) -> Json:
    return {"type": "tool_use", "id": "toolu_1", "name": "look", "input": given}


def call(arguments: str, **more: Any) -> Json:
    function = {"name": "look", "arguments": arguments}
    return {"id": "c1", "type": "function", "function": function, **more}


def in_chat(*blocks: Any, **fields: Any) -> Json:
    body = message(*blocks, **fields)
    check_answer(Message, body)  # what goes in is an answer at all
    found = chat_answer(body, created=7)
    check_answer(ChatCompletion, found)
    return found


def in_messages(body: Json) -> Json:
    found = messages_answer(body)
    check_answer(Message, found)
    return found


@given(chat_answers())
def test_messages_answer_always_satisfies_the_client_types(body: Json) -> None:
    check_answer(ChatCompletion, body)
    check_answer(Message, messages_answer(body))


@given(chat_answers())
def test_chat_answer_always_undoes_messages_answer(body: Json) -> None:
    back = chat_answer(messages_answer(body), created=7)
    check_answer(ChatCompletion, back)
    assert back == body


@given(st.data())
def test_answers_of_anything_are_answers_or_garbled(data: st.DataObject) -> None:
    body = data.draw(chat_answers())
    for translate, kind, start in (
        (messages_answer, Message, body),
        (lambda one: chat_answer(one, created=7), ChatCompletion, messages_answer(body)),
    ):
        try:
            found = translate(data.draw(spoiled(start)))
        except CompleterGarbled:
            continue  # and nothing else leaves
        check_answer(kind, found)


def test_clients_read_a_translated_answer() -> None:
    said = json.dumps(in_chat(text("I look"), use(a=1), stop_reason="tool_use")).encode()
    with openai_client(said) as client:
        read = client.chat.completions.create(model="m", messages=[])
    assert json.loads(read.choices[0].message.tool_calls[0].function.arguments) == {"a": 1}
    back = json.dumps(messages_answer(json.loads(said))).encode()
    with anthropic_client(back) as client:
        found = client.messages.create(model="m", max_tokens=1, messages=[])
    assert [block.type for block in found.content] == ["text", "tool_use"]


# Messages → chat


def test_chat_answer_is_the_answer() -> None:
    assert in_chat(text("hi")) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reason_becomes(stop: str, finish: str) -> None:
    assert in_chat(text("x"), stop_reason=stop)["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("stop", ["pause_turn", "compaction", "", None, 3, ["end_turn"]])
def test_stop_reason_that_chat_cannot_tell_is_garbled(stop: Any) -> None:
    with pytest.raises(CompleterGarbled, match="stop_reason"):
        chat_answer(message(text("x"), stop_reason=stop), created=7)


def test_every_stop_reason_of_the_client_is_decided() -> None:
    for stop in get_args(StopReason):
        if stop == "pause_turn":  # only tools that are never asked for pause a turn
            continue
        chat_answer(message(text("x"), stop_reason=stop), created=7)


def test_texts_are_one_text_and_calls_follow_in_order() -> None:
    blocks = [text("a"), use(n=1), text("b"), {**use(), "id": "toolu_2"}]
    said = in_chat(*blocks, stop_reason="tool_use")["choices"][0]["message"]
    assert said["content"] == "ab"
    assert [one["id"] for one in said["tool_calls"]] == ["toolu_1", "toolu_2"]
    assert [one["function"]["arguments"] for one in said["tool_calls"]] == ['{"n":1}', "{}"]


def test_calls_alone_have_no_text() -> None:
    assert in_chat(use(), stop_reason="tool_use")["choices"][0]["message"]["content"] is None


def test_empty_answer_has_no_text() -> None:
    assert in_chat()["choices"][0]["message"]["content"] is None


def test_thinking_is_counted_and_not_shown() -> None:
    thought = {"type": "thinking", "thinking": "hm, secret", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "d"}
    usage = {"input_tokens": 1, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 8}}
    found = in_chat(thought, hidden, text("so"), usage=usage)
    assert found["choices"][0]["message"]["content"] == "so"
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 8}
    assert "secret" not in repr(found)


def test_refusal_keeps_its_explanation() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "too dangerous"}
    found = in_chat(stop_reason="refusal", stop_details=details)["choices"][0]
    assert found["finish_reason"] == "content_filter"
    assert found["message"]["refusal"] == "too dangerous"
    quiet = in_chat(text("I"), stop_reason="refusal")["choices"][0]
    assert (quiet["message"]["refusal"], quiet["message"]["content"]) == (None, "I")


def test_cached_tokens_are_the_prompts() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
             "output_tokens": 7, "service_tier": "priority"}  # fmt: skip
    found = in_chat(text("x"), usage=usage)
    assert found["service_tier"] == "priority"
    assert found["usage"] == {
        "prompt_tokens": 125,
        "completion_tokens": 7,
        "total_tokens": 132,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
    }


@pytest.mark.parametrize(
    "body",
    [
        None, [], "x", {}, {"type": "error", "error": {}}, completion(),
        message({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        message({"type": "hologram"}), message("x"), message({"type": "text"}),
        message({"type": "tool_use", "id": "t", "name": "n"}), {**message(), "content": "x"},
        {**message(), "id": None}, {**message(), "model": 3},
    ],
)  # fmt: skip
def test_chat_answer_of_something_else_is_garbled(body: Any) -> None:
    with pytest.raises(CompleterGarbled):
        chat_answer(body, created=7)


# chat → Messages


def test_messages_answer_is_the_answer() -> None:
    assert in_messages(completion()) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [text("hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 4,
        },
    }


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
    ],
)
def test_finish_reason_becomes(finish: str, stop: str) -> None:
    assert in_messages(completion(finish=finish))["stop_reason"] == stop


@pytest.mark.parametrize("finish", ["function_call", "eos", "", None, 3])
def test_finish_reason_that_messages_cannot_tell_is_garbled(finish: Any) -> None:
    with pytest.raises(CompleterGarbled, match="finish_reason"):
        messages_answer(completion(finish=finish))


def test_call_that_ends_in_stop_is_still_a_call() -> None:
    """OpenAI says "stop" where the caller named the function to call."""
    found = in_messages(completion(None, "stop", tool_calls=[call("{}")]))
    assert found["stop_reason"] == "tool_use"


@pytest.mark.parametrize("nothing", [None, ""])
def test_empty_text_is_no_block(nothing: Any) -> None:
    assert in_messages(completion(nothing))["content"] == []
    calls = in_messages(completion(nothing, "tool_calls", tool_calls=[call("")]))
    assert calls["content"] == [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]


@pytest.mark.parametrize("missing", ["", None])
def test_call_without_an_id_gets_one(missing: Any) -> None:
    calls = [call("{}", id=missing), call("{}", id=missing)]
    found = in_messages(completion(None, "tool_calls", tool_calls=calls))
    assert [block["id"] for block in found["content"]] == ["chatcmpl-1_0", "chatcmpl-1_1"]


def test_call_that_a_limit_cut_through_is_no_call() -> None:
    calls = [call('{"a":1}'), call('{"a":')]
    found = in_messages(completion(None, "length", tool_calls=calls))
    assert [block["input"] for block in found["content"]] == [{"a": 1}]
    assert found["stop_reason"] == "max_tokens"
    for broken, finish in ((calls, "tool_calls"), (calls[::-1], "length")):
        with pytest.raises(CompleterGarbled, match="no JSON object"):
            messages_answer(completion(None, finish, tool_calls=broken))


def test_refusal_in_words_is_a_refusal() -> None:
    found = in_messages(completion(None, refusal="I will not"))
    assert (found["stop_reason"], found["content"]) == ("refusal", [])
    assert found["stop_details"]["explanation"] == "I will not"


def test_input_tokens_are_those_that_no_cache_had_a_part_in() -> None:
    body = completion()
    body["usage"] |= {
        "prompt_tokens": 125,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert in_messages(body)["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100,
        "output_tokens": 4,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    body["usage"]["prompt_tokens_details"]["cached_tokens"] = 1000  # cannot be
    assert in_messages(body)["usage"]["input_tokens"] == 125


@pytest.mark.parametrize("usage", [None, "many", {"prompt_tokens": -1}])
def test_unknown_counts_are_zero(usage: Any) -> None:
    body = {**completion(), "usage": usage}
    counts = in_messages(body)["usage"]
    assert set(counts.values()) == {0}


def test_fields_of_one_server_alone_are_left_out() -> None:
    body = completion(reasoning_content="hm")
    body["choices"][0] |= {"stop_reason": None, "token_ids": None}
    body |= {"prompt_logprobs": None, "kv_transfer_params": None}
    assert in_messages(body) == in_messages(completion())


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"error": {"message": "x"}}, message(text("x")),
        {**completion(), "choices": []}, {**completion(), "choices": [1]},
        {**completion(), "choices": completion()["choices"] * 2},
        completion([text("x")]), completion(function_call={"name": "f", "arguments": ""}),
        completion(audio={"id": "a"}), completion(tool_calls=["f"]),
        completion(tool_calls=[{"id": "c", "type": "custom", "custom": {}}]),
        completion(None, "tool_calls", tool_calls=[call("[]")]), {**completion(), "id": 3},
    ],
)  # fmt: skip
def test_messages_answer_of_something_else_is_garbled(body: Any) -> None:
    with pytest.raises(CompleterGarbled):
        messages_answer(copy.deepcopy(body))
