"""The door: OpenAI's HTTP API, and those that pass beside it, in front of students and teachers.

In: HTTP from any OpenAI client. Out: the student's answer where its route allows it, else the
teacher's, byte for byte; headers that say who answered and why; a record of each. Invariants: every
error has OpenAI's shape (test_gateway_every_error_has_openai_shape); a request is one line in the
log (test_gateway_logs_a_line_a_request), without key, prompt or answer
(test_gateway_logs_no_content); settings that cannot be are not taken up, and the old ones stay
(test_gateway_keeps_its_settings_when_the_file_breaks).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from ownweights.core.project import Project
from ownweights.gateway.admission import check_admission
from ownweights.gateway.answering import Answering
from ownweights.gateway.audits import Auditor
from ownweights.gateway.callers import Callers
from ownweights.gateway.connection import Drains
from ownweights.gateway.exchange import Exchange, named_workload, open_exchange
from ownweights.gateway.feedback import keep, read_feedback
from ownweights.gateway.housekeeping import Housekeeping
from ownweights.gateway.judges import LiveJudges
from ownweights.gateway.keys.account import Accounts
from ownweights.gateway.keys.ring import KeyRing
from ownweights.gateway.protocols import PROTOCOLS, Protocol
from ownweights.gateway.reload import Reloader
from ownweights.gateway.settings import GatewaySettings
from ownweights.gateway.spending import Spending
from ownweights.gateway.student_turn import standing_of
from ownweights.gateway.students import StartEngine, Students
from ownweights.gateway.upstreams.door import TeacherDoor
from ownweights.gateway.watch.standing import Standing
from ownweights.gateway.watch.watch import Watch
from ownweights.teacher.asgi import (
    ClientGone,
    HttpError,
    Message,
    Receive,
    Scope,
    Send,
    check_method,
    decode_json,
    read_body,
    run_lifespan,
    send_error,
    send_json,
)
from ownweights.teacher.serving import is_loopback
from ownweights.traffic.record import Record
from ownweights.traffic.recorder import Recorder, RecorderCounts
from ownweights.traffic.redact import Privacy

log = logging.getLogger("ownweights.gateway")
ROOM_LOOK_S = 0.005
HELD_S = 0.005  # sending takes this long only where the caller is slow to read
LET_GO_S = 1.0
CUT_WAIT_S = 1.0  # for what was cut to be recorded
_METHODS = {
    **dict.fromkeys([*PROTOCOLS, "/v1/feedback"], "POST"),
    **dict.fromkeys(["/v1/models", "/health", "/ready"], "GET"),
}


class Keeper(Interface):
    """Takes records without waiting; `traffic.Recorder` or a list in tests."""

    def offer(self, record: Record, *, num_bytes: int = ...) -> bool: ...

    def has_room(self) -> bool: ...

    def pace_s(self) -> float: ...

    def counts(self) -> RecorderCounts: ...

    def follow(self, privacy: Privacy) -> None: ...

    def close(self, timeout_s: float = ...) -> Any: ...


class Gateway:
    """The ASGI app. Nothing starts before the server's lifespan does.

    `reload` gives the settings anew; it is asked when the project's own.toml changes.
    """

    def __init__(
        self,
        project: Project,
        settings: GatewaySettings,
        *,
        start_engine: StartEngine,
        recorder: Keeper | None = None,
        reload: Callable[[], GatewaySettings] | None = None,
    ) -> None:
        self._project = project
        self._settings = settings
        self._start_engine = start_engine
        self._recorder = recorder
        self._ring = KeyRing(project)
        self._callers = Callers(settings, self._ring)
        self._spending = Spending(Accounts(self._ring.tally))
        self._is_started = self._is_draining = False
        self._num_cut = 0
        self.watch = Watch(settings)
        self._housekeeping = Housekeeping(project, settings)
        self._reloader = Reloader(project.settings_path, reload, self._take_up)

    async def start(self) -> None:
        """Open the recorder and the way to the teachers; begin to load students."""
        self._settings.check_keys()
        self._privacy = Privacy(self._project, self._settings.privacy)
        self._recorder = self._recorder or Recorder(
            self._project, privacy=self._privacy, on_wait=self.watch.metrics.recorder_waited
        )
        self._door = TeacherDoor(self._settings)
        self._students = Students(self._project, self._start_engine)
        self._judges = LiveJudges(self._project, self._settings)
        self._auditor = Auditor(self._project, self._judges)
        self._drains = Drains()
        self._answering = Answering(
            self._project, self._settings, students=self._students, door=self._door,
            auditor=self._auditor, spending=self._spending,
        )  # fmt: skip
        await asyncio.to_thread(self._ring.start)
        await self._auditor.start()
        self._answering.follow()
        self.watch.start(self._standing)
        self._housekeeping.start()
        self._reloader.start()
        self._is_started = True

    async def stop(self) -> None:
        """Let go of students and teachers, and write down what is still to be written."""
        await self._say_cut()
        await self._reloader.close()
        await self._housekeeping.close()
        await self._auditor.close()
        await self._judges.close()
        await self._students.close()
        await self._door.close()
        await asyncio.to_thread(self._ring.close)
        await self.watch.close()
        await asyncio.to_thread(self._keeper.close)

    def begin_stop(self) -> None:
        """Say that no more requests are taken, and how many are still open."""
        self._is_draining = True
        if self.watch.num_open:
            log.warning("stopping: %d requests are open and have %g s to end",
                        self.watch.num_open, self._settings.drain_s)  # fmt: skip

    async def _say_cut(self) -> None:
        """Wait shortly until what was cut is recorded, and say how many those were."""
        give_up_s = time.monotonic() + CUT_WAIT_S
        while self.watch.num_open and time.monotonic() < give_up_s:
            await asyncio.sleep(ROOM_LOOK_S)
        if num_cut := self._num_cut + self.watch.num_open:
            log.warning("%d requests were cut: they were not over in time", num_cut)

    def reload_soon(self) -> None:
        """Read the settings anew at once, whether or not the file has changed."""
        self._reloader.hurry()

    def let_go(self) -> None:
        """Where nothing was stopped in good order, still write down what is waiting."""
        if self._is_started and self._recorder is not None:
            self._recorder.close(timeout_s=LET_GO_S)

    @property
    def _keeper(self) -> Keeper:
        assert self._recorder is not None, "a gateway that was started has a recorder"
        return self._recorder

    def _take_up(self, settings: GatewaySettings) -> None:
        """Go on with other settings, from the next request on."""
        privacy = Privacy(self._project, settings.privacy)  # may refuse; nothing is changed then
        self._settings, self._privacy = settings, privacy
        self._callers.follow(settings)
        self._answering.settings = self._housekeeping.settings = settings
        self._door.follow(settings)
        self._judges.follow(settings)
        self._keeper.follow(privacy)
        self.watch.follow(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self.start, self.stop)
            return
        assert scope["type"] == "http", "websockets are switched off"
        is_started = False

        async def tell(message: Message) -> None:
            nonlocal is_started
            before_s = time.perf_counter()
            if not is_started:
                is_started, scope["own_began_s"] = True, before_s
            await send(message)
            if (took_s := time.perf_counter() - before_s) > HELD_S:
                scope["own_held_s"] = scope.get("own_held_s", 0.0) + took_s

        self.watch.num_open += 1
        try:
            await self._respond(scope, receive, tell)
        except HttpError as error:
            self.watch.metrics.refused(error.status)
            log.info("refused %d %s", error.status, error.code)
            await send_error(send, error)
        except ClientGone:
            return
        except Exception as error:  # a defect of ours: say so in the shape that clients read
            log.error("a request failed with %s", type(error).__name__)
            if not is_started:
                what = "the gateway failed at this request"
                await send_error(send, HttpError(500, what, code="internal", kind="server_error"))
        finally:
            self.watch.num_open -= 1

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_admission(scope, self._settings)
        path = scope["path"]
        wanted = _METHODS.get(path)
        if wanted is None:
            raise HttpError(404, "there is no such path here", code="unknown_url")
        check_method(scope, wanted)
        if path in PROTOCOLS:
            await self._exchange(PROTOCOLS[path], scope, receive, send)
        elif path == "/v1/models":
            await self._models(scope, send)
        elif path == "/v1/feedback":
            feedback = await read_feedback(self._callers, scope, receive)
            await keep(self._project, self._privacy, feedback, send)
        elif path == "/health":
            await send_json(send, 200, {"status": "ok"})
        else:
            said = await self.status() if is_loopback(self._settings.host) else {}
            await send_json(send, self.ready_status, {**said, "status": self.standing})

    @property
    def standing(self) -> str:
        """Whether it can take requests: `ready`, or why not."""
        if not self._is_started:
            return "starting"
        return "draining" if self._is_draining else "ready"

    @property
    def ready_status(self) -> int:
        """The HTTP status that tells a balancer the same."""
        return 200 if self.standing == "ready" else 503

    @property
    def project(self) -> Project:
        return self._project

    async def status(self) -> dict[str, Any]:
        """How everything stands, for the operator."""
        if not self._is_started:
            return {"status": self.standing}
        routes, faults = self._answering.follow(), self._answering.routes.faults
        counts = self._keeper.counts()
        return {
            "status": self.standing,
            "engine": self._students.state,
            "engine_fault": self._students.fault,
            "routes": {name: route.id for name, route in routes.items()},
            "stages": {name: standing_of(route).stage for name, route in routes.items()},
            "route_faults": {name: str(fault) for name, fault in faults.items()},
            "judge_faults": await self._judges.faults(routes),
            "records": {"stored": counts.recorded, "waiting": counts.waiting, "lost": counts.lost},
            "record_fault": counts.fault or None,
            "settings_fault": self._reloader.fault or None,
            "resting": {name: s for name, s in self._door.resting_s().items() if s > 0},
        }

    def _standing(self) -> Standing:
        """How the parts stand, for the metrics."""
        routes = self._answering.follow()
        self.watch.metrics.workloads.allow(routes)
        tries = self._door.tries
        return Standing(
            in_flight=self.watch.num_open,
            records=self._keeper.counts(),
            drains=(self._drains.count, self._drains.total),
            engine=self._students.state,
            is_draining=self._is_draining,
            retries=tries.retries,
            failovers=tries.failovers,
            resting_s=self._door.resting_s(),
            audits=self._auditor.begun,
            stages={name: standing_of(route).stage for name, route in routes.items()},
        )

    async def _models(self, scope: Scope, send: Send) -> None:
        caller = await self._callers.of(scope)
        workload = named_workload(scope, {})
        route = self._answering.follow().get(workload or "")
        if workload is None and len(self._settings.teachers) > 1:
            what = "there are several teachers: name the workload whose teacher you mean"
            raise HttpError(400, what, code="workload_needed", param="x-own-workload")
        upstream = self._answering.upstream(route.teacher if route else "", workload or "")
        if (refusal := caller.refusal(upstream)) is not None:
            raise refusal
        status, headers, body = await self._door.fetch(upstream, scope, caller)
        log.info("models %d", status)
        size = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, size]})
        await send({"type": "http.response.body", "body": body})

    async def _exchange(
        self, protocol: Protocol, scope: Scope, receive: Receive, send: Send
    ) -> None:
        caller = await self._callers.of(scope)
        raw = await read_body(receive, self._settings.max_body_bytes)
        started_s = time.perf_counter()
        exchange = open_exchange(scope, raw, decode_json(raw), protocol, caller=caller)
        exchange.started_s = started_s
        await self._wait_for_room(exchange)
        self.watch.began(exchange, scope)
        is_drained = self._settings.on_client_gone == "drain"
        try:
            work = self._answering.answer(exchange, scope, send)
            exchange.has_left = not await self._drains.while_connected(
                work, receive, is_drained=is_drained
            )
        except HttpError as error:
            exchange.fail(error)
            await send_error(send, error, exchange.headers())
        except ClientGone:
            if exchange.status != "ok":  # many a client leaves once it has read [DONE]
                exchange.error, exchange.status = "client_gone", "partial"
        except asyncio.CancelledError:  # by the server, which waits no longer
            self._num_cut += 1
            exchange.error, exchange.status = "gateway_stopped", "partial"
            raise
        finally:
            try:
                self.watch.ended(exchange, scope)
            finally:
                self._record(exchange)
                self._answering.compare(exchange, scope)

    def _record(self, exchange: Exchange) -> None:
        self._spending.settle(exchange)
        if log.isEnabledFor(logging.INFO):
            log.info("%s", exchange.told())
        if exchange.is_stored:
            self._keeper.offer(exchange.record(), num_bytes=exchange.num_bytes)

    async def _wait_for_room(self, exchange: Exchange) -> None:
        """Where records may not be shed, hold a request back until its record has room; else only
        a moment, where answering is faster than storing."""
        if not exchange.is_stored:
            return
        if (pace_s := self._keeper.pace_s()) > 0:
            await asyncio.sleep(pace_s)
        if self._settings.on_full != "block":
            return
        give_up_s = asyncio.get_running_loop().time() + self._settings.timeout_s
        while not self._keeper.has_room():
            if asyncio.get_running_loop().time() > give_up_s:
                what = "requests cannot be recorded, and gateway.on_full says to wait for that"
                raise HttpError(503, what, code="recorder_full", kind="server_error")
            await asyncio.sleep(ROOM_LOOK_S)
