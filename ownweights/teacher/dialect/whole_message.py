"""The whole Messages answer that stream events spell, as the record keeps it.

In: decoded events. Out: the answer; None where none was begun. One that was cut off keeps
stop_reason None, and a call whose input was cut through keeps an empty one. Unknown events and
pieces are passed over. Invariant: what comes out is what Anthropic's own client puts together
(test_whole_message_always_matches_the_client).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ownweights.teacher.dialect.words import json_object

_PIECES = {  # type of a piece → its field, which grows by it
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}


def whole_message(events: Iterable[Any]) -> dict[str, Any] | None:
    """The answer that the events spell."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for event in events:
        if not isinstance(event, Mapping):
            continue
        kind, place = event.get("type"), event.get("index")
        if kind == "message_start" and message is None and isinstance(event.get("message"), dict):
            message = {**event["message"]}
        elif kind == "message_delta" and message is not None:
            _end(message, event)
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            if isinstance(place, int):
                blocks.setdefault(place, {**event["content_block"]})
        elif kind == "content_block_delta" and isinstance(place, int) and place in blocks:
            _grow(blocks[place], inputs, place, event.get("delta"))
    if message is None:
        return None
    for place, text in inputs.items():
        blocks[place]["input"] = json_object(text) or {}
    return {**message, "content": [blocks[place] for place in sorted(blocks)]}


def _end(message: dict[str, Any], event: Mapping[str, Any]) -> None:
    """Take how the answer ended, and its counts, which replace earlier ones."""
    if isinstance(event.get("delta"), Mapping):
        message |= event["delta"]
    if isinstance(event.get("usage"), Mapping):
        told = {name: count for name, count in event["usage"].items() if count is not None}
        earlier = message.get("usage")
        message["usage"] = {**(earlier if isinstance(earlier, Mapping) else {}), **told}


def _grow(block: dict[str, Any], inputs: dict[int, str], place: int, delta: Any) -> None:
    if not isinstance(delta, Mapping):
        return
    kind = delta.get("type")
    field = _PIECES.get(kind) if isinstance(kind, str) else None
    if field is not None and isinstance(delta.get(field), str):
        block[field] = str(block.get(field) or "") + delta[field]
    elif kind == "input_json_delta" and isinstance(delta.get("partial_json"), str):
        inputs[place] = inputs.get(place, "") + delta["partial_json"]
    elif kind == "citations_delta" and isinstance(delta.get("citation"), Mapping):
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
