"""Lists, facets and statistics of any number of records, without reading them all.

In: a RecordFilter. Out: a page of rows (newest first, by keyset, so that the last page costs what
the first does), counts by one dimension, or statistics. Sums come from the tallies; rows are read
only where a tally cannot tell: a session, an end user, the day that a moment cuts. Invariant: every
answer is what filtering all rows gives (test_page_matches_brute_force,
test_stats_match_brute_force).

A page by what tallies know finds its rows through them: the newest row of each tally that matches,
then from the newest tally on until no other can hold a newer row.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ownweights.core.database import Database
from ownweights.core.errors import UsageError
from ownweights.traffic.tally import CLASS_NAMES, DAY_S, DIMENSIONS, day_of, latency_quantile

_TALLIED = ("workload", "status", "role", "model", "upstream", "protocol")
_OWN = ("session", "end_user")  # of rows alone, each with an index
_COLUMNS = (*_TALLIED, "key_id", *_OWN)
_ROW_COLUMNS = (
    "seq, id, at, workload, session, end_user, key_id, protocol, upstream, role, status, model,"
    " prompt_tokens, completion_tokens, cost_usd, latency_ms, body_bytes, pruned_at"
)
_SUMMED = ("records", "pruned", "body_bytes", "prompt_tokens", "completion_tokens", "priced",
           "cost_nusd", "timed")  # fmt: skip
_ONLY_COUNTS = ("records",)
_BY_STATUS = ("ok", "partial", "error")
_MAX_FACETS = 1000


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records: those that agree with everything given. `since` is included, `until` not."""

    workload: str | None = None
    status: str | None = None
    role: str | None = None
    model: str | None = None
    upstream: str | None = None
    protocol: str | None = None
    key_id: str | None = None
    session: str | None = None
    end_user: str | None = None
    since: float | None = None
    until: float | None = None

    def where(self, names: Sequence[str] = _COLUMNS) -> tuple[str, list[Any]]:
        """The condition on rows of `record` and its parameters."""
        given = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        terms = [f"record.{name} = ?" for name, _ in given]
        params = [value for _, value in given]
        for term, moment in (("record.at >= ?", self.since), ("record.at < ?", self.until)):
            if moment is not None:
                terms.append(term)
                params.append(moment)
        return " AND ".join(["1 = 1", *terms]), params

    def tallies(self) -> tuple[str, list[Any]]:
        """The condition on rows of `tally` that may hold such records, and its parameters."""
        given = [(name, getattr(self, name)) for name in _TALLIED]
        given = [(name, value) for name, value in given if value is not None]
        terms = [f"tally.{name} = ?" for name, _ in given]
        params = [value for _, value in given]
        if self.since is not None:
            terms.append("tally.day >= ?")
            params.append(day_of(self.since))
        if self.until is not None:
            terms.append("tally.day * 86400.0 < ?")
            params.append(self.until)
        if self.key_id is not None:
            terms.append("tally.id IN (SELECT tally_id FROM key_tally WHERE key_id = ?)")
            params.append(self.key_id)
        return " AND ".join(["1 = 1", *terms]), params

    @property
    def cut_days(self) -> list[int]:
        """The days of which only a part counts."""
        return sorted({day_of(at) for at in (self.since, self.until) if at and at % DAY_S})

    @property
    def is_of_rows(self) -> bool:
        """Whether it asks for what tallies do not know."""
        return self.session is not None or self.end_user is not None

    @property
    def is_everything(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record without its bodies. `pruned_at` is when these went; None while they are here."""

    seq: int
    id: str
    at: float
    workload: str
    session: str | None
    end_user: str | None
    key_id: str | None
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
    pruned_at: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """A group of records in numbers. `cost_usd` is of the `priced` ones; latencies are of the
    `timed` ones, to within a factor of two."""

    name: Any
    records: int
    ok: int
    partial: int
    error: int
    pruned: int
    body_bytes: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    priced: int
    timed: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    first_at: float
    last_at: float


def page(
    database: Database, only: RecordFilter, *, before: int | None = None, limit: int = 20
) -> list[RecordRow]:
    """The newest rows that match, of those older than the row number `before`."""
    top = 2**62 if before is None else before
    if only.is_everything or only.is_of_rows:
        where, params = only.where()
        rows = database.query(
            f"SELECT {_ROW_COLUMNS} FROM record WHERE {where} AND seq < ?"
            " ORDER BY seq DESC LIMIT ?",
            (*params, top, limit),
        )
    else:
        seqs = _newest_by_tally(database, only, top, limit)
        if not seqs:
            return []
        marks = ",".join("?" * len(seqs))
        rows = database.query(
            f"SELECT {_ROW_COLUMNS} FROM record WHERE seq IN ({marks}) ORDER BY seq DESC", seqs
        )
    return [RecordRow(*row) for row in rows]


def row_of(database: Database, record_id: str) -> RecordRow | None:
    """The row of the record with this id; None when there is none."""
    rows = database.query(f"SELECT {_ROW_COLUMNS} FROM record WHERE id = ?", (record_id,))
    return RecordRow(*rows[0]) if rows else None


def facets(database: Database, only: RecordFilter, dimension: str) -> list[tuple[Any, int]]:
    """How many records there are by one of DIMENSIONS, the most frequent first (days in order).

    By key, those that came with one.
    """
    _check_dimension(dimension)
    group, params = _groups(only, dimension, _ONLY_COUNTS)
    order = "1" if dimension == "day" else "2 DESC, 1"
    return [
        (name, int(count))
        for name, count in database.query(
            f"SELECT name, sum(records) FROM ({group}) AS parts GROUP BY name"
            f" ORDER BY {order} LIMIT {_MAX_FACETS}",
            params,
        )
    ]


def stats(database: Database, only: RecordFilter, dimension: str = "workload") -> list[Stats]:
    """Statistics by one of DIMENSIONS, the most frequent first (days in order)."""
    _check_dimension(dimension)
    summed = (*_SUMMED, *_BY_STATUS, *CLASS_NAMES)
    group, params = _groups(only, dimension, summed)
    sums = ", ".join(f"sum({name})" for name in summed)
    order = "1" if dimension == "day" else "2 DESC, 1"
    rows = database.query(
        f"SELECT name, {sums}, min(first_at), max(last_at) FROM ({group}) AS parts"
        f" GROUP BY name ORDER BY {order} LIMIT {_MAX_FACETS}",
        params,
    )
    return [_stats(row[0], dict(zip(summed, row[1:-2], strict=True)), row[-2:]) for row in rows]


def count(database: Database, only: RecordFilter) -> int:
    """How many records match, their bodies here or not."""
    group, params = _groups(only, "workload", _ONLY_COUNTS)
    ((found,),) = database.query(f"SELECT sum(records) FROM ({group}) AS parts", params)
    return int(found or 0)


def distinct(database: Database) -> dict[str, tuple[int, int]]:
    """How many distinct fixed prompts and sessions each workload has."""
    rows = database.query("SELECT workload, prompts, sessions FROM workload_tally")
    return {workload: (prompts, sessions) for workload, prompts, sessions in rows}


def _newest_by_tally(database: Database, only: RecordFilter, top: int, limit: int) -> list[int]:
    where, params = only.tallies()
    with_key, key = ("", []) if only.key_id is None else (" AND key_id = ?", [only.key_id])
    heads = database.query(
        "SELECT id, day, newest FROM (SELECT id, day, (SELECT max(seq) FROM record"
        f" WHERE tally_id = tally.id{with_key} AND seq < ?) AS newest"
        f" FROM tally WHERE {where}) AS heads WHERE newest IS NOT NULL ORDER BY newest DESC",
        (*key, top, *params),
    )
    cut = set(only.cut_days)
    in_part, part_params = only.where(())
    kept: list[int] = []  # a heap, the oldest first
    for tally_id, day, newest in heads:
        if len(kept) >= limit and newest < kept[0]:
            break
        condition, values = (in_part, part_params) if day in cut else ("1 = 1", [])
        for (seq,) in database.query(
            f"SELECT seq FROM record WHERE tally_id = ?{with_key} AND seq < ? AND {condition}"
            " ORDER BY seq DESC LIMIT ?",
            (tally_id, *key, top, *values, limit),
        ):
            heapq.heappush(kept, seq) if len(kept) < limit else heapq.heappushpop(kept, seq)
    return kept


def _groups(only: RecordFilter, dimension: str, names: Sequence[str]) -> tuple[str, list[Any]]:
    """SQL for parts to be summed: (name, the sums asked for, first_at, last_at)."""
    if only.is_of_rows:
        return _row_group(only, dimension, names, None)
    where, params = only.tallies()
    for day in only.cut_days:
        where += " AND tally.day <> ?"
        params.append(day)
    table, source = "tally", "tally"
    if only.key_id is not None or dimension == "key_id":
        table, source = "key_tally", "key_tally JOIN tally ON tally.id = key_tally.tally_id"
        where, params = (
            (where, params)
            if only.key_id is None
            else (f"{where} AND key_tally.key_id = ?", [*params, only.key_id])
        )
    if dimension == "key_id" and where == "1 = 1" and tuple(names) == _ONLY_COUNTS:
        source = "key_tally"  # an index alone answers
    listed = ", ".join(_tallied(name, table) for name in names)
    span = "" if tuple(names) == _ONLY_COUNTS else f", {table}.first_at, {table}.last_at"
    parts = [f"SELECT {dimension} AS name, {listed}{span} FROM {source} WHERE {where}"]
    for day in only.cut_days:
        part, values = _row_group(only, dimension, names, day)
        parts.append(part)
        params += values
    return " UNION ALL ".join(parts), params


def _row_group(
    only: RecordFilter, dimension: str, names: Sequence[str], day: int | None
) -> tuple[str, list[Any]]:
    """The same from rows: of one day, through its tallies, or all that match."""
    where, params = only.where()
    if day is not None:
        known, known_params = only.tallies()
        where += f" AND record.tally_id IN (SELECT id FROM tally WHERE {known} AND day = ?)"
        params += [*known_params, day]
    name = "record.key_id" if dimension == "key_id" else f"tally.{dimension}"
    if dimension == "key_id":
        where += " AND record.key_id IS NOT NULL"
    listed = ", ".join(f"{counted_sql(one)} AS {one}" for one in names)
    span = ", min(record.at) AS first_at, max(record.at) AS last_at"
    return (
        f"SELECT {name} AS name, {listed}{'' if tuple(names) == _ONLY_COUNTS else span}"
        " FROM record JOIN tally ON tally.id = record.tally_id"
        f" WHERE {where} GROUP BY {name}",
        params,
    )


def _tallied(name: str, table: str) -> str:
    """A sum's column in a table of tallies."""
    if name in _BY_STATUS:
        return f"CASE WHEN tally.status = '{name}' THEN {table}.records ELSE 0 END AS {name}"
    return f"{table}.{name} AS {name}"


def counted_sql(name: str) -> str:
    """The same sum over rows of `record`."""
    if name in _BY_STATUS:
        return f"count(*) FILTER (WHERE record.status = '{name}')"
    if name in CLASS_NAMES:
        return f"count(*) FILTER (WHERE {_in_class(CLASS_NAMES.index(name))})"
    counted = {
        "records": "count(*)",
        "pruned": "count(record.pruned_at)",
        "priced": "count(record.cost_usd)",
        "timed": "count(record.latency_ms)",
        "cost_nusd": "coalesce(sum(record.cost_usd), 0) * 1000000000",
        "latency_us": "coalesce(sum(record.latency_ms), 0) * 1000",
    }
    return counted.get(name, f"sum(record.{name})")


def _in_class(number: int) -> str:
    low = f"record.latency_ms >= {10 * 2 ** (number - 1)}" if number else "1 = 1"
    is_last = number == len(CLASS_NAMES) - 1
    return low if is_last else f"{low} AND record.latency_ms < {10 * 2**number}"


def _stats(name: Any, sums: dict[str, Any], span: Sequence[float]) -> Stats:
    classes = [int(sums[one]) for one in CLASS_NAMES]
    whole = {one: int(sums[one]) for one in (*_SUMMED, *_BY_STATUS) if one != "cost_nusd"}
    return Stats(
        name=name,
        cost_usd=float(sums["cost_nusd"]) / 1e9,
        latency_p50_ms=latency_quantile(classes, 0.5),
        latency_p95_ms=latency_quantile(classes, 0.95),
        first_at=span[0],
        last_at=span[1],
        **whole,
    )


def _check_dimension(dimension: str) -> None:
    if dimension not in DIMENSIONS:
        raise UsageError(
            f"records are not counted by {dimension!r}", hint=f"by: {', '.join(DIMENSIONS)}"
        )
