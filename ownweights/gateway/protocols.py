"""The protocols that callers speak, and what an answer in each of them is.

In: decoded bodies, or the events of a stream. Out: the whole answer that a stream spells, and
whether an answer is one and has its end. Invariants: a stream spells what the same answer is when
it comes whole (test_assemble_gives_the_whole_answer); nothing that an upstream says raises an error
here (test_protocols_take_any_json).
Sources: OpenAI's API reference ("Chat", "Completions", "Embeddings", "Responses", each with its
streaming), Anthropic's ("Messages", "Streaming messages").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ownweights.core.errors import CompleterGarbled
from ownweights.teacher import wire
from ownweights.teacher.dialect import whole_message
from ownweights.traffic.record import Protocol as ProtocolName
from ownweights.traffic.record import Status, status_of

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol: its path at an upstream, and how its answers are read.

    `is_answer` tells whether a success says what the protocol promises; only what a student may
    answer too is held to it, everything else passes as it is.
    """

    name: ProtocolName
    path: str
    status: Callable[[Body | None], Status]
    assemble: Callable[[Sequence[Any]], Body | None]
    check: Callable[[Any], object] | None = None

    def is_answer(self, body: Any) -> bool:
        """Whether a decoded success is an answer."""
        if self.check is None:
            return True
        try:
            self.check(body)
        except CompleterGarbled:
            return False
        return True


def _field(body: Any, name: str) -> Any:
    return cast("Body", body).get(name) if isinstance(body, Mapping) else None


def _items(value: Any) -> list[Body]:
    """The objects in a list, if it is one."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _chat_status(body: Body | None) -> Status:
    return status_of(body)


def _completions_status(body: Body | None) -> Status:
    ends = [choice.get("finish_reason") for choice in _items(_field(body, "choices"))]
    if not ends:
        return "error"
    return "ok" if all(end == "stop" for end in ends) else "partial"


def _embeddings_status(body: Body | None) -> Status:
    return "ok" if _items(_field(body, "data")) else "error"


def _responses_status(body: Body | None) -> Status:
    said = _field(body, "status")
    if said == "completed":
        return "ok"
    return "partial" if said in ("incomplete", "in_progress") else "error"


def _messages_status(body: Body | None) -> Status:
    if not isinstance(_field(body, "content"), list):
        return "error"
    reason = _field(body, "stop_reason")
    return "ok" if reason in ("end_turn", "stop_sequence", "tool_use") else "partial"


def _no_stream(events: Sequence[Any]) -> Body | None:
    return None


def _assemble_completions(events: Sequence[Any]) -> Body | None:
    """The chunks of a text completion, put together by the index of their choice."""
    body: Body = {}
    choices: dict[int, Body] = {}
    for event in events:
        pieces = _items(_field(event, "choices"))
        if not pieces and _field(event, "usage") is None:
            continue
        body.update({k: v for k, v in event.items() if k != "choices" and v is not None})
        for piece in pieces:
            index = piece.get("index", 0)
            if not isinstance(index, int):
                continue
            choice = choices.setdefault(index, {"index": index, "text": "", "finish_reason": None})
            text = piece.get("text")
            choice["text"] += text if isinstance(text, str) else ""
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
    if not choices:
        return None
    return {**body, "choices": [choices[index] for index in sorted(choices)]}


def _assemble_responses(events: Sequence[Any]) -> Body | None:
    """The response that the last event with one carries: each of them holds it so far."""
    held = [_field(event, "response") for event in events]
    whole = [body for body in held if isinstance(body, dict)]
    return cast("Body", whole[-1]) if whole else None


CHAT = Protocol(
    "chat", "/chat/completions", _chat_status, wire.assemble, check=wire.parse_completion
)
MESSAGES = Protocol("messages", "/messages", _messages_status, whole_message)
PROTOCOLS = {
    f"/v1{one.path}": one
    for one in (
        CHAT,
        Protocol("completions", "/completions", _completions_status, _assemble_completions),
        Protocol("embeddings", "/embeddings", _embeddings_status, _no_stream),
        Protocol("responses", "/responses", _responses_status, _assemble_responses),
        MESSAGES,
    )
}
