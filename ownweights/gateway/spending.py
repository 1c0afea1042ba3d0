"""What an exchange spends of its caller's key: guessed before, counted after.

In: exchanges. Out: refusals, and what was spent. An answer's own count is taken where it has one.
Where it has none (a stream that was not asked for it, an answer that broke off), characters over
`CHARS_PER_TOKEN` stand for tokens, and what they cost is counted as estimated: budgets hold, and
the record stays without a guess. An answer that broke off costs its count or the estimate,
whichever is more. Nothing is spent where a student answered, or the teacher refused, was never
reached, or could not be asked this. Invariants: spend that is estimated is marked
(test_gateway_estimates_what_a_stream_does_not_say); what the teacher counts is not estimated, also
where a student failed before (test_gateway_counts_what_the_teacher_says_after_a_student_failed).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ownweights.gateway.exchange import Exchange
from ownweights.gateway.keys.account import Accounts
from ownweights.gateway.keys.tally import Spent, nano_of
from ownweights.gateway.settings import Upstream
from ownweights.teacher.asgi import HttpError
from ownweights.teacher.prices import CHARS_PER_TOKEN, Billed, billed_of
from ownweights.traffic.record import usage_of

_WORKED = ("teacher_timeout", "teacher_garbled")  # errors after which a teacher may bill
_MOST_OUT = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_TIMES = ("n", "best_of")  # answers of that length
_ANSWERS = ("choices", "content", "output")


class Spending:
    """Lets exchanges through, and counts what they spent."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def admit(self, exchange: Exchange) -> None:
        """Let an exchange through whose workload is known; HttpError where its key may not."""
        key = exchange.caller.key
        if key is None:
            return
        limits = key.limits
        is_counted = limits.tokens_per_min is not None or limits.budget_usd is not None
        tokens = _tokens(exchange.body) if is_counted else 0
        with _unrecorded_if_refused(exchange):
            exchange.grant = self._accounts.admit(key, exchange.workload or "", tokens)

    def check(self, exchange: Exchange, upstream: Upstream) -> None:
        """HttpError unless an exchange may go to this teacher."""
        if exchange.caller.key is None and not upstream.key_env:
            return
        with _unrecorded_if_refused(exchange):
            if (refusal := exchange.caller.refusal(upstream)) is not None:
                raise refusal
            if exchange.grant is not None:
                self._accounts.hold(exchange.grant, _guessed_usd(exchange, upstream))

    def settle(self, exchange: Exchange) -> None:
        """Count an exchange that is over."""
        if exchange.grant is not None:
            self._accounts.settle(exchange.grant, spent_of(exchange), exchange.at)


@contextlib.contextmanager
def _unrecorded_if_refused(exchange: Exchange) -> Iterator[None]:
    """Whoever may not ask cannot fill the store either."""
    try:
        yield
    except HttpError:
        exchange.is_stored = False
        raise


def may_go(exchange: Exchange, upstream: Upstream) -> bool:
    """Whether an exchange may go to a teacher: on whose account, and at a price that is known."""
    caller = exchange.caller
    if caller.refusal(upstream) is not None:
        return False
    has_budget = caller.key is not None and caller.key.limits.budget_usd is not None
    return not has_budget or upstream.prices(upstream.model or exchange.model) is not None


def spent_of(exchange: Exchange) -> Spent:
    """What an exchange spent."""
    upstream, error = exchange.asked, exchange.error
    is_refused = exchange.http_status >= 400 and error not in _WORKED
    if exchange.served_by == "student" or upstream is None or is_refused:
        return Spent(requests=1, tokens=usage_of(exchange.response).total_tokens)
    billed, cost = billed_of(exchange.response), exchange.cost_usd()
    counted = billed.total if billed else 0
    is_whole = error is None or error.startswith("student_")  # the teacher answered then
    if is_whole and billed is not None:
        is_unpriced = cost is None
        return Spent(1, int(is_unpriced), counted, 0 if cost is None else nano_of(cost))
    guessed = Billed(fresh=_tokens(exchange.body), written=_answer_tokens(exchange.response))
    tokens = max(counted, guessed.total)
    prices = upstream.prices(upstream.model or exchange.model)
    if prices is None:
        return Spent(1, 1, tokens)
    certain = 0 if cost is None else nano_of(cost)
    nano = max(certain, nano_of(prices.cost(guessed)))
    return Spent(1, 0, tokens, nano, nano - certain)


def _guessed_usd(exchange: Exchange, upstream: Upstream) -> float | None:
    """What a request seems to cost, at most where it says how long its answer may be."""
    prices = upstream.prices(upstream.model or exchange.model)
    if prices is None:
        return None
    most, times = _most(exchange.body, _MOST_OUT), _most(exchange.body, _TIMES)
    return prices.usd(_tokens(exchange.body), most * max(1, times))


def _most(body: dict[str, Any], names: tuple[str, ...]) -> int:
    """The largest count that a request gives under any of these names; 0 where it gives none."""
    asked = [body.get(name) for name in names]
    counts = [one for one in asked if isinstance(one, int) and not isinstance(one, bool)]
    return max(0, min(max(counts, default=0), 2**31))


def _tokens(body: Any) -> int:
    return round(text_chars(body) / CHARS_PER_TOKEN)


def _answer_tokens(response: dict[str, Any] | None) -> int:
    return sum(_tokens(response.get(name)) for name in _ANSWERS) if response else 0


def text_chars(value: Any) -> int:
    """The characters of all text in a JSON value, names too; images and files in it are none."""
    chars, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            chars += 0 if one.startswith("data:") else len(one)
        elif isinstance(one, dict):
            chars += sum(map(len, one))
            is_file = "data" in one and ("media_type" in one or "format" in one)
            left += [v for k, v in one.items() if not (is_file and k == "data")]
        elif isinstance(one, list):
            left += one
    return chars
