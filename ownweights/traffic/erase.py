"""The records of one user, one session, or by name: found, and erased from the store.

In: whose. Out: their records, so that datasets can be searched for them, and then nothing of them
in the store: rows, bodies, tallies, feedback, log (test_erase_leaves_no_byte_behind). Datasets,
students and certificates are others' (the command goes through them first, so that an erasure that
was cut off finds what is left when it is run again).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.database import Database
from ownweights.core.errors import UsageError
from ownweights.core.project import Project
from ownweights.traffic.feedback import forget_session
from ownweights.traffic.record import Record
from ownweights.traffic.redact import KINDS, Privacy, PrivacyRules
from ownweights.traffic.redact.placeholder import KEY_NAME, Placeholders
from ownweights.traffic.retention import Progress, PruneReport, settle, take_out
from ownweights.traffic.store import TrafficStore


@dataclass(frozen=True, slots=True)
class Whose:
    """Which records are to be erased: all of a user, all of a session, or those with these ids.

    `masked` are spellings of the user's or session's name that stand in the store in its place.
    """

    user: str | None = None
    session: str | None = None
    ids: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The user or the session in every spelling; none where ids are given."""
        named = self.user if self.user is not None else self.session
        return () if named is None else (named, *self.masked)

    def __post_init__(self) -> None:
        given = [self.user is not None, self.session is not None, bool(self.ids)]
        if sum(given) != 1:
            raise UsageError(
                "say whose records are erased: one of a user, a session, or ids",
                hint="own traffic delete --user NAME, --session NAME or --id ID",
            )


@dataclass(frozen=True, slots=True)
class Found:
    """One record to be erased: its number, its id, its workload, and the name datasets know it
    by."""

    seq: int
    id: str
    workload: str
    name: str


def masked_names(project: Project, name: str) -> tuple[str, ...]:
    """What masking may have put in the place of a name, whatever the rules were: placeholders for
    all of it, and it with placeholders in it; none where nothing was ever masked.

    Raises: StoreError when the key for placeholders cannot be read
    """
    if not (project.store_dir / KEY_NAME).exists():
        return ()
    placeholders = Placeholders(project)
    found = {placeholders.of(kind, name): None for kind in KINDS}
    found[Privacy(project, PrivacyRules(redact=("all",))).text(name)] = None
    return tuple(one for one in found if one != name)


def find(database: Database, whose: Whose) -> list[Found]:
    """The records to erase, oldest first.

    Raises: UsageError for an id that no record has
    """
    columns = "SELECT seq, id, workload, origin FROM record WHERE"
    if whose.ids:
        rows = [row for one in whose.ids for row in _by_id(database, columns, one)]
    else:
        column = "end_user" if whose.user is not None else "session"
        marks = ",".join("?" * len(whose.names))
        rows = database.query(f"{columns} {column} IN ({marks})", whose.names)
    return [Found(*row) for row in sorted(set(rows))]


def bodies_of(store: TrafficStore, found: Sequence[Found]) -> Iterator[tuple[Found, Record | None]]:
    """Each record to be erased, with its bodies where they are here."""
    for one in found:
        yield one, store.get(one.id)


def erase(store: TrafficStore, whose: Whose, on_progress: Progress | None = None) -> PruneReport:
    """Erase the records from the store, with those that came in while it ran.

    Raises: StoreError when the disk is full or the index cannot be written
    """
    store.database.overwrite_deleted()
    taken, ids = 0, whose.ids
    while found := _left(store.database, whose, ids):
        taken += take_out(store, [one.seq for one in found], on_progress)
        ids = ()
    if whose.session is not None:
        for name in whose.names:
            forget_session(store.database, name)
    if taken:
        store.database.log_event("traffic.erased", "records", f"{taken} records were erased")
    return settle(store, taken, 0, rewrite=True)


def _left(database: Database, whose: Whose, ids: Sequence[str]) -> list[Found]:
    if whose.ids and not ids:
        return []
    return find(database, whose)


def _by_id(database: Database, columns: str, record_id: str) -> list[tuple[Any, ...]]:
    rows = database.query(f"{columns} id = ?", (record_id,))
    if not rows:
        raise UsageError(
            f"there is no record {record_id!r}", hint="own traffic list prints whole ids"
        )
    return rows
