"""How many records need each shared part, so that one that nobody needs can go.

In: the parts of records that come and go, inside the transaction that does so. Out: `part.uses`.
A count that is not known (the part is older than the counts) stays unknown until all bodies were
read once (`UseCount`), and a part of unknown use is never taken out
(test_parts_of_an_older_store_stay_until_counted). Counting anew beside writers and pruners never
makes a count too small (test_repair_beside_others_keeps_what_is_needed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ownweights.core.database import Database


def count_uses(database: Database, needed: Iterable[Iterable[str]], *, sign: int = 1) -> None:
    """Count the parts that each of some records needs up (or, with sign -1, down)."""
    uses = Counter(digest for parts in needed for digest in set(parts))
    database.execute_many(
        "UPDATE part SET uses = uses + ? WHERE hash = ?",
        [(sign * count, digest) for digest, count in sorted(uses.items())],
    )


class UseCount:
    """Counts the uses of every part anew, from bodies that are read while records come and go.

    What comes meanwhile has a higher number and counts itself. What goes before it is read is
    missed: then nothing is whole, and nothing may be said or mended.
    """

    def __init__(self, database: Database, *, is_repair: bool = False) -> None:
        self._database = database
        self._unknown = _bound_unknown(database) if is_repair else frozenset[str]()
        rows = database.query(
            "SELECT hash, uses, (SELECT max(seq) FROM record),"
            " (SELECT count(*) FROM record WHERE pruned_at IS NULL) FROM part"
        )
        self._before: dict[str, int | None] = {digest: uses for digest, uses, *_ in rows}
        self._last, self._left = (rows[0][2] or 0, rows[0][3]) if rows else (0, 0)
        self._found: Counter[str] = Counter()

    def add(self, seq: int, parts: Iterable[str]) -> None:
        """Count a record whose body was read."""
        if seq <= self._last:
            self._found.update(set(parts))
            self._left -= 1

    def is_whole(self, lost: int = 0) -> bool:
        """Whether every record was counted that there was at the beginning, but for `lost` ones."""
        return self._left == lost

    def wrong(self) -> list[str]:
        """The parts whose count was known, was not touched since, and is not what was found."""
        now = dict(self._database.query("SELECT hash, uses FROM part"))
        return sorted(
            digest
            for digest, uses in self._before.items()
            if uses is not None and digest not in self._unknown
            and now.get(digest) == uses and uses != self._found[digest]
        )  # fmt: skip

    def mend(self) -> None:
        """Put right what was found, in a transaction of the caller's; none may be unknown."""
        self._database.execute_many(
            "UPDATE part SET uses = uses + ? WHERE hash = ?",
            [(self._found[digest] - (uses or 0), digest) for digest, uses in self._before.items()],
        )


def _bound_unknown(database: Database) -> frozenset[str]:
    """Give the parts of unknown use as many as there are records, surely not too few, so that from
    now on they are counted along; which those are."""
    with database.transaction():
        rows = database.query("SELECT hash FROM part WHERE uses IS NULL")
        database.execute("UPDATE part SET uses = (SELECT count(*) FROM record) WHERE uses IS NULL")
    return frozenset(digest for (digest,) in rows)


def free_unused(database: Database) -> int:
    """Take out the parts that nobody needs; how many. Their segments hold that much dead weight."""
    unused = "uses IS NOT NULL AND uses <= 0"
    database.execute(
        "UPDATE segment SET dead = dead + (SELECT count(*) FROM part"
        f" WHERE part.segment = segment.id AND {unused})"
        f" WHERE id IN (SELECT segment FROM part WHERE {unused})"
    )
    return database.execute(f"DELETE FROM part WHERE {unused}")
