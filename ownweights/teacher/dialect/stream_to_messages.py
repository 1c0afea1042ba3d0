"""A stream of chat chunks as Messages events, each as soon as it is known.

In: the decoded data of each chunk, in order, and `close` at [DONE] or where the stream breaks off.
Out: events, decoded; `event_bytes` writes one. A block is begun when its first piece comes and
ended when another begins, so none is empty; token counts come after the end of a chat answer, so
the last two events wait for `close`. Invariant: the events, put together, are the whole answer's
translation (test_messages_stream_always_spells_messages_answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher.dialect.answers import call_id, check_legacy, listed
from ownweights.teacher.dialect.error_bodies import messages_error
from ownweights.teacher.dialect.words import messages_usage, refusal_details, stop_of

Event = dict[str, Any]


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """One server-sent event with its name, as Anthropic's clients want it."""
    return b"event: " + event["type"].encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


class MessagesStream:
    """Translates one stream."""

    def __init__(self) -> None:
        self.is_whole = False
        self.has_failed = False
        self._id = ""
        self._has_begun = False
        self._num_blocks = 0
        self._open: str | None = None  # the kind of block under way
        self._calls: list[tuple[Any, Any]] = []  # (index, id) of each call, as the server says
        self._refusal = ""
        self._finish: Any = None
        self._usage: Any = None

    def feed(self, chunk: Any) -> list[Event]:
        """The events that one chunk makes. Raises: CompleterGarbled"""
        if not isinstance(chunk, Mapping):
            raise CompleterGarbled("a chunk of the stream is no object")
        if self.is_whole or self.has_failed:
            return []
        if chunk.get("error"):
            self.has_failed = True
            return [messages_error(None, chunk)]
        events = [] if self._has_begun else self._begin(chunk)
        if isinstance(chunk.get("usage"), Mapping):
            self._usage = chunk["usage"]
        for choice in _choices(chunk):
            events += self._take(choice)
        return events

    def close(self) -> list[Event]:
        """The events that end the stream; an error where the answer has not come to its end."""
        if self.is_whole or self.has_failed:
            return []
        if self._finish is None:
            self.has_failed = True
            return [messages_error(None, {"error": {"message": "the teacher's answer broke off"}})]
        has_refusal = bool(self._refusal)
        stop = stop_of(self._finish, has_calls=bool(self._calls), has_refusal=has_refusal)
        details = refusal_details(self._refusal)
        delta = {"stop_reason": stop, "stop_sequence": None, "stop_details": details}
        self.is_whole = True
        return [
            *self._end_block(),
            {"type": "message_delta", "delta": delta, "usage": messages_usage(self._usage)},
            {"type": "message_stop"},
        ]

    def _begin(self, chunk: Mapping[str, Any]) -> list[Event]:
        self._has_begun = True
        self._id = str(chunk.get("id") or "")
        message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": str(chunk.get("model") or ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": messages_usage(None),  # the counts come last
        }
        return [{"type": "message_start", "message": message}]

    def _take(self, choice: Mapping[str, Any]) -> list[Event]:
        delta, events = choice.get("delta"), []
        if isinstance(delta, Mapping):
            check_legacy(delta)
            if isinstance(delta.get("content"), str) and delta["content"]:
                events += self._text(delta["content"])
            if isinstance(delta.get("refusal"), str):
                self._refusal += delta["refusal"]
            for piece in listed(delta.get("tool_calls")):
                events += self._call(piece)
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]
            stop_of(self._finish, has_calls=False, has_refusal=False)  # known, or an error now
        return events

    def _text(self, text: str) -> list[Event]:
        events = []
        if self._open != "text":
            events = self._begin_block({"type": "text", "text": ""})
        return [*events, self._delta({"type": "text_delta", "text": text})]

    def _call(self, piece: Any) -> list[Event]:
        function = piece.get("function") if isinstance(piece, Mapping) else None
        if not isinstance(function, Mapping):
            raise CompleterGarbled("the stream calls a tool that is no function")
        events = self._begin_call(piece, function) if self._is_new(piece, function) else []
        arguments = function.get("arguments")
        if not isinstance(arguments, str) or not arguments:
            return events
        if self._open != "tool_use":
            raise CompleterGarbled("the stream has arguments of a call that has ended")
        return [*events, self._delta({"type": "input_json_delta", "partial_json": arguments})]

    def _is_new(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> bool:
        """Whether a piece begins a call: servers leave out or repeat indexes, ids and names."""
        if not self._calls:
            return True
        index, told = self._calls[-1]
        given = piece.get("id")
        if given and told and given != told and function.get("name"):
            return True
        if piece.get("index") in (None, index):
            return False
        if any(piece["index"] == earlier for earlier, _ in self._calls):
            raise CompleterGarbled("the stream goes back to an earlier call")
        return True

    def _begin_call(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> list[Event]:
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise CompleterGarbled("the stream begins a call without a name")
        spelled = call_id(piece.get("id"), self._id, len(self._calls))
        self._calls.append((piece.get("index"), piece.get("id")))
        return self._begin_block({"type": "tool_use", "id": spelled, "name": name, "input": {}})

    def _begin_block(self, block: dict[str, Any]) -> list[Event]:
        ended = self._end_block()
        self._open = block["type"]
        begun = {"type": "content_block_start", "index": self._num_blocks, "content_block": block}
        self._num_blocks += 1
        return [*ended, begun]

    def _end_block(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        return [{"type": "content_block_stop", "index": self._num_blocks - 1}]

    def _delta(self, delta: dict[str, str]) -> Event:
        return {"type": "content_block_delta", "index": self._num_blocks - 1, "delta": delta}


def _choices(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The choices of a chunk: the first, and no other was asked for."""
    choices = chunk.get("choices")
    if choices is None:
        return []
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        raise CompleterGarbled("a chunk's choices are no list of choices")
    if any(choice.get("index", 0) != 0 for choice in choices):
        raise CompleterGarbled("the stream has more answers than the one that was asked for")
    return choices
