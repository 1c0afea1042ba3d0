"""The error budget: numbers are taken once and for all."""

from __future__ import annotations

import math
import threading

import pytest

from ownweights.core.database import Address, open_database
from ownweights.core.errors import StoreError
from ownweights.core.ledger import Attempt, book_attempt, close_attempt, list_attempts

CLAIM = {"alpha": 0.05, "check": "json"}


def delta_of(k: int) -> float:
    return 0.05 * 6 / (math.pi**2 * k**2)


def book(address: Address, workload: str = "tickets") -> Attempt:
    with open_database(address) as database:
        return book_attempt(database, workload, delta_of=delta_of, claim=CLAIM, data_hash="d1")


def test_book_attempt_counts_from_one_in_each_workload(address: Address) -> None:
    booked = [book(address), book(address), book(address, "other"), book(address)]
    assert [(a.workload, a.k) for a in booked] == [
        ("tickets", 1), ("tickets", 2), ("other", 1), ("tickets", 3)
    ]  # fmt: skip
    assert [a.delta for a in booked] == [delta_of(1), delta_of(2), delta_of(1), delta_of(3)]


def test_list_attempts_reads_back_what_was_booked(address: Address) -> None:
    first, second = book(address), book(address)
    with open_database(address) as database:
        close_attempt(database, second, "verdict-9")
        listed = list_attempts(database, "tickets")
        assert list_attempts(database, "unknown") == []
    assert listed[0] == first
    assert (listed[1].k, listed[1].verdict_id, listed[1].claim) == (2, "verdict-9", CLAIM)


def test_book_attempt_numbers_are_never_shared(address: Address) -> None:
    booked: list[int] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        for _ in range(10):
            booked.append(book(address).k)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(booked) == list(range(1, 41))


def test_book_attempt_that_fails_takes_no_number(address: Address) -> None:
    with open_database(address) as database:
        with pytest.raises(StoreError, match="refused a row"):
            book_attempt(database, "t", delta_of=lambda k: 0.0, claim={}, data_hash="d")
        assert list_attempts(database, "t") == []
    assert book(address, "t").k == 1
