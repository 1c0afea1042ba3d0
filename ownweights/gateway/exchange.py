"""One request on its way through the gateway: what was asked, who answered, why, how long it took.

In: the caller's headers and body. Out: the headers that say who answered, and the Record.
Invariant: nothing of the caller's reaches a header unchecked
(test_gateway_hostile_field_name_stays_out_of_headers).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ownweights.core.chat import Completion
from ownweights.core.errors import InputError
from ownweights.core.ids import new_id
from ownweights.gateway.callers import Caller
from ownweights.gateway.keys.account import Grant
from ownweights.gateway.protocols import CHAT, Protocol
from ownweights.gateway.settings import Upstream
from ownweights.gateway.watch.logs import Told
from ownweights.route import Route
from ownweights.teacher.asgi import Headers, HttpError, Scope, header
from ownweights.traffic.record import DERIVED, Record, Status, usage_of, user_of
from ownweights.traffic.workload import check_workload_name, conversation_of, workload_hash

MAX_SESSION_CHARS = 200
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


@dataclass(slots=True)
class Exchange:
    """A request and what became of it. `waited_s` is time spent on whoever answered, `held_s` time
    that a slow caller took to read; `began_s` is when the answer began."""

    raw: bytes
    body: dict[str, Any]
    prompt_hash: str
    workload: str | None  # as the caller named it; None until one is found
    session: str | None
    is_stored: bool
    is_forced: bool
    protocol: Protocol = CHAT
    caller: Caller = field(default_factory=Caller)
    grant: Grant | None = None  # of the caller's key, once it was let through
    id: str = field(default_factory=new_id)
    at: float = field(default_factory=time.time)
    started_s: float = field(default_factory=time.perf_counter)
    waited_s: float = 0.0
    held_s: float = 0.0
    began_s: float | None = None
    served_by: str = "teacher"
    reason: str = "no_route"
    route: Route | None = None
    has_left: bool = False  # the caller, before the answer was whole
    has_failed: bool = False  # the student, where it was asked and should have answered
    completion: Completion | None = None  # the student's, where it was sent whole
    score: float | None = None
    student_model: str = ""
    asked: Upstream | None = None  # the teacher
    response: dict[str, Any] | None = None
    num_answer_bytes: int = 0
    status: Status = "error"
    http_status: int = 0
    error: str | None = None
    _cost: tuple[float | None] | None = field(default=None, init=False)

    @property
    def upstream(self) -> str:
        """The teacher asked, as own.toml names it."""
        return self.asked.name if self.asked else ""

    @property
    def model(self) -> str:
        """The model that the caller names."""
        return _text(self.body.get("model"))

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether a stream should end with token counts."""
        options = self.body.get("stream_options")
        return isinstance(options, Mapping) and bool(options.get("include_usage"))

    @property
    def num_bytes(self) -> int:
        """How large request and answer are, as they passed."""
        return len(self.raw) + self.num_answer_bytes

    def overhead_ms(self) -> float:
        """Time since the request was read, less the waits for whoever answered or reads it."""
        return self.latency_ms() - (self.waited_s + self.held_s) * 1000

    def headers(self) -> Headers:
        """Who answers and why, for the caller."""
        found = [
            (b"x-own-request-id", self.id.encode()),
            (b"x-own-served-by", self.served_by.encode()),
            (b"x-own-reason", self.reason.encode()),
            (b"x-own-overhead-ms", f"{self.overhead_ms():.2f}".encode()),
        ]
        if self.route is not None:
            found.append((b"x-own-certificate", self.route.verdict_id.encode()))
        if self.grant is not None:
            found += self.grant.headers()
        return found

    def settle(self, response: dict[str, Any] | None, *, is_whole: bool = True) -> None:
        """Keep the answer that the caller got; without its end it is partial."""
        self.response = response
        self.status = self.protocol.status(response)
        if self.status == "ok" and not is_whole:
            self.status = "partial"

    def fail(self, error: HttpError) -> None:
        """Keep why the caller got an error."""
        self.response, self.status = None, "error"
        self.http_status, self.error = error.status, error.code

    def told(self) -> Told:
        """The request in one line: id, workload, status, who answered, why, how long, what failed.

        Nothing of it is the caller's own words: names and fields were checked.
        """
        latency_ms = self.latency_ms()
        words = (self.id, self.workload or "-", self.http_status, self.served_by, self.reason,
                 f"{latency_ms:.0f} ms", self.error or "")  # fmt: skip
        facts = {
            "id": self.id, "workload": self.workload, "status": self.http_status,
            "served_by": self.served_by, "reason": self.reason, "latency_ms": round(latency_ms, 2),
            "error": self.error,
        }  # fmt: skip
        return Told(" ".join(str(word) for word in words if word != ""), facts)

    def latency_ms(self) -> float:
        """Time since the request was read."""
        return (time.perf_counter() - self.started_s) * 1000

    def cost_usd(self) -> float | None:
        """What the answer cost at the teacher: nothing where a student gave it; None if unknown.

        To be asked when it is over.
        """
        if self.served_by == "student":
            return 0.0
        if self._cost is None:
            self._cost = (self.asked.cost_usd(self.model, self.response) if self.asked else None,)
        return self._cost[0]

    def record(self) -> Record:
        """What the traffic store keeps."""
        is_student = self.served_by == "student"
        model = self.student_model if is_student else _text((self.response or {}).get("model"))
        return Record(
            id=self.id,
            at=self.at,
            workload=self.workload or "",
            session=self.session,
            metadata=self._metadata(),
            request=self.body,
            response=self.response,
            status=self.status,
            role="student" if is_student else "teacher",
            model=model or self.model,
            source_id=None,
            prompt_hash=self.prompt_hash,
            protocol=self.protocol.name,
            end_user=user_of(self.body, self._asked_metadata()),
            key_id=self.caller.key.id if self.caller.key else None,
            upstream="" if is_student else self.upstream,
            usage=usage_of(self.response),
            cost_usd=self.cost_usd(),
            latency_ms=round(self.latency_ms(), 2),
        )

    def _asked_metadata(self) -> dict[str, Any]:
        asked = self.body.get("metadata")
        return asked if isinstance(asked, dict) else {}

    def _metadata(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            "served_by": self.served_by,
            "reason": self.reason,
            "http_status": self.http_status,
            "latency_ms": round(self.latency_ms(), 2),
            "overhead_ms": round(self.overhead_ms(), 2),
        }
        if self.has_left:
            own["client_gone"] = True
        if self.error is not None:
            own["error"] = self.error
        if self.route is not None:
            own["route"], own["threshold"] = self.route.id, self.route.threshold
            if self.route.standing is not None:
                own["stage"], own["share"] = self.route.standing.stage, self.route.standing.share
            is_known = self.score is not None and math.isfinite(self.score)
            own["score"] = self.score if is_known else None
        return {**self._asked_metadata(), "own": own}


def open_exchange(
    scope: Scope,
    raw: bytes,
    body: dict[str, Any],
    protocol: Protocol = CHAT,
    *,
    caller: Caller | None = None,
) -> Exchange:
    """The exchange that a request starts; HttpError 400 for what can be no chat request."""
    messages = body.get("messages")
    is_chat = isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
    if protocol is CHAT and not is_chat:
        what = "'messages' must be a list of message objects"
        raise HttpError(400, what, code="invalid_messages", param="messages")
    asked = body.get("metadata")
    metadata: Mapping[str, Any] = asked if isinstance(asked, dict) else {}
    prompt_hash = workload_hash(body, protocol.name)
    caller = caller or Caller()
    return Exchange(
        raw=raw,
        body=body,
        prompt_hash=prompt_hash,
        workload=named_workload(scope, metadata),
        session=_session(scope, metadata) or conversation_of(body, prompt_hash),
        is_stored=not _flag(scope, b"x-own-no-store") and caller.is_recorded,
        is_forced=_flag(scope, b"x-own-force-teacher"),
        protocol=protocol,
        caller=caller,
    )


def named_workload(scope: Scope, metadata: Mapping[str, Any]) -> str | None:
    """The workload that the caller names, if any; HttpError 400 for what can be no name."""
    named = header(scope, b"x-own-workload")
    where = "x-own-workload" if named is not None else "metadata.workload"
    named = named if named is not None else metadata.get("workload")
    if named is None:
        return None
    try:
        return check_workload_name(named, where=where)
    except InputError as error:
        raise HttpError(400, str(error), code="invalid_workload", param=where) from None


def _session(scope: Scope, metadata: Mapping[str, Any]) -> str | None:
    named = header(scope, b"x-own-session") or metadata.get("session")
    if not isinstance(named, str) or not named:
        return None
    if named.startswith(DERIVED):
        what = f"a session that is named does not begin with {DERIVED!r}"
        raise HttpError(400, what, code="invalid_session", param="x-own-session")
    if len(named) > MAX_SESSION_CHARS:
        what = f"a session has at most {MAX_SESSION_CHARS} characters"
        raise HttpError(400, what, code="invalid_session", param="x-own-session")
    return named


def _flag(scope: Scope, name: bytes) -> bool:
    value = (header(scope, name) or "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    shown = name.decode()
    raise HttpError(400, f"{shown} must be 1 or 0", code="invalid_header", param=shown)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
