"""What callers say of answers they got: a boolean, a number, a comment, or how it should have been.

In: the JSON of POST /v1/feedback. Out: one row each in the store, found by request or by session.
Invariants: what is not one of the four kinds is refused with the field that is wrong
(test_parse_feedback_refuses); the same feedback again is a row again, with an id of its own, and
nothing of a record changes (test_feedback_is_kept_beside_the_record); what was said of a record
goes with it (test_feedback_goes_with_what_it_is_about).
The four kinds are those that the trade settled on: boolean, float, comment, demonstration.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ownweights.core.database import Database
from ownweights.core.errors import InputError
from ownweights.core.ids import new_id

Kind = Literal["boolean", "number", "comment", "demonstration"]
MAX_NAME_CHARS, MAX_TARGET_CHARS, MAX_TEXT_BYTES = 64, 200, 256 * 1024
_WORDS = "kind IN ('comment', 'demonstration')"  # what people wrote, as bodies are
_FIELDS = ("request_id", "session", "name", "value", "comment", "demonstration")


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing said: of a request or of a session, under a name, `value` as its `kind` has it.

    A demonstration is the answer as it should have been: text, or an assistant's message.
    """

    id: str
    at: float
    request_id: str | None
    session: str | None
    name: str
    kind: Kind
    value: Any


class FeedbackFault(InputError):
    """A feedback that cannot be kept; `param` is the field that is wrong."""

    def __init__(self, what: str, param: str) -> None:
        super().__init__(what)
        self.param = param


def parse_feedback(body: Mapping[str, Any]) -> Feedback:
    """The feedback in a request's body; FeedbackFault for what is none."""
    for name in body:
        if name not in _FIELDS:
            raise FeedbackFault(f"{name!r} is not one of {', '.join(_FIELDS)}", name)
    given = [name for name in ("value", "comment", "demonstration") if body.get(name) is not None]
    if len(given) != 1:
        what = "expected exactly one of 'value' (true, false or a number), 'comment' (text) and"
        raise FeedbackFault(f"{what} 'demonstration' (text or a message)", "value")
    targets = [name for name in ("request_id", "session") if body.get(name) is not None]
    if len(targets) != 1:
        raise FeedbackFault("expected exactly one of 'request_id' and 'session'", "request_id")
    (field,), (target,) = given, targets
    kind, value = _checked(field, body[field])
    now_s = time.time()
    return Feedback(
        id=new_id(now_s),
        at=now_s,
        request_id=_text(body, "request_id", MAX_TARGET_CHARS) if target == "request_id" else None,
        session=_text(body, "session", MAX_TARGET_CHARS) if target == "session" else None,
        name=_text(body, "name", MAX_NAME_CHARS) if body.get("name") is not None else field,
        kind=kind,
        value=value,
    )


def keep_feedback(database: Database, feedback: Feedback) -> None:
    """Write one down."""
    database.execute(
        "INSERT INTO feedback (id, at, request_id, session, name, kind, value)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            feedback.id, feedback.at, feedback.request_id, feedback.session, feedback.name,
            feedback.kind, json.dumps(feedback.value),
        ),
    )  # fmt: skip


def feedback_of(
    database: Database, *, request_id: str | None = None, session: str | None = None
) -> list[Feedback]:
    """What was said of a request or a session, or else of all requests, in the order it came."""
    which, of = "request_id = ? OR session = ?", (request_id, session)
    if of == (None, None):
        which, of = "request_id IS NOT NULL", ()
    columns = "id, at, request_id, session, name, kind, value"
    rows = database.query(f"SELECT {columns} FROM feedback WHERE {which} ORDER BY at, id", of)
    return [Feedback(*row[:6], value=json.loads(row[6])) for row in rows]


def forget_of_records(database: Database, seqs: Sequence[int], *, words_alone: bool) -> None:
    """Take out what was said of records that are about to go, and of sessions that go with them;
    where bodies go, `words_alone`. In a transaction of the caller's."""
    marks = ",".join("?" * len(seqs))
    which, stays = (f"{_WORDS} AND", " AND pruned_at IS NULL") if words_alone else ("", "")
    database.execute(
        f"DELETE FROM feedback WHERE {which} request_id IN"
        f" (SELECT id FROM record WHERE seq IN ({marks}))",
        seqs,
    )
    database.execute(
        f"DELETE FROM feedback WHERE {which} session IN"
        f" (SELECT session FROM record WHERE seq IN ({marks})) AND NOT EXISTS (SELECT 1 FROM record"
        f" WHERE record.session = feedback.session AND seq NOT IN ({marks}){stays})",
        [*seqs, *seqs],
    )


def forget_before(database: Database, rows_until: float, words_until: float) -> int:
    """Take out what was said before a moment, and what was written before another."""
    sql = f"DELETE FROM feedback WHERE at < ? OR (at < ? AND {_WORDS})"
    return database.execute(sql, (rows_until, words_until))


def forget_session(database: Database, session: str) -> int:
    """Take out what was said of a session, whether anything of it was recorded or not."""
    return database.execute("DELETE FROM feedback WHERE session = ?", (session,))


def _checked(field: str, value: Any) -> tuple[Kind, Any]:
    """The kind of what is said, and what is said."""
    if field == "value":
        if isinstance(value, bool):
            return "boolean", value
        if isinstance(value, int | float) and math.isfinite(value):
            return "number", value
        raise FeedbackFault("'value' must be true, false or a finite number", field)
    is_message = field == "demonstration" and _is_message(value)
    if not is_message and not (isinstance(value, str) and value.strip()):
        what = "text" if field == "comment" else "text, or an assistant's message with content"
        raise FeedbackFault(f"{field!r} must be {what}", field)
    if len(json.dumps(value)) > MAX_TEXT_BYTES:
        raise FeedbackFault(f"{field!r} is longer than {MAX_TEXT_BYTES} bytes", field)
    return cast("Kind", field), value


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    message = cast("Mapping[str, Any]", value)
    says = message.get("content") or message.get("tool_calls")
    return message.get("role", "assistant") == "assistant" and bool(says)


def _text(body: Mapping[str, Any], name: str, max_chars: int) -> str:
    value = body[name]
    if not isinstance(value, str) or not 0 < len(value) <= max_chars or not value.isprintable():
        raise FeedbackFault(f"{name!r} must be text of at most {max_chars} characters", name)
    return value
