"""Examples made of several: values that requests say and JSON answers repeat, exchanged in both.

In: examples whose answers are JSON objects. Out: the same examples with some values replaced by
values that other training answers hold at the same place ("find a bar in Oman" becomes "find a bar
in Peru"). A rare name is then met in many requests, which shows what kind of thing it is, and fewer
requests are learned by heart. A value is exchanged only where nothing is left to guess: the last
user message says it exactly once, as whole words, no other message mentions it, and no other text
of the answer overlaps it. It comes from an answer that agrees in everything its request does not
say (the label of a review, say), since that may depend on the value. What is made depends on
(seed, epoch, index) alone; other answers stay themselves (test_swapped_*).

Only training reads such examples: the certificate counts real requests. The technique is known as
mention replacement: Dai & Adel 2020, arXiv 2010.11683
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.dataset.example import Example

SWAPPED_FRAC = 0.5  # of the examples of an epoch that have values to exchange
VALUE_FRAC = 0.7  # of the values of such an example
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')  # a text as JSON spells it, quotes and all
Place = tuple[str, ...]
Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Said:
    """An example with values to exchange: each with the donors it may have, and its spelling."""

    messages: Messages
    answer: str
    values: tuple[tuple[tuple[Place, str], str, str], ...]  # (place and rest of the answer), text


class Swapper:
    """The values that may be exchanged among the examples of a train split."""

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self._seed = seed
        self._said = {i: said for i, one in enumerate(examples) if (said := _read(one)) is not None}
        donors: dict[tuple[Place, str], set[str]] = {}
        for said in self._said.values():
            for kind, value, _ in said.values:
                donors.setdefault(kind, set()).add(value)
        self._donors = {kind: sorted(values) for kind, values in donors.items()}

    def __bool__(self) -> bool:
        """Whether any example has a value to exchange."""
        return bool(self._said)

    def swapped(self, index: int, epoch: int) -> tuple[Messages, str] | None:
        """What example `index` reads in an epoch, messages and answer; None where it stays itself.

        Every distinct value is drawn alike, however rare it is; one that the example mentions
        already is not put in a second time.
        """
        said = self._said.get(index)
        rng = random.Random(f"{self._seed}-{epoch}-{index}")
        if said is None or rng.random() >= SWAPPED_FRAC:
            return None
        last = said.messages[-1]
        asked, answer = last["content"], said.answer
        for kind, value, spelling in said.values:
            other = rng.choice(self._donors[kind])
            places = _places(value, asked)
            if rng.random() >= VALUE_FRAC or len(places) != 1:
                continue  # what was put in before may say it again
            if other in asked or any(other in text for text in _texts(answer)):
                continue
            asked = asked[: places[0]] + other + asked[places[0] + len(value) :]
            answer = _exchanged(answer, spelling, other)
        if answer == said.answer:
            return None
        return [*said.messages[:-1], {**last, "content": asked}], answer


def _read(example: Example) -> _Said | None:
    """The example's exchangeable values; None when it has none."""
    last = example.messages[-1] if example.messages else {}
    asked = last.get("content")
    if last.get("role") != "user" or not isinstance(asked, str):
        return None
    try:
        answer = json.loads(example.target)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    leaves = list(_leaves(answer))
    texts = _texts(example.target)
    before = json.dumps(example.messages[:-1], ensure_ascii=False)
    said = [
        (place, value)
        for place, value in leaves
        if isinstance(value, str)
        and len(_places(value, asked)) == 1
        and value not in before
        and sum(_overlap(value, text) for text in texts) == 1
    ]
    if not said:
        return None
    rest = json.dumps([leaf for leaf in leaves if leaf not in said], ensure_ascii=False)
    spelt = {json.loads(one): one for one in _STRING.findall(example.target)}
    values = tuple(((place, rest), value, spelt[value]) for place, value in said)
    return _Said(example.messages, example.target, values)


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in a JSON value that is no object or list, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, (*place, "[]"))
    else:
        yield place, value


def _texts(answer: str) -> list[str]:
    """Every text of a JSON answer, keys too."""
    return [json.loads(spelling) for spelling in _STRING.findall(answer)]


def _overlap(value: str, text: str) -> bool:
    """Whether one is in the other as whole words, capitals aside."""
    value, text = value.casefold(), text.casefold()
    return bool(_places(value, text)) or bool(_places(text, value))


def _places(value: str, text: str) -> list[int]:
    """Where a text says a value as whole words, overlapping ones too."""
    found: list[int] = []
    at = text.find(value) if value.strip() else -1
    while at >= 0:
        if not _is_inside(text, at) and not _is_inside(text, at + len(value)):
            found.append(at)
        at = text.find(value, at + 1)
    return found


def _is_inside(text: str, at: int) -> bool:
    """Whether the gap before a character is inside a word (marks belong to their letter)."""
    if not 0 < at < len(text):
        return False
    return _is_of_word(text[at - 1]) and _is_of_word(text[at])


def _is_of_word(char: str) -> bool:
    return char == "_" or char.isalnum() or unicodedata.category(char).startswith("M")


def _exchanged(answer: str, spelling: str, other: str) -> str:
    """The answer with one text in place of another, in ASCII where that was spelt so."""
    new = json.dumps(other, ensure_ascii="\\u" in spelling)
    return _STRING.sub(lambda found: new if found[0] == spelling else found[0], answer)
