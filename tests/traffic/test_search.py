"""A search finds what decoding everything finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import UsageError
from ownweights.traffic import TrafficStore, make_record
from ownweights.traffic.query import RecordFilter
from ownweights.traffic.retention import prune
from ownweights.traffic.search import Hit, SearchCounts, search
from tests.traffic.odd import odd_records
from tests.traffic.samples import SYSTEM, answer, ask, make

TEXTS = ["hello", "Größe", "ΑΒΓ", "a\nb", 'say "x"', "\ud800 half", "tab\tend", "plain", "groß",
         "content", "\\u00e9", "é"]  # fmt: skip


def found(store: TrafficStore, text: str, **options: Any) -> list[Hit]:
    only = options.pop("only", RecordFilter())
    return list(search(store, text, only=only, counts=SearchCounts(), **options))


def holds(value: Any, text: str, *, fold: bool) -> bool:
    if isinstance(value, str):
        return (text.casefold() in value.casefold()) if fold else text in value
    if isinstance(value, dict):
        return any(holds(inner, text, fold=fold) for inner in value.values())
    return isinstance(value, list) and any(holds(inner, text, fold=fold) for inner in value)


@pytest.fixture
def filled(store: TrafficStore) -> TrafficStore:
    store.add([make(f"{one} {n}", f"reply {two}") for n, one in enumerate(TEXTS) for two in TEXTS])
    store.add(odd_records()[::7])
    store.add([make_record(ask("x", tools=[{"name": "lookup", "description": "Größe " * 20}]),
                           answer("y"), role="teacher", workload="w")])  # fmt: skip
    return store


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("text", [*TEXTS, "GRÖSSE", "Größe Größe", "nowhere", SYSTEM[:20], "HELLO"])
def test_search_matches_brute_force(filled: TrafficStore, text: str, fold: bool) -> None:
    expected = [r.id for r in filled.matching(RecordFilter(), is_newest_first=True)
                if holds([r.request, r.response], text, fold=fold)]  # fmt: skip
    assert [hit.id for hit in found(filled, text, ignore_case=fold)] == expected


@given(st.text(max_size=8), st.integers(0, 3), st.integers(1, 4))
def test_search_always_finds_a_part_of_what_was_said(
    tmp_path_factory: pytest.TempPathFactory, said: str, start: int, length: int
) -> None:
    from ownweights.core.project import Project

    with TrafficStore.open(Project(tmp_path_factory.mktemp("search"))) as store:
        store.add([make("other"), make(said or "?", "fine")])
        if part := said[start : start + length]:
            assert found(store, part)[0].id == next(iter(store.matching(
                RecordFilter(), is_newest_first=True))).id  # fmt: skip


def test_search_says_where_and_what_is_around(store: TrafficStore) -> None:
    store.add([make("a" * 100 + " needle\n " + "b" * 100)])
    (hit,) = found(store, "needle")
    assert hit.path == "request.messages[1].content"
    assert hit.around == "…" + "a" * 39 + " needle " + "b" * 38 + "…"
    assert (hit.workload, len(hit.id)) == ("w", 36)


def test_search_looks_only_where_it_is_told(store: TrafficStore) -> None:
    store.add([make("needle", session="s"), make("needle too", session="t")])
    assert len(found(store, "needle", only=RecordFilter(session="s"))) == 1
    assert found(store, "needle", only=RecordFilter(workload="other")) == []


def test_search_passes_over_bodies_that_went(store: TrafficStore) -> None:
    store.add([make("needle", at=1000.0), make("needle 2", at=90_000_000.0)])
    prune(store, 1e8, bodies_before=10_000.0)
    counts = SearchCounts()
    assert len(list(search(store, "needle", only=RecordFilter(), counts=counts))) == 1
    assert (counts.records, counts.unreadable) == (1, 0)


def test_search_counts_what_it_cannot_read(store: TrafficStore) -> None:
    store.add([make("needle")])
    (path,) = store.project.bodies_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    counts = SearchCounts()
    assert list(search(store, "needle", only=RecordFilter(), counts=counts)) == []
    assert counts.unreadable == 1


def test_search_of_nothing_is_refused(store: TrafficStore) -> None:
    with pytest.raises(UsageError, match="nothing to search for"):
        found(store, "")
