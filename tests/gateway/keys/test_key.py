"""A key: its secret, its hash, how it is shown, and the periods of its budget."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.gateway.keys import Limits, new_key
from ownweights.gateway.keys.key import (
    PERIODS,
    Per,
    day_of,
    first_day,
    hash_of,
    holds_secret,
    next_start,
    shown_secret,
)

SECRET = "own-" + "aB3_-" * 8 + "xyz"
DAYS = st.dates(date(2020, 1, 1), date(2050, 12, 31))


def test_new_key_has_256_random_bits_and_keeps_none() -> None:
    made = [new_key("a", Limits()) for _ in range(50)]
    assert len({secret for secret, _ in made}) == len({key.id for _, key in made}) == 50
    for secret, key in made:
        assert len(secret) == 4 + 43 and holds_secret(secret.encode())
        assert key.hash == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in repr(key)


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([(b"authorization", b"Bearer " + SECRET.encode())], SECRET),
        ([(b"authorization", b"bearer  " + SECRET.encode() + b" ")], SECRET),
        ([(b"authorization", SECRET.encode())], SECRET),
        ([(b"x-api-key", SECRET.encode())], SECRET),
        ([(b"api-key", SECRET.encode())], SECRET),
        ([(b"authorization", b"Bearer own-short")], "own-short"),
        ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", SECRET.encode())], SECRET),
        ([(b"authorization", b"Bearer sk-own-1")], None),
        ([(b"cookie", SECRET.encode())], None),
        ([], None),
    ],
)
def test_shown_secret_finds_every_way(
    headers: list[tuple[bytes, bytes]], shown: str | None
) -> None:
    assert shown_secret(headers) == shown


@pytest.mark.parametrize(
    ("text", "is_held"),
    [
        (f"a={SECRET}&b", True),
        (f"/v1/{SECRET}/x", True),
        (SECRET[:-1], False),
        (SECRET + "a", False),
        ("own-workload=tickets", False),
        ("", False),
    ],
)
def test_holds_secret_knows_one_anywhere(text: str, is_held: bool) -> None:
    assert holds_secret(text.encode()) is is_held


@given(st.text())
def test_hash_of_takes_any_text(text: str) -> None:
    assert len(hash_of(text)) == 64


@given(DAYS)
def test_periods_match_the_calendar(day: date) -> None:
    """Every day lies in its period, and the next begins on the first day that does not."""
    for per in PERIODS:
        begin, end = first_day(per, day.isoformat()), next_start(per, day.isoformat())
        assert begin <= day.isoformat()
        if end is None:
            assert (per, begin) == ("total", "")
            continue
        before = date.fromisoformat(end) - timedelta(days=1)
        assert first_day(per, before.isoformat()) == begin
        assert first_day(per, end) == end


@pytest.mark.parametrize(
    ("per", "day", "begin", "end"),
    [
        ("day", "2024-02-28", "2024-02-28", "2024-02-29"),
        ("month", "2024-12-31", "2024-12-01", "2025-01-01"),
        ("month", "2024-02-01", "2024-02-01", "2024-03-01"),
        ("total", "2024-02-01", "", None),
    ],
)
def test_periods_by_hand(per: Per, day: str, begin: str, end: str | None) -> None:
    assert (first_day(per, day), next_start(per, day)) == (begin, end)


def test_day_of_is_in_utc() -> None:
    assert (day_of(0.0), day_of(86_399.9), day_of(86_400.0)) == (
        "1970-01-01", "1970-01-01", "1970-01-02",
    )  # fmt: skip


def test_state_follows_the_clock() -> None:
    _, key = new_key("a", Limits(expires_at=100.0))
    assert [key.state(at) for at in (99.9, 100.0)] == ["live", "expired"]
