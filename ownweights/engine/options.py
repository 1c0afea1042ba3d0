"""What of a chat request the engine acts on, and what it cannot do.

In: a request body. Out: an `Ask`. The rule is a closed list: a field that would change the answer
and is not honoured makes the request Ineligible by name (test_read_ask_refuses_*), so that nothing
is dropped in silence. Without `temperature` decoding is greedy; a temperature that is given is
honoured. `response_format: json_object` is accepted and not enforced: the certificate measures how
well it is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.core.chat import ChatRequest, check_chat_body
from ownweights.core.errors import Ineligible, InputError
from ownweights.engine.wire import Ask

# What these ask for does not change the answer: who asks, how it is sent, billed and kept.
_INERT = frozenset(
    ("model", "stream", "stream_options", "user", "metadata", "store", "service_tier",
     "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "modalities")
)  # fmt: skip
# These are honoured at one value only.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,), "n": (1,), "stop": ([],), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "logprobs": (False,), "top_logprobs": (0,), "tools": ([],),
    "tool_choice": ("none",), "functions": ([],),
    "response_format": ({"type": "text"}, {"type": "json_object"}),
}  # fmt: skip
_HONOURED = frozenset(("messages", "max_tokens", "max_completion_tokens", "temperature", "seed"))
_ROLES = ("system", "developer", "user", "assistant")
_MAX_TEMPERATURE = 2.0
_SEED_BITS = 63


def read_ask(ask_id: int, student: str, request: ChatRequest, *, is_stream: bool) -> Ask:
    """The request as the engine understands it.

    Raises: InputError for a malformed body, Ineligible for one that cannot be answered as asked
    """
    body = request.body
    check_chat_body(body)
    for name, value in body.items():
        known = name in _HONOURED or name in _INERT or name in _FIXED
        if not known or (name in _FIXED and value is not None and value not in _FIXED[name]):
            raise Ineligible(name, f"the engine cannot honour {name[:40]!r} as asked")
    return Ask(
        id=ask_id,
        student=student,
        messages=[_read_message(message) for message in request.messages],
        max_tokens=_read_limit(body),
        temperature=_read_temperature(body.get("temperature")),
        seed=_read_seed(body.get("seed")),
        is_stream=is_stream,
    )


def _read_message(message: Mapping[str, Any]) -> dict[str, str]:
    if message["role"] not in _ROLES:
        raise Ineligible("messages.role", f"the engine cannot honour role {message['role']!r}")
    for name, value in message.items():
        if name not in ("role", "content") and value not in (None, [], ""):
            raise Ineligible(f"messages.{name}", f"the engine cannot honour a message's {name}")
    text = _read_content(message.get("content"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Ineligible("messages.content", "the text holds half of a surrogate pair") from None
    return {"role": message["role"], "content": text}


def _read_content(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0].get("type") == "text":
        text = content[0].get("text")
        if isinstance(text, str):
            return text
    raise Ineligible("messages.content", "the engine reads one text a message")


def _read_limit(body: Mapping[str, Any]) -> int | None:
    found = None
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a positive integer, got {value!r}", where="request")
        found = value if found is None else min(found, value)
    return found


def _read_temperature(value: Any) -> float:
    if value is None:
        return 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _MAX_TEMPERATURE:
        raise InputError(
            f"temperature must be from 0 to {_MAX_TEMPERATURE:g}, got {value!r}", where="request"
        )
    return float(value)


def _read_seed(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"seed must be an integer, got {value!r}", where="request")
    return value & ((1 << _SEED_BITS) - 1)
