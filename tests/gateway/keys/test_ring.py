"""The ring: keys in memory, spend on its way out, and a database that breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ownweights.core.database import open_database
from ownweights.core.project import Project
from ownweights.gateway.keys import Key, KeyRing, KeyStore, Limits, Spent, new_key
from ownweights.gateway.keys.key import day_of

TODAY = day_of(time.time())


def made(project: Project) -> tuple[str, Key]:
    secret, key = new_key("alice", Limits())
    with KeyStore.open(project) as store:
        store.add(key)
    return secret, key


@contextmanager
def ring_of(project: Project, look_s: float = 600.0) -> Iterator[KeyRing]:
    """A ring that looks when it is told to."""
    ring = KeyRing(project, look_s=look_s)
    ring.start()
    try:
        yield ring
    finally:
        ring.close()


def written(project: Project) -> dict[str, int]:
    with KeyStore.open(project) as store:
        return {key_id: spent.nano_usd for key_id, _, spent in store.read_spend()}


def test_ring_finds_a_key_by_its_secret(project: Project) -> None:
    secret, key = made(project)
    with ring_of(project) as ring:
        assert ring.find(secret) == key
        assert ring.find(secret[:-1]) is None
        assert ring.find("") is None


def test_ring_looks_when_it_is_asked(project: Project) -> None:
    with ring_of(project) as ring:
        secret, key = made(project)
        assert ring.find(secret) is None
        assert ring.look() and ring.find(secret) == key
        with KeyStore.open(project) as store:
            store.revoke(key.id)
        assert ring.look()
        found = ring.find(secret)
        assert found is not None and found.state(0.0) == "revoked"


def test_ring_serves_many_who_ask_at_once(project: Project) -> None:
    secret, key = made(project)
    with ring_of(project) as ring:
        answers: list[bool] = []
        threads = [threading.Thread(target=lambda: answers.append(ring.look())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 16 and ring.find(secret) == key


def test_ring_writes_what_was_spent_when_it_ends(project: Project) -> None:
    _, key = made(project)
    with ring_of(project) as ring:
        ring.tally.add(key.id, TODAY, Spent(requests=1, nano_usd=5))
    assert written(project) == {key.id: 5}


def test_rings_learn_of_each_other(project: Project) -> None:
    _, key = made(project)
    with ring_of(project) as one, ring_of(project) as other:
        one.tally.add(key.id, TODAY, Spent(nano_usd=5))
        other.tally.add(key.id, TODAY, Spent(nano_usd=7))
        for ring in (one, other, one):
            assert ring.look()
        assert one.tally.nano_usd_since(key.id, TODAY) == 12
        assert other.tally.nano_usd_since(key.id, TODAY) == 12


def test_ring_knows_what_was_spent_long_before_it_began(project: Project) -> None:
    _, key = made(project)
    with KeyStore.open(project) as store:
        store.write_spend("gone", {(key.id, "2020-01-01"): Spent(nano_usd=5)})
    with ring_of(project) as ring:
        assert ring.tally.nano_usd_since(key.id, "") == 5


def test_ring_outlives_a_broken_store(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that somebody writes to without end: keys are read, and spend waits."""
    monkeypatch.setattr("ownweights.gateway.keys.ring.BUSY_S", 0.01)
    secret, key = made(project)
    with ring_of(project) as ring:
        with open_database(project.database) as hog, hog.transaction():
            ring.tally.add(key.id, TODAY, Spent(nano_usd=5))
            assert ring.look() and ring.look()
            assert "is locked" in ring.fault and ring.find(secret) == key
            hog.execute("UPDATE key SET revoked_at = 1, version = 2")
        assert ring.look()
        assert (ring.fault, written(project)) == ("", {key.id: 5})
        found = ring.find(secret)
        assert found is not None and found.revoked_at == 1.0
    said = [line.message for line in caplog.records]
    assert ["not read" in said[0], "written again" in said[1], len(said)] == [True, True, 2]


def test_ring_says_what_it_could_not_write(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = made(project)
    with ring_of(project) as ring:
        with KeyStore.open(project) as store:
            store._database.execute("DROP TABLE spend")
        ring.tally.add(key.id, TODAY, Spent(nano_usd=5))
    assert "what 1 keys spent could not be written" in caplog.text


def test_ring_without_a_database_knows_no_key_and_makes_none(project: Project) -> None:
    with ring_of(project) as ring:
        assert ring.find("own-" + "A" * 43) is None
        assert (ring.fault, project.store_dir.exists()) == ("", False)
