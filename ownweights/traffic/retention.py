"""How long records are kept: bodies and rows apart.

In: a store, the time, and how many days (or until which day) bodies and rows stay. Out: rows
without bodies, which stay in lists and statistics and say so; rows gone; segments without what
went. Feedback goes with what it is about, and by its own age: words as bodies do, the rest as rows.
The command and the gateway call the same `prune`. What is in a dataset stays there: a dataset
is made to last (`own traffic delete` erases from it too).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownweights.core.database import Database
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.compact import compact
from ownweights.traffic.bodies.segment import Place
from ownweights.traffic.encode import parts_of
from ownweights.traffic.feedback import forget_before, forget_of_records
from ownweights.traffic.part import free_unused
from ownweights.traffic.remove import PAGE_ROWS, drop_bodies, remove_rows
from ownweights.traffic.store import TrafficStore

DAY_S = 86_400.0

Progress = Callable[[float, float | None, str], object]


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Rows that went whole, rows that lost their bodies, and what that freed on disk. `is_clean` is
    false while another process keeps the index's log from being emptied."""

    records: int
    bodies: int
    segments: int = 0
    freed_bytes: int = 0
    unreadable: tuple[str, ...] = ()
    is_clean: bool = True


def prune(
    store: TrafficStore,
    now: float,
    *,
    keep_bodies_days: float | None = None,
    keep_metadata_days: float | None = None,
    bodies_before: float | None = None,
    before: float | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> PruneReport:
    """Take out what is older than it may be; None or 0 days is for ever.

    Raises: StoreError when the disk is full or the index cannot be written
    """
    rows_until = _cutoff(now, keep_metadata_days, before)
    bodies_until = _cutoff(now, keep_bodies_days, bodies_before)
    database = store.database
    rows = _older(database, rows_until, has_bodies=False)
    gone = set(rows)
    bodies = [s for s in _older(database, bodies_until, has_bodies=True) if s not in gone]
    if dry_run:
        return PruneReport(len(rows), len(bodies))
    database.overwrite_deleted()
    num_rows = take_out(store, rows, on_progress)
    num_bodies = take_out(store, bodies, on_progress, keep_rows_at=now)
    said = forget_before(database, rows_until, bodies_until)
    return settle(store, num_rows, num_bodies, is_changed=said > 0)


def take_out(
    store: TrafficStore,
    seqs: Sequence[int],
    on_progress: Progress | None = None,
    *,
    keep_rows_at: float | None = None,
) -> int:
    """Take records out, or their bodies alone where `keep_rows_at` says when; how many went."""
    database, taken = store.database, 0
    with contextlib.closing(_PartFinder(store)) as finder:
        for start in range(0, len(seqs), PAGE_ROWS):
            page = seqs[start : start + PAGE_ROWS]
            with database.transaction():
                parts = finder.parts(page)
                forget_of_records(database, page, words_alone=keep_rows_at is not None)
                if keep_rows_at is None:
                    taken += remove_rows(database, page, parts)
                else:
                    taken += drop_bodies(database, page, parts, now=keep_rows_at)
            if on_progress is not None:
                on_progress(start + len(page), len(seqs), "rows")
    return taken


def settle(
    store: TrafficStore, num_rows: int, num_bodies: int, *, rewrite: bool = False,
    is_changed: bool = False,
) -> PruneReport:  # fmt: skip
    """Free what went: unused shared texts, dead weight in segments, the log of the index."""
    with store.database.transaction():
        free_unused(store.database)
    found = compact(store.database, store.shelf)
    store.move_bodies()
    is_clean = True
    if num_rows or num_bodies or found.segments or rewrite or is_changed:
        is_clean = store.database.forget_deleted(rewrite=rewrite)
    return PruneReport(
        num_rows, num_bodies, found.segments, found.freed_bytes, found.unreadable, is_clean
    )


def _cutoff(now: float, keep_days: float | None, given: float | None) -> float:
    """Until which moment things go; the later one, where both are said."""
    moments = [given] if given is not None else []
    if keep_days:
        moments.append(now - keep_days * DAY_S)
    return max(moments, default=0.0)


def _older(database: Database, until: float, *, has_bodies: bool) -> list[int]:
    """The rows before a moment, in order, found through their tallies."""
    some, these = ("AND pruned < records", "AND pruned_at IS NULL") if has_bodies else ("", "")
    rows = database.query(
        f"SELECT seq FROM record WHERE tally_id IN (SELECT id FROM tally WHERE first_at < ? {some})"
        f" AND at < ? {these} ORDER BY seq",
        (until, until),
    )
    return [seq for (seq,) in rows]


class _PartFinder:
    """Finds the shared parts that rows need."""

    def __init__(self, store: TrafficStore) -> None:
        self._database = store.database
        self._reader = store.shelf.reader()
        self._segments = store.shelf.sizes()

    def parts(self, seqs: Sequence[int]) -> dict[int, set[str]]:
        """The parts that each row needs; of a lost body nobody knows.

        Raises: StoreError for a body that is there, and cannot be read now
        """
        marks = ",".join("?" * len(seqs))
        parts: dict[int, set[str]] = {}
        for seq, *place in self._database.query(
            "SELECT seq, name, offset_bytes, item FROM record"
            f" JOIN segment ON segment.id = segment WHERE pruned_at IS NULL AND seq IN ({marks})"
            " ORDER BY seq",
            seqs,
        ):
            with contextlib.suppress(ValueError, LookupError, TypeError):
                try:
                    parts[seq] = parts_of(self._reader.read(Place(*place)))
                except StoreError as error:
                    if not error.is_row and place[0] in self._segments:
                        raise
        return parts

    def close(self) -> None:
        self._reader.close()
