"""Ask an upstream in its own protocol, and give the answer in the caller's.

In: a request in one of chat and Messages, an upstream that takes the other. Out: the request it
gets; its answer, error or stream as the caller's client reads it. Invariants: what cannot be said
there is a 400 that names the field, and nothing is dropped (test_translated_refuses_by_the_field);
a stream is translated event by event (test_translated_stream_leaves_as_it_comes).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from ownweights.core.errors import CompleterGarbled, Inexpressible
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.protocols import CHAT, MESSAGES, Protocol
from ownweights.gateway.settings import Upstream
from ownweights.gateway.upstreams.client import garbled
from ownweights.teacher.asgi import HttpError
from ownweights.teacher.dialect import (
    ChatStream,
    MessagesStream,
    chat_answer,
    chat_error,
    chat_request,
    event_bytes,
    messages_answer,
    messages_error,
    messages_request,
)
from ownweights.teacher.sse import decode_events, event_data
from ownweights.teacher.wire import DONE_EVENT, sse_event

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spoken:
    """How one upstream is asked: the protocol and the body, translated or the caller's own."""

    protocol: Protocol
    body: Body
    is_translated: bool


def spoken(exchange: Exchange, upstream: Upstream) -> Spoken:
    """The request as an upstream takes it; HttpError 400 where it cannot be said there."""
    if upstream.speaks(exchange.protocol.name):
        return Spoken(exchange.protocol, exchange.body, is_translated=False)
    try:
        if exchange.protocol is CHAT:
            limit = upstream.kind.max_tokens
            return Spoken(MESSAGES, messages_request(exchange.body, max_tokens=limit).body, True)
        if exchange.protocol is MESSAGES:
            return Spoken(CHAT, chat_request(exchange.body).body, True)
    except Inexpressible as error:
        what = f"{upstream.name} cannot be asked this: {error.what}"
        raise HttpError(400, what, code="unsupported_field", param=error.param) from None
    what = f"{upstream.name} does not speak {exchange.protocol.name}"
    raise HttpError(400, what, code="unsupported_protocol")


def answer_for(exchange: Exchange, body: Any) -> Body:
    """An upstream's whole answer, in the caller's protocol; HttpError 502 where it is none."""
    try:
        if exchange.protocol is CHAT:
            return chat_answer(body, created=int(exchange.at))
        return messages_answer(body)
    except CompleterGarbled as error:
        raise garbled(f"the teacher said 200, but {error.what}") from None


def error_for(exchange: Exchange, status: int, content: bytes) -> Body:
    """An upstream's error, in the caller's protocol."""
    try:
        said = msgspec.json.decode(content)
    except (ValueError, RecursionError):
        said = None
    is_chat = exchange.protocol is CHAT
    return chat_error(status, said) if is_chat else messages_error(status, said)


class StreamTranslator:
    """Turns whole events of an upstream's stream into events of the caller's protocol."""

    def __init__(self, exchange: Exchange) -> None:
        self._to_chat: ChatStream | None = None
        self._to_messages: MessagesStream | None = None
        if exchange.protocol is CHAT:
            wants_usage = exchange.wants_usage
            self._to_chat = ChatStream(created=int(time.time()), include_usage=wants_usage)
        else:
            self._to_messages = MessagesStream()

    def feed(self, events: bytes) -> bytes:
        """The caller's events that these make; HttpError 502 for what is no such stream."""
        found, _ = decode_events(event_data(events))
        try:
            return b"".join(piece for event in found for piece in self._translated(event))
        except CompleterGarbled as error:
            raise garbled(error.what) from None

    def close(self) -> bytes:
        """The events that end the stream; HttpError 502 where it broke off."""
        if self._to_messages is not None:
            return b"".join(map(event_bytes, self._to_messages.close()))
        assert self._to_chat is not None, "a stream is translated to one protocol"
        if self._to_chat.has_failed:
            return b""
        if not self._to_chat.is_whole:
            raise garbled("the teacher's answer broke off")
        return DONE_EVENT

    def _translated(self, event: Any) -> list[bytes]:
        if self._to_chat is not None:
            return [sse_event(chunk) for chunk in self._to_chat.feed(event)]
        assert self._to_messages is not None, "a stream is translated to one protocol"
        return [event_bytes(one) for one in self._to_messages.feed(event)]
