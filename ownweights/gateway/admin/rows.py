"""What the pages read of the traffic store, in one place.

In: an open database, a RecordFilter. Out: pages of rows (newest first, by keyset), counts by one
dimension, statistics. Invariant: pages hold every record that matches, each once
(test_admin_rows_page_through_everything).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ownweights.core.database import Database

DIMENSIONS = ("workload", "status", "role", "model", "upstream", "protocol")
FILTERS = (*DIMENSIONS, "session", "end_user")  # what pages filter by
MAX_FACETS = 100


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records: those that agree with everything given."""

    workload: str | None = None
    status: str | None = None
    role: str | None = None
    model: str | None = None
    upstream: str | None = None
    protocol: str | None = None
    session: str | None = None
    end_user: str | None = None

    def where(self) -> tuple[str, list[Any]]:
        """The condition on rows of `record` and its parameters."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        return " AND ".join(["1 = 1", *(f"{name} = ?" for name in given)]), list(given.values())


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record without its bodies."""

    seq: int
    id: str
    at: float
    workload: str
    session: str | None
    protocol: str
    upstream: str
    role: str
    status: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    latency_ms: float | None
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A group of records in numbers."""

    name: Any
    records: int
    ok: int
    partial: int
    error: int
    body_bytes: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    first_at: float
    last_at: float


_ROW = ", ".join(f.name for f in fields(RecordRow))


def page(
    database: Database, only: RecordFilter, *, before: int | None = None, limit: int = 20
) -> list[RecordRow]:
    """The newest rows that match, of those older than the row number `before`."""
    where, params = only.where()
    top = 2**62 if before is None else before
    rows = database.query(
        f"SELECT {_ROW} FROM record WHERE {where} AND seq < ? ORDER BY seq DESC LIMIT ?",
        (*params, top, limit),
    )
    return [RecordRow(*row) for row in rows]


def facets(database: Database, only: RecordFilter, dimension: str) -> list[tuple[Any, int]]:
    """How many records there are by one of DIMENSIONS, the most frequent first."""
    assert dimension in DIMENSIONS, "a dimension is one of ours, never a caller's word"
    where, params = only.where()
    rows = database.query(
        f"SELECT {dimension}, count(*) FROM record WHERE {where} GROUP BY {dimension}"
        f" ORDER BY 2 DESC, 1 LIMIT {MAX_FACETS}",
        params,
    )
    return [(name, int(count)) for name, count in rows]


def stats(database: Database, only: RecordFilter, dimension: str = "workload") -> list[Stats]:
    """Statistics by one of DIMENSIONS, the most frequent first."""
    assert dimension in DIMENSIONS, "a dimension is one of ours, never a caller's word"
    where, params = only.where()
    rows = database.query(
        f"SELECT {dimension}, count(*), sum(status = 'ok'), sum(status = 'partial'),"
        " sum(status = 'error'), sum(body_bytes), sum(prompt_tokens), sum(completion_tokens),"
        f" total(cost_usd), min(at), max(at) FROM record WHERE {where} GROUP BY {dimension}"
        " ORDER BY 2 DESC, 1",
        params,
    )
    return [Stats(*row) for row in rows]
