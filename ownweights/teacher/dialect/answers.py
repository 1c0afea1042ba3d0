"""A whole answer of one dialect as the other's.

In: the decoded body of a successful answer. Out: the same answer as the caller's dialect writes it;
or CompleterGarbled where it is none, or says what the caller's dialect has no word for. Thinking
that nobody asked for, citations and fields that are in no reference are left out; thinking is
counted among the tokens. Invariants: what comes out satisfies the official clients' types, and
there and back the answer says the same (test_chat_answer_always_undoes_messages_answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.dialect.words import (
    SERVED_TIER,
    chat_usage,
    finish_of,
    json_object,
    json_text,
    messages_usage,
    refusal_details,
    refusal_text,
    stop_of,
)

UNSEEN_BLOCKS = ("thinking", "redacted_thinking")  # chat shows no thinking


def chat_answer(body: Any, *, created: int) -> dict[str, Any]:
    """The chat completion that says what a Messages answer says; `created` is its unix time."""
    blocks = _blocks(body)
    texts = [text_of(block, "text") for block in blocks if block["type"] == "text"]
    calls = [_chat_call(block) for block in blocks if block["type"] == "tool_use"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": refusal_text(body.get("stop_reason"), body.get("stop_details")),
    }
    if calls:
        message["tool_calls"] = calls
    finish = finish_of(body.get("stop_reason"))
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    answer = {
        "id": text_of(body, "id"),
        "object": "chat.completion",
        "created": created,
        "model": text_of(body, "model"),
        "choices": [choice],
        "usage": chat_usage(body.get("usage")),
    }
    return answer | served_tier(body.get("usage"))


def messages_answer(body: Any) -> dict[str, Any]:
    """The Messages answer that says what a chat completion with one choice says."""
    choice, message = _choice(body)
    text, refusal = message.get("content"), message.get("refusal")
    if text is not None and not isinstance(text, str):
        raise CompleterGarbled(f"message.content is a {type(text).__name__}, expected text")
    check_legacy(message)
    finish, answer_id = choice.get("finish_reason"), text_of(body, "id")
    calls = _messages_calls(message.get("tool_calls"), answer_id, is_cut=finish == "length")
    said = refusal if isinstance(refusal, str) else ""
    stop = stop_of(finish, has_calls=bool(calls), has_refusal=bool(said))
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": text_of(body, "model"),
        "content": [*([{"type": "text", "text": text}] if text else []), *calls],
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": refusal_details(said),
        "usage": messages_usage(body.get("usage")),
    }


def served_tier(usage: Any) -> dict[str, str]:
    """Chat's `service_tier`, where Messages' usage tells one that chat knows."""
    tier = usage.get("service_tier") if isinstance(usage, Mapping) else None
    known = SERVED_TIER.get(tier) if isinstance(tier, str) else None
    return {"service_tier": known} if known else {}


def call_id(given: Any, answer_id: str, index: int) -> str:
    """The id of a call; where a server gave none, one of our own that no other call has."""
    return given if isinstance(given, str) and given else f"{answer_id or 'call'}_{index}"


def listed(calls: Any) -> list[Any]:
    """The calls of a message, or of a piece of one; servers write none as null or as no list."""
    if calls is not None and not isinstance(calls, list):
        raise CompleterGarbled(f"tool_calls is a {type(calls).__name__}, expected a list")
    return calls or []


def check_legacy(message: Mapping[str, Any]) -> None:
    """Raise CompleterGarbled for what only a request that is never sent would bring."""
    for name in ("function_call", "audio"):
        if message.get(name):
            raise CompleterGarbled(f"the answer has a {name}, which Messages cannot say")


def _blocks(body: Any) -> list[Mapping[str, Any]]:
    """The blocks of a Messages answer that chat shows."""
    if not isinstance(body, Mapping) or body.get("type") != "message":
        raise CompleterGarbled("the answer is no message of Messages")
    content = body.get("content")
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise CompleterGarbled("the answer's content is no list of blocks")
    shown = [block for block in content if block.get("type") not in UNSEEN_BLOCKS]
    for block in shown:
        check_block(block)
    return shown


def check_block(block: Mapping[str, Any]) -> None:
    """Raise CompleterGarbled for a block that chat has no word for."""
    if block.get("type") not in ("text", "tool_use", *UNSEEN_BLOCKS):
        shown = repr(block.get("type"))[:40]
        raise CompleterGarbled(f"the answer has a block of type {shown}, which chat cannot say")


def _chat_call(block: Mapping[str, Any]) -> dict[str, Any]:
    given = block.get("input")
    if not isinstance(given, Mapping):
        raise CompleterGarbled("a tool_use block has no input")
    function = {"name": text_of(block, "name"), "arguments": json_text(given)}
    return {"id": text_of(block, "id"), "type": "function", "function": function}


def _choice(body: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise CompleterGarbled("expected an answer with one choice")
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        raise CompleterGarbled("the answer's first choice has no 'message'")
    return choices[0], message


def _messages_calls(calls: Any, answer_id: str, *, is_cut: bool) -> list[dict[str, Any]]:
    """tool_use blocks; a last call that a token limit cut through is no call."""
    blocks: list[dict[str, Any]] = []
    for index, call in enumerate(listed(calls)):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise CompleterGarbled("the answer calls a tool that is no function")
        given = json_object(text_of(function, "arguments"))
        if given is None:
            if is_cut and index == len(calls) - 1:
                break
            raise CompleterGarbled("the arguments of a tool call are no JSON object")
        spelled = call_id(call.get("id"), answer_id, index)
        block = {"type": "tool_use", "id": spelled, "name": text_of(function, "name")}
        blocks.append(block | {"input": given})
    return blocks


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A field that is text; CompleterGarbled where it is none."""
    value = body.get(name)
    if not isinstance(value, str):
        raise CompleterGarbled(f"the answer's {name} is no text")
    return value
