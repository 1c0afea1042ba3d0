"""JSON read strictly, into a form whose `==` is JSON equality.

An object with a key twice, NaN and numbers beyond floating point are not JSON here. Key order and
white space do not matter, list order does, 1 equals 1.0, true is not 1, strings compare character
by character. Invariants: equality is reflexive and blind to key order
(test_json_check_always_ignores_key_order).
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

Value = tuple[Any, ...]  # ("object", {key: Value}), ("list", [Value]), ("text", str), ...


def read_json(text: str) -> Value | None:
    """The JSON value of `text`, tagged; None when it is not JSON."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
        return tag_json(value)
    except (ValueError, RecursionError):
        return None


def tag_json(value: Any) -> Value:
    """Tagged, so that true, 1 and "1" differ while 1 and 1.0 do not."""
    match value:
        case dict():
            return ("object", {key: tag_json(item) for key, item in value.items()})
        case list():
            return ("list", [tag_json(item) for item in value])
        case bool() | None:
            return ("word", str(value))
        case str():
            return ("text", value)
        case _:
            return ("number", value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond floating point")
    return number
