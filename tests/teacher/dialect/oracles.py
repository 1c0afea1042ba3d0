"""The official clients as judges: their types, and their own readers of streams."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import anthropic
import httpx2
import openai
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import BaseModel
from typing_extensions import is_typeddict

from ownweights.teacher.dialect import event_bytes
from ownweights.teacher.wire import DONE_EVENT, sse_event

# fields of API version 2023-06-01, which the client for the later one no longer types
SAMPLING = ("temperature", "top_p")


def check_chat_request(body: Mapping[str, Any]) -> None:
    """Fail unless OpenAI's types take the body, and know each field of it."""
    kind = (
        CompletionCreateParamsStreaming
        if body.get("stream")
        else CompletionCreateParamsNonStreaming
    )
    assert fits(body, kind), body


def check_messages_request(body: Mapping[str, Any]) -> None:
    """Fail unless Anthropic's types take the body, sampling fields apart."""
    typed = {name: value for name, value in body.items() if name not in SAMPLING}
    kind = MessageCreateParamsStreaming if body.get("stream") else MessageCreateParamsNonStreaming
    assert fits(typed, kind), body


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a client's type: no field unknown, none missing, no other type."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in (Any, object):
        return True
    if origin in (Annotated, Required, NotRequired):
        return fits(value, args[0])
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args)
    if is_typeddict(kind):
        hints = _hints(kind)
        is_whole = isinstance(value, dict) and kind.__required_keys__ <= set(value) <= set(hints)
        return is_whole and all(fits(one, hints[name]) for name, one in value.items())
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, args[1]) for one in value.values())
    if origin is not None:  # a list, an iterable or a sequence
        return isinstance(value, list) and all(fits(one, args[0]) for one in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def check_answer(kind: type[BaseModel], body: Mapping[str, Any]) -> None:
    """Fail unless a client's answer type takes the body strictly, and knows each field."""
    _check_known(kind.model_validate(body, strict=True))


def _check_known(value: Any) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{type(value).__name__}: {value.model_extra}"
        for name in type(value).model_fields:
            _check_known(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            _check_known(one)


def _answering(content: bytes, status: int, kind: str) -> httpx2.Client:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=content, headers={"content-type": kind})

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def openai_client(content: bytes, status: int = 200, kind: str = "application/json") -> Any:
    """OpenAI's client, which gets this answer whatever it asks."""
    http = _answering(content, status, kind)
    return openai.OpenAI(api_key="none", http_client=http, max_retries=0)


def anthropic_client(content: bytes, status: int = 200, kind: str = "application/json") -> Any:
    """Anthropic's client, which gets this answer whatever it asks."""
    http = _answering(content, status, kind)
    return anthropic.Anthropic(api_key="none", http_client=http, max_retries=0)


def read_chat_stream(chunks: Iterable[Mapping[str, Any]]) -> ChatCompletion:
    """What OpenAI's client puts together of chunks."""
    content = b"".join(map(sse_event, chunks)) + DONE_EVENT
    client = openai_client(content, kind="text/event-stream")
    asked = [{"role": "user", "content": "?"}]
    with client, client.chat.completions.stream(model="m", messages=asked) as stream:
        for _ in stream:
            pass
        return stream.current_completion_snapshot


def read_messages_stream(events: Iterable[Mapping[str, Any]]) -> anthropic.types.Message:
    """What Anthropic's client puts together of events."""
    content = b"".join(map(event_bytes, events))
    client = anthropic_client(content, kind="text/event-stream")
    asked = [{"role": "user", "content": "?"}]
    with client, client.messages.stream(model="m", max_tokens=9, messages=asked) as stream:
        for _ in stream:
            pass
        return stream.get_final_message()


def walk(value: Any) -> Iterator[Any]:
    """A JSON value and all values in it."""
    yield value
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(inner, Iterable) and not isinstance(inner, str):
        for one in inner:
            yield from walk(one)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
