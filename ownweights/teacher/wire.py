"""The OpenAI chat dialect: completion bodies, streamed chunks, and the shape of an error.

In: decoded JSON, or an answer's text. Out: the same thing in the other form. Invariants: the chunks
of a body, assembled again, are that body (test_assemble_undoes_chunk_events); what is not a
completion raises CompleterGarbled and nothing else (test_parse_completion_garbage_is_garbled).
Source: the OpenAI API reference, "Chat" and "Chat streaming"; other servers follow its error shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ownweights.core.chat import Completion, Usage
from ownweights.core.errors import CompleterGarbled

DONE_EVENT = b"data: [DONE]\n\n"
_WORDS = re.compile(r"\S+\s*|\s+")
_encode = msgspec.json.encode


def error_body(
    message: str, *, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def completion_body(
    text: str,
    *,
    completion_id: str,
    model: str,
    finish_reason: str,
    created: int,
    usage: Usage | None = None,
) -> dict[str, Any]:
    """A whole answer with one choice."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    body: dict[str, Any] = {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
    }
    if usage is not None:
        body["usage"] = usage_body(usage)
    return body


def usage_body(usage: Usage) -> dict[str, int]:
    """Token counts under OpenAI's names."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def sse_event(payload: Any) -> bytes:
    """One server-sent event that carries a JSON value."""
    return b"data: " + _encode(payload) + b"\n\n"


def chunk_events(body: Mapping[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """The events that stream a whole answer: role, words, finish, usage where asked, [DONE]."""
    head = {k: v for k, v in body.items() if k not in ("choices", "usage", "object")}
    head["object"] = "chat.completion.chunk"

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        nothing = {"usage": None} if include_usage else {}
        return sse_event({**head, "choices": choices, **nothing, **more})

    for choice in body["choices"]:
        index = choice.get("index", 0)
        for delta in _deltas(choice["message"]):
            yield event([{"index": index, "delta": delta, "finish_reason": None}])
        yield event([{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}])
    if include_usage:
        yield event([], usage=body.get("usage"))
    yield DONE_EVENT


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text = message.get("content")
    yield {"role": "assistant", "content": "" if text is not None else None}
    for word in _WORDS.findall(text or ""):
        yield {"content": word}
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield {"tool_calls": [{"index": index, **call}]}


def parse_completion(body: Any) -> Completion:
    """The first choice of a decoded answer; CompleterGarbled when it is not one."""
    if not isinstance(body, Mapping):
        raise CompleterGarbled(f"expected a JSON object, got {type(body).__name__}")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise CompleterGarbled("the answer has no 'choices'")
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        raise CompleterGarbled("the answer's first choice has no 'message'")
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise CompleterGarbled(f"message.content is a {type(text).__name__}, expected text")
    reason, model = choices[0].get("finish_reason"), body.get("model")
    return Completion(
        text=text,
        finish_reason=reason if isinstance(reason, str) else "",
        model=model if isinstance(model, str) else "",
        usage=parse_usage(body.get("usage")) or Usage(),
        message=message,
        body=body,
    )


def parse_usage(value: Any) -> Usage | None:
    """Token counts, or None where the answer has none that make sense."""
    if not isinstance(value, Mapping):
        return None
    counts = [value.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(count, int) for count in counts):
        return None
    return Usage(*counts)


def assemble(events: Iterable[Any]) -> dict[str, Any] | None:
    """The whole answer that decoded stream events spell; None when there is no chunk among them.

    A choice whose end was never seen keeps finish_reason None.
    """
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        if not isinstance(event, Mapping) or not isinstance(event.get("choices"), list):
            continue
        for name, value in event.items():
            if name not in ("choices", "object") and (value is not None or name not in body):
                body[name] = value
        for piece in event["choices"]:
            if isinstance(piece, Mapping):
                _add_piece(choices, piece)
    if not body and not choices:
        return None
    body["object"] = "chat.completion"
    body["choices"] = [choices[index] for index in sorted(choices)]
    return body


def _add_piece(choices: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    index = piece.get("index", 0)
    if not isinstance(index, int):
        return
    empty = {"role": "assistant", "content": None}
    choice = choices.setdefault(index, {"index": index, "message": empty, "finish_reason": None})
    if piece.get("finish_reason") is not None:
        choice["finish_reason"] = piece["finish_reason"]
    delta = piece.get("delta")
    if not isinstance(delta, Mapping):
        return
    message = choice["message"]
    for name, value in delta.items():
        if name == "tool_calls" and isinstance(value, list):
            _add_tool_calls(message, value)
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value


def _add_tool_calls(message: dict[str, Any], pieces: list[Any]) -> None:
    calls: list[dict[str, Any]] = message.setdefault("tool_calls", [])
    for piece in pieces:
        index = piece.get("index", len(calls)) if isinstance(piece, Mapping) else -1
        if not isinstance(index, int) or not 0 <= index <= len(calls):
            continue
        if index == len(calls):
            empty = {"name": "", "arguments": ""}
            calls.append({"id": None, "type": "function", "function": empty})
        call, function = calls[index], piece.get("function")
        call["id"] = call["id"] or piece.get("id")
        if isinstance(function, Mapping):
            for name in ("name", "arguments"):
                if isinstance(function.get(name), str):
                    call["function"][name] += function[name]
