"""The student's turn: whether it may be asked, what it says, and whether that may be sent.

In: an exchange and the route that names its student. Out: the student's completion, sent under the
caller's model name, or None with the exchange's reason set. Invariant: whatever goes wrong with a
student, the teacher answers (test_gateway_student_error_falls_back_to_the_teacher).
"""

from __future__ import annotations

import time

import msgspec

from ownweights.core.chat import Completion
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.student_stream import note_failure
from ownweights.gateway.students import Students
from ownweights.route import Route, decide, eligible
from ownweights.route.rollout import Standing, is_drawn
from ownweights.teacher.asgi import SSE_HEADERS, Send, send_json
from ownweights.teacher.wire import chunk_events, completion_body


def standing_of(route: Route) -> Standing:
    """How far a route is followed: all the way, unless its pointer says otherwise."""
    return route.standing or Standing(route.id)


def is_kept_back(exchange: Exchange, standing: Standing) -> bool:
    """Whether the student could not answer as asked: such requests are part of what is certified.

    Requests with another prompt or protocol are not, nor those of callers who may not ask it.
    """
    name = exchange.reason.removeprefix("ineligible:")
    is_certified = name != exchange.reason and name not in ("prompt", "key", "protocol")
    is_in = standing.stage == "shadow" or is_drawn(standing, exchange.session, exchange.id)
    return is_certified and is_in


def may_try(exchange: Exchange, route: Route, *, is_allowed: bool) -> bool:
    """Whether the student may be asked; else False, with the exchange's reason set."""
    odd = eligible(route, exchange.body) if is_allowed else "ineligible:key"
    if odd is not None:
        exchange.reason = odd
        return False
    standing = standing_of(route)
    if not is_drawn(standing, exchange.session, exchange.id):
        exchange.reason = standing.stage  # shadow, or canary and not drawn
        return False
    return True


async def try_student(exchange: Exchange, route: Route, students: Students) -> Completion | None:
    """The student's answer where it may be sent; else None, with the exchange's reason set."""
    completion = await _ask_student(exchange, route, students)
    if completion is None:
        return None
    limit = route.max_prompt_tokens
    if limit is not None and completion.usage.prompt_tokens > limit:
        exchange.reason = "ineligible:context"
        return None
    decision = decide(route, completion)
    if not _keeps_format(exchange, completion):
        exchange.reason, exchange.error = "student_error", "student_not_json"
        # a loss where it was sure enough: the certificate counts what it would have sent
        exchange.has_failed = decision.serve
        return None
    exchange.reason, exchange.score = decision.reason, decision.score
    return completion if decision.serve else None


async def _ask_student(exchange: Exchange, route: Route, students: Students) -> Completion | None:
    asked_s = time.perf_counter()
    try:
        completion = await students.complete(route, exchange.body)
        exchange.waited_s += time.perf_counter() - asked_s
        return completion
    except Exception as error:  # whatever a student does, the teacher answers
        note_failure(exchange, error)
        return None


def _keeps_format(exchange: Exchange, completion: Completion) -> bool:
    """Whether an answer is a JSON object where one was asked for."""
    asked = exchange.body.get("response_format")
    if not isinstance(asked, dict) or asked.get("type") != "json_object":
        return True
    try:
        if isinstance(msgspec.json.decode((completion.text or "").encode()), dict):
            return True
    except (ValueError, RecursionError):
        pass
    return False


async def send_student(exchange: Exchange, completion: Completion, send: Send) -> None:
    """The student's answer under the caller's model name, streamed where that was asked."""
    assert exchange.route is not None, "a student answers by a route"
    exchange.served_by, exchange.http_status, exchange.completion = "student", 200, completion
    exchange.student_model = f"own/{exchange.route.student_id}"
    body = completion_body(
        completion.text or "",
        completion_id=f"chatcmpl-{exchange.id}",
        model=str(exchange.body.get("model") or exchange.student_model),
        finish_reason=completion.finish_reason,
        created=int(exchange.at),
        usage=completion.usage,
    )
    body["system_fingerprint"] = exchange.student_model
    exchange.settle(body)
    if not exchange.is_stream:
        await send_json(send, 200, body, exchange.headers())
        return
    headers = [*SSE_HEADERS, *exchange.headers()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in chunk_events(body, include_usage=exchange.wants_usage):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
