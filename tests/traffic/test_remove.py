"""Rows and bodies go with everything that counted them."""

from __future__ import annotations

from ownweights.traffic import TrafficStore
from ownweights.traffic.part import UseCount, count_uses, free_unused
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
    assert store.database.query("SELECT uses FROM part") == [(1,)]


def test_uses_are_wrong_where_nobody_touched_them_since(store: TrafficStore) -> None:
    store.add([make("x"), make("y")])
    ((digest,),) = store.database.query("SELECT hash FROM part")
    found = UseCount(store.database)
    found.add(1, [digest])
    assert not found.is_whole()
    assert found.is_whole(lost=1)
    assert found.wrong() == [digest]
    count_uses(store.database, [[digest]])  # somebody added one meanwhile
    assert found.wrong() == []


def test_free_unused_notes_the_dead_weight(store: TrafficStore) -> None:
    store.add([make("x")])
    with store.database.transaction():
        store.database.execute("UPDATE part SET uses = 0")
        assert free_unused(store.database) == 1
    assert dead(store) == 1
