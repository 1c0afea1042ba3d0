"""What was found in a text: where, and what kind of thing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# those that patterns find, by precedence where two overlap; then `name`, which needs a recogniser,
# and `data`, content that nothing can look into
PATTERN_KINDS = ("key", "email", "iban", "card", "ssn", "ip", "phone")
KINDS = (*PATTERN_KINDS, "name", "data")
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Span(NamedTuple):
    """Characters `start` to `end` of a text are of one kind."""

    start: int
    end: int
    kind: str


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Spans in order; of two that overlap, the kind that takes precedence, then the longer one.

    The loser keeps what of it stands outside no longer: what is personal in it is masked in a later
    pass over the text.
    """
    kept: list[Span] = []
    for span in sorted(spans):
        while kept and span.start < kept[-1].end:
            if _strength(span) <= _strength(kept[-1]):
                break
            kept.pop()
        else:
            kept.append(span)
    return kept


def _strength(span: Span) -> tuple[int, int]:
    return -_RANK[span.kind], span.end - span.start
