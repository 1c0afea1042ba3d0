"""Did the student's answer do harm? Decided by comparing it with what the teacher answered.

In: an answer and the recorded answers to the same request. Out: 0 (no harm), 1 (harm), or None:
could not judge, which is neither. A certificate counts None as harm, so that a request that nobody
could judge never helps to certify (test_certify_counts_unjudged_as_harm).

  exact   the text, NFC-normalised and stripped, equals any of the references
  json    the JSON value equals that of any reference: key order and white space do not matter, list
          order does, 1 equals 1.0, true is not 1, strings compare character by character; an object
          with a key twice, NaN and numbers beyond floating point are not JSON here

An unparsable or empty answer is harm; a request none of whose references can be read is None.
Invariants: equality is reflexive and blind to key order (test_json_check_always_ignores_key_order).
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Protocol

from ownweights.core.errors import SettingsError, nearest


class Check(Protocol):
    """Compares an answer with the references; `name` is what settings and certificates say.

    One that `is_graded` may answer anything from 0 to 1, and is certified with a wider bound.
    """

    @property
    def name(self) -> str: ...
    @property
    def is_graded(self) -> bool: ...

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        """0 no harm, 1 harm, None could not judge."""
        ...


class ExactCheck:
    """The text itself, up to Unicode normal form and white space at either end."""

    name = "exact"
    is_graded = False

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        known = {_normal_text(text) for text in references} - {""}
        if not known:
            return None
        return 0.0 if _normal_text(answer or "") in known else 1.0


class JsonCheck:
    """The JSON value, however it is spelled."""

    name = "json"
    is_graded = False

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        readable = [value for value in map(read_json, references) if value is not None]
        if not readable:
            return None
        value = read_json(answer or "")
        if value is not None and value in readable:
            return 0.0
        # an unreadable reference might have been the one that agrees
        is_certain = value is None or len(readable) == len(references)
        return 1.0 if is_certain else None


CHECKS: dict[str, Check] = {"exact": ExactCheck(), "json": JsonCheck()}


def check_named(name: str) -> Check:
    """The check that settings or a certificate call `name`."""
    if name not in CHECKS:
        close = nearest(name, CHECKS)
        raise SettingsError(
            f"{name!r} is not a check; there are: {', '.join(CHECKS)}",
            hint=f"did you mean {close!r}?" if close else None,
        )
    return CHECKS[name]


def choose_check(targets: Iterable[str]) -> Check:
    """`json` when every target is a JSON object or list, `exact` otherwise."""
    values = [read_json(target) for target in targets]
    is_json = bool(values) and all(v is not None and v[0] in ("object", "list") for v in values)
    return CHECKS["json" if is_json else "exact"]


def read_json(text: str) -> tuple[Any, ...] | None:
    """The JSON value of `text` in a form whose `==` is JSON equality; None when it is not JSON."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
        return _canonical(value)
    except (ValueError, RecursionError):
        return None


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


def _canonical(value: Any) -> tuple[Any, ...]:
    """Tagged, so that true, 1 and "1" differ while 1 and 1.0 do not."""
    match value:
        case dict():
            return ("object", {key: _canonical(item) for key, item in value.items()})
        case list():
            return ("list", [_canonical(item) for item in value])
        case bool() | None:
            return ("word", str(value))
        case str():
            return ("text", value)
        case _:
            return ("number", value)


def _normal_text(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
