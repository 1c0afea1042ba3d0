"""How many records need each shared part, so that one that nobody needs can go.

In: the parts of records that come and go, inside the transaction that does so. Out: `part.uses`.
A count that is not known (the part is older than the counts) stays unknown until all bodies were
read once (`recount_uses`), and a part of unknown use is never taken out
(test_parts_of_an_older_store_stay_until_counted).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ownweights.core.database import Database


def count_uses(database: Database, needed: Iterable[Iterable[str]], *, sign: int = 1) -> None:
    """Count the parts that each of some records needs up (or, with sign -1, down)."""
    uses = Counter(digest for parts in needed for digest in set(parts))
    database.execute_many(
        "UPDATE part SET uses = uses + ? WHERE hash = ?",
        [(sign * count, digest) for digest, count in sorted(uses.items())],
    )


def known_uses(database: Database) -> tuple[dict[str, int | None], int]:
    """Uses by part, and the last row that they count."""
    rows = database.query("SELECT hash, uses, (SELECT max(seq) FROM record) FROM part")
    return {digest: uses for digest, uses, _ in rows}, (rows[0][2] or 0) if rows else 0


def wrong_uses(
    database: Database, before: Mapping[str, int | None], found: Mapping[str, int]
) -> list[str]:
    """The parts whose count is known, was not touched since `before`, and is not what was found."""
    now, _ = known_uses(database)
    return sorted(
        digest
        for digest, uses in before.items()
        if uses is not None and now.get(digest) == uses and uses != found.get(digest, 0)
    )


def recount_uses(
    database: Database, before: Mapping[str, int | None], found: Mapping[str, int]
) -> None:
    """Put right what reading every body up to `before` found, in a transaction of the caller's."""
    database.execute_many(
        "UPDATE part SET uses = coalesce(uses, 0) + ? WHERE hash = ?",
        [(found.get(digest, 0) - (uses or 0), digest) for digest, uses in before.items()],
    )


def free_unused(database: Database) -> int:
    """Take out the parts that nobody needs; how many. Their segments hold that much dead weight."""
    unused = "uses IS NOT NULL AND uses <= 0"
    database.execute(
        "UPDATE segment SET dead = dead + (SELECT count(*) FROM part"
        f" WHERE part.segment = segment.id AND {unused})"
        f" WHERE id IN (SELECT segment FROM part WHERE {unused})"
    )
    return database.execute(f"DELETE FROM part WHERE {unused}")
