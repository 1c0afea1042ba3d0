"""Takes personal data and secrets out of a record before anything of it is written.

In: a Record, as it passed. Out: the same Record with placeholders, or the very same object where
nothing was found. Everything that the caller or the model wrote is searched: messages, tools, tool
arguments, metadata, user, session, the id that a file gave. What is found once in a record is
masked wherever it stands in it: a number that only one of two messages says is a telephone's.
Invariants: redacting again changes nothing (test_redact_twice_changes_nothing); what is valid JSON
in a text stays so (test_redact_keeps_json_valid); an error never lets a record through
(test_recorder_loses_what_cannot_be_redacted).
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ownweights.traffic.record import Record
from ownweights.traffic.redact.body import OtherTexts, Texts, with_texts, without_logprobs
from ownweights.traffic.redact.find import find_spans
from ownweights.traffic.redact.placeholder import PLACEHOLDER, Placeholders
from ownweights.traffic.redact.said import JOINT, KEY_JOINT
from ownweights.traffic.redact.span import PATTERN_KINDS, Span, without_overlaps

MAX_PASSES = 8
MAX_REPEATED = 1000  # values of one record that are looked for elsewhere in it
MIN_REPEATED_CHARS = {"phone": 7, "key": 6, "name": 3, "card": 12}

Recogniser = Callable[[str], Iterable[tuple[int, int]]]


class Redactor:
    """Masks what is of some `kinds`, of those that `KINDS` names."""

    def __init__(
        self,
        kinds: Iterable[str],
        placeholders: Placeholders,
        *,
        recogniser: Recogniser | None = None,
    ) -> None:
        wanted = frozenset(kinds)
        self._kinds = tuple(kind for kind in PATTERN_KINDS if kind in wanted)
        self._masks_data = "data" in wanted
        self._placeholders = placeholders
        self._recogniser = recogniser if "name" in wanted else None

    def record(self, record: Record) -> Record:
        """The record as it may be written."""
        parts = (record.request, record.response, record.metadata,
                 [record.session, record.end_user, record.source_id])  # fmt: skip
        masked = self._masked(parts)
        if masked is None:
            return record
        request, response, metadata, (session, end_user, source_id) = masked
        if response is not None and response != record.response:
            response = without_logprobs(response)
        return replace(
            record, request=request, response=response, metadata=metadata, session=session,
            end_user=end_user, source_id=source_id,
        )  # fmt: skip

    def texts(self, texts: Sequence[str], keys: Container[int] = ()) -> list[str]:
        """Texts that belong together, masked; `keys` are the places of those that are JSON keys."""
        joints = [KEY_JOINT if place in keys else JOINT for place in range(len(texts))]
        joined = "".join(itertools.chain.from_iterable(zip(texts, joints, strict=True)))
        spans = self._spans(joined)
        if self._recogniser is not None:
            spans = sorted([*spans, *self._names(texts, joined, spans)])
        if not spans:
            return list(texts)
        for _ in range(MAX_PASSES):
            joined = self._replaced(joined, spans)
            spans = self._spans(joined)
            if not spans:
                return _split(texts, joined)
        raise RuntimeError("redaction does not come to an end")

    def _masked(self, parts: tuple[Any, ...]) -> list[Any] | None:
        """The parts of a record, masked; None where nothing is to be masked."""
        found = Texts()
        for part, is_free in zip(parts, _IS_FREE, strict=True):
            with_texts(part, found, is_free=is_free)
        texts = self.texts(found.texts, found.keys)
        data = found.data
        if self._masks_data:
            data = [self._placeholders.of("data", one) for one in data]
        if texts == found.texts and data == found.data:
            return None
        others = OtherTexts(texts, data)
        return [
            with_texts(part, others, is_free=is_free)
            for part, is_free in zip(parts, _IS_FREE, strict=True)
        ]

    def _spans(self, joined: str) -> list[Span]:
        """What is found in joined texts, and wherever the same stands again."""
        spans = find_spans(joined, self._kinds)
        return _and_again(joined, spans) if spans else spans

    def _names(self, texts: Sequence[str], joined: str, spans: Sequence[Span]) -> Iterator[Span]:
        """Names, wherever they stand, less what is of another kind or a placeholder."""
        assert self._recogniser is not None, "only asked where there is one"
        names: list[Span] = []
        place = 0
        for text in texts:
            if text:
                names += (Span(place + a, place + b, "name") for a, b in self._recogniser(text))
            place += len(text) + len(JOINT)
        taken = [span[:2] for span in spans] + [m.span() for m in PLACEHOLDER.finditer(joined)]
        for start, end in _outside([*names, *_repeats(joined, names)], taken):
            if _WORD.search(part := joined[start:end]):
                lead = len(part) - len(part.lstrip())
                yield Span(start + lead, start + len(part.rstrip()), "name")

    def _replaced(self, joined: str, spans: Sequence[Span]) -> str:
        """Joined texts with a placeholder for each span."""
        pieces: list[str] = []
        place = 0
        for start, end, kind in spans:
            pieces += joined[place:start], self._placeholders.of(kind, joined[start:end])
            place = end
        return "".join(pieces) + joined[place:]


_IS_FREE = (False, False, True, False)


def _split(texts: Sequence[str], joined: str) -> list[str]:
    """Joined texts apart again; a text may hold joints of its own, which no span crosses."""
    pieces = _JOINTS.split(joined)  # text, joint, text, joint, ..., nothing
    apart: list[str] = []
    place = 0
    for text in texts:
        own = len(_JOINTS.findall(text))
        apart.append("".join(pieces[place : place + 2 * own + 1]))
        place += 2 * own + 2
    return apart


def _and_again(joined: str, spans: Sequence[Span]) -> list[Span]:
    """The spans, and the same values where nothing around them says what they are."""
    again = _repeats(joined, spans)
    return without_overlaps([*spans, *again]) if again else list(spans)


def _outside(spans: Iterable[Span], taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """All that spans cover together, less what is taken, in parts that are in order."""
    steps = [step for a, b, _ in spans for step in ((a, 1, 0), (b, -1, 0))]
    steps += [step for a, b in taken for step in ((a, 0, 1), (b, 0, -1))]
    depth = blocks = start = 0
    for place, deeper, blocked in sorted(steps):
        was_out = depth > 0 and not blocks
        depth, blocks = depth + deeper, blocks + blocked
        is_out = depth > 0 and not blocks
        if was_out and not is_out and start < place:
            yield start, place
        elif is_out and not was_out:
            start = place


def _repeats(joined: str, spans: Sequence[Span]) -> list[Span]:
    """Where the values of spans stand, these and others."""
    values = {
        joined[span.start : span.end]: span.kind
        for span in spans
        if span.end - span.start >= MIN_REPEATED_CHARS.get(span.kind, sys.maxsize)
    }
    again: list[Span] = []
    for value, kind in itertools.islice(values.items(), MAX_REPEATED):
        place = joined.find(value)
        while place >= 0:
            end = place + len(value)
            if not _is_inside_word(joined, place, end):
                again.append(Span(place, end, kind))
            place = joined.find(value, end)
    return again


_JOINTS = re.compile(f"([{JOINT}{KEY_JOINT}])")
_WORD = re.compile(r"\w")


def _is_inside_word(joined: str, start: int, end: int) -> bool:
    starts_in = start > 0 and _WORD.match(joined[start]) and _WORD.match(joined[start - 1])
    ends_in = end < len(joined) and _WORD.match(joined[end - 1]) and _WORD.match(joined[end])
    return bool(starts_in or ends_in)
