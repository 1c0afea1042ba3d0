"""The door: OpenAI's HTTP API in front of students and teachers.

In: HTTP from any OpenAI client. Out: the student's answer where its route allows it, else the
teacher's, byte for byte; headers that say who answered and why; a record of each. Invariants: every
error has OpenAI's shape (test_gateway_every_error_has_openai_shape); whatever goes wrong with a
student, the teacher answers (test_gateway_student_error_falls_back_to_the_teacher); a request is
one line in the log (test_gateway_logs_a_line_a_request), without key, prompt or answer
(test_gateway_logs_no_content).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from ownweights.core.chat import Completion
from ownweights.core.project import Project
from ownweights.gateway.audits import Auditor, Both, Compared, StudentFailed
from ownweights.gateway.exchange import Exchange, named_workload, open_exchange
from ownweights.gateway.judges import LiveJudges
from ownweights.gateway.names import WorkloadNames
from ownweights.gateway.routes import RouteTable
from ownweights.gateway.settings import GatewaySettings, Upstream, key_from
from ownweights.gateway.student_stream import may_stream, note_failure, stream_student
from ownweights.gateway.students import StartEngine, Students
from ownweights.gateway.upstream import TeacherDoor
from ownweights.route import BELOW_THRESHOLD, Route, decide, eligible
from ownweights.route.rollout import Standing, is_drawn
from ownweights.teacher.asgi import (
    SSE_HEADERS,
    ClientGone,
    HttpError,
    Message,
    Receive,
    Scope,
    Send,
    check_method,
    decode_json,
    header,
    read_body,
    run_lifespan,
    send_error,
    send_json,
)
from ownweights.teacher.serving import is_loopback
from ownweights.teacher.wire import chunk_events, completion_body, parse_completion
from ownweights.traffic.record import Record
from ownweights.traffic.recorder import Recorder, RecorderCounts

log = logging.getLogger("ownweights.gateway")
_METHODS = {
    "/v1/chat/completions": "POST", "/v1/models": "GET", "/health": "GET", "/ready": "GET"
}  # fmt: skip


class Keeper(Protocol):
    """Takes records without waiting; `traffic.Recorder` or a list in tests."""

    def offer(self, record: Record) -> bool: ...

    def counts(self) -> RecorderCounts: ...

    def close(self, timeout_s: float = ...) -> Any: ...


class Gateway:
    """The ASGI app. Nothing starts before the server's lifespan does."""

    def __init__(
        self,
        project: Project,
        settings: GatewaySettings,
        *,
        start_engine: StartEngine,
        recorder: Keeper | None = None,
    ) -> None:
        self._project = project
        self._settings = settings
        self._start_engine = start_engine
        self._recorder = recorder
        self._routes = RouteTable(project)
        self._names = WorkloadNames(project)
        self._key = key_from(settings.key_env, "gateway") if settings.key_env else None

    async def start(self) -> None:
        """Open the recorder and the way to the teachers; begin to load students."""
        self._settings.check_keys()
        self._recorder = self._recorder or Recorder(self._project)
        self._door = TeacherDoor(self._settings)
        self._students = Students(self._project, self._start_engine)
        self._judges = LiveJudges(self._project, self._settings)
        self._auditor = Auditor(self._project, self._judges)
        await self._auditor.start()
        self._follow()

    async def stop(self) -> None:
        """Let go of students and teachers, and write down what is still to be written."""
        await self._auditor.close()
        await self._judges.close()
        await self._students.close()
        await self._door.close()
        assert self._recorder is not None, "a gateway that was started has a recorder"
        await asyncio.to_thread(self._recorder.close)

    def _follow(self) -> dict[str, Route]:
        """Read the routes in force, and want the students they name."""
        routes = self._routes.current()
        self._students.want(frozenset(route.student_id for route in routes.values()))
        return routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self.start, self.stop)
            return
        assert scope["type"] == "http", "websockets are switched off"
        is_started = False

        async def tell(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._respond(scope, receive, tell)
        except HttpError as error:
            log.info("refused %d %s", error.status, error.code)
            await send_error(send, error)
        except ClientGone:
            return
        except Exception as error:  # a defect of ours: say so in the shape that clients read
            log.error("a request failed with %s", type(error).__name__)
            if not is_started:
                what = "the gateway failed at this request"
                await send_error(send, HttpError(500, what, code="internal", kind="server_error"))

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        wanted = _METHODS.get(path)
        if wanted is None:
            raise HttpError(404, "there is no such path here", code="unknown_url")
        check_method(scope, wanted)
        if path == "/v1/chat/completions":
            await self._chat(scope, receive, send)
        elif path == "/v1/models":
            await self._models(scope, send)
        else:
            await send_json(send, 200, self._status() if path == "/ready" else {"status": "ok"})

    def _status(self) -> dict[str, Any]:
        routes = self._follow()
        assert self._recorder is not None, "a gateway that was started has a recorder"
        counts = self._recorder.counts()
        return {
            "status": "ready",
            "engine": self._students.state,
            "engine_fault": self._students.fault,
            "routes": {name: route.id for name, route in routes.items()},
            "stages": {name: _standing_of(route).stage for name, route in routes.items()},
            "route_faults": {name: str(fault) for name, fault in self._routes.faults.items()},
            "records": {"stored": counts.recorded, "waiting": counts.waiting, "lost": counts.lost},
            "record_fault": counts.fault or None,
        }

    async def _models(self, scope: Scope, send: Send) -> None:
        workload = named_workload(scope, {})
        route = self._follow().get(workload or "")
        if workload is None and len(self._settings.teachers) > 1:
            what = "there are several teachers: name the workload whose teacher you mean"
            raise HttpError(400, what, code="workload_needed", param="x-own-workload")
        upstream = self._upstream(route.teacher if route else "", workload or "")
        self._check_key(scope, upstream)
        status, headers, body = await self._door.fetch("/models", upstream, scope)
        log.info("models %d", status)
        size = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, size]})
        await send({"type": "http.response.body", "body": body})

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await read_body(receive, self._settings.max_body_bytes)
        exchange = open_exchange(scope, raw, decode_json(raw))
        try:
            await _while_connected(self._answer(exchange, scope, send), receive)
        except HttpError as error:
            exchange.fail(error)
            await send_error(send, error, exchange.headers())
        except ClientGone:
            if exchange.status != "ok":  # many a client leaves once it has read [DONE]
                exchange.error, exchange.status = "client_gone", "partial"
        finally:
            self._record(exchange)
            self._compare(exchange, scope)

    def _record(self, exchange: Exchange) -> None:
        log.info("%s", exchange.log_line())
        if exchange.is_stored and self._recorder is not None:
            self._recorder.offer(exchange.record())

    async def _answer(self, exchange: Exchange, scope: Scope, send: Send) -> None:
        self._follow()
        route = self._routes.find(exchange.workload, exchange.prompt_hash)
        if exchange.workload is None:
            exchange.workload = (
                await self._names.of(exchange.prompt_hash) if route is None else route.workload
            )
        exchange.route = route
        completion = None
        if exchange.is_forced:
            exchange.reason = "forced"
        elif route is not None and self._may_try(exchange, route, scope):
            if may_stream(exchange, route):
                if await stream_student(exchange, route, self._students, send):
                    return
            else:
                completion = await self._try_student(exchange, route)
        if completion is not None:
            await _send_student(exchange, completion, send)
        else:
            upstream = self._upstream(route.teacher if route else "", exchange.workload, exchange)
            self._check_key(scope, upstream)
            await self._door.forward(exchange, upstream, scope, send)

    def _compare(self, exchange: Exchange, scope: Scope) -> None:
        """Have student and teacher compared, once the caller has an answer."""
        route, sent = exchange.route, exchange.completion
        if route is None:
            return
        standing = _standing_of(route)

        async def audited() -> Both:
            assert sent is not None, "what was sent is there"
            told = None
            with contextlib.suppress(HttpError):
                upstream = self._upstream(route.teacher, exchange.workload or "")
                told = await self._door.ask(exchange, upstream, scope)
            if told is None:
                return Both(sent.text or "", None)
            return Both(sent.text or "", told.text, told.usage)

        async def shadowed() -> Both | None:
            tried = dataclasses.replace(exchange, reason="", error=None)
            found = await self._try_student(tried, route)
            if tried.has_failed:
                raise StudentFailed
            body = exchange.response
            told = parse_completion(body).text if body and exchange.status == "ok" else None
            return None if found is None else Both(found.text or "", told)

        if sent is not None and exchange.score is not None:
            upstream = self._settings.upstream(route.teacher, exchange.workload or "")
            teacher = upstream.name if upstream else ""
            found = Compared(exchange, route, standing, audited, teacher)
            self._auditor.served(found, exchange.score)
        elif exchange.has_failed:
            self._auditor.failed(Compared(exchange, route, standing, None))
        elif exchange.reason == BELOW_THRESHOLD or _is_kept_back(exchange, standing):
            self._auditor.unsure(route)
        elif exchange.reason == "shadow":
            self._auditor.shadowed(Compared(exchange, route, standing, shadowed))

    def _may_try(self, exchange: Exchange, route: Route, scope: Scope) -> bool:
        """Whether the student may be asked; else False, with the exchange's reason set."""
        odd = eligible(route, exchange.body) if self._may_ask_students(scope) else "ineligible:key"
        if odd is not None:
            exchange.reason = odd
            return False
        standing = _standing_of(route)
        if not is_drawn(standing, exchange.session, exchange.id):
            exchange.reason = standing.stage  # shadow, or canary and not drawn
            return False
        return True

    async def _try_student(self, exchange: Exchange, route: Route) -> Completion | None:
        """The student's answer where it may be sent; else None, with the exchange's reason set."""
        completion = await self._ask_student(exchange, route)
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

    async def _ask_student(self, exchange: Exchange, route: Route) -> Completion | None:
        asked_s = time.perf_counter()
        try:
            completion = await self._students.complete(route, exchange.body)
            exchange.waited_s += time.perf_counter() - asked_s
            return completion
        except Exception as error:  # whatever a student does, the teacher answers
            note_failure(exchange, error)
            return None

    def _upstream(self, named: str, workload: str, exchange: Exchange | None = None) -> Upstream:
        upstream = self._settings.upstream(named, workload)
        if upstream is not None:
            return upstream
        if exchange is not None and exchange.reason.startswith("ineligible:"):
            param = exchange.reason.removeprefix("ineligible:")
            what = f"the student cannot answer as asked ({param}), and there is no teacher"
            raise HttpError(400, what, code="ineligible", param=param)
        what = "no teacher is set for this request; add a [teacher.NAME] table to own.toml"
        if self._settings.teachers:
            what = (
                f"none of own.toml's teachers is the one of workload {workload!r}; name one:"
                f' [workload.{workload}] teacher = "NAME"'
            )
        raise HttpError(502, what, code="no_teacher", kind="upstream_error")

    def _may_ask_students(self, scope: Scope) -> bool:
        if self._key is None:
            return is_loopback(self._settings.host)
        return self._has_key(scope)

    def _has_key(self, scope: Scope) -> bool:
        shown = (header(scope, b"authorization") or "").removeprefix("Bearer ").strip()
        return self._key is not None and _same_text(shown, self._key)

    def _check_key(self, scope: Scope, upstream: Upstream) -> None:
        """Nobody spends the operator's key but who may ask students."""
        if upstream.key_env and not self._may_ask_students(scope):
            what = "this gateway answers for its operator only: send the gateway's key"
            raise HttpError(401, what, code="invalid_api_key")


def _standing_of(route: Route) -> Standing:
    """How far a route is followed: all the way, unless its pointer says otherwise."""
    return route.standing or Standing(route.id)


def _is_kept_back(exchange: Exchange, standing: Standing) -> bool:
    """Whether the student could not answer as asked: such requests are part of what is certified.

    Requests with another prompt are not, nor those of callers who may not ask it.
    """
    name = exchange.reason.removeprefix("ineligible:")
    is_certified = name != exchange.reason and name not in ("prompt", "key")
    is_in = standing.stage == "shadow" or is_drawn(standing, exchange.session, exchange.id)
    return is_certified and is_in


def _same_text(left: str, right: str) -> bool:
    import hmac

    return hmac.compare_digest(left.encode(), right.encode())


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


async def _send_student(exchange: Exchange, completion: Completion, send: Send) -> None:
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


async def _while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work; when the caller leaves before it is done, stop it and raise ClientGone."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGone
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
    answer.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
