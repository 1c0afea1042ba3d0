"""Words and numbers that both dialects have: reasons to stop, tiers, efforts, token counts, JSON.

In: values of one dialect. Out: the other's. Invariant: a reason that the other side does not know
is an error and never "stopped by itself" (test_every_stop_reason_of_the_client_is_decided).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ownweights.core.errors import CompleterGarbled

# Messages' stop_reason → chat's finish_reason; pause_turn comes of tools that are never asked for
FINISH_OF_STOP = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
STOP_OF_FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
TIER_OF_CHAT = {"auto": "auto", "default": "standard_only"}
TIER_OF_MESSAGES = {theirs: ours for ours, theirs in TIER_OF_CHAT.items()}
SERVED_TIER = {"standard": "default", "priority": "priority"}  # as an answer says it
EFFORTS = {word: word for word in ("low", "medium", "high", "xhigh", "max")}
NO_EFFORT = "none"  # chat's word for thinking disabled


def finish_of(stop_reason: Any) -> str:
    """Chat's finish_reason; CompleterGarbled for a stop_reason that chat cannot tell."""
    finish = FINISH_OF_STOP.get(stop_reason) if isinstance(stop_reason, str) else None
    if finish is None:
        raise CompleterGarbled(
            f"the answer's stop_reason {_shown(stop_reason)} has no like in chat"
        )
    return finish


def stop_of(finish_reason: Any, *, has_calls: bool, has_refusal: bool) -> str:
    """Messages' stop_reason; CompleterGarbled for a finish_reason that Messages cannot tell.

    A call that was asked for by name ends in "stop" at OpenAI; in Messages it is tool_use.
    """
    stop = STOP_OF_FINISH.get(finish_reason) if isinstance(finish_reason, str) else None
    if stop is None:
        what = f"the answer's finish_reason {_shown(finish_reason)} has no like in Messages"
        raise CompleterGarbled(what)
    if has_refusal:
        return "refusal"
    return "tool_use" if has_calls and stop == "end_turn" else stop


def refusal_details(refusal: str) -> dict[str, Any] | None:
    """Messages' stop_details of a refusal in words; None where there are none."""
    if not refusal:
        return None
    return {"type": "refusal", "category": None, "explanation": refusal}


def refusal_text(stop_reason: Any, stop_details: Any) -> str | None:
    """What Messages says about a refusal, as chat's refusal; None where it says nothing."""
    if stop_reason != "refusal" or not isinstance(stop_details, Mapping):
        return None
    explanation = stop_details.get("explanation")
    return explanation if isinstance(explanation, str) and explanation else None


def chat_usage(usage: Any) -> dict[str, Any]:
    """Chat's token counts: the prompt's hold those read from and written to the cache."""
    said: Mapping[str, Any] = usage if isinstance(usage, Mapping) else {}
    cached = _count(said.get("cache_read_input_tokens"))
    written = _count(said.get("cache_creation_input_tokens"))
    prompt = _count(said.get("input_tokens")) + cached + written
    completion = _count(said.get("output_tokens"))
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
    details = said.get("output_tokens_details")
    if isinstance(details, Mapping):
        thought = _count(details.get("thinking_tokens"))
        counts["completion_tokens_details"] = {"reasoning_tokens": thought}
    return counts


def messages_usage(usage: Any) -> dict[str, Any]:
    """Messages' token counts: the input's are those that the cache had no part in."""
    said: Mapping[str, Any] = usage if isinstance(usage, Mapping) else {}
    prompt = _count(said.get("prompt_tokens"))
    read = _details(said.get("prompt_tokens_details"))
    cached, written = _count(read.get("cached_tokens")), _count(read.get("cache_write_tokens"))
    if cached + written > prompt:  # counts that cannot be: the whole is what is paid for
        cached = written = 0
    counts: dict[str, Any] = {
        "input_tokens": prompt - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": _count(said.get("completion_tokens")),
    }
    details = _details(said.get("completion_tokens_details"))
    if details.get("reasoning_tokens") is not None:
        thought = _count(details["reasoning_tokens"])
        counts["output_tokens_details"] = {"thinking_tokens": thought}
    return counts


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, `{}` for an empty one; None where it is none."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_text(value: Mapping[str, Any]) -> str:
    """A JSON object as text, without blanks."""
    return msgspec.json.encode(value).decode()


def _details(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _shown(value: Any) -> str:
    return repr(value)[:40]
