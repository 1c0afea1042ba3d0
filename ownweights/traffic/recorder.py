"""Recording that never blocks or breaks an answer: a bounded queue and one writing thread.

In: Records offered by the gateway. Out: rows in the store after 10 ms or 256 records, whichever
comes first. `offer` neither waits nor raises; what does not fit in the queue is counted as lost
(test_offer_counts_what_does_not_fit). When the store cannot be written, the queue is the time that
is left to mend it: batches are tried again until it can (test_recorder_tries_again_after_an_error),
and what is left at the end is counted as lost. An index that was deleted or replaced is not written
to any longer; what takes its place is (test_recorder_goes_on_when_the_index_is_deleted). What fails
and what is lost is logged, in numbers and never with content
(test_recorder_says_when_storing_fails_and_works_again). Redaction comes before the store, on the
writing thread: a record for which it fails is lost, never stored as it is
(test_recorder_loses_what_cannot_be_redacted).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ownweights.core.database import is_row_refused
from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic.record import Record
from ownweights.traffic.redact.privacy import Privacy
from ownweights.traffic.store import BATCH_ROWS, BatchResult, TrafficStore

MAX_QUEUE_RECORDS = 8192
MAX_QUEUE_BYTES = 32 * 2**20  # of requests and answers as they passed
BATCH_BYTES = 2 * 2**20
BATCH_S = 0.01
RETRY_S = 0.5
SAY_EVERY_S = 60.0  # how often a fault that lasts is logged again
PACE_FROM = 0.25  # of the queue
MOST_PACE_S = 1.0
STALLED_S = 1.0  # a store that took nothing for so long does not take more when requests wait
STORE_TIMEOUT_S = 2.0  # for the write lock: short, so that close() can keep its own time-out

log = logging.getLogger("ownweights.traffic")

OpenStore = Callable[[Project], TrafficStore]


@dataclass(frozen=True, slots=True)
class _Offered:
    """What waits to be stored, and since when."""

    record: Record
    num_bytes: int
    at_s: float


@dataclass(frozen=True, slots=True)
class RecorderCounts:
    """What happened to the records offered: offered = recorded + waiting + lost.

    `fault` says why nothing can be stored now; it is empty while storing works.
    """

    offered: int
    recorded: int
    waiting: int
    lost: int
    failures: int
    last_error: str
    fault: str


class Recorder:
    """Stores records behind the caller's back; `offer` from any thread, `close` once at the end."""

    def __init__(
        self,
        project: Project,
        *,
        max_queue_records: int = MAX_QUEUE_RECORDS,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        batch_s: float = BATCH_S,
        retry_s: float = RETRY_S,
        open_store: OpenStore | None = None,
        privacy: Privacy | None = None,
        on_wait: Callable[[float], None] = lambda wait_s: None,
    ) -> None:
        """`privacy` says what is stored of which workload; by default all, with keys masked."""
        self._project = project
        self._privacy = privacy or Privacy(project)
        self._max_queue_records = max_queue_records
        self._max_queue_bytes = max_queue_bytes
        self._batch_s = batch_s
        self._retry_s = retry_s
        self._open_store = open_store or _open_store
        self._on_wait = on_wait  # told how long the oldest record of a batch waited to be stored
        self._store: TrafficStore | None = None
        self._opened: tuple[int, int] | None = None
        self._queue: deque[_Offered] = deque()
        self._queue_bytes = 0
        self._stored_at = float("-inf")  # when a batch was last stored
        self._changed = threading.Condition()
        self._is_closing = False
        self._give_up_at = float("inf")
        self._oldest_at = 0.0  # when the oldest of the batch in hand was offered
        self._offered = self._recorded = self._lost = self._failures = self._in_hand = 0
        self._last_error = self._fault = ""
        self._lost_for = "the queue is full"  # why the last one was lost, in words without content
        self._said_s, self._said_lost, self._is_told = float("-inf"), 0, False
        self._thread = threading.Thread(target=self._run, name="own-recorder", daemon=True)
        self._thread.start()

    def offer(self, record: Record, *, num_bytes: int = 0) -> bool:
        """Take a record of so many bytes for storing; false, and counted as lost, when there is no
        room.

        One of a workload that is not recorded is let go, and not counted.
        """
        # whatever is offered, this does not raise; what is no record is lost where it is stored
        if not self._privacy.is_recorded(getattr(record, "workload", "")):
            return True
        with self._changed:
            self._offered += 1
            if self._is_closing or not self.has_room():
                self._lost += 1
                return False
            had_batch = self._has_batch()
            self._queue.append(_Offered(record, num_bytes, time.monotonic()))
            self._queue_bytes += num_bytes
            if len(self._queue) == 1 or (not had_batch and self._has_batch()):
                self._changed.notify_all()
            return True

    def follow(self, privacy: Privacy) -> None:
        """Go on by other rules of privacy, from the next record on."""
        self._privacy = privacy

    def has_room(self) -> bool:
        """Whether a record that is offered now would be taken."""
        has_slot = len(self._queue) < self._max_queue_records
        return has_slot and self._queue_bytes < self._max_queue_bytes

    def pace_s(self) -> float:
        """How long to hold a request back, so that storing, which shares the processor with
        answering, is not overrun: longer the more waits, up to `MOST_PACE_S`.

        Nothing while little waits, and while nothing can be stored: that would not help.
        """
        fill = max(
            len(self._queue) / self._max_queue_records, self._queue_bytes / self._max_queue_bytes
        )
        if fill <= PACE_FROM or time.monotonic() - self._stored_at > STALLED_S:
            return 0.0
        return MOST_PACE_S * (fill - PACE_FROM) / (1 - PACE_FROM)

    def counts(self) -> RecorderCounts:
        """What happened so far."""
        with self._changed:
            return RecorderCounts(
                self._offered,
                self._recorded,
                len(self._queue) + self._in_hand,
                self._lost,
                self._failures,
                self._last_error,
                self._fault,
            )

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything offered so far is stored or lost; false when time ran out."""
        with self._changed:
            target = self._offered
            return self._changed.wait_for(
                lambda: self._recorded + self._lost >= target, timeout=timeout_s
            )

    def close(self, timeout_s: float = 5.0) -> RecorderCounts:
        """Store what is waiting, for at most `timeout_s`, and end; may be called twice."""
        with self._changed:
            self._is_closing = True
            self._give_up_at = min(self._give_up_at, time.monotonic() + timeout_s)
            self._changed.notify_all()
        self._thread.join(timeout_s + 2 * STORE_TIMEOUT_S)
        counts = self.counts()
        missing = counts.lost + counts.waiting
        if missing and not self._is_told:
            self._is_told = True
            log.error("%d requests were answered but not recorded: %s",
                      missing, counts.fault or self._lost_for)  # fmt: skip
        return counts

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._store_batch(batch)
                self._on_wait(time.monotonic() - self._oldest_at)
        finally:
            if self._store is not None:
                self._store.close()

    def _next_batch(self) -> list[Record]:
        """The next records, once the batch is full or old enough; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if not self._is_closing:
                self._changed.wait_for(lambda: self._has_batch() or self._is_closing, self._batch_s)
            batch: list[_Offered] = []
            num_bytes = 0
            while self._queue and len(batch) < BATCH_ROWS and num_bytes < BATCH_BYTES:
                batch.append(self._queue.popleft())
                num_bytes += batch[-1].num_bytes
            self._queue_bytes -= num_bytes
            self._in_hand = len(batch)
            self._oldest_at = batch[0].at_s if batch else 0.0
            return [one.record for one in batch]

    def _has_batch(self) -> bool:
        return len(self._queue) >= BATCH_ROWS or self._queue_bytes >= BATCH_BYTES

    def _store_batch(self, batch: list[Record]) -> None:
        """Store a batch, trying again until it works or the recorder is told to give up."""
        is_redacted = False
        while True:
            try:
                if not is_redacted:
                    batch, is_redacted = self._redacted(batch), True
                self._count(batch, self._current_store().add_batch(batch))
                self._stored_at = time.monotonic()
                self._say("")
                return
            except Exception as error:  # nothing may end this thread while there is traffic
                self._note(error)
                self._say(_without_content(error) if _is_passing(error) else "")
                if not _is_passing(error):
                    return self._store_one_by_one(batch)
                if not self._wait_to_retry():
                    return self._give_up(batch)

    def _redacted(self, batch: list[Record]) -> list[Record]:
        """What may be stored of a batch; a record for which nobody can tell is lost.

        Raises: StoreError when the key for placeholders cannot be read, which may pass
        """
        kept: list[Record] = []
        fault = ""
        for record in batch:
            try:
                kept.append(self._privacy.record(record))
            except StoreError:
                raise
            except Exception as error:  # whatever it is, nobody has looked at all of the record
                fault = f"redaction failed with {type(error).__name__}"
        if fault:
            self._lose(len(batch) - len(kept), fault)
        return kept

    def _lose(self, count: int, why: str) -> None:
        with self._changed:
            self._lost += count
            self._in_hand -= count
            self._failures += 1
            self._last_error = self._lost_for = why
            self._changed.notify_all()

    def _current_store(self) -> TrafficStore:
        """The store whose index lies where it should; opened anew when that is another file now."""
        if self._store is not None and _identity_of(self._project) != self._opened:
            log.warning("own.db was deleted or replaced while requests were recorded in it")
            self._store.close()
            self._store = None
        if self._store is None:
            self._store = self._open_store(self._project)
            self._opened = _identity_of(self._project)
        return self._store

    def _store_one_by_one(self, batch: list[Record]) -> None:
        """Keep one bad record from taking the others of its batch with it."""
        if len(batch) == 1:
            self._count(batch, _NOTHING)
            return
        for record in batch:
            self._store_batch([record])

    def _give_up(self, batch: list[Record]) -> None:
        with self._changed:
            self._lost += len(self._queue)
            self._queue.clear()
            self._queue_bytes = 0
        self._count(batch, _NOTHING)

    def _note(self, error: Exception) -> None:
        with self._changed:
            self._failures += 1
            self._last_error, self._lost_for = str(error), _without_content(error)

    def _say(self, fault: str) -> None:
        """Log when storing begins to fail, again while it does, when it works again, and losses."""
        with self._changed:
            had_fault, self._fault = self._fault, fault
            waiting, lost = len(self._queue) + self._in_hand, self._lost
        is_due = time.monotonic() - self._said_s >= SAY_EVERY_S
        if fault and (is_due or not had_fault):
            log.warning("requests are answered but cannot be recorded (%d wait, %d are lost): %s",
                        waiting, lost, fault)  # fmt: skip
        elif had_fault and not fault:
            log.warning("requests are recorded again (%d wait, %d are lost)", waiting, lost)
        elif lost > self._said_lost and is_due:
            log.warning("%d requests were not recorded so far: %s", lost, self._lost_for)
        else:
            return
        self._said_s, self._said_lost = time.monotonic(), lost

    def _wait_to_retry(self) -> bool:
        """Wait before the next try, or until closing begins; false when it is time to give up."""
        with self._changed:
            was_closing = self._is_closing
            left_s = max(0.0, self._give_up_at - time.monotonic())
            self._changed.wait_for(
                lambda: self._is_closing != was_closing, min(self._retry_s, left_s)
            )
            return time.monotonic() < self._give_up_at

    def _count(self, batch: list[Record], result: BatchResult) -> None:
        with self._changed:
            stored = result.added + result.duplicates
            self._recorded += stored
            self._lost += len(batch) - stored
            self._in_hand -= len(batch)
            if result.refused:
                self._last_error, self._lost_for = result.refused[0], "not JSON, or too large"
            self._changed.notify_all()


_NOTHING = BatchResult(0, 0, (), ())


def _is_passing(error: Exception) -> bool:
    """Whether the error is the store's, which may pass, and not the record's, which will not."""
    return isinstance(error, StoreError) and not is_row_refused(error)


def _without_content(error: Exception) -> str:
    """What an error says, unless it might quote a record."""
    return error.what if isinstance(error, StoreError) else type(error).__name__


def _identity_of(project: Project) -> tuple[int, int] | None:
    """What tells the index from another file of its name; None where there is none, or a server."""
    if not isinstance(project.database, Path):
        return None
    try:
        found = project.database.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open_store(project: Project) -> TrafficStore:
    return TrafficStore.open(project, busy_timeout_s=STORE_TIMEOUT_S)
