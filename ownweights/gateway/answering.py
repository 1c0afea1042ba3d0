"""Who answers a request: its student where the route allows it, else its teacher.

In: an exchange that was opened. Out: the answer on the caller's connection, and afterwards, where
the route is watched, a comparison of student and teacher. Invariants: a rollback holds from the
next request on (test_gateway_follows_a_swap_while_serving); an answer that another teacher gave in
place of the route's is not compared with (test_gateway_compares_with_the_routes_teacher_alone).
"""

from __future__ import annotations

import contextlib
import dataclasses

from ownweights.core.project import Project
from ownweights.gateway.audits import Auditor, Both, Compared, StudentFailed
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.names import WorkloadNames
from ownweights.gateway.protocols import CHAT
from ownweights.gateway.routes import RouteTable
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.gateway.spending import Spending
from ownweights.gateway.student_stream import may_stream, stream_student
from ownweights.gateway.student_turn import (
    is_kept_back,
    may_try,
    send_student,
    standing_of,
    try_student,
)
from ownweights.gateway.students import Students
from ownweights.gateway.upstreams.door import TeacherDoor
from ownweights.route import BELOW_THRESHOLD, Route
from ownweights.teacher.asgi import HttpError, Scope, Send
from ownweights.teacher.wire import parse_completion


class Answering:
    """Answers requests by the routes in force and the settings given."""

    def __init__(
        self,
        project: Project,
        settings: GatewaySettings,
        *,
        students: Students,
        door: TeacherDoor,
        auditor: Auditor,
        spending: Spending,
    ) -> None:
        self.settings = settings
        self.routes = RouteTable(project)
        self._names = WorkloadNames(project)
        self._students, self._door = students, door
        self._auditor, self._spending = auditor, spending

    def follow(self) -> dict[str, Route]:
        """Read the routes in force, and want the students they name."""
        routes = self.routes.current()
        self._students.want(frozenset(route.student_id for route in routes.values()))
        return routes

    async def answer(self, exchange: Exchange, scope: Scope, send: Send) -> None:
        """Answer a request; HttpError where nobody could and nothing was sent."""
        self.follow()
        route = self.routes.find(exchange.workload, exchange.prompt_hash)
        if exchange.workload is None:
            exchange.workload = (
                await self._names.of(exchange.prompt_hash) if route is None else route.workload
            )
        exchange.route = route
        self._spending.admit(exchange)
        completion = None
        if exchange.is_forced:
            exchange.reason = "forced"
        elif exchange.protocol is not CHAT:
            exchange.reason = "no_route" if route is None else "ineligible:protocol"
        elif route is not None and may_try(
            exchange, route, is_allowed=exchange.caller.may_ask_students
        ):
            if may_stream(exchange, route):
                if await stream_student(exchange, route, self._students, send):
                    return
            else:
                completion = await try_student(exchange, route, self._students)
        if completion is not None:
            await send_student(exchange, completion, send)
        else:
            upstream = self.upstream(route.teacher if route else "", exchange.workload, exchange)
            self._spending.check(exchange, upstream)
            await self._door.forward(exchange, upstream, scope, send)

    def compare(self, exchange: Exchange, scope: Scope) -> None:
        """Have student and teacher compared, once the caller has an answer."""
        route, sent = exchange.route, exchange.completion
        if route is None:
            return
        standing = standing_of(route)
        upstream = self.settings.upstream(route.teacher, exchange.workload or "")
        certified = upstream.name if upstream else ""

        async def audited() -> Both:
            assert sent is not None, "what was sent is there"
            told = None
            with contextlib.suppress(HttpError):
                upstream = self.upstream(route.teacher, exchange.workload or "")
                told = await self._door.ask(exchange, upstream, scope)
            if told is None:
                return Both(sent.text or "", None)
            return Both(sent.text or "", told.text, told.usage)

        async def shadowed() -> Both | None:
            tried = dataclasses.replace(exchange, reason="", error=None)
            found = await try_student(tried, route, self._students)
            if tried.has_failed:
                raise StudentFailed
            body = exchange.response if exchange.upstream == certified else None
            told = parse_completion(body).text if body and exchange.status == "ok" else None
            return None if found is None else Both(found.text or "", told)

        if sent is not None and exchange.score is not None:
            found = Compared(exchange, route, standing, audited, certified)
            self._auditor.served(found, exchange.score)
        elif exchange.has_failed:
            self._auditor.failed(Compared(exchange, route, standing, None))
        elif exchange.reason == BELOW_THRESHOLD or is_kept_back(exchange, standing):
            self._auditor.unsure(route)
        elif exchange.reason == "shadow":
            self._auditor.shadowed(Compared(exchange, route, standing, shadowed))

    def upstream(self, named: str, workload: str, exchange: Exchange | None = None) -> Upstream:
        """The teacher of a workload; HttpError where there is none."""
        upstream = self.settings.upstream(named, workload)
        if upstream is not None:
            return upstream
        if exchange is not None and exchange.reason.startswith("ineligible:"):
            param = exchange.reason.removeprefix("ineligible:")
            what = f"the student cannot answer as asked ({param}), and there is no teacher"
            raise HttpError(400, what, code="ineligible", param=param)
        what = "no teacher is set for this request; add a [teacher.NAME] table to own.toml"
        if self.settings.teachers:
            what = (
                f"none of own.toml's teachers is the one of workload {workload!r}; name one:"
                f' [workload.{workload}] teacher = "NAME"'
            )
        raise HttpError(502, what, code="no_teacher", kind="upstream_error")
