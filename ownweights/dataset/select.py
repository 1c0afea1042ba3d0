"""Which records can be studied: answered whole, by a teacher, in text, to a request in text.

In: any record. Out: None, or the reason why it is skipped, counted on the dataset's card. Reasons
that the request shows (ASKED) are those for which the gateway would not ask the student either.
The others (ANSWERED) show only afterwards: the student may meet such requests when it serves, so
the card counts them apart for each split (test_build_dataset_counts_unanswered_by_split).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.core.artefact import canonical_json
from ownweights.traffic.record import Record
from ownweights.traffic.workload import content_text

MAX_MESSAGE_BYTES = 256 * 1024
ASKED = (
    "not_json", "no_user_message", "not_text_request", "tools_offered", "tool_loop", "too_large"
)  # fmt: skip
ANSWERED = (
    "error", "partial", "by_student", "no_answer", "truncated", "filtered", "tool_call", "empty",
    "answer_too_large",
)  # fmt: skip


def skip_reason(record: Record, max_message_bytes: int = MAX_MESSAGE_BYTES) -> str | None:
    """Why the record cannot be studied; None when it can."""
    return _asked_reason(record.request, max_message_bytes) or _answered_reason(
        record, max_message_bytes
    )


def _asked_reason(body: Mapping[str, Any], max_message_bytes: int) -> str | None:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    if not any(
        m.get("role") == "user" and content_text(m.get("content")).strip() for m in messages
    ):
        return "no_user_message"
    if any(_has_other_parts(message) for message in messages):
        return "not_text_request"
    if body.get("tools") or body.get("functions"):
        return "tools_offered"
    if messages[-1].get("role") in ("tool", "function"):
        return "tool_loop"
    if any(
        _num_bytes(content_text(message.get("content"))) > max_message_bytes for message in messages
    ):
        return "too_large"
    try:
        canonical_json(body)
    except ValueError:
        return "not_json"
    return None


def _answered_reason(record: Record, max_message_bytes: int) -> str | None:
    if record.status != "ok":
        return "partial" if record.status == "partial" else "error"
    if record.role == "student":
        return "by_student"
    if record.finish_reason in ("length", "content_filter"):
        return "truncated" if record.finish_reason == "length" else "filtered"
    if record.message.get("tool_calls") or record.message.get("function_call"):
        return "tool_call"
    text = record.answer_text
    if text is None:
        return "no_answer"
    if not text.strip():
        return "empty"
    return "answer_too_large" if _num_bytes(text) > max_message_bytes else None


def _has_other_parts(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return False
    return any(part.get("type") != "text" for part in content)


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
