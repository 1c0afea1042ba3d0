"""Keys in the database: what is kept, and what is never."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from ownweights.core.errors import StoreError, UsageError
from ownweights.core.project import Project
from ownweights.gateway.keys import Key, KeyStore, Limits, Spent, new_key

LIMITS = Limits(("tickets", "mail"), 2.5, "day", 60, 9000, False, False, 2e9)


@pytest.fixture
def store(project: Project) -> Iterator[KeyStore]:
    with KeyStore.open(project) as opened:
        yield opened


def made(store: KeyStore, name: str = "alice", limits: Limits = LIMITS) -> Key:
    key = new_key(name, limits)[1]
    store.add(key)
    return key


def test_key_store_gives_back_what_it_was_given(store: KeyStore) -> None:
    key = made(store)
    other = made(store, "bob", Limits())
    assert store.every() == [key, other]
    assert store.find("alice") == store.find(key.id) == key
    assert store.find("nobody") is None


def test_key_is_stored_as_a_hash_alone(tmp_path: Path) -> None:
    secret, key = new_key("alice", LIMITS)
    with KeyStore.open(Project(tmp_path)) as store:
        store.add(key)
        store.change(key.id, Limits())
        store.revoke(key.id)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.hash.encode() in kept
    assert secret.encode() not in kept and secret[4:20].encode() not in kept


def test_key_store_refuses_a_name_that_is_taken(store: KeyStore) -> None:
    first = made(store)
    with pytest.raises(UsageError, match="there is a key named 'alice' already"):
        made(store)
    store.revoke(first.id)
    second = made(store)
    assert store.find("alice") == second


def test_key_store_changes_limits_and_nothing_else(store: KeyStore) -> None:
    key = made(store)
    store.change(key.id, Limits(budget_usd=0.0))
    assert store.every() == [dataclasses.replace(key, limits=Limits(budget_usd=0.0))]


def test_key_store_revokes_once(store: KeyStore) -> None:
    key = made(store)
    store.revoke(key.id)
    (before,) = store.every()
    store.revoke(key.id)
    assert store.every() == [before]
    assert before.revoked_at is not None and before.state(0.0) == "revoked"


def test_key_store_stamp_changes_with_every_change(store: KeyStore) -> None:
    stamps = [store.stamp()]
    key = made(store)
    stamps.append(store.stamp())
    made(store, "bob")
    stamps.append(store.stamp())
    store.change(key.id, Limits())
    stamps.append(store.stamp())
    store.revoke(key.id)
    stamps.append(store.stamp())
    assert len(set(stamps)) == len(stamps)


@pytest.mark.parametrize(
    "limits",
    [Limits(budget_usd=-1.0), Limits(requests_per_min=0), Limits(tokens_per_min=-5)],
)
def test_key_store_refuses_limits_that_can_be_none(store: KeyStore, limits: Limits) -> None:
    with pytest.raises(StoreError, match="refused a row"):
        made(store, limits=limits)
    assert store.every() == []


def test_key_store_reads_spend_of_the_others(store: KeyStore) -> None:
    key = made(store)
    store.write_spend("w1", {(key.id, "2026-01-01"): Spent(1, 0, 10, 100)})
    store.write_spend("w2", {(key.id, "2026-01-01"): Spent(2, 1, 20, 200, 50)})
    store.write_spend("w2", {(key.id, "2026-01-02"): Spent(3)})
    assert store.read_spend(but="w1", first_day="2026-01-02") == [(key.id, "2026-01-02", Spent(3))]
    both = Spent(3, 1, 30, 300, 50)
    assert store.read_spend()[0] == (key.id, "2026-01-01", both)


def test_key_store_names_hold_no_sql(store: KeyStore) -> None:
    key = made(store, "a'; DROP TABLE key; --")
    assert store.find("a'; DROP TABLE key; --") == key
