"""What each key spent: counted here, written down behind the answers, added up over gateways.

Every gateway process counts in rows of its own, and writes each row whole: not "three more", but
"twelve so far". A write that is repeated, or of which nobody knows whether it came through, thus
changes nothing, and the sum over all rows is what was spent.

    here       what this process counted, by key and day
    elsewhere  what the others wrote, as last read; their rows only grow

Invariant: whatever fails and in whatever order, nothing written is lost or counted twice
(test_spend_is_never_lost_or_doubled). Dollars are whole billionths, so that sums are exact.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

NANO = 10**9
Place = tuple[str, str]  # key id, day


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over answers. Of `nano_usd`, `estimated_nano_usd` is estimated; `unpriced` answers are
    in neither, because no price is known."""

    requests: int = 0
    unpriced: int = 0
    tokens: int = 0
    nano_usd: int = 0
    estimated_nano_usd: int = 0

    def __add__(self, other: Spent) -> Spent:
        names = [one.name for one in fields(Spent)]
        return Spent(*(getattr(self, one) + getattr(other, one) for one in names))

    @property
    def usd(self) -> float:
        return self.nano_usd / NANO

    @property
    def estimated_frac(self) -> float:
        """Which share of the dollars is estimated."""
        return self.estimated_nano_usd / self.nano_usd if self.nano_usd else 0.0


def nano_of(usd: float) -> int:
    """Dollars in whole billionths, rounded up, so that nothing that costs is free."""
    return math.ceil(round(usd * NANO, 3))


class Tally:
    """Counts in memory, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: dict[str, dict[str, Spent]] = {}
        self._elsewhere: dict[str, dict[str, Spent]] = {}
        self._unwritten: set[Place] = set()

    def add(self, key_id: str, day: str, spent: Spent) -> None:
        """Count what one answer spent."""
        with self._lock:
            days = self._here.setdefault(key_id, {})
            days[day] = days.get(day, Spent()) + spent
            self._unwritten.add((key_id, day))

    def unwritten(self) -> dict[Place, Spent]:
        """The rows that the table does not have yet, each as it stands now."""
        with self._lock:
            return {(key_id, day): self._here[key_id][day] for key_id, day in self._unwritten}

    def wrote(self, rows: Mapping[Place, Spent]) -> None:
        """These rows are in the table; what was counted since is not."""
        with self._lock:
            self._unwritten -= {
                (key_id, day) for (key_id, day), row in rows.items()
                if self._here[key_id][day] == row
            }  # fmt: skip

    def learn(self, rows: Iterable[tuple[str, str, Spent]]) -> None:
        """Take what the others wrote."""
        with self._lock:
            for key_id, day, spent in rows:
                self._elsewhere.setdefault(key_id, {})[day] = spent

    def nano_usd_since(self, key_id: str, first_day: str) -> int:
        """What a key spent from a day on, here and elsewhere."""
        with self._lock:
            return sum(
                spent.nano_usd
                for held in (self._here, self._elsewhere)
                for day, spent in held.get(key_id, {}).items()
                if day >= first_day
            )
