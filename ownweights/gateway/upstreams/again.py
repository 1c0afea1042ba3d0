"""Whom to ask next when a teacher fails, and how soon the one that failed is asked again.

In: a teacher and those that may stand in for it; what became of each try. Out: the tries, in order.
Invariants: a teacher that said when to come back is not asked before, as long as another can be
(test_rests_follow_retry_after); repeats at one teacher never exceed their budget
(test_retry_budget_always_holds); where nobody else can be asked, a resting teacher is asked all the
same (test_order_asks_the_only_teacher_even_if_it_rests).
"""

from __future__ import annotations

import email.utils
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownweights.gateway.settings import Upstream
from ownweights.gateway.upstreams.client import Reply

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # statuses that may pass
FIRST_REST_S, LONGEST_REST_S = 1.0, 30.0
MOST_RETRY_AFTER_S = 3600.0
BUDGET_BURST = 10.0


def may_pass(status: int) -> bool:
    """Whether an error status may be gone at the next try."""
    return status in PASSING


def retry_after_s(reply: Reply, now_s: float | None = None) -> float | None:
    """How long the upstream asks to wait; None where it does not say.

    Source: RFC 9110 section 10.2.3; `retry-after-ms` is OpenAI's and Azure's.
    """
    try:
        return _bounded(float(reply.header(b"retry-after-ms")) / 1000)
    except ValueError:
        pass
    said = reply.header(b"retry-after").strip()
    try:
        return _bounded(float(said))
    except ValueError:
        pass
    try:
        at_s = email.utils.parsedate_to_datetime(said).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return _bounded(at_s - (time.time() if now_s is None else now_s))


def _bounded(seconds: float) -> float | None:
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MOST_RETRY_AFTER_S)


@dataclass(slots=True)
class _Rest:
    until_s: float = 0.0
    failures: int = 0


class Rests:
    """Which teachers rest after a failure, and until when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}

    def failed(self, name: str, wait_s: float | None = None) -> None:
        """A teacher failed: let it rest as long as it asks, else longer each time."""
        rest = self._rests.setdefault(name, _Rest())
        rest.failures += 1
        backoff_s = min(FIRST_REST_S * 2 ** min(rest.failures - 1, 10), LONGEST_REST_S)
        rest.until_s = self._clock() + (backoff_s if wait_s is None else wait_s)

    def worked(self, name: str) -> None:
        """A teacher answered."""
        self._rests.pop(name, None)

    def left_s(self, name: str) -> float:
        """How long a teacher still rests."""
        rest = self._rests.get(name)
        return 0.0 if rest is None else max(0.0, rest.until_s - self._clock())

    def order(self, candidates: Sequence[Upstream]) -> list[Upstream]:
        """Those awake first, each group in its given order; the resting by when they wake."""
        return sorted(candidates, key=lambda one: self.left_s(one.name))


class Tries:
    """How often a teacher was asked again, and how often in the place of another."""

    def __init__(self) -> None:
        self.retries: Counter[str] = Counter()
        self.failovers: Counter[str] = Counter()

    def note(self, name: str, *, before: str, first: str) -> None:
        """A teacher is asked; `before` is who was asked for this request just before, if anyone,
        `first` the one whose turn it is by rights."""
        if name != (before or first):
            self.failovers[name] += 1
        elif before:
            self.retries[name] += 1


class RetryBudget:
    """Repeats at one teacher: a share of all requests, with a small burst."""

    def __init__(self, frac: float) -> None:
        self._frac = frac
        self._left = BUDGET_BURST if frac > 0 else 0.0

    def follow(self, frac: float) -> None:
        """Go on with another share."""
        if self._frac == 0 < frac:
            self._left = BUDGET_BURST
        self._frac, self._left = frac, self._left if frac > 0 else 0.0

    def asked(self) -> None:
        """A request came: it earns its share of a repeat."""
        self._left = min(self._left + self._frac, BUDGET_BURST)

    def take(self) -> bool:
        """Whether one more repeat is within the budget; it is spent then."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
