"""What remains of a record once it was read: a few hashes and counts, some 70 bytes, no body.

In: records, once, in any order. Out: a WorkloadScan a workload, the largest first. Invariants: the
same records in any order give the same scan (test_scan_does_not_depend_on_the_order); memory grows
by hashes alone, but for the texts of distinct questions while they are few and short
(test_scan_keeps_no_bodies); equal keys are equal answers under the check, up to 64-bit hashes
(test_answer_keys_match_the_checks).
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ownweights.core.chat import Usage
from ownweights.dataset.options import DatasetOptions
from ownweights.dataset.prompt import comparison_key, request_key
from ownweights.dataset.select import HELD_OUT_ONLY, in_chat, skip_reason
from ownweights.dataset.split import SPLITS, split_of
from ownweights.dataset.unit import (
    AUTO_METADATA_KEY,
    SESSION_OR_PROMPT,
    SplitBy,
    split_by_of,
    unit_of,
)
from ownweights.teacher.wire import parse_usage
from ownweights.traffic.record import Record
from ownweights.traffic.workload import content_text, messages_of
from ownweights.verdict.checks import read_json
from ownweights.verdict.judged import lot
from ownweights.verdict.scan.measure import TokenSums, measure
from ownweights.verdict.scan.values import Plan, WorkloadScan

MAX_NEAR, MAX_NEAR_CHARS = 20_000, 2_000_000  # distinct questions that are compared
REPORT_EVERY = 1_000
NO_KEY = 0  # of an answer that the check cannot read

Progress = Callable[[float, float | None, str], None]
Ineligible = Callable[[Mapping[str, Any]], str | None]


def scan_records(
    records: Iterable[Record],
    plan_of: Callable[[str], Plan],
    *,
    ineligible: Ineligible | None = None,
    on_progress: Progress | None = None,
) -> list[WorkloadScan]:
    """Every workload among the records; `ineligible` says why a request stays with the teacher.

    Raises: InputError when a workload cannot be split as its plan asks
    """
    found: dict[str, Gathered] = {}
    num = 0
    for num, record in enumerate(records, 1):
        if record.workload not in found:
            found[record.workload] = Gathered(record.workload, plan_of(record.workload), ineligible)
        found[record.workload].add(record)
        if on_progress and num % REPORT_EVERY == 0:
            on_progress(num, None, "reading")
    scans: list[WorkloadScan] = []
    for one in sorted(found.values(), key=lambda one: (-one.num_records, one.workload)):
        if on_progress:
            on_progress(num, num, f"measuring {one.workload}")
        scans.append(measure(one))
    return scans


class Gathered:
    """What remains of one workload's records: parallel columns, and sums."""

    def __init__(self, workload: str, plan: Plan, ineligible: Ineligible | None = None) -> None:
        self.workload, self.plan = workload, plan
        self._ineligible = ineligible
        self.num_records = self.by_student = self.errors = self.num_kept = 0
        self.models: set[str] = set()
        self.times: list[float] = []  # first and last
        self.num_timed = 0
        self.kept_back: Counter[str] = Counter()
        self._has_key = self._has_session = True  # every one
        self._any_session = False
        # one entry a record that some split would keep
        self.request, self.question, self.draw = array("Q"), array("Q"), array("Q")
        self.exact_key, self.json_key = array("Q"), array("Q")
        self.is_studied, self.is_coverable, self.is_json = array("b"), array("b"), array("b")
        asked = plan.dataset.split_by
        # where all have a session, or none, units by session-or-prompt are those by the one of them
        names = (SESSION_OR_PROMPT, AUTO_METADATA_KEY) if asked == "auto" else (asked,)
        self._asked = [_as_asked(name) for name in names]
        self._units = {by.name: (array("Q"), array("b")) for by in self._asked}
        self.questions: set[str] | None = set()
        self._question_chars = 0
        self.tokens, self.coverable_tokens = TokenSums(), TokenSums()

    @property
    def split_by(self) -> SplitBy:
        """How a dataset of these records would be split."""
        return split_by_of(
            self.plan.dataset.split_by,
            all_have_key=bool(self.num_records) and self._has_key,
            all_have_session=bool(self.num_records) and self._has_session,
            any_has_session=self._any_session,
        )

    @property
    def units(self) -> tuple[array[int], array[int]]:
        """Unit and split (as its place in SPLITS) of each record kept."""
        name = self.split_by.name
        return self._units[name if name in self._units else SESSION_OR_PROMPT]

    def add(self, record: Record) -> None:
        """Take what is needed of one record."""
        record = in_chat(record)
        self.num_records += 1
        self._has_key &= AUTO_METADATA_KEY in record.metadata
        self._has_session &= bool(record.named_session)
        self._any_session |= bool(record.named_session)
        self._time(record)
        reason = skip_reason(record, self.plan.dataset.max_message_bytes)
        self.by_student += record.role == "student"
        self.errors += record.status == "error"
        if record.role != "student" and record.status != "error":
            self.models.add(record.model)
        if reason is not None and reason not in HELD_OUT_ONLY:
            self.kept_back[reason] += 1
            if record.role != "student" and record.status != "error":
                self.tokens.add(*token_counts(record))  # the teacher was paid all the same
            return
        self._keep(record, reason)

    def _keep(self, record: Record, reason: str | None) -> None:
        body = record.request
        odd = self._ineligible(body) if self._ineligible else None
        why = odd or reason
        if why:
            self.kept_back[why] += 1
        sums = token_counts(record)
        self.tokens.add(*sums)
        if why is None:
            self.coverable_tokens.add(*sums)
        text = (record.answer_text or "") if reason is None else ""
        asked = request_key(body)
        self.num_kept += 1
        self.request.append(_hash64(asked))
        self.draw.append(int(lot(asked, record.id)[:16], 16))
        self.exact_key.append(exact_key(text) if reason is None else NO_KEY)
        key, is_container = json_key(text)
        self.json_key.append(key if reason is None else NO_KEY)
        self.is_json.append(is_container)
        self.is_studied.append(reason is None)
        self.is_coverable.append(why is None)
        self._place(record)
        self._ask(comparison_key(body))

    def _place(self, record: Record) -> None:
        options: DatasetOptions = self.plan.dataset
        for by in self._asked:
            units, splits = self._units[by.name]
            if not self._is_viable(by.name):
                continue
            unit = unit_of(record, by.name)
            units.append(_hash64(unit))
            splits.append(SPLITS.index(split_of(unit, options.fractions, options.salt)))

    def _is_viable(self, name: str) -> bool:
        """Whether `auto` may still choose to split so; what it cannot choose is not gathered."""
        is_chosen = self.plan.dataset.split_by != "auto"
        return is_chosen or name == SESSION_OR_PROMPT or self._has_key

    def _ask(self, question: str) -> None:
        self.question.append(_hash64(question))
        if self.questions is not None and question not in self.questions:
            self.questions.add(question)
            self._question_chars += len(question)
            if len(self.questions) > MAX_NEAR or self._question_chars > MAX_NEAR_CHARS:
                self.questions = None

    def _time(self, record: Record) -> None:
        if not record.is_timed:
            return
        self.num_timed += 1
        low, high = self.times or (record.at, record.at)
        self.times = [min(low, record.at), max(high, record.at)]


def _as_asked(name: str) -> SplitBy:
    return split_by_of(name, all_have_key=False, all_have_session=False, any_has_session=False)


def exact_key(text: str) -> int:
    """Equal for texts that are equal to the check `exact`."""
    return _hash64(unicodedata.normalize("NFC", text).strip())


def json_key(text: str) -> tuple[int, bool]:
    """Equal for texts that are equal to the check `json`; NO_KEY where it reads none.

    With it, whether the value is an object or a list.
    """
    value = read_json(text)
    if value is None:
        return NO_KEY, False
    return _hash64(_spelled(value)), value[0] in ("object", "list")


def _spelled(value: tuple[Any, ...]) -> str:
    """One text for what read_json holds equal: 1 and 1.0 alike, keys in order."""
    kind, held = value
    if kind == "object":
        inside = (f"{json.dumps(key)}:{_spelled(held[key])}" for key in sorted(held))
        return "{" + ",".join(inside) + "}"
    if kind == "list":
        return "[" + ",".join(map(_spelled, held)) + "]"
    if kind == "number":
        return str(int(held) if float(held).is_integer() else held)
    return f"{kind} {json.dumps(held)}"


def _hash64(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def token_counts(record: Record) -> tuple[Usage | None, int, int]:
    """Recorded tokens, where there are any, and the characters of request and answer."""
    usage = parse_usage(record.response.get("usage")) if record.response else None
    if usage is not None and not usage.total_tokens:
        usage = None
    body = record.request
    chars = sum(_message_chars(message) for message in messages_of(body))
    for name in ("tools", "functions", "response_format"):
        if body.get(name):
            chars += len(json.dumps(body[name], ensure_ascii=False))
    return usage, chars, _message_chars(record.message)


def _message_chars(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls") or message.get("function_call")
    spelled = len(json.dumps(calls, ensure_ascii=False)) if calls else 0
    return len(content_text(message.get("content"))) + spelled
