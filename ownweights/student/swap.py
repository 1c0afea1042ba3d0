"""Examples made of two: a value that a request says and its JSON answer repeats, exchanged in both.

In: examples whose answers are JSON objects. Out: the same examples with some values replaced by
values that other training answers hold at the same place ("find a bar in Oman" becomes "find a bar
in Peru"). A rare name is then met in many requests, which shows what kind of thing it is, and fewer
requests are learned by heart. A value is exchanged only where nothing is left to guess: the last
user message says it exactly once, as whole words, and the answer spells it exactly once
(test_swapped_*). What is made depends on (seed, epoch, index) alone; other answers stay themselves.

Only training reads such examples: the certificate counts real requests. The technique is known as
mention replacement: Dai & Adel 2020, arXiv 2010.11683
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ownweights.dataset.example import Example

SWAPPED_FRAC = 0.5  # of the examples of an epoch
VALUE_FRAC = 0.7  # of the values of such an example
Place = tuple[str, ...]
Messages = list[dict[str, Any]]


class Swapper:
    """The values that may be exchanged among the examples of a train split."""

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self._examples, self._seed = examples, seed
        self._said = [list(_said_values(example)) for example in examples]
        known: dict[Place, set[str]] = {}
        for said in self._said:
            for place, value in said:
                known.setdefault(place, set()).add(value)
        self._known = {place: sorted(values) for place, values in known.items()}

    @property
    def num_values(self) -> int:
        """How many distinct values there are to choose from, over all places of the answers."""
        return sum(len(values) for values in self._known.values())

    def swapped(self, index: int, epoch: int) -> tuple[Messages, str] | None:
        """What example `index` reads in an epoch, messages and answer; None where it stays itself.

        Every distinct value of a place is equally likely, however rare it is.
        """
        said = self._said[index]
        rng = random.Random(f"{self._seed}-{epoch}-{index}")
        if not said or rng.random() >= SWAPPED_FRAC:
            return None
        example = self._examples[index]
        asked, answer = str(example.messages[-1]["content"]), example.target
        for place, value in said:
            other = rng.choice(self._known[place])
            if rng.random() >= VALUE_FRAC or not _is_said_once(value, asked):
                continue
            if not _mentions(other, asked) and not _is_in(other, answer):
                asked = _as_words(value).sub(lambda _, new=other: new, asked)
                answer = _exchanged(answer, value, other)
        if answer == example.target:
            return None
        return [*example.messages[:-1], {**example.messages[-1], "content": asked}], answer


def _said_values(example: Example) -> Iterator[tuple[Place, str]]:
    """The places of an answer whose value the request says exactly once."""
    last = example.messages[-1] if example.messages else {}
    asked = last.get("content")
    if last.get("role") != "user" or not isinstance(asked, str):
        return
    try:
        answer = json.loads(example.target)
    except (ValueError, RecursionError):
        return
    if not isinstance(answer, dict):
        return
    for place, value in _strings(answer):
        if _is_said_once(value, asked) and _spelling(value, example.target) is not None:
            yield place, value


def _strings(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in a JSON value with the keys that lead to it; the items of a list share one."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*place, key))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, (*place, "[]"))


def _as_words(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")


def _mentions(value: str, text: str) -> int:
    return len(_as_words(value).findall(text))


def _is_said_once(value: str, text: str) -> bool:
    return bool(value.strip()) and value in text and _mentions(value, text) == 1


def _spellings(value: str) -> tuple[str, str]:
    """How JSON text may spell a value: as it is, or in ASCII alone."""
    return json.dumps(value, ensure_ascii=False), json.dumps(value)


def _is_in(value: str, answer: str) -> bool:
    """Whether an answer's text says a value, if only as a part of another."""
    return any(spelling[1:-1] in answer for spelling in _spellings(value))


def _spelling(value: str, answer: str) -> str | None:
    """How an answer's text spells a value that it holds exactly once."""
    return next((one for one in _spellings(value) if answer.count(one) == 1), None)


def _exchanged(answer: str, value: str, other: str) -> str:
    spelling = _spelling(value, answer)
    assert spelling is not None, "only values that stand once are exchanged"
    plain, ascii_only = _spellings(other)
    return answer.replace(spelling, plain if spelling == _spellings(value)[0] else ascii_only)
