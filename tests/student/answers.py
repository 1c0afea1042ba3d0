"""Examples with the answer given."""

from __future__ import annotations

import json
from typing import Any

from ownweights.dataset.example import Example

Messages = list[dict[str, Any]]


def example_of(asked: str, answer: Any, *, before: Messages = [], after: Messages = []) -> Example:  # noqa: B006
    """An example of one question; an answer that is not text is written as JSON."""
    messages = [*before, {"role": "user", "content": asked}, *after]
    target = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Example("id", "unit", {"messages": messages}, messages, target, (target,), "m", {})
