"""What a request asks, as text: the parts of a chat body that splitting and comparing look at.

In: an OpenAI chat body that was checked; `first_user_text` takes any. Out: plain text. A
single-turn request is its last user message; a longer one is the whole conversation. System prompts
never count, since every request of a workload may share one
(test_comparison_text_leaves_out_the_system_prompt).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ownweights.core.artefact import hash_json
from ownweights.dataset.normalise import normalise_prompt
from ownweights.traffic.workload import content_text, messages_of

SYSTEM_ROLES = ("system", "developer")
MAX_COMPARED_CHARS = 4_000


def first_user_text(body: Mapping[str, Any]) -> str:
    """The text of the first user message; empty where there is none."""
    return next(
        (content_text(m.get("content")) for m in messages_of(body) if m.get("role") == "user"), ""
    )


def comparison_text(body: Mapping[str, Any]) -> str:
    """What decides whether two requests are alike: the question, or the whole conversation."""
    spoken = [m for m in body["messages"] if m.get("role") not in SYSTEM_ROLES]
    if sum(m.get("role") == "user" for m in spoken) == 1 and spoken[-1].get("role") == "user":
        return content_text(spoken[-1].get("content"))
    return "\n".join(_spoken_text(message) for message in spoken)


def request_key(body: Mapping[str, Any]) -> str:
    """Two requests are the same by their messages and the form of the answer, not the sampling."""
    return hash_json([body["messages"], body.get("tools"), body.get("response_format")])


def prompt_key(text: str) -> str:
    """`text` normalised; as it stands (stripped) when normalising leaves nothing, as with emoji."""
    return normalise_prompt(text) or text.strip()


def comparison_key(body: Mapping[str, Any]) -> str:
    """The normalised comparison text; of a long one the first and the last half of the limit."""
    key = prompt_key(comparison_text(body))
    if len(key) <= MAX_COMPARED_CHARS:
        return key
    half = MAX_COMPARED_CHARS // 2
    return key[:half] + key[-half:]


def _spoken_text(message: Mapping[str, Any]) -> str:
    text, calls = content_text(message.get("content")), message.get("tool_calls")
    return f"{text}\n{json.dumps(calls, sort_keys=True, ensure_ascii=False)}" if calls else text
