"""Pages, facets and statistics are what going through every record gives."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.chat import Usage
from ownweights.core.errors import UsageError
from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.query import RecordFilter, count, distinct, facets, page, row_of, stats
from ownweights.traffic.tally import DIMENSIONS, day_of
from tests.traffic.samples import make

DAY_S = 86_400
FIRST = 20_000 * DAY_S
FILTERS = [
    RecordFilter(),
    RecordFilter(workload="a"),
    RecordFilter(status="error"),
    RecordFilter(workload="b", role="student", model="m1"),
    RecordFilter(key_id="k1", protocol="chat", upstream="u"),
    RecordFilter(key_id="k1", since=FIRST + 0.3 * DAY_S, until=FIRST + 2.2 * DAY_S),
    RecordFilter(session="s3"),
    RecordFilter(end_user="eve", status="ok"),
    RecordFilter(since=FIRST + DAY_S, until=FIRST + 3 * DAY_S),
    RecordFilter(since=FIRST + 0.7 * DAY_S, until=FIRST + 2.4 * DAY_S, workload="a"),
    RecordFilter(since=FIRST + 1.2 * DAY_S, until=FIRST + 1.6 * DAY_S),
    RecordFilter(session="s1", since=FIRST + 1.5 * DAY_S),
    RecordFilter(workload="nobody"),
]


def some_records(number: int, seed: int = 3) -> list[Record]:
    rng = random.Random(seed)
    made: list[Record] = []
    for n in range(number):
        base = make(f"question {n}", f"answer {n}", at=FIRST + rng.random() * 4 * DAY_S)
        made.append(
            replace(
                base,
                workload=rng.choice("aab"),
                status=rng.choice(["ok", "ok", "ok", "partial", "error"]),
                role=rng.choice(["teacher", "student"]),
                model=rng.choice(["m1", "m2"]),
                key_id=rng.choice([None, "k1"]),
                upstream=rng.choice(["", "u"]),
                session=rng.choice([None, "s1", "s2", "s3"]),
                end_user=rng.choice([None, "eve"]),
                usage=Usage(rng.randrange(100), rng.randrange(50)),
                cost_usd=rng.choice([None, rng.random() / 100]),
                latency_ms=rng.choice([None, rng.random() * 10 ** rng.randrange(6)]),
            )
        )
    return made


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TrafficStore, list[Record]]]:
    folder: Path = tmp_path_factory.mktemp("query")
    records = some_records(400)
    with TrafficStore.open(Project(folder)) as store:
        store.add(records)
        yield store, records


def matches(record: Record, only: RecordFilter) -> bool:
    for name in ("workload", "status", "role", "model", "upstream", "protocol", "key_id",
                 "session", "end_user"):  # fmt: skip
        wanted = getattr(only, name)
        if wanted is not None and getattr(record, name) != wanted:
            return False
    return (only.since is None or record.at >= only.since) and (
        only.until is None or record.at < only.until
    )


@pytest.mark.parametrize("only", FILTERS, ids=str)
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_page_matches_brute_force(
    filled: tuple[TrafficStore, list[Record]], only: RecordFilter, limit: int
) -> None:
    store, records = filled
    expected = [record.id for record in reversed(records) if matches(record, only)]
    found: list[str] = []
    before = None
    while rows := page(store.database, only, before=before, limit=limit):
        assert len(rows) == min(limit, len(expected) - len(found))
        found += [row.id for row in rows]
        before = rows[-1].seq
    assert found == expected
    assert [record.id for record in store.matching(only)] == expected[::-1]
    assert count(store.database, only) == len(expected)


@pytest.mark.parametrize("only", FILTERS, ids=str)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_facets_match_brute_force(
    filled: tuple[TrafficStore, list[Record]], only: RecordFilter, dimension: str
) -> None:
    store, records = filled
    expected = Counter(
        value_of(r, dimension)
        for r in records
        if matches(r, only) and (dimension != "key_id" or r.key_id)
    )
    found = facets(store.database, only, dimension)
    assert dict(found) == expected
    if dimension == "day":
        assert [name for name, _ in found] == sorted(expected)
    else:
        assert [number for _, number in found] == sorted(expected.values(), reverse=True)


@pytest.mark.parametrize("only", FILTERS, ids=str)
@pytest.mark.parametrize("dimension", ["workload", "day", "key_id"])
def test_stats_match_brute_force(
    filled: tuple[TrafficStore, list[Record]], only: RecordFilter, dimension: str
) -> None:
    store, records = filled
    groups: defaultdict[Any, list[Record]] = defaultdict(list)
    for record in records:
        if matches(record, only) and (dimension != "key_id" or record.key_id):
            groups[value_of(record, dimension)].append(record)
    found = {one.name: one for one in stats(store.database, only, dimension)}
    assert found.keys() == groups.keys()
    for name, group in groups.items():
        one = found[name]
        costs = [r.cost_usd for r in group if r.cost_usd is not None]
        times = sorted(r.latency_ms for r in group if r.latency_ms is not None)
        assert (one.records, one.priced, one.timed) == (len(group), len(costs), len(times))
        assert one.ok + one.partial + one.error == one.records
        assert one.ok == sum(r.status == "ok" for r in group)
        assert one.cost_usd == pytest.approx(sum(costs), abs=1e-9 * (1 + len(costs)))
        assert one.prompt_tokens == sum(r.usage.prompt_tokens for r in group)
        assert one.completion_tokens == sum(r.usage.completion_tokens for r in group)
        assert (one.first_at, one.last_at) == (min(r.at for r in group), max(r.at for r in group))
        assert one.body_bytes > 0
        check_quantile(one.latency_p50_ms, times, 0.5)
        check_quantile(one.latency_p95_ms, times, 0.95)


def check_quantile(found: float | None, times: list[float], frac: float) -> None:
    """Within a factor of two of the true one, or both below the first class's end."""
    if not times:
        assert found is None
        return
    true = times[max(0, -(-int(frac * len(times) * 1000) // 1000) - 1)]
    assert found is not None
    assert found <= 10 or 0.5 * true <= found <= 2 * true or found <= 2 * times[-1]


def value_of(record: Record, dimension: str) -> Any:
    if dimension == "day":
        return day_of(record.at)
    return getattr(record, dimension)


def test_distinct_counts_prompts_and_sessions(filled: tuple[TrafficStore, list[Record]]) -> None:
    store, records = filled
    expected = {
        workload: (
            len({r.prompt_hash for r in records if r.workload == workload}),
            len({r.session for r in records if r.workload == workload and r.session}),
        )
        for workload in "ab"
    }
    assert distinct(store.database) == expected


def test_row_of_an_unknown_id_is_none(filled: tuple[TrafficStore, list[Record]]) -> None:
    store, records = filled
    assert row_of(store.database, "nobody") is None
    row = row_of(store.database, records[0].id)
    assert row is not None
    assert (row.workload, row.cost_usd) == (records[0].workload, records[0].cost_usd)


@pytest.mark.parametrize("ask", [facets, stats])
def test_an_unknown_dimension_is_refused(
    filled: tuple[TrafficStore, list[Record]], ask: Any
) -> None:
    with pytest.raises(UsageError, match="not counted by 'session'"):
        ask(filled[0].database, RecordFilter(), "session")


def test_no_page_reads_all_rows(filled: tuple[TrafficStore, list[Record]]) -> None:
    """What SQLite plans for a page, a facet and statistics never scans the rows."""
    store, _ = filled
    asked: list[tuple[str, Any]] = []
    query = store.database.query

    def spy(sql: str, params: Any = ()) -> Any:
        asked.append((sql, params))
        return query(sql, params)

    store.database.query = spy
    try:
        for only in FILTERS[1:]:
            page(store.database, only)
            facets(store.database, only, "model")
            stats(store.database, only)
    finally:
        del store.database.query
    for sql, params in asked:
        plan = [row[3] for row in query(f"EXPLAIN QUERY PLAN {sql}", params)]
        assert not [step for step in plan if step.startswith("SCAN record")], (sql, plan)
