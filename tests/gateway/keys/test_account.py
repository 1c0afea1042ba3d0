"""Accounts: budgets under way, rates that change, and what is given back."""

from __future__ import annotations

import pytest

from ownweights.gateway.keys import Key, Limits, Spent, new_key
from ownweights.gateway.keys.account import Accounts
from ownweights.gateway.keys.tally import Tally
from ownweights.teacher.asgi import HttpError

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
DAY_S = 86_400.0


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def key_with(**limits: object) -> Key:
    return new_key("alice", Limits(**limits))[1]  # type: ignore[arg-type]


def accounts(clock: Clock | None = None) -> Accounts:
    clock = clock or Clock()
    return Accounts(Tally(), clock=clock, monotonic=clock)


def refused(do: object) -> str:
    with pytest.raises(HttpError) as caught:
        do()  # type: ignore[operator]
    return f"{caught.value.status} {caught.value.code}"


def test_account_gives_back_what_it_held() -> None:
    held, key = accounts(), key_with(budget_usd=1.0, tokens_per_min=100)
    grant = held.admit(key, "w", 60)
    held.hold(grant, 0.9)
    other = held.admit(key, "w", 0)
    held.hold(other, 0.2)
    assert refused(lambda: held.admit(key, "w", 0)) == "429 insufficient_quota"
    held.settle(grant, Spent(requests=1, tokens=0), NOON)
    held.settle(grant, Spent(requests=1, tokens=0), NOON)
    assert held.admit(key, "w", 100).headers()[1] == (b"x-ratelimit-remaining-tokens", b"0")


def test_account_refuses_to_hold_over_a_budget_spent_meanwhile() -> None:
    held, key = accounts(), key_with(budget_usd=1.0)
    first, second = held.admit(key, "w", 0), held.admit(key, "w", 0)
    held.hold(first, 1.0)
    assert refused(lambda: held.hold(second, 0.1)) == "429 insufficient_quota"
    held.settle(second, Spent(requests=1), NOON)
    held.settle(first, Spent(requests=1), NOON)
    held.hold(held.admit(key, "w", 0), 0.1)


@pytest.mark.parametrize(("per", "days"), [("day", 1), ("month", 31)])
def test_account_begins_a_period_anew(per: str, days: int) -> None:
    clock = Clock()
    held, key = accounts(clock), key_with(budget_usd=1.0, budget_per=per)
    held.settle(held.admit(key, "w", 0), Spent(requests=1, nano_usd=10**9), NOON)
    with pytest.raises(HttpError, match=r"budget of the \w+ is spent: 1 USD.*anew on 2026-0") as e:
        held.admit(key, "w", 0)
    assert e.value.code == "insufficient_quota"
    clock.at += days * DAY_S
    held.admit(key, "w", 0)


def test_account_of_a_total_budget_never_begins_anew() -> None:
    clock = Clock()
    held, key = accounts(clock), key_with(budget_usd=1.0, budget_per="total")
    held.settle(held.admit(key, "w", 0), Spent(requests=1, nano_usd=10**9), NOON)
    clock.at += 1000 * DAY_S
    with pytest.raises(HttpError, match=r"the key's budget is spent: 1 USD$"):
        held.admit(key, "w", 0)


def test_account_follows_limits_that_change() -> None:
    held, key = accounts(), key_with(requests_per_min=1)
    held.admit(key, "w", 0)
    assert refused(lambda: held.admit(key, "w", 0)) == "429 rate_limit_exceeded"
    wider = Key(key.id, key.name, key.hash, key.made_at, Limits(requests_per_min=2))
    held.admit(wider, "w", 0)
    free = Key(key.id, key.name, key.hash, key.made_at)
    assert held.admit(free, "w", 0).headers() == []


def test_account_that_refuses_takes_nothing() -> None:
    held, key = accounts(), key_with(requests_per_min=10, tokens_per_min=10)
    held.admit(key, "w", 10)
    for _ in range(5):
        assert refused(lambda: held.admit(key, "w", 5)) == "429 rate_limit_exceeded"
    again = held.admit(key, "w", 0).headers()
    assert (b"x-ratelimit-remaining-requests", b"8") in again


def test_account_without_a_price_refuses_only_a_budget() -> None:
    held = accounts()
    free, bound = key_with(), key_with(budget_usd=1.0)
    held.hold(held.admit(free, "w", 0), None)
    assert refused(lambda: held.hold(held.admit(bound, "w", 0), None)) == "403 price_unknown"
