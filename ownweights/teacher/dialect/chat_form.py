"""The chat form of a Messages exchange, so that it can be learned from.

In: request and answer as they passed. Out: both as chat, or None where chat cannot say them. An
answer that was cut off before it said why is one that ended at its length. The wish for a stream
is no part of the form: a streamed exchange is the same as a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import CompleterGarbled, Inexpressible
from ownweights.teacher.dialect.answers import chat_answer
from ownweights.teacher.dialect.to_chat import chat_request


def as_chat(
    request: Any, response: Any, *, created: int = 0
) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """Request and answer as chat; the answer is None where there was none."""
    try:
        asked = chat_request(request).body
        answered = None if response is None else chat_answer(_ended(response), created=created)
    except (Inexpressible, CompleterGarbled):
        return None
    return {k: v for k, v in asked.items() if k not in ("stream", "stream_options")}, answered


def _ended(response: Any) -> Any:
    is_cut = isinstance(response, Mapping) and response.get("stop_reason") is None
    return {**response, "stop_reason": "max_tokens"} if is_cut else response
