"""Which requests a student can answer exactly as they were asked.

In: a route and a chat-completions body. Out: None, or `ineligible:<field>` naming the first field
that the student could not honour. The rule is a closed list: a field that is not on it makes the
request ineligible (test_eligible_unknown_field_is_ineligible), so nothing is dropped or clamped in
silence. A system prompt other than the one certified is `ineligible:prompt`.

The certificate was issued for greedy decoding, so a request may leave `temperature` out, ask for 0,
or spell out the API's default of 1; any other temperature is a wish that the student cannot grant.
`seed` is honoured because greedy decoding repeats itself. Invariant: a field's name never carries
anything but letters, digits and `_` into a header (test_eligible_hostile_field_name_is_masked).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ownweights.dataset.prune import PruneRule, system_hash
from ownweights.route.route import Route
from ownweights.traffic.workload import workload_hash

# No token of a tokenizer in use is longer on average over a whole prompt: a longer text cannot fit.
MAX_CHARS_PER_TOKEN = 16
MOST_PROMPT_TOKENS = 131_072  # the longest window of the models that students are made of
ROLES = ("system", "user", "assistant")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


def _is_default(*defaults: Any) -> Callable[[Any], bool]:
    return lambda value: any(
        value == default and isinstance(value, bool) == isinstance(default, bool)
        for default in defaults
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_plain_format(value: Any) -> bool:
    return isinstance(value, Mapping) and dict(value) in ({"type": "text"}, {"type": "json_object"})


def _is_usage_option(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        name == "include_usage" and isinstance(option, bool) for name, option in value.items()
    )


def _anything(value: Any) -> bool:
    return True


# What each field may hold besides null; a field that is not here is unknown.
_ALLOWED: dict[str, Callable[[Any], bool]] = {
    "model": _anything,
    "messages": _anything,  # looked at message by message
    "stream": lambda value: isinstance(value, bool),
    "stream_options": _is_usage_option,
    "temperature": _is_default(0, 1),
    "top_p": _is_default(1),
    "n": _is_default(1),
    "max_tokens": _is_count,
    "max_completion_tokens": _is_count,
    "seed": lambda value: isinstance(value, int),
    "stop": _is_default([]),
    "presence_penalty": _is_default(0),
    "frequency_penalty": _is_default(0),
    "logit_bias": _is_default({}),
    "logprobs": _is_default(False),
    "top_logprobs": _is_default(0),
    "tools": _is_default([]),
    "tool_choice": _is_default("none"),
    "functions": _is_default([]),
    "response_format": _is_plain_format,
    "modalities": _is_default(["text"]),
    "service_tier": _is_default("auto", "default"),
    "store": _is_default(False),
    # these say who asks and how to bill and cache, not what the answer is
    "user": _anything,
    "metadata": _anything,
    "safety_identifier": _anything,
    "prompt_cache_key": _anything,
    "prompt_cache_retention": _anything,
}
_MESSAGE_FIELDS = ("role", "content")


def eligible(route: Route, body: Mapping[str, Any]) -> str | None:
    """None when the route's student can answer `body` as asked, else `ineligible:<field>`."""
    odd = unanswerable(body)
    if odd is not None:
        return odd
    field = _odd_prompt(route, body)
    return None if field is None else f"ineligible:{field}"


def unanswerable(body: Mapping[str, Any]) -> str | None:
    """None when some student could answer a request of this form, else `ineligible:<field>`."""
    field = _odd_field(body) or _odd_message(body.get("messages"))
    return None if field is None else f"ineligible:{field}"


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages of an eligible request as role and text alone."""
    return [{"role": m["role"], "content": plain_text(m["content"])} for m in messages]


def plain_text(content: Any) -> str | None:
    """A message's content where it is one text, spelled either way; else None."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        part: Mapping[str, Any] = content[0]
        text = part.get("text")
        if set(part) == {"type", "text"} and part["type"] == "text" and isinstance(text, str):
            return text
    return None


def _odd_field(body: Mapping[str, Any]) -> str | None:
    for name, value in body.items():
        check = _ALLOWED.get(name)
        if check is None or (value is not None and not check(value)):
            return _masked(name)
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        return "max_tokens"  # two limits: which one counts is the teacher's business
    return None


def _odd_prompt(route: Route, body: Mapping[str, Any]) -> str | None:
    if route.prompt_hashes and workload_hash(body) not in route.prompt_hashes:
        return "prompt"
    messages = plain_messages(body["messages"])
    rule = None if route.prune is None else PruneRule.from_json(route.prune)
    if rule is not None and rule.drops_system and system_hash(messages) != rule.system_hash:
        return "prompt"
    max_chars = (route.max_prompt_tokens or MOST_PROMPT_TOKENS) * MAX_CHARS_PER_TOKEN
    return "context" if sum(len(message["content"]) for message in messages) > max_chars else None


def _odd_message(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "messages"
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            return "messages.role"
        for name, value in message.items():
            if name not in _MESSAGE_FIELDS and value not in (None, []):
                return f"messages.{_masked(name)}"
        if plain_text(message.get("content")) is None:
            return "messages.content"
    return None if messages[-1]["role"] == "user" else "messages.role"


def _masked(name: Any) -> str:
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "unknown"
