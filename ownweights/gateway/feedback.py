"""POST /v1/feedback: what a caller says of an answer it got.

In: JSON that names a request (`x-own-request-id` of its answer) or a session. Out: a row in the
store, and its id. Invariant: a feedback that is answered with 200 is stored
(test_gateway_feedback_is_stored_before_it_is_answered).
"""

from __future__ import annotations

import asyncio
import logging

from ownweights.core.database import open_database
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

log = logging.getLogger("ownweights.gateway")
MAX_BODY_BYTES = 2**20


async def take_feedback(
    project: Project, callers: Callers, scope: Scope, receive: Receive, send: Send
) -> None:
    """Keep one feedback; HttpError for what is none, or cannot be kept now."""
    if not (await callers.of(scope)).may_ask_students:
        raise HttpError(401, "feedback needs the gateway's key", code="invalid_api_key")
    body = decode_json(await read_body(receive, MAX_BODY_BYTES))
    try:
        feedback = parse_feedback(body)
    except FeedbackFault as error:
        raise HttpError(400, error.what, code="invalid_feedback", param=error.param) from None
    try:
        await asyncio.to_thread(_keep, project, feedback)
    except StoreError as error:
        log.error("a feedback is not stored: %s", error.what)
        what = "the feedback cannot be stored now: try again"
        raise HttpError(503, what, code="store_unavailable", kind="server_error") from None
    log.info("feedback %s %s", feedback.id, feedback.kind)
    await send_json(send, 200, {"id": feedback.id, "object": "feedback", "kind": feedback.kind})


def _keep(project: Project, feedback: Feedback) -> None:
    with open_database(project.database, busy_timeout_s=2.0) as database:
        keep_feedback(database, feedback)
