"""How fast a key may ask: a bucket that fills evenly, of a minute's worth.

In: what a request takes, when. Out: whether it may, or how long until it might. What a request will
take in tokens is known only afterwards: an estimate is taken first, the difference later, and a
bucket that is overdrawn must fill again before the next request. Each gateway process counts for
itself. Invariant: over any span no more is let through than the span's share and one bucket, and
the last request (test_bucket_always_holds_its_rate).
"""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE_S = 60.0


class Bucket:
    """Holds at most `per_min`, and fills at that rate."""

    def __init__(self, per_min: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_min, self._clock = per_min, clock
        self._level, self._at_s = float(per_min), clock()

    def follow(self, per_min: int) -> None:
        """Go on at another rate; what was taken stays taken."""
        if per_min != self._per_min:
            level = self.level() - self._per_min + per_min
            self._per_min, self._level = per_min, level

    @property
    def per_min(self) -> int:
        return self._per_min

    def level(self) -> float:
        """What could be taken now."""
        now_s = self._clock()
        filled = max(0.0, now_s - self._at_s) * self._per_min / MINUTE_S
        self._level, self._at_s = min(float(self._per_min), self._level + filled), now_s
        return self._level

    def wait_s(self, amount: float) -> float:
        """How long until so much could be taken; a whole bucket is enough for anything."""
        lacking = min(amount, self._per_min) - self.level()
        return max(0.0, lacking) * MINUTE_S / self._per_min

    def take(self, amount: float) -> None:
        """Take, or with a negative amount give back."""
        self._level = min(float(self._per_min), self.level() - amount)

    def full_in_s(self) -> float:
        """How long until it is full again."""
        return (self._per_min - self.level()) * MINUTE_S / self._per_min
