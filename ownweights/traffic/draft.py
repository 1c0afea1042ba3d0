"""Records on their way into the store: encoded, measured, and sorted by what is known already.

In: Records. Out: Drafts, each with its bodies encoded and its row ready, and why other records
cannot be stored at all. Text that no database takes is spelled out
(test_store_spells_out_what_postgres_has_no_text_for), a cost or latency that is no amount is
nobody's (test_add_keeps_no_cost_that_is_no_amount).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.database import plain_text
from ownweights.core.jsonl import encode_json
from ownweights.traffic.bodies.segment import Place
from ownweights.traffic.encode import EncodedBodies, check_depth, encode_bodies
from ownweights.traffic.record import Record
from ownweights.traffic.tally import Facts

MAX_BODY_BYTES = 64 * 2**20
MAX_AMOUNT = 1e9  # dollars, or milliseconds (eleven days)


@dataclass(frozen=True, slots=True)
class Draft:
    """A record ready to be written."""

    record: Record
    bodies: EncodedBodies
    metadata: str

    @property
    def origin(self) -> tuple[str, str]:
        return plain_text(self.record.workload), text(self.record.source_id) or self.record.id

    @property
    def facts(self) -> Facts:
        """What the tallies count of it."""
        record = self.record
        return Facts(
            record.at, plain_text(record.workload), record.status, record.role,
            text(record.model) or "", record.upstream, record.protocol, record.key_id,
            text(record.session), record.prompt_hash, len(self.bodies.item),
            record.usage.prompt_tokens, record.usage.completion_tokens, amount(record.cost_usd),
            amount(record.latency_ms),
        )  # fmt: skip

    def row(self, place: Place, tally_id: int) -> tuple[Any, ...]:
        """The values of the statement that inserts it."""
        record, bodies = self.record, self.bodies
        return (
            record.id,
            record.at,
            *self.origin,
            text(record.session),
            text(record.source_id),
            record.prompt_hash,
            record.role,
            record.status,
            text(record.model),
            text(record.finish_reason),
            self.metadata,
            bodies.content_hash,
            len(bodies.item),
            record.protocol,
            text(record.end_user),
            record.key_id,
            record.upstream,
            record.usage.prompt_tokens,
            record.usage.completion_tokens,
            amount(record.cost_usd),
            amount(record.latency_ms),
            tally_id,
            place.segment,
            place.offset_bytes,
            place.item,
        )


class Sorted:
    """Sorts drafts into fresh, duplicate and conflicting, given what is `known` already."""

    def __init__(self, known: dict[tuple[str, str], str]) -> None:
        self._known = known
        self.duplicates = 0
        self.conflicts: list[str] = []

    def is_fresh(self, draft: Draft) -> bool:
        """Whether nothing of its origin is known; from now on it is."""
        digest = draft.bodies.content_hash
        if draft.origin not in self._known:
            self._known[draft.origin] = digest
            return True
        if self._known[draft.origin] == digest:
            self.duplicates += 1
        else:
            self.conflicts.append(draft.origin[1])
        return False


def encode_all(records: Sequence[Record]) -> tuple[list[Draft], list[str]]:
    """Each record ready to be written, and why others cannot be."""
    drafts: list[Draft] = []
    refused: list[str] = []
    for record in records:
        name = f"record {record.source_id or record.id}"
        try:
            bodies = encode_bodies(record.request, record.response)
            check_depth(record.metadata)
            draft = Draft(record, bodies, encode_json(record.metadata).decode())
        except (TypeError, ValueError, RecursionError) as error:
            refused.append(f"{name} is not JSON: {error}")
            continue
        size_bytes = len(bodies.item) + len(draft.metadata)
        if size_bytes > MAX_BODY_BYTES:
            refused.append(f"{name} has {size_bytes:,} bytes, the limit is {MAX_BODY_BYTES:,}")
        else:
            drafts.append(draft)
    return drafts, refused


def text(given: str | None) -> str | None:
    """Text as every database takes it: NUL and half characters (lone surrogates) spelled out."""
    return given if given is None else plain_text(given)


def amount(value: float | None) -> float | None:
    """A cost or a time, if it is one."""
    if value is None or not math.isfinite(value) or not 0 <= value < MAX_AMOUNT:
        return None
    return float(value)
