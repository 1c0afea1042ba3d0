"""The public file where people answered each request several times: facts to a sentence.

What they say is compared by which facts it names (places, kinds of food, families), for the words
themselves hardly ever agree. One answer of each request is held back from the traffic and becomes
the answer of a scripted student that is as good as a person, since it is one.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ownweights.core.chat import ChatRequest, Completion
from ownweights.dataset.prompt import first_user_text
from ownweights.traffic import Record
from tests.dataset.records import real_records
from tests.fakes import ScriptedTeacher, last_user_text
from tests.verdict import worlds

NAMED = re.compile(r"(?:name|near)\[([^\]]*)\]")
TOPICS = {
    "city": re.compile(r"\bcity\b|\bcent(?:re|er)\b"),
    "river": re.compile(r"\briver"),
    "coffee": re.compile(r"\bcoffee\b"),
    "chinese": re.compile(r"\bchinese\b"),
    "english": re.compile(r"\b(?:english|british)\b"),
    "family": re.compile(r"\bfamil|\bchild|\bkid|\badult"),
}


@dataclass(frozen=True)
class FactsCheck:
    """Harm is naming other facts than every reference; how they are put does not matter."""

    places: frozenset[str]
    name: str = "facts"
    is_graded: bool = False

    def facts(self, text: str) -> frozenset[str]:
        low = text.casefold()
        named = {place for place in self.places if place in low}
        return frozenset(named | {topic for topic, words in TOPICS.items() if words.search(low)})

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        known = {self.facts(text) for text in references}
        return (0.0 if self.facts(answer or "") in known else 1.0) if known else None


@dataclass(frozen=True)
class Study:
    """The traffic without what is held back, and what is held back, by request."""

    records: tuple[Record, ...]
    held_back: Mapping[str, str]
    check: FactsCheck

    def person(self) -> ScriptedTeacher:
        """Answers with what another person said of the same facts."""
        return _says(self.held_back)

    def stranger(self) -> ScriptedTeacher:
        """Answers with what a person said of other facts."""
        asked = sorted(self.held_back)
        half = len(asked) // 2  # neighbours in the alphabet share many facts
        other = {ask: self.held_back[asked[i - half]] for i, ask in enumerate(asked)}
        return _says(other)


def study(data: Path, salt: str = "1") -> Study:
    """The file, with one answer of each request held back by lot."""
    records = real_records(data, "describe")
    by_request: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_request[first_user_text(record.request)].append(record)
    held = {ask: min(group, key=lambda one: _lot(salt, one)) for ask, group in by_request.items()}
    out = {record.source_id for record in held.values()}
    places = {place.casefold() for ask in by_request for place in NAMED.findall(ask)}
    return Study(
        tuple(record for record in records if record.source_id not in out),
        {ask: record.answer_text or "" for ask, record in held.items()},
        FactsCheck(frozenset(places)),
    )


def _lot(salt: str, record: Record) -> str:
    return hashlib.sha256(f"{salt} {record.source_id}".encode()).hexdigest()


def _says(script: Mapping[str, str]) -> ScriptedTeacher:
    def look_up(request: ChatRequest) -> Completion:
        return worlds.answer(script[last_user_text(request)])

    return ScriptedTeacher(look_up)
