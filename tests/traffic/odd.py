"""Every field of a recorded request and answer, replaced by every odd JSON value in turn."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ownweights.traffic import Record, make_record

ABSENT = object()
DEEP = json.loads("[" * 150 + "]" * 150)
VALUES: tuple[Any, ...] = (
    ABSENT, None, 5, -1.5, True, 10**300, "", " ", "x", [], [1], ["x"], [None], [1, None], {},
    {"a": 1}, [{}], [{"type": "text"}], [{"type": "text", "text": 5}],
    [{"type": "text", "text": ""}], [{"type": 5, "text": "x"}], [{"type": ["x"], "text": "x"}],
    [{"type": "image_url", "image_url": 5}], DEEP,
)  # fmt: skip
REQUEST = {
    "model": "big",
    "messages": [
        {"role": "system", "content": "Answer in one word, and never say more than was asked for."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "hi", "tool_calls": None, "name": None},
        {"role": "user", "content": "and now?"},
    ],
    "metadata": {"task_id": "t"},
    "response_format": {"type": "text"},
    "tools": None,
    "functions": None,
    "stream": False,
}
ANSWER = {"role": "assistant", "content": "fine", "tool_calls": None, "function_call": None,
          "refusal": None, "audio": None}  # fmt: skip
RESPONSE = {
    "model": "labelled-by-people",
    "created": 1_700_000_000,
    "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5},
}


def odd_records() -> list[Record]:
    """Records of the workload `w` with one odd value each; the id says where and which."""
    return [
        _record(f"{side}.{where}.{number}", side, whole)
        for side, body in (("request", REQUEST), ("response", RESPONSE))
        for path in _paths(body)
        for number, value in enumerate(VALUES)
        for where, whole in [(".".join(map(str, path)), _replaced(body, path, value))]
    ]


def _record(name: str, side: str, whole: Any) -> Record:
    request, response = (whole, RESPONSE) if side == "request" else (REQUEST, whole)
    metadata = request.get("metadata")
    made = make_record(
        request, response, role="teacher", workload="w",
        metadata=metadata if isinstance(metadata, dict) else {},
    )  # fmt: skip
    return replace(made, source_id=name)


def _paths(value: Any) -> Iterator[list[Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield [key]
        if isinstance(inner, dict | list):
            yield from ([key, *rest] for rest in _paths(inner))


def _replaced(body: Any, path: list[Any], value: Any) -> Any:
    whole = holder = copy.deepcopy(body)
    for step in path[:-1]:
        holder = holder[step]
    if value is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return whole
