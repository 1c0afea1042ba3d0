"""Looking for a text in what was asked and answered, by reading it all.

In: a text and which records. Out: the records that hold it in any string of request or answer, with
where and what is around it, the newest first. There is no index of content, on purpose: content is
read when somebody asks, and costs nothing until then. Most bodies are ruled out as bytes, without
being decoded. Invariant: what is found is what decoding every body finds
(test_search_matches_brute_force).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ownweights.core.errors import StoreError, UsageError
from ownweights.core.jsonl import encode_json
from ownweights.traffic.bodies.segment import Place
from ownweights.traffic.encode import decode_bodies, parts_of
from ownweights.traffic.query import RecordFilter
from ownweights.traffic.store import TrafficStore

_PAGE_ROWS = 512
_AROUND_CHARS = 40

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Hit:
    """One record that holds the text: where first, and what is around it there."""

    id: str
    at: float
    workload: str
    path: str
    around: str


@dataclass(slots=True)
class SearchCounts:
    """What a search read: records, bytes of bodies, and bodies that could not be read."""

    records: int = 0
    body_bytes: int = 0
    unreadable: int = 0


def search(
    store: TrafficStore,
    text: str,
    *,
    only: RecordFilter,
    counts: SearchCounts,
    ignore_case: bool = False,
    on_progress: Progress | None = None,
) -> Iterator[Hit]:
    """Each record that matches and holds the text; `counts` goes along.

    Raises: UsageError for no text
    """
    if not text:
        raise UsageError("there is nothing to search for", hint="own traffic search TEXT")
    with contextlib.closing(_Search(store, text, ignore_case)) as looking:
        where, params = only.where()
        last = 2**62
        while rows := store.database.query(
            "SELECT seq, record.id, at, workload, body_bytes, name, offset_bytes, item FROM record"
            f" JOIN segment ON segment.id = segment WHERE {where} AND pruned_at IS NULL"
            " AND seq < ? ORDER BY seq DESC LIMIT ?",
            (*params, last, _PAGE_ROWS),
        ):
            for row in rows:
                counts.records += 1
                counts.body_bytes += row[4]
                try:
                    found = looking.first_in(row[0], Place(*row[5:]))
                except StoreError:
                    counts.unreadable += 1
                    continue
                if found is not None:
                    path, around = found
                    yield Hit(row[1], row[2], row[3], path, around)
            last = rows[-1][0]
            if on_progress is not None:
                on_progress(counts.records)


class _Search:
    """One text, and how a body is ruled out without decoding it."""

    def __init__(self, store: TrafficStore, text: str, ignore_case: bool) -> None:
        self._store = store
        self._text = text.casefold() if ignore_case else text
        self._ignore_case = ignore_case
        # case is folded only where it can be folded byte for byte; else every body is decoded
        self._is_plain = not ignore_case or text.isascii()
        escaped = encode_json(text)[1:-1]
        self._needle = escaped.lower() if ignore_case else escaped
        self._reader = store.shelf.reader()
        self._parts: dict[str, bool] = {}  # whether a shared part may hold it

    def first_in(self, seq: int, place: Place) -> tuple[str, str] | None:
        """Where a body holds the text first, and what is around it."""
        try:
            item = self._reader.read(place)
        except StoreError:
            moved = self._store.database.query(
                "SELECT name, offset_bytes, item FROM record JOIN segment ON segment.id = segment"
                " WHERE seq = ? AND pruned_at IS NULL",
                (seq,),
            )
            if not moved:  # it went meanwhile
                return None
            item = self._reader.read(Place(*moved[0]))
        if not self._may_hold(item):
            return None
        request, response = decode_bodies(item, self._store.part)
        for name, body in (("request", request), ("response", response)):
            for path, value in _strings(body, name):
                start = (value.casefold() if self._ignore_case else value).find(self._text)
                if start >= 0:
                    return path, _around(value, start, len(self._text))
        return None

    def close(self) -> None:
        self._reader.close()

    def _may_hold(self, item: bytes) -> bool:
        """Whether an item, or a part it needs, may hold the text."""
        return self._is_in(item) or self._needs_part(item)

    def _is_in(self, raw: bytes) -> bool:
        if not self._is_plain or b"\\u" in raw:  # escaped otherwise than the needle is
            return True
        return self._needle in (raw.lower() if self._ignore_case else raw)

    def _needs_part(self, item: bytes) -> bool:
        needed = parts_of(item) if b'"p":[]' not in item[-8:] else set[str]()
        for digest in needed:
            if digest not in self._parts:
                self._parts[digest] = self._is_in(self._store.part(digest))
        return any(self._parts[digest] for digest in needed)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[str, Any]", value).items():
            yield from _strings(inner, f"{path}.{key}")
    elif isinstance(value, Sequence):
        for number, inner in enumerate(cast("Sequence[Any]", value)):
            yield from _strings(inner, f"{path}[{number}]")


def _around(value: str, start: int, length: int) -> str:
    first, last = max(0, start - _AROUND_CHARS), start + length + _AROUND_CHARS
    head, tail = "…" * (first > 0), "…" * (last < len(value))
    return head + " ".join(value[first:last].split()) + tail
