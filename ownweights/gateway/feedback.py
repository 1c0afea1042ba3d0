"""POST /v1/feedback: what a caller says of an answer it got.

In: JSON that names a request (`x-own-request-id` of its answer) or a session. Out: a row in the
store, and its id. Invariants: a feedback that is answered with 200 is stored
(test_gateway_feedback_is_stored_before_it_is_answered); what is masked in records is masked in it
(test_gateway_feedback_is_masked_like_a_record), the session that it names too
(test_gateway_feedback_finds_a_session_that_is_masked).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from ownweights.core.database import Database, open_database
from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.gateway.callers import Callers
from ownweights.teacher.asgi import (
    HttpError,
    Receive,
    Scope,
    Send,
    decode_json,
    read_body,
    send_json,
)
from ownweights.traffic.feedback import Feedback, FeedbackFault, keep_feedback, parse_feedback
from ownweights.traffic.record import make_record
from ownweights.traffic.redact import Privacy

log = logging.getLogger("ownweights.gateway")
MAX_BODY_BYTES = 2**20
_IN_WORDS = ("comment", "demonstration")


async def read_feedback(callers: Callers, scope: Scope, receive: Receive) -> Feedback:
    """The feedback in a request, as it was said; HttpError for what is none."""
    if not (await callers.of(scope)).may_ask_students:
        raise HttpError(401, "feedback needs the gateway's key", code="invalid_api_key")
    body = decode_json(await read_body(receive, MAX_BODY_BYTES))
    try:
        return parse_feedback(body)
    except FeedbackFault as error:
        raise HttpError(400, error.what, code="invalid_feedback", param=error.param) from None


async def keep(project: Project, privacy: Privacy, feedback: Feedback, send: Send) -> None:
    """Store a feedback, masked as the records of its workload are, and say so.

    Raises: HttpError 503 where it cannot be stored now
    """
    try:
        await asyncio.to_thread(_keep, project, privacy, feedback)
    except StoreError as error:
        log.error("a feedback is not stored: %s", error.what)
        what = "the feedback cannot be stored now: try again"
        raise HttpError(503, what, code="store_unavailable", kind="server_error") from None
    log.info("feedback %s %s", feedback.id, feedback.kind)
    await send_json(send, 200, {"id": feedback.id, "object": "feedback", "kind": feedback.kind})


def _masked(privacy: Privacy, said: Feedback, workload: str) -> Feedback:
    """What may be written down of a feedback: as of a record with that answer in that session."""
    is_text = isinstance(said.value, str)
    message = {"role": "assistant", "content": said.value} if is_text else said.value
    answer = {"choices": [{"message": message}]} if said.kind in _IN_WORDS else None
    record = make_record({}, answer, role="teacher", session=said.session)
    record = privacy.record(dataclasses.replace(record, workload=workload))
    value = said.value
    if record.response is not None:
        shown = record.response["choices"][0]["message"]
        value = shown["content"] if is_text else shown
    return dataclasses.replace(said, session=record.session, value=value)


def _keep(project: Project, privacy: Privacy, said: Feedback) -> None:
    with open_database(project.database, busy_timeout_s=2.0) as database:
        keep_feedback(database, _masked(privacy, said, _workload_of(database, said)))


def _workload_of(database: Database, said: Feedback) -> str:
    """The workload of what a feedback is about; empty where that is not recorded (yet)."""
    column = "session" if said.request_id is None else "id"
    sql = f"SELECT workload FROM record WHERE {column} = ? ORDER BY seq DESC LIMIT 1"
    rows = database.query(sql, (said.request_id or said.session,))
    return rows[0][0] if rows else ""
