"""Traffic from files: what a line must be, and what becomes of a line that is not.

In: JSON lines, a JSON document or CSV, plain or gzip, in any of the forms of `formats`: ours,
OpenAI's for fine-tuning, Langfuse's observations, LiteLLM's spend logs. Out: Records in the store
and an ImportReport. A bad line is skipped and counted by reason, never a reason to stop; a file
without a single chat, or without one in its first 10,000 lines, is refused. Importing again adds
nothing, and an import that was cut off is completed by running it again
(test_import_again_adds_nothing).

Reasons to skip: broken_json, undecodable, not_object, broken_gzip, oversize (a line over
MAX_LINE_BYTES), not_chat, wrong_roles, bad_messages, no_answer, empty_answer, bad_workload,
not_recorded (its workload leaves no record), unredacted (redaction failed: it is not stored as it
is), bad_fact (a cost, time or name that is none), not_generation, no_content, truncated
(`formats`), conflict (an id that is stored with another body). Kept and noted: partial (the answer
was cut off, never learned from), mojibake (text that was decoded wrongly once).
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ownweights.core.errors import InputError, OwnError, StoreError
from ownweights.core.jsonl import Line
from ownweights.traffic.encode import check_depth, content_hash
from ownweights.traffic.formats import Incoming, Skip, read, values_of
from ownweights.traffic.record import Record, Status, make_record, moment, status_of
from ownweights.traffic.redact.privacy import Privacy
from ownweights.traffic.store import BATCH_ROWS, TrafficStore
from ownweights.traffic.workload import check_workload_name, user_text

MAX_LINE_BYTES = 32 * 2**20
_MAX_ERRORS = 5
_NOT_CHAT_PATIENCE = 10_000  # lines without one chat: the file is something else, however long
_FROM_GOOD_TO_BAD: tuple[Status, ...] = ("ok", "partial", "error")
_BATCH_BYTES = 8 * 2**20
_MOJIBAKE = re.compile("[\u0080-\u009f\ufffd]|[\u00c2\u00c3][\u00a0-\u00bf]|\u00e2\u20ac")

Progress = Callable[[int], None]


@dataclass(slots=True)
class ImportReport:
    """What became of a file's lines: read = added + duplicates + everything skipped."""

    read: int = 0
    added: int = 0
    duplicates: int = 0
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    noted: dict[str, int] = field(default_factory=dict[str, int])
    first_errors: list[str] = field(default_factory=list[str])

    def skip(self, reason: str, what: str) -> None:
        """Count a line that is not stored."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if len(self.first_errors) < _MAX_ERRORS:
            self.first_errors.append(what)

    def note(self, what: str) -> None:
        """Count a line that is stored although something is odd about it."""
        self.noted[what] = self.noted.get(what, 0) + 1


def import_file(
    path: Path,
    store: TrafficStore,
    *,
    workload: str | None = None,
    privacy: Privacy | None = None,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Store every chat in a file, under `workload` or the one each line names.

    `privacy` says what is stored of it; without any, the file is stored as it is. `on_progress` is
    called with the number of lines read so far.
    Raises: InputError when the file cannot be read or holds no chat at all, StoreError
    """
    if workload is not None:
        check_workload_name(workload)
    return _Import(path, store, workload, privacy).run(on_progress)


class _Import:
    """One file on its way into the store."""

    def __init__(
        self, path: Path, store: TrafficStore, workload: str | None, privacy: Privacy | None
    ) -> None:
        self._path = path
        self._store = store
        self._workload = workload
        self._privacy = privacy
        self._report = ImportReport()
        self._batch: list[Record] = []
        self._batch_bytes = 0
        self._seen: Counter[str] = Counter()
        self._now = time.time()

    def run(self, on_progress: Progress | None) -> ImportReport:
        report = self._report
        for line in values_of(self._path, max_line_bytes=MAX_LINE_BYTES):
            report.read += 1
            self._take(line)
            if len(self._batch) >= BATCH_ROWS or self._batch_bytes >= _BATCH_BYTES:
                self._flush()
                if on_progress is not None:
                    on_progress(report.read)
            elif report.read == _NOT_CHAT_PATIENCE:
                self._refuse_unless_chat()
        self._refuse_unless_chat()
        self._flush()
        if on_progress is not None:
            on_progress(report.read)
        return report

    def _take(self, line: Line) -> None:
        try:
            if line.value is None:
                reason = "oversize" if line.fault == "too_long" else str(line.fault)
                raise Skip(reason, line.what)
            record = self._record(line.value)
        except Skip as skip:
            self._report.skip(skip.reason, f"line {line.number}: {skip}")
            return
        self._note(record)
        self._batch.append(record)
        self._batch_bytes += line.size_bytes

    def _flush(self) -> None:
        result = self._store.add_batch(self._batch)
        self._report.added += result.added
        self._report.duplicates += result.duplicates
        for origin in result.conflicts:
            self._report.skip("conflict", f"id {origin!r} is stored already with another body")
        for what in result.refused:
            self._report.skip("oversize", what)
        self._batch, self._batch_bytes = [], 0

    def _refuse_unless_chat(self) -> None:
        """Raise InputError when nothing read so far is a chat."""
        report = self._report
        if self._batch or report.added or report.duplicates:
            return
        hopeless = ("not_chat", "not_object", "broken_json", "undecodable", "broken_gzip",
                    "not_generation", "no_content")  # fmt: skip
        if report.read and report.read > sum(report.skipped.get(reason, 0) for reason in hopeless):
            return
        first = report.first_errors[0] if report.first_errors else "it is empty"
        if report.read == _NOT_CHAT_PATIENCE:
            first = f"none of its first {report.read:,} lines is a chat; {first}"
        raise InputError(
            f"this is not chat traffic: {first}",
            where=str(self._path),
            hint="a line is {id, request, response, metadata} or {messages: [..., assistant]};"
            " or an observation of Langfuse, or a row of LiteLLM's spend logs",
        )

    def _record(self, value: dict[str, Any]) -> Record:
        try:
            check_depth(value)
        except ValueError as error:
            raise Skip("broken_json", str(error)) from None
        found = read(value)
        at = found.at or moment((found.response or {}).get("created"))
        try:
            name = self._workload or found.workload
            workload = None if name is None else check_workload_name(name)
        except InputError as error:
            raise Skip("bad_workload", error.what) from None
        record = make_record(
            found.request,
            found.response,
            role=found.role,
            workload=workload,
            session=found.session,
            metadata=found.metadata,
            status=_status(found),
            at=at or self._now,
        )
        record = replace(
            record,
            source_id=found.id,
            protocol=found.protocol,
            end_user=found.end_user or record.end_user,
            key_id=found.key_id,
            upstream=found.upstream,
            usage=found.usage or record.usage,
            cost_usd=found.cost_usd,
            latency_ms=found.latency_ms,
        )
        record = self._redacted(record)
        # from what is stored, for a hash of more would let others try out what was masked
        source_id = record.source_id or self._content_id(record)
        return _with_origin(record, source_id, at or 0.0)

    def _redacted(self, record: Record) -> Record:
        """What may be stored of a record; else a Skip."""
        if self._privacy is None:
            return record
        if not self._privacy.is_recorded(record.workload):
            raise Skip("not_recorded", f"workload.{record.workload}.record is false")
        try:
            return self._privacy.record(record)
        except StoreError:
            raise
        except Exception as error:  # whatever it is, nobody has looked at all of the record
            what = error.what if isinstance(error, OwnError) else type(error).__name__
            raise Skip("unredacted", f"redaction failed: {what}") from None

    def _content_id(self, record: Record) -> str:
        """An id for a line without one: its content, and how often that came before in the file."""
        digest = content_hash(record.request, record.response)
        self._seen[digest] += 1
        return f"{digest}-{self._seen[digest]}"

    def _note(self, record: Record) -> None:
        if record.status == "partial":
            self._report.note("partial")
        text = user_text(record.request) + (record.answer_text or "")
        if not text.isascii() and _MOJIBAKE.search(text):
            self._report.note("mojibake")


def _status(found: Incoming) -> Status:
    """What a file says, or what the answer shows where that is worse."""
    shown: Status = status_of(found.response) if found.protocol == "chat" else "ok"
    worse = max(map(_FROM_GOOD_TO_BAD.index, (shown, found.status or shown)))
    return _FROM_GOOD_TO_BAD[worse]


def _with_origin(record: Record, source_id: str, at: float) -> Record:
    """The record with an id that depends on workload and source id, so that every import of a
    file, anywhere, gives the same ids (a version-7 UUID; its time is 0 where none is known)."""
    digest = hashlib.sha256(f"{record.workload}\x1f{source_id}".encode("utf-8", "surrogatepass"))
    value = int(at * 1000) << 80 | int.from_bytes(digest.digest()[:10], "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return replace(record, id=str(uuid.UUID(int=value)), source_id=source_id)
