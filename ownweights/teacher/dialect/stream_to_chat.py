"""A stream of Messages events as chat chunks, each as soon as it is known.

In: the decoded data of each event, in order. Out: the chunks that it makes, decoded; the caller of
this class writes `data:` lines and the last [DONE]. `is_whole` says whether the answer came to its
end. Events of unknown types are passed over, as Anthropic asks of its clients; unknown blocks are
CompleterGarbled. Invariants: the chunks, put together, are the whole answer's translation
(test_chat_stream_always_spells_chat_answer); arguments are never empty text
(test_chat_stream_gives_a_call_without_arguments_an_object).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.dialect.answers import check_block, served_tier, text_of
from ownweights.teacher.dialect.error_bodies import chat_error
from ownweights.teacher.dialect.words import chat_usage, finish_of, json_text, refusal_text

Chunk = dict[str, Any]


class ChatStream:
    """Translates one stream; `created` is its unix time, `include_usage` the caller's wish."""

    def __init__(self, *, created: int, include_usage: bool = False) -> None:
        self.is_whole = False
        self.has_failed = False
        self._head: dict[str, Any] = {}
        self._created = created
        self._include_usage = include_usage
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}  # place of the block → place of the call
        self._inputs: dict[int, Mapping[str, Any]] = {}  # of calls that no piece has come of
        self._finish: str | None = None

    def feed(self, event: Any) -> list[Chunk]:
        """The chunks that one event makes. Raises: CompleterGarbled"""
        kind = event.get("type") if isinstance(event, Mapping) else None
        if not isinstance(kind, str):
            raise CompleterGarbled("an event of the stream has no type")
        if self.is_whole or self.has_failed:
            return []
        if kind == "error":
            self.has_failed = True
            return [chat_error(None, event)]
        take = getattr(self, f"_on_{kind}", None) if kind in _KINDS else None
        if take is None:
            return []
        if not self._head and kind != "message_start":
            raise CompleterGarbled(f"the stream has a {kind} before its message_start")
        return take(event)

    def _on_message_start(self, event: Mapping[str, Any]) -> list[Chunk]:
        message = event.get("message")
        if self._head or not isinstance(message, Mapping):
            raise CompleterGarbled("the stream's message_start is none, or not its first")
        self._head = {
            "id": str(message.get("id", "")),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": str(message.get("model", "")),
        }
        self._count(message.get("usage"))
        self._head |= served_tier(self._usage)
        return [self._chunk({"role": "assistant"})]

    def _on_content_block_start(self, event: Mapping[str, Any]) -> list[Chunk]:
        block, place = event.get("content_block"), event.get("index")
        if not isinstance(block, Mapping) or not isinstance(place, int):
            raise CompleterGarbled("a content_block_start has no block")
        check_block(block)
        if block["type"] == "text":
            return self._said(block)
        if block["type"] != "tool_use":
            return []
        self._calls[place] = len(self._calls)
        given = block.get("input")
        self._inputs[place] = given if isinstance(given, Mapping) else {}
        function = {"name": text_of(block, "name"), "arguments": ""}
        return [self._call(place, function, id=text_of(block, "id"), type="function")]

    def _on_content_block_delta(self, event: Mapping[str, Any]) -> list[Chunk]:
        delta, place = event.get("delta"), event.get("index")
        if not isinstance(delta, Mapping) or not isinstance(place, int):
            raise CompleterGarbled("a content_block_delta has no delta")
        if delta.get("type") == "text_delta":
            return self._said(delta)
        if delta.get("type") != "input_json_delta" or not delta.get("partial_json"):
            return []
        if place not in self._calls:
            raise CompleterGarbled("the stream has input for a block that is no tool_use")
        self._inputs.pop(place, None)
        return [self._call(place, {"arguments": text_of(delta, "partial_json")})]

    def _on_content_block_stop(self, event: Mapping[str, Any]) -> list[Chunk]:
        place = event.get("index")
        if not isinstance(place, int) or place not in self._inputs:
            return []
        return [self._call(place, {"arguments": json_text(self._inputs.pop(place))})]

    def _on_message_delta(self, event: Mapping[str, Any]) -> list[Chunk]:
        self._count(event.get("usage"))
        delta = event.get("delta")
        if not isinstance(delta, Mapping) or delta.get("stop_reason") is None:
            return []
        self._finish = finish_of(delta["stop_reason"])
        refusal = refusal_text(delta["stop_reason"], delta.get("stop_details"))
        said = [self._chunk({"refusal": refusal})] if refusal else []
        return [*said, self._chunk({}, self._finish)]

    def _on_message_stop(self, event: Mapping[str, Any]) -> list[Chunk]:
        if self._finish is None:
            raise CompleterGarbled("the stream ends without a stop_reason")
        self.is_whole = True
        if not self._include_usage:
            return []
        return [{**self._head, "choices": [], "usage": chat_usage(self._usage)}]

    def _count(self, usage: Any) -> None:
        """Counts of a later event take the place of earlier ones."""
        if isinstance(usage, Mapping):
            self._usage |= {name: count for name, count in usage.items() if count is not None}

    def _said(self, piece: Mapping[str, Any]) -> list[Chunk]:
        said = piece.get("text") and text_of(piece, "text")
        return [self._chunk({"content": said})] if said else []

    def _call(self, place: int, function: dict[str, str], **more: str) -> Chunk:
        piece = {"index": self._calls[place], **more, "function": function}
        return self._chunk({"tool_calls": [piece]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage: dict[str, Any] = {"usage": None} if self._include_usage else {}
        return {**self._head, "choices": [choice], **usage}


_KINDS = frozenset(name.removeprefix("_on_") for name in vars(ChatStream) if name[:4] == "_on_")
