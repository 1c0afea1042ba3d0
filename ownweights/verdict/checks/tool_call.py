"""Harm by the functions that an answer calls, and with which arguments.

An answer or reference is an assistant's message as JSON: `{"content": ..., "tool_calls": [...]}`
in OpenAI's form, or the list of calls alone; any other text is an answer in words. `judged_text`
makes that JSON of a completion. Ids of calls and words beside a call are not compared.

  any_order=true  the calls may come in any order
  words=...       both answer in words: `unjudged` (the default: another check must say), `ignored`
                  is no harm, `same` compares them as `exact` does
  unordered, ignore, tolerance, relative   of the arguments, as in `json`

Invariants: a call is not harm for the order of its arguments
(test_tool_call_is_blind_to_the_spelling_of_arguments); words where the teacher called a function
are harm, and a call where it spoke (test_tool_call_and_words_never_agree).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ownweights.core.chat import Completion
from ownweights.core.strict import setting
from ownweights.verdict.checks.json_fields import JsonCheck
from ownweights.verdict.checks.json_value import Value, read_json, tag_json
from ownweights.verdict.checks.named import Check, NamedCheck, check_word
from ownweights.verdict.checks.text import ExactCheck

MAX_CALLS = 7  # in any order: 7! pairings at most


@dataclass(frozen=True, slots=True)
class Message:
    """What an answer says and calls: (name, arguments) of each call."""

    words: str = ""
    calls: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallCheck(NamedCheck):
    """The calls of a message."""

    word: ClassVar[str] = "tool_call"
    any_order: bool = setting(False)
    words: str = setting("unjudged", choices=("unjudged", "ignored", "same"))
    unordered: tuple[str, ...] = setting(())
    ignore: tuple[str, ...] = setting(())
    tolerance: float = setting(0.0, at_least=0)
    relative: float = setting(0.0, at_least=0)

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        known = [found for found in map(read_message, references) if found is not None]
        if not known:
            return None
        said = read_message(answer or "")
        if said is None:
            return 1.0
        harms = [self._harm(said, reference) for reference in known]
        if 0.0 in harms:
            return 0.0
        return None if None in harms or len(known) < len(references) else 1.0

    def _harm(self, said: Message, reference: Message) -> float | None:
        if said.calls or reference.calls:
            return 0.0 if self._same_calls(said.calls, reference.calls) else 1.0
        if self.words == "unjudged":
            return None
        return 0.0 if self.words == "ignored" else ExactCheck().harm(said.words, [reference.words])

    def _same_calls(self, left: Sequence[Any], right: Sequence[Any]) -> bool:
        if len(left) != len(right):
            return False
        if not self.any_order or len(left) > MAX_CALLS:
            return all(self._is_same(*pair) for pair in zip(left, right, strict=True))
        if not left:
            return True
        return any(
            self._is_same(left[0], right[i])
            and self._same_calls(left[1:], (*right[:i], *right[i + 1 :]))
            for i in range(len(right))
        )

    def _is_same(self, left: tuple[str, Value], right: tuple[str, Value]) -> bool:
        compare = JsonCheck(self.unordered, self.ignore, self.tolerance, self.relative)
        return left[0] == right[0] and compare.value_harm(left[1], right[1]) == 0.0


def judged_text(check: Check, completion: Completion) -> str | None:
    """What a check reads of a completion: its text, or all of the message for `tool_call`."""
    if check_word(check.name) != ToolCallCheck.word:
        return completion.text
    message = {"content": completion.text, **completion.message}
    return json.dumps(message, ensure_ascii=False)


def read_message(text: str) -> Message | None:
    """The words and calls of an answer; None for an empty one, or calls that cannot be read."""
    if not text.strip():
        return None
    value = _loads(text)
    if isinstance(value, list) and value and all(_is_call(item) for item in value):
        value = {"tool_calls": value}
    if not isinstance(value, dict):
        return Message(text)
    message = cast("Mapping[str, Any]", value)
    is_message = {"tool_calls", "function_call", "role"} & message.keys() or set(message) == {
        "content"
    }
    return _from_message(message) if is_message else Message(text)


def _from_message(message: Mapping[str, Any]) -> Message | None:
    legacy = message.get("function_call")
    calls = message.get("tool_calls") or ([{"function": legacy}] if legacy else [])
    if not isinstance(calls, list):
        return None
    read = [_read_call(call) for call in cast("list[Any]", calls)]
    if None in read:
        return None
    words = message.get("content")
    found = Message(words if isinstance(words, str) else "", tuple(c for c in read if c))
    return found if found.calls or found.words.strip() else None


def _read_call(call: Any) -> tuple[str, Value] | None:
    held = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(held, dict) or not isinstance(held.get("name"), str):
        return None
    given = held.get("arguments", "")
    # a call without arguments is sent as "" or as "{}"
    arguments = read_json(given or "{}") if isinstance(given, str) else tag_json(given)
    return (held["name"], arguments) if arguments and arguments[0] == "object" else None


def _is_call(item: Any) -> bool:
    return isinstance(item, dict) and ("function" in item or {"name", "arguments"} <= item.keys())


def _loads(text: str) -> Any:
    return None if read_json(text) is None else json.loads(text)
