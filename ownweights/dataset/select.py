"""Which records can be studied: answered whole, by a teacher, in text, to a request in text.

In: any record. Out: None, or the reason why it cannot be studied. An exchange in Messages is looked
at in its chat form (`in_chat`). What becomes of a record that cannot be studied depends on the
reason, because certify and test stand for all requests:

    ASKED     the request shows it: the teacher keeps such requests     │ certify and test
    ANSWERED  only the answer shows it: the student may be asked such   │ keep them
              a request, and nothing it says can be judged right        │
    LOST      no whole chat, or no answer of a teacher's; what chat     │ no split keeps them
              cannot say is never asked of a student                    │

All are counted on the dataset's card. Invariant: no record of certify or test that a student might
be asked disappears (test_build_dataset_keeps_held_out_requests_whole).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ownweights.teacher.dialect import as_chat
from ownweights.traffic.chat import answer_fault, messages_fault
from ownweights.traffic.record import Record, status_of
from ownweights.traffic.workload import content_text, workload_hash

MAX_MESSAGE_BYTES = 256 * 1024

ASKED = ("tools_offered", "tool_loop", "not_text_request")
ANSWERED = ("truncated", "filtered", "tool_call", "no_text", "empty")
LOST = (
    "bad_messages", "wrong_roles", "no_user_message", "too_large", "error", "by_student",
    "inexpressible", "other_protocol",
)  # fmt: skip
HELD_OUT_ONLY = (*ASKED, *ANSWERED)


def in_chat(record: Record) -> Record:
    """The record as a chat, where it was spoken in Messages and chat can say it; else as it is."""
    if record.protocol != "messages":
        return record
    found = as_chat(record.request, record.response)
    if found is None:
        return record
    request, response = found
    return replace(
        record,
        protocol="chat",
        request=request,
        response=response,
        status=status_of(response) if record.status == "ok" else record.status,
        prompt_hash=workload_hash(request),
    )


def skip_reason(record: Record, max_message_bytes: int = MAX_MESSAGE_BYTES) -> str | None:
    """Why a record, as `in_chat` gives it, cannot be studied; None when it can."""
    return (
        _lost_reason(record, max_message_bytes)
        or _asked_reason(record.request)
        or answered_reason(record)
    )


def answered_reason(record: Record) -> str | None:
    """Why the answer cannot be compared with; None for a whole answer in text."""
    if record.finish_reason == "content_filter":
        return "filtered"
    if record.status == "partial":
        return "truncated"
    if record.message.get("tool_calls") or record.message.get("function_call"):
        return "tool_call"
    text, fault = record.answer_text, answer_fault(record.response)
    if text is None or (fault is not None and fault.reason != "empty_answer"):
        return "no_text"
    return None if text.strip() else "empty"


def _lost_reason(record: Record, max_message_bytes: int) -> str | None:
    if record.status == "error":
        return "error"
    if record.role == "student":
        return "by_student"
    if record.protocol != "chat":
        return "inexpressible" if record.protocol == "messages" else "other_protocol"
    fault = messages_fault(record.request.get("messages"))
    if fault is not None:
        return fault.reason
    asked: Sequence[Mapping[str, Any]] = record.request["messages"]
    texts = [content_text(message.get("content")) for message in (*asked, record.message)]
    if any(_num_bytes(text) > max_message_bytes for text in texts):
        return "too_large"
    return None if any(message["role"] == "user" for message in asked) else "no_user_message"


def _asked_reason(body: Mapping[str, Any]) -> str | None:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    if body.get("tools") or body.get("functions"):
        return "tools_offered"
    if messages[-1].get("role") in ("tool", "function"):
        return "tool_loop"
    if any(_has_other_parts(message.get("content")) for message in messages):
        return "not_text_request"
    return None


def _has_other_parts(content: Any) -> bool:
    if content is None or isinstance(content, str):
        return False
    return any(
        part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content
    )


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
