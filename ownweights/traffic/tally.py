"""Sums kept while records come and go, so that no page has to read them all.

In: the facts of records that are added, pruned or erased, inside the transaction that does so. Out:
one row of `tally` for each day and combination of workload, status, role, model, upstream and
protocol, one of `key_tally` for each of these and key; `seen` and `workload_tally` for what is
counted once. Invariant: after any mix of changes the tallies are what counting the rows gives
(test_tallies_always_match_the_rows).

Money is kept in billionths of a dollar and time in microseconds, as integers: what was added can be
taken away again exactly. Latencies are counted in 16 classes, each twice as wide as the one before.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.database import Database

DAY_S = 86_400
TALLIED = ("day", "workload", "status", "role", "model", "upstream", "protocol")
DIMENSIONS = (*TALLIED, "key_id")
LATENCY_CLASSES = 16
CLASS_EDGES_MS = tuple(10.0 * 2**number for number in range(LATENCY_CLASSES - 1))
CLASS_NAMES = tuple(f"lat_{number}" for number in range(LATENCY_CLASSES))
SUMS = (
    "records", "pruned", "body_bytes", "prompt_tokens", "completion_tokens", "priced", "cost_nusd",
    "timed", "latency_us", *CLASS_NAMES,
)  # fmt: skip
_SPAN = ("first_at", "last_at")


def _upsert(table: str, key: Sequence[str], returning: str) -> str:
    columns = (*key, *_SPAN, *SUMS)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET"
        f" {', '.join(f'{name} = {table}.{name} + excluded.{name}' for name in SUMS)},"
        f" first_at = CASE WHEN excluded.first_at < {table}.first_at THEN excluded.first_at"
        f" ELSE {table}.first_at END,"
        f" last_at = CASE WHEN excluded.last_at > {table}.last_at THEN excluded.last_at"
        f" ELSE {table}.last_at END{returning}"
    )


_ADD_TALLY = _upsert("tally", TALLIED, " RETURNING id")
_ADD_KEY = _upsert("key_tally", ("key_id", "tally_id"), "")
FACT_COLUMNS = (
    "at, workload, status, role, model, upstream, protocol, key_id, session, prompt_hash,"
    " body_bytes, prompt_tokens, completion_tokens, cost_usd, latency_ms, pruned_at"
)
_SEEN_PAGE = 200

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What tallies count of one record, in the order of FACT_COLUMNS."""

    at: float
    workload: str
    status: str
    role: str
    model: str
    upstream: str
    protocol: str
    key_id: str | None
    session: str | None
    prompt_hash: str
    body_bytes: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    latency_ms: float | None
    pruned_at: float | None = None

    @property
    def key(self) -> Key:
        """The values of TALLIED."""
        return (
            day_of(self.at), self.workload, self.status, self.role, self.model, self.upstream,
            self.protocol,
        )  # fmt: skip

    @property
    def sums(self) -> tuple[int, ...]:
        """The values of SUMS."""
        classes = [0] * LATENCY_CLASSES
        if self.latency_ms is not None:
            classes[latency_class(self.latency_ms)] = 1
        return (
            1, int(self.pruned_at is not None), self.body_bytes, self.prompt_tokens,
            self.completion_tokens, int(self.cost_usd is not None),
            math.floor((self.cost_usd or 0) * 1e9 + 0.5), int(self.latency_ms is not None),
            math.floor((self.latency_ms or 0) * 1e3 + 0.5), *classes,
        )  # fmt: skip


def day_of(at: float) -> int:
    """The day of a moment: days since 1970, in UTC."""
    return int(at // DAY_S)


def latency_class(latency_ms: float) -> int:
    """The class of a latency: 0 is below 10 ms, the last 164 s and more."""
    return bisect_right(CLASS_EDGES_MS, latency_ms)


def latency_quantile(classes: Sequence[int], frac: float) -> float | None:
    """About how many milliseconds a share `frac` stays within; None where none was measured.

    Exact to the class; within it, as if latencies were spread evenly.
    """
    rank, before = frac * sum(classes), 0
    for number, count in enumerate(classes):
        if count and before + count >= rank:
            low = 0.0 if number == 0 else CLASS_EDGES_MS[number - 1]
            high = CLASS_EDGES_MS[number] if number < len(CLASS_EDGES_MS) else 2 * low
            return low + (high - low) * max(0.0, rank - before) / count
        before += count
    return None


def add_tallies(database: Database, added: Sequence[Facts]) -> list[int]:
    """Count records that are being added; the tally of each."""
    groups: defaultdict[Key, list[Facts]] = defaultdict(list)
    for facts in added:
        groups[facts.key].append(facts)
    ids: dict[Key, int] = {}
    by_key: defaultdict[Key, list[Facts]] = defaultdict(list)
    for key, group in groups.items():
        ((tally_id,),) = database.query(_ADD_TALLY, (*key, *_summed(group)))
        ids[key] = tally_id
        for facts in group:
            if facts.key_id is not None:
                by_key[facts.key_id, tally_id].append(facts)
    database.execute_many(_ADD_KEY, [(*key, *_summed(group)) for key, group in by_key.items()])
    _count_seen(database, _names(added), sign=1)
    return [ids[facts.key] for facts in added]


def remove_tallies(database: Database, removed: Sequence[tuple[int, Facts]]) -> None:
    """Take away records, given with their tallies; their rows must be gone already."""
    groups: defaultdict[Key, list[Facts]] = defaultdict(list)
    by_key: defaultdict[Key, list[Facts]] = defaultdict(list)
    for tally_id, facts in removed:
        groups[(tally_id,)].append(facts)
        if facts.key_id is not None:
            by_key[facts.key_id, tally_id].append(facts)
    for key, group in by_key.items():
        _take(database, "key_tally", ("key_id", "tally_id"), key, group)
    for key, group in groups.items():
        _take(database, "tally", ("id",), key, group)
    _count_seen(database, _names([facts for _, facts in removed]), sign=-1)


def tally_pruned(database: Database, pruned: Iterable[tuple[int, str | None]]) -> None:
    """Count records whose bodies went, by the tally and the key of each."""
    listed = list(pruned)
    for tally_id, count in Counter(tally_id for tally_id, _ in listed).items():
        database.execute("UPDATE tally SET pruned = pruned + ? WHERE id = ?", (count, tally_id))
    for (tally_id, key_id), count in Counter(listed).items():
        database.execute(
            "UPDATE key_tally SET pruned = pruned + ? WHERE tally_id = ? AND key_id = ?",
            (count, tally_id, key_id),
        )


def _take(
    database: Database, table: str, names: Sequence[str], key: Key, group: Sequence[Facts]
) -> None:
    """Take the sums of a group from its row, which goes when nothing is left."""
    where = " AND ".join(f"{name} = ?" for name in names)
    same = (
        "record.tally_id = tally.id"
        if table == "tally"
        else ("record.tally_id = key_tally.tally_id AND record.key_id = key_tally.key_id")
    )
    taken = ", ".join(f"{name} = {name} - ?" for name in SUMS)
    sums = _summed(group)[2:]
    database.execute(f"UPDATE {table} SET {taken} WHERE {where}", (*sums, *key))
    database.execute(f"DELETE FROM {table} WHERE {where} AND records = 0", key)
    database.execute(
        f"UPDATE {table} SET first_at = (SELECT min(at) FROM record WHERE {same}),"
        f" last_at = (SELECT max(at) FROM record WHERE {same}) WHERE {where}",
        key,
    )


def _summed(group: Sequence[Facts]) -> list[Any]:
    """first_at, last_at and the values of SUMS of some records together."""
    moments = [facts.at for facts in group]
    sums = [sum(column) for column in zip(*(facts.sums for facts in group), strict=True)]
    return [min(moments), max(moments), *sums]


def _names(facts: Sequence[Facts]) -> Counter[tuple[str, str, str]]:
    """(workload, kind, name) → records, of the prompts and sessions among them."""
    names: Counter[tuple[str, str, str]] = Counter()
    for one in facts:
        names[one.workload, "prompt", one.prompt_hash] += 1
        if one.session is not None:
            names[one.workload, "session", one.session] += 1
    return names


def _count_seen(
    database: Database, names: Mapping[tuple[str, str, str], int], *, sign: int
) -> None:
    """Count each name up or down, and those that are new or gone in their workload."""
    changed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    listed = sorted(names)
    for start in range(0, len(listed), _SEEN_PAGE):
        page = listed[start : start + _SEEN_PAGE]
        rows = database.query(
            "INSERT INTO seen (workload, kind, name, records)"
            f" VALUES {', '.join(['(?, ?, ?, ?)'] * len(page))}"
            " ON CONFLICT (workload, kind, name) DO UPDATE SET"
            " records = seen.records + excluded.records RETURNING workload, kind, name, records",
            [value for name in page for value in (*name, sign * names[name])],
        )
        edge = [row[:3] for row in rows if row[3] == (names[row[:3]] if sign > 0 else 0)]
        for workload, kind, _ in edge:
            changed[workload][kind] += sign
        if sign < 0:
            sql = "DELETE FROM seen WHERE workload = ? AND kind = ? AND name = ?"
            database.execute_many(sql, edge)
    for workload, kinds in changed.items():
        database.execute(
            "INSERT INTO workload_tally (workload, prompts, sessions) VALUES (?, ?, ?)"
            " ON CONFLICT (workload) DO UPDATE SET"
            " prompts = workload_tally.prompts + excluded.prompts,"
            " sessions = workload_tally.sessions + excluded.sessions",
            (workload, kinds["prompt"], kinds["session"]),
        )
        database.execute(
            "DELETE FROM workload_tally WHERE workload = ? AND prompts = 0", (workload,)
        )
