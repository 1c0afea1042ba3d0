"""What makes a body a chat: one rule for what is imported, studied and exported.

In: decoded JSON of any kind. Out: None, or a Fault with the reason under which it is counted. No
JSON whatever raises an error here (test_faults_are_named_and_never_raised).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief  # long values are cut: errors carry no content
from typing import Any, cast

from ownweights.core.chat import ROLES
from ownweights.traffic.workload import content_text

_ANSWER_FIELDS = ("tool_calls", "function_call", "refusal", "audio")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a body is no chat: the reason to count, and what is wrong, in words."""

    reason: str
    what: str


def messages_fault(messages: Any) -> Fault | None:
    """What is wrong with a request's messages; None when each has a known role and content."""
    if not isinstance(messages, list) or not messages:
        return Fault("bad_messages", "'messages' must be a non-empty list")
    for index, message in enumerate(cast("list[Any]", messages)):
        if not isinstance(message, Mapping):
            return Fault("bad_messages", f"messages[{index}] is not an object")
        fields = cast("Mapping[str, Any]", message)
        if (role := fields.get("role")) not in ROLES:
            allowed = ", ".join(ROLES)
            return Fault(
                "wrong_roles", f"messages[{index}] has role {brief(role)}, not one of {allowed}"
            )
        if not is_content(fields.get("content")):
            what = f"messages[{index}] has content that is neither text nor parts"
            return Fault("bad_messages", what)
    return None


def request_fault(messages: Any) -> Fault | None:
    """What is wrong with a request's messages; None when they are messages, and somebody asks."""
    fault = messages_fault(messages)
    if fault or any(message["role"] in ("user", "tool", "function") for message in messages):
        return fault
    return Fault("wrong_roles", "nobody asks: there is no user message")


def answer_fault(response: Any) -> Fault | None:
    """What is wrong with a response; None when it is a chat completion that says something."""
    message = answer_message(response)
    if message is None:
        return Fault("no_answer", "'response' has no choices[0].message")
    if (role := message.get("role", "assistant")) != "assistant":
        return Fault("wrong_roles", f"the answer has role {brief(role)}, not 'assistant'")
    content = message.get("content")
    if not is_content(content):
        return Fault("bad_messages", "the answer's content is neither text nor parts")
    if not _says_something(content) and not any(message.get(name) for name in _ANSWER_FIELDS):
        return Fault("empty_answer", "the answer is empty")
    return None


def first_choice(response: Any) -> Mapping[str, Any]:
    """The first choice of a response; empty where it has none."""
    choices = cast("Any", response).get("choices") if isinstance(response, Mapping) else None
    if not isinstance(choices, Sequence) or not choices:
        return {}
    first = cast("Sequence[Any]", choices)[0]
    return cast("Mapping[str, Any]", first) if isinstance(first, Mapping) else {}


def answer_message(response: Any) -> Mapping[str, Any] | None:
    """The message of the first choice; None where there is none."""
    message = first_choice(response).get("message")
    return cast("Mapping[str, Any]", message) if isinstance(message, Mapping) else None


def is_content(content: Any) -> bool:
    """Whether a message's content is text, null, or a list of parts."""
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, list) and all(
        isinstance(part, Mapping) for part in cast("list[Any]", content)
    )


def _says_something(content: str | Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether there is text, or a part that is not text at all."""
    if content_text(content).strip():
        return True
    if content is None or isinstance(content, str):
        return False
    return any(part.get("type", "text") != "text" for part in content)
