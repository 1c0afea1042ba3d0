"""Examples with the answer given."""

from __future__ import annotations

import json
from typing import Any

from ownweights.dataset.example import Example
from ownweights.student.swap import Messages


def example_of(
    asked: str, answer: Any, *, before: Messages | None = None, after: Messages | None = None
) -> Example:
    """An example of one question; an answer that is not text is written as JSON."""
    messages = [*(before or []), {"role": "user", "content": asked}, *(after or [])]
    target = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Example("id", "unit", {"messages": messages}, messages, target, (target,), "m", {})
