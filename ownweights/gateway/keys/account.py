"""What each key may still do: its workloads, its budget, its rates.

In: a key and what its request seems to take; afterwards what it took. Out: a Grant, or an HttpError
as OpenAI's clients know it: 403 for a workload, 429 `insufficient_quota` for a budget that is
spent, 429 `rate_limit_exceeded` with `retry-after`. A budget holds back what answers under way seem
to cost, so that many at once overspend it by little; it is checked against this gateway's own count
and what the others wrote a moment ago. Invariants: a key whose budget is spent is refused
(test_gateway_refuses_a_key_over_its_budget), what is held back is given back whatever becomes of
the answer (test_account_gives_back_what_it_held).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ownweights.gateway.keys.key import Key, day_of, first_day, next_start
from ownweights.gateway.keys.rates import Bucket
from ownweights.gateway.keys.tally import Spent, Tally, nano_of
from ownweights.teacher.asgi import Headers, HttpError


@dataclass(slots=True)
class Grant:
    """One request that a key was let through with, until it is settled."""

    key: Key
    buckets: dict[str, Bucket]
    held_tokens: int = 0
    held_nano_usd: int = 0
    is_settled: bool = False

    def headers(self) -> Headers:
        """What is left of the key's rates, under OpenAI's names."""
        return rate_headers(self.buckets)


@dataclass(slots=True)
class _Account:
    held_nano_usd: int = 0
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])


class Accounts:
    """The accounts of all keys, in one gateway; for its event loop alone."""

    def __init__(
        self,
        tally: Tally,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally, self._clock, self._monotonic = tally, clock, monotonic
        self._accounts: dict[str, _Account] = {}

    def admit(self, key: Key, workload: str, tokens: int) -> Grant:
        """Let a request of about so many tokens through; HttpError where the key may not."""
        if key.limits.workloads and workload not in key.limits.workloads:
            raise _not_its_workload(workload)
        account = self._accounts.setdefault(key.id, _Account())
        self._check_budget(key, account)
        buckets = self._buckets(key, account)
        asked = {"requests": 1, "tokens": tokens}
        for name, bucket in buckets.items():
            if wait_s := bucket.wait_s(asked[name]):
                raise _too_fast(name, wait_s, buckets)
        for name, bucket in buckets.items():
            bucket.take(asked[name])
        return Grant(key, buckets, tokens)

    def hold(self, grant: Grant, usd: float | None) -> None:
        """Hold back what a request seems to cost; HttpError where the budget is spent by now.

        Where no price is known, a budget could not be kept: a key that has one is refused.
        """
        account = self._accounts[grant.key.id]
        if usd is None:
            if grant.key.limits.budget_usd is not None:
                raise _no_price()
            return
        self._check_budget(grant.key, account)
        grant.held_nano_usd = nano_of(usd)
        account.held_nano_usd += grant.held_nano_usd

    def settle(self, grant: Grant, spent: Spent, at: float) -> None:
        """Count what a request took; a second time changes nothing."""
        if grant.is_settled:
            return
        grant.is_settled = True
        self._accounts[grant.key.id].held_nano_usd -= grant.held_nano_usd
        if (bucket := grant.buckets.get("tokens")) is not None:
            bucket.take(spent.tokens - grant.held_tokens)
        self._tally.add(grant.key.id, day_of(at), spent)

    def _check_budget(self, key: Key, account: _Account) -> None:
        budget, per = key.limits.budget_usd, key.limits.budget_per
        if budget is None:
            return
        today = day_of(self._clock())
        spent = self._tally.nano_usd_since(key.id, first_day(per, today))
        if spent + account.held_nano_usd >= nano_of(budget):
            over = {"day": "of the day ", "month": "of the month ", "total": ""}[per]
            anew = next_start(per, today)
            what = f"the key's budget {over}is spent: {budget:g} USD"
            what += f"; it begins anew on {anew} (UTC)" if anew else ""
            raise HttpError(
                429, what, code="insufficient_quota", kind="insufficient_quota",
                headers=[(b"x-should-retry", b"false")],
            )  # fmt: skip

    def _buckets(self, key: Key, account: _Account) -> dict[str, Bucket]:
        limits = {"requests": key.limits.requests_per_min, "tokens": key.limits.tokens_per_min}
        for name, per_min in limits.items():
            if per_min is None:
                account.buckets.pop(name, None)
            elif name in account.buckets:
                account.buckets[name].follow(per_min)
            else:
                account.buckets[name] = Bucket(per_min, self._monotonic)
        return dict(account.buckets)


def rate_headers(buckets: dict[str, Bucket]) -> Headers:
    """What is left in each bucket, and when it is full again."""
    found: Headers = []
    for name, bucket in buckets.items():
        for word, value in (
            ("limit", str(bucket.per_min)),
            ("remaining", str(max(0, math.floor(bucket.level())))),
            ("reset", f"{bucket.full_in_s():.3f}s"),
        ):
            found.append((f"x-ratelimit-{word}-{name}".encode(), value.encode()))
    return found


def _not_its_workload(workload: str) -> HttpError:
    """What a key gets for a workload that is not among its own."""
    what = f"the key shown may not ask for workload {workload!r}"
    return HttpError(403, what, code="workload_not_allowed", param="x-own-workload")


def _too_fast(name: str, wait_s: float, buckets: dict[str, Bucket]) -> HttpError:
    what = f"the key's rate is reached: {buckets[name].per_min} {name} a minute"
    wait = str(max(1, math.ceil(wait_s))).encode()
    headers = [(b"retry-after", wait), *rate_headers(buckets)]
    return HttpError(429, what, code="rate_limit_exceeded", kind=name, headers=headers)


def _no_price() -> HttpError:
    what = (
        "the key has a budget, and no price of this model is known: the gateway's operator can set"
        " usd_per_mtok_in and usd_per_mtok_out of the teacher"
    )
    return HttpError(403, what, code="price_unknown")
