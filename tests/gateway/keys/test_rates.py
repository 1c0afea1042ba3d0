"""The bucket: what it lets through over any span, and how long it makes wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.gateway.keys.rates import MINUTE_S, Bucket


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_bucket_lets_a_minutes_worth_through_and_then_waits() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    for _ in range(60):
        assert bucket.wait_s(1) == 0.0
        bucket.take(1)
    assert bucket.wait_s(1) == pytest.approx(1.0)
    assert bucket.full_in_s() == pytest.approx(60.0)
    clock.now_s += 1.0
    assert bucket.wait_s(1) == pytest.approx(0.0, abs=1e-9)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 2000)), min_size=1, max_size=60),
)
def test_bucket_always_holds_its_rate(per_min: int, asks: list[tuple[float, int]]) -> None:
    """Over the whole span: no more than its share, one bucket, and the last request."""
    clock = Clock()
    bucket = Bucket(per_min, clock)
    begin, taken = clock.now_s, 0.0
    for pause_s, amount in asks:
        clock.now_s += pause_s
        if not bucket.wait_s(amount):
            share = (clock.now_s - begin) * per_min / MINUTE_S + per_min
            assert taken <= share + 1e-6
            bucket.take(amount)
            taken += amount
        assert bucket.level() <= per_min


@given(st.integers(1, 1000), st.integers(1, 5000), st.integers(1, 5000))
def test_bucket_lets_through_after_the_wait_it_names(per_min: int, first: int, next_: int) -> None:
    clock = Clock()
    bucket = Bucket(per_min, clock)
    bucket.take(first)
    clock.now_s += bucket.wait_s(next_) + 1e-6
    assert bucket.wait_s(next_) == pytest.approx(0.0, abs=1e-3)


def test_bucket_takes_back_what_was_not_used() -> None:
    bucket = Bucket(100, Clock())
    bucket.take(80)
    bucket.take(-80)
    bucket.take(-80)
    assert bucket.level() == 100


def test_bucket_follows_another_rate() -> None:
    clock = Clock()
    bucket = Bucket(10, clock)
    bucket.take(8)
    bucket.follow(100)
    assert (bucket.per_min, bucket.level()) == (100, 92)
    bucket.follow(5)
    assert bucket.level() == -3
    clock.now_s -= 50.0  # a clock that goes back fills nothing, and breaks nothing
    assert bucket.level() == -3
