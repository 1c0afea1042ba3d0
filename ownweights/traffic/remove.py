"""Rows that go, and bodies that go while their rows stay, with everything that counted them.

In: sequence numbers of records, and which shared parts each needs; inside a transaction of the
caller's. Out: rows gone (or marked), tallies, part counts and the dead weight of segments as if the
records had never been there. The bytes themselves go when their segments are written anew
(`compact`). The mark of a row without bodies is `pruned_at`, and its segment is the one named ''.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ownweights.core.database import Database
from ownweights.traffic.part import count_uses
from ownweights.traffic.tally import FACT_COLUMNS, Facts, remove_tallies, tally_pruned

NO_SEGMENT = ""
_KEY = [name.strip() for name in FACT_COLUMNS.split(",")].index("key_id")
PAGE_ROWS = 500  # of one transaction: short, for others wait

Parts = Mapping[int, Iterable[str]]


def remove_rows(database: Database, seqs: Sequence[int], parts: Parts) -> int:
    """Take rows out; how many were still there."""
    rows = _rows(database, seqs)
    marks = ",".join("?" * len(rows))
    database.execute(f"DELETE FROM record WHERE seq IN ({marks})", [row[0] for row in rows])
    remove_tallies(database, [(row[1], Facts(*row[3:])) for row in rows if row[1] is not None])
    here = [row for row in rows if row[-1] is None]
    count_uses(database, [parts.get(row[0], ()) for row in here], sign=-1)
    add_dead(database, [row[2] for row in here])
    return len(rows)


def drop_bodies(database: Database, seqs: Sequence[int], parts: Parts, *, now: float) -> int:
    """Mark rows as without bodies; how many had theirs until now."""
    rows = [row for row in _rows(database, seqs) if row[-1] is None]
    database.execute(
        "INSERT INTO segment (name, opened_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (NO_SEGMENT, now),
    )
    database.execute_many(
        "UPDATE record SET pruned_at = ?, offset_bytes = 0, item = 0,"
        " segment = (SELECT id FROM segment WHERE name = ?) WHERE seq = ?",
        [(now, NO_SEGMENT, row[0]) for row in rows],
    )
    tally_pruned(database, [(row[1], row[3 + _KEY]) for row in rows if row[1] is not None])
    count_uses(database, [parts.get(row[0], ()) for row in rows], sign=-1)
    add_dead(database, [row[2] for row in rows])
    return len(rows)


def _rows(database: Database, seqs: Sequence[int]) -> list[tuple[Any, ...]]:
    """(seq, tally, segment, and the values of FACT_COLUMNS) of those that are there."""
    marks = ",".join("?" * len(seqs))
    return database.query(
        f"SELECT seq, tally_id, segment, {FACT_COLUMNS} FROM record WHERE seq IN ({marks})"
        " ORDER BY seq",
        seqs,
    )


def add_dead(database: Database, segments: Iterable[Any]) -> None:
    """Count one more item that no row refers to in each of the segments."""
    database.execute_many(
        "UPDATE segment SET dead = dead + ? WHERE id = ?",
        [(count, segment) for segment, count in Counter(segments).items()],
    )
