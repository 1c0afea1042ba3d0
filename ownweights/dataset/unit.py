"""What is split as one: the session, all requests with one prompt, or a metadata value.

In: records of one workload and `split_by`. Out: one unit string for each record, which
`split.split_of` hashes. A record's unit depends on that record and on `split_by` alone, never on
its neighbours, so a later record cannot move an earlier one
(test_unit_of_depends_on_its_record_alone).
Only `auto` looks at all records, once, to choose; the choice and its reason go on the card. Where
some records have a session and others none, each keeps the unit, and so the split, that it has
where all are like it (test_unit_of_mixed_traffic_is_each_records_own).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ownweights.core.errors import InputError
from ownweights.dataset.prompt import first_user_text, prompt_key
from ownweights.traffic.record import Record

AUTO_METADATA_KEY = "task_id"
SESSION_OR_PROMPT = "session-or-prompt"


@dataclass(frozen=True, slots=True)
class SplitBy:
    """How a workload is split: `session`, `prompt`, `session-or-prompt` or `meta:<key>`."""

    name: str
    reason: str


def choose_split_by(records: Sequence[Record], asked: str) -> SplitBy:
    """What to split by: as asked, or for `auto` the widest unit that records have."""
    return split_by_of(
        asked,
        all_have_key=bool(records) and all(AUTO_METADATA_KEY in one.metadata for one in records),
        all_have_session=bool(records) and all(one.named_session for one in records),
        any_has_session=any(one.named_session for one in records),
    )


def split_by_of(
    asked: str, *, all_have_key: bool, all_have_session: bool, any_has_session: bool
) -> SplitBy:
    """What to split by, once it is known what records have."""
    if asked != "auto":
        return SplitBy(_spelled(asked), "as asked")
    if all_have_key:
        return SplitBy(f"meta:{AUTO_METADATA_KEY}", f"every record has a {AUTO_METADATA_KEY}")
    if all_have_session:
        return SplitBy("session", "every record has a session")
    if any_has_session:
        return SplitBy(SESSION_OR_PROMPT, "some records have a session, and some have none")
    return SplitBy("prompt", "no record has a session")


def unit_of(record: Record, split_by: str) -> str:
    """The unit of one record: `session:…`, `meta:<key>:…`, or `prompt:…` of the first question."""
    if split_by == SESSION_OR_PROMPT:
        split_by = "session" if record.named_session else "prompt"
    if split_by == "prompt":
        return "prompt:" + prompt_key(first_user_text(record.request))
    if split_by == "session":
        if not record.named_session:
            raise _lacks(record, "session", "session", f"{SESSION_OR_PROMPT!r}, or by 'prompt'")
        return f"session:{record.named_session}"
    key = split_by.removeprefix("meta:")
    if key not in record.metadata:
        raise _lacks(record, f"metadata {key!r}", split_by, "'prompt'")
    value = record.metadata[key]
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"meta:{key}:{text}"


def _spelled(asked: str) -> str:
    if asked in ("prompt", "session", SESSION_OR_PROMPT) or asked.startswith("meta:"):
        return asked
    return f"meta:{asked}"


def _lacks(record: Record, what: str, split_by: str, instead: str) -> InputError:
    return InputError(
        f"the record has no {what}, so it cannot be split by {split_by!r}",
        where=f"workload {record.workload!r}, record {record.source_id or record.id}",
        hint=f"split by something that every record has, or by {instead}",
    )
