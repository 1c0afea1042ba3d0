"""Rows and bodies go with everything that counted them."""

from __future__ import annotations

from ownweights.traffic import TrafficStore
from ownweights.traffic.part import count_uses, free_unused, known_uses, wrong_uses
from ownweights.traffic.recount import tally_faults
from ownweights.traffic.remove import NO_SEGMENT, drop_bodies, remove_rows
from tests.traffic.samples import make


def seqs(store: TrafficStore) -> list[int]:
    return [row[0] for row in store.database.query("SELECT seq FROM record ORDER BY seq")]


def dead(store: TrafficStore) -> int:
    return store.database.query("SELECT coalesce(sum(dead), 0) FROM segment")[0][0]


def test_remove_rows_counts_those_that_were_there(store: TrafficStore) -> None:
    store.add([make(str(n)) for n in range(4)])
    with store.database.transaction():
        assert remove_rows(store.database, [*seqs(store)[:2], 999], {}) == 2
        assert remove_rows(store.database, seqs(store)[:0], {}) == 0
    assert (len(seqs(store)), dead(store)) == (2, 2)
    assert tally_faults(store.database) == []


def test_drop_bodies_again_drops_nothing(store: TrafficStore) -> None:
    store.add([make(str(n)) for n in range(3)])
    with store.database.transaction():
        assert drop_bodies(store.database, seqs(store)[:2], {}, now=5.0) == 2
        assert drop_bodies(store.database, seqs(store), {}, now=6.0) == 1
    rows = store.database.query("SELECT pruned_at FROM record ORDER BY seq")
    assert rows == [(5.0,), (5.0,), (6.0,)]
    assert store.database.query("SELECT count(*) FROM segment WHERE name = ?", (NO_SEGMENT,)) == [
        (1,)
    ]
    assert dead(store) == 3
    assert list(store.records()) == []


def test_remove_rows_without_bodies_leaves_no_dead_weight(store: TrafficStore) -> None:
    store.add([make("x")])
    with store.database.transaction():
        drop_bodies(store.database, seqs(store), {}, now=5.0)
    before = dead(store)
    with store.database.transaction():
        remove_rows(store.database, seqs(store), {})
    assert dead(store) == before
    assert store.database.query("SELECT count(*) FROM tally") == [(0,)]


def test_count_uses_counts_a_part_once_a_record(store: TrafficStore) -> None:
    store.add([make("x"), make("y")])
    ((digest, uses),) = store.database.query("SELECT hash, uses FROM part")
    assert uses == 2
    with store.database.transaction():
        count_uses(store.database, [[digest, digest], ["other"]], sign=-1)
    assert known_uses(store.database) == ({digest: 1}, 2)
    assert wrong_uses(store.database, {digest: 1}, {digest: 2}) == [digest]
    assert wrong_uses(store.database, {digest: 2}, {digest: 5}) == []  # touched since


def test_free_unused_notes_the_dead_weight(store: TrafficStore) -> None:
    store.add([make("x")])
    with store.database.transaction():
        store.database.execute("UPDATE part SET uses = 0")
        assert free_unused(store.database) == 1
    assert dead(store) == 1
