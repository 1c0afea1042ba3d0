"""Any filter, over records that came, went and lost their bodies, answers as going through all."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.query import (
    RecordFilter,
    RecordRow,
    count,
    distinct,
    facets,
    page,
    row_of,
    stats,
)
from ownweights.traffic.recount import recount
from ownweights.traffic.retention import prune, take_out
from ownweights.traffic.search import SearchCounts, search
from ownweights.traffic.tally import (
    CLASS_EDGES_MS,
    DIMENSIONS,
    LATENCY_CLASSES,
    latency_class,
    latency_quantile,
)
from tests.traffic.samples import make
from tests.traffic.test_query import DAY_S, FIRST, matches, some_records, value_of

NOW = FIRST + 10 * DAY_S
MOMENT = st.none() | st.integers(-4, 24).map(lambda n: FIRST + n * DAY_S / 4) | st.floats(
    FIRST - DAY_S, FIRST + 5 * DAY_S
)  # fmt: skip
FILTER = st.builds(
    RecordFilter,
    workload=st.sampled_from([None, None, "a", "b", "nobody"]),
    status=st.sampled_from([None, None, "ok", "partial", "error"]),
    role=st.sampled_from([None, None, "teacher", "student"]),
    model=st.sampled_from([None, None, "m1", "m2", ""]),
    upstream=st.sampled_from([None, None, "", "u"]),
    protocol=st.sampled_from([None, None, "chat", "messages"]),
    key_id=st.sampled_from([None, None, "k1", "k9"]),
    session=st.sampled_from([None, None, None, "s1", "s3"]),
    end_user=st.sampled_from([None, None, None, "eve"]),
    since=MOMENT,
    until=MOMENT,
)


class Mirror:
    """A store, and what is in it as a plain list: record, and whether it lost its bodies."""

    def __init__(self, store: TrafficStore) -> None:
        self.store = store
        self.kept: list[tuple[Record, bool]] = []

    def add(self, records: list[Record]) -> None:
        assert self.store.add(records) == (len(records), 0)
        self.kept += [(record, False) for record in records]

    def take(self, ids: set[str], *, bodies_alone: bool) -> None:
        seqs = [row.seq for one in sorted(ids) if (row := row_of(self.store.database, one))]
        take_out(self.store, seqs, keep_rows_at=NOW if bodies_alone else None)
        if bodies_alone:
            self.kept = [(record, gone or record.id in ids) for record, gone in self.kept]
        else:
            self.kept = [pair for pair in self.kept if pair[0].id not in ids]

    def prune(self, *, rows_until: float, bodies_until: float) -> None:
        prune(self.store, NOW, before=rows_until, bodies_before=bodies_until)
        self.kept = [
            (record, gone or record.at < bodies_until)
            for record, gone in self.kept
            if record.at >= rows_until
        ]

    def matching(self, only: RecordFilter) -> list[tuple[Record, bool]]:
        return [pair for pair in self.kept if matches(pair[0], only)]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """A store after a life of its own."""
    rng = random.Random(11)
    with TrafficStore.open(Project(tmp_path_factory.mktemp("life"))) as store:
        held = Mirror(store)
        for turn in range(6):
            held.add(some_records(60, seed=100 + turn))
            ids = [record.id for record, _ in held.kept]
            held.take(set(rng.sample(ids, 9)), bodies_alone=turn % 2 == 0)
        held.prune(rows_until=FIRST + 0.4 * DAY_S, bodies_until=FIRST + 1.3 * DAY_S)
        held.add(some_records(30, seed=999))
        assert store.verify().is_sound
        yield held


def all_pages(store: TrafficStore, only: RecordFilter, limit: int) -> list[RecordRow]:
    found: list[RecordRow] = []
    before = None
    while rows := page(store.database, only, before=before, limit=limit):
        assert len(rows) <= limit
        found += rows
        before = rows[-1].seq
    return found


@settings(max_examples=150)
@given(only=FILTER, limit=st.integers(1, 90))
def test_pages_of_any_filter_match_brute_force(
    mirror: Mirror, only: RecordFilter, limit: int
) -> None:
    expected = mirror.matching(only)[::-1]
    rows = all_pages(mirror.store, only, limit)
    assert [row.id for row in rows] == [record.id for record, _ in expected]
    assert [row.pruned_at is not None for row in rows] == [gone for _, gone in expected]
    for row, (record, _) in zip(rows, expected, strict=True):
        for name in ("at", "workload", "session", "end_user", "key_id", "protocol", "upstream",
                     "role", "status", "model", "cost_usd", "latency_ms"):  # fmt: skip
            assert getattr(row, name) == getattr(record, name)
        assert row.prompt_tokens == record.usage.prompt_tokens
        assert row_of(mirror.store.database, row.id) == row
    here = [record.id for record, gone in mirror.matching(only) if not gone]
    assert [record.id for record in mirror.store.matching(only)] == here
    newest = mirror.store.matching(only, limit=limit, is_newest_first=True)
    assert [record.id for record in newest] == here[::-1][:limit]


@settings(max_examples=150)
@given(only=FILTER, dimension=st.sampled_from(DIMENSIONS))
def test_facets_of_any_filter_match_and_sum_to_the_count(
    mirror: Mirror, only: RecordFilter, dimension: str
) -> None:
    expected = [record for record, _ in mirror.matching(only)]
    database = mirror.store.database
    found = facets(database, only, dimension)
    with_one = [r for r in expected if dimension != "key_id" or r.key_id is not None]
    assert dict(found) == Counter(value_of(record, dimension) for record in with_one)
    assert len(dict(found)) == len(found)
    assert sum(number for _, number in found) == len(with_one)
    assert count(database, only) == len(expected)
    for name, number in found:  # a facet, chosen, gives as many as it said
        if dimension == "day":
            since = max(only.since or 0.0, name * DAY_S)
            until = min(only.until or 1e12, (name + 1) * DAY_S)
            chosen = replace(only, since=since, until=until)
        else:
            chosen = replace(only, **{dimension: name})
        assert count(database, chosen) == number


@settings(max_examples=100)
@given(only=FILTER, dimension=st.sampled_from(DIMENSIONS))
def test_stats_of_any_filter_match_brute_force(
    mirror: Mirror, only: RecordFilter, dimension: str
) -> None:
    groups: defaultdict[Any, list[tuple[Record, bool]]] = defaultdict(list)
    for record, gone in mirror.matching(only):
        if dimension != "key_id" or record.key_id is not None:
            groups[value_of(record, dimension)].append((record, gone))
    found = {one.name: one for one in stats(mirror.store.database, only, dimension)}
    assert found.keys() == groups.keys()
    for name, pairs in groups.items():
        one, group = found[name], [record for record, _ in pairs]
        costs = [r.cost_usd for r in group if r.cost_usd is not None]
        times = [r.latency_ms for r in group if r.latency_ms is not None]
        statuses = Counter(record.status for record in group)
        assert (one.records, one.pruned) == (len(group), sum(gone for _, gone in pairs))
        assert (one.ok, one.partial, one.error) == tuple(
            statuses[status] for status in ("ok", "partial", "error")
        )
        assert (one.priced, one.timed) == (len(costs), len(times))
        assert one.cost_usd == pytest.approx(sum(costs), abs=1e-9 * (1 + len(costs)))
        assert one.prompt_tokens == sum(record.usage.prompt_tokens for record in group)
        assert one.completion_tokens == sum(record.usage.completion_tokens for record in group)
        assert (one.first_at, one.last_at) == (min(r.at for r in group), max(r.at for r in group))
        check_quantile(one.latency_p50_ms, times, 0.5)
        check_quantile(one.latency_p95_ms, times, 0.95)


def check_quantile(found: float | None, times: list[float], frac: float) -> None:
    """In the class of numpy's, so at most a factor of two off where a class has two ends."""
    if not times:
        assert found is None
        return
    true = float(np.quantile(times, frac, method="inverted_cdf"))
    number = latency_class(true)
    assert found is not None
    if number == 0:
        assert 0 <= found <= CLASS_EDGES_MS[0]
    elif number == LATENCY_CLASSES - 1:
        assert CLASS_EDGES_MS[-1] <= found <= 2 * CLASS_EDGES_MS[-1]
    else:
        assert CLASS_EDGES_MS[number - 1] <= found <= CLASS_EDGES_MS[number]
        assert true / 2 <= found <= 2 * true


@given(
    st.lists(st.floats(0, 3e5) | st.sampled_from([*CLASS_EDGES_MS, 0.0]), min_size=1, max_size=60),
    st.integers(1, 100),
)
def test_latency_quantile_lies_in_the_class_of_numpys(times: list[float], percent: int) -> None:
    classes = [0] * LATENCY_CLASSES
    for time_ms in times:
        classes[latency_class(time_ms)] += 1
    rank = -(-percent * len(times) // 100)
    if rank * 100 == percent * len(times):  # numpy's rank and ours may round apart on an edge
        true = sorted(times)[rank - 1]
        found = latency_quantile(classes, percent / 100)
        assert found is not None
        assert abs(latency_class(found) - latency_class(true)) <= 1
    else:
        check_quantile(latency_quantile(classes, percent / 100), times, percent / 100)


@given(st.lists(st.integers(0, 50), min_size=LATENCY_CLASSES, max_size=LATENCY_CLASSES))
def test_latency_quantile_never_falls_as_the_share_grows(classes: list[int]) -> None:
    found = [latency_quantile(classes, share / 40) for share in range(41)]
    if not sum(classes):
        assert found == [None] * 41
        return
    given_ones = [one for one in found if one is not None]
    assert len(given_ones) == 41
    assert given_ones == sorted(given_ones)


@pytest.mark.parametrize(
    "only",
    [RecordFilter(), RecordFilter(workload="a"), RecordFilter(session="s1"),
     RecordFilter(key_id="k1"), RecordFilter(since=FIRST + 0.5 * DAY_S, status="ok")],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("limit", [1, 4, 11])
def test_pages_stay_whole_while_records_come_and_go(
    store: TrafficStore, only: RecordFilter, limit: int
) -> None:
    """Records that are added between pages are not in them; those that stay come once each."""
    rng = random.Random(limit)
    held = Mirror(store)
    held.add(some_records(80, seed=5))
    expected = [record.id for record, _ in held.matching(only)][::-1]
    found: list[str] = []
    gone: set[str] = set()
    before, turn = None, 0
    while rows := page(store.database, only, before=before, limit=limit):
        found += [row.id for row in rows]
        before = rows[-1].seq
        turn += 1
        if turn % 3 == 1:
            held.add(some_records(2, seed=1000 + turn))
        if turn % 3 == 2:
            lost = {rng.choice(expected)}
            held.take(lost, bodies_alone=turn % 2 == 0)
            gone |= lost if turn % 2 else set()
    assert len(found) == len(set(found))
    assert set(found) <= set(expected)
    assert set(expected) - set(found) <= gone
    assert found == [one for one in expected if one in set(found)]


@pytest.mark.parametrize("only", [RecordFilter(), RecordFilter(workload="a")], ids=str)
def test_a_page_before_the_first_row_is_empty(mirror: Mirror, only: RecordFilter) -> None:
    rows = all_pages(mirror.store, only, 1000)
    assert page(mirror.store.database, only, before=rows[-1].seq) == []
    assert page(mirror.store.database, only, before=0) == []
    assert page(mirror.store.database, only, limit=1) == rows[:1]


def test_recount_changes_nothing_after_a_life(mirror: Mirror) -> None:
    database = mirror.store.database
    before = [stats(database, RecordFilter(), dimension) for dimension in DIMENSIONS]
    names = distinct(database)
    recount(database)
    after = [stats(database, RecordFilter(), dimension) for dimension in DIMENSIONS]
    for old, new in zip(before, after, strict=True):
        assert [replace(one, cost_usd=0.0) for one in old] == [
            replace(one, cost_usd=0.0) for one in new
        ]
        for one, other in zip(old, new, strict=True):
            assert one.cost_usd == pytest.approx(other.cost_usd, abs=1e-9)
    assert distinct(database) == names


@settings(max_examples=40)
@given(only=FILTER, text=st.sampled_from(["question 1", "answer", "ANSWER 2", "nowhere", "one"]),
       fold=st.booleans())  # fmt: skip
def test_search_of_any_filter_matches_brute_force(
    mirror: Mirror, only: RecordFilter, text: str, fold: bool
) -> None:
    def says(record: Record) -> bool:
        told = [one["content"] for one in record.request["messages"]] + [record.answer_text or ""]
        told += [record.request["model"], "user", "system", "assistant", "stop"]
        needle = text.casefold() if fold else text
        return any(needle in (one.casefold() if fold else one) for one in told)

    here = [record for record, gone in mirror.matching(only) if not gone]
    counts = SearchCounts()
    hits = list(search(mirror.store, text, only=only, counts=counts, ignore_case=fold))
    assert [hit.id for hit in hits] == [record.id for record in here if says(record)][::-1]
    assert (counts.records, counts.unreadable) == (len(here), 0)
    assert all((text.casefold() if fold else text) in hit.around.casefold() or not fold
               for hit in hits)  # fmt: skip


def test_names_with_quotes_and_wildcards_are_names_alone(store: TrafficStore) -> None:
    names = ["it's", 'a"b', "100%", "a_b", "aXb", "", "é", "a;--", "NULL"]
    records = [replace(make(str(n)), model=name, session=name or None, key_id=name or None)
               for n, name in enumerate(names)]  # fmt: skip
    store.add(records)
    assert dict(facets(store.database, RecordFilter(), "model")) == dict.fromkeys(names, 1)
    for record in records:
        for only in (RecordFilter(model=record.model), RecordFilter(session=record.session),
                     RecordFilter(key_id=record.key_id)):  # fmt: skip
            if not only.is_everything:
                assert [row.id for row in page(store.database, only)] == [record.id]
                assert count(store.database, only) == 1
