"""A gateway in a thread, with a made-up engine behind it and records kept in a list."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from ownweights.core.chat import Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError
from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.route import Route
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import Audit
from ownweights.route.rollout import Stage, first_standing
from ownweights.route.route import stand
from ownweights.teacher.wire import sse_event
from ownweights.traffic import Record, RecorderCounts
from ownweights.traffic.redact import Privacy
from tests.fakes import Script, ScriptedTeacher
from tests.route.samples import answer_of, follow
from tests.teacher.servers import running

WAIT_S = 30.0
DONE = b"data: [DONE]\n\n"


class KeptRecords:
    """A recorder that keeps records in a list, and lets a test wait for them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_closed = False
        self.num_bytes: list[int] = []  # of each record
        self.room = True
        self.pace = 0.0
        self._changed = threading.Condition()

    def offer(self, record: Record, *, num_bytes: int = 0) -> bool:
        with self._changed:
            self.records.append(record)
            self.num_bytes.append(num_bytes)
            self._changed.notify_all()
        return True

    def follow(self, privacy: Privacy) -> None:
        self.privacy = privacy

    def has_room(self) -> bool:
        return self.room

    def pace_s(self) -> float:
        return self.pace

    def counts(self) -> RecorderCounts:
        return RecorderCounts(
            offered=len(self.records), recorded=len(self.records), waiting=0, lost=0, failures=0,
            last_error="", fault="",
        )  # fmt: skip

    def close(self, timeout_s: float = 5.0) -> None:
        self.is_closed = True

    def wait(self, count: int = 1) -> Record:
        """The last record, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.records) >= count, WAIT_S)
            return self.records[-1]


class FakeEngine:
    """An engine that answers by script until it is killed."""

    def __init__(self, completer: Completer, failures: Mapping[str, str] | None = None) -> None:
        self.inner = completer
        self.failures: Mapping[str, str] = failures or {}
        self.asked_for: list[str] = []
        self.alive = True
        self.num_stops = 0

    def completer(self, student_id: str) -> Completer:
        self.asked_for.append(student_id)
        return self.inner

    def is_alive(self) -> bool:
        return self.alive

    def stop(self) -> None:
        self.num_stops += 1

    def kill(self) -> None:
        """End as a process does: whoever asks is told that nobody is there."""
        self.alive = False

        def gone(request: object) -> Completion:
            raise CompleterError("the engine is gone")

        self.inner = ScriptedTeacher(gone)


class Engines:
    """Starts engines; `fails` is what the next starts raise, one each."""

    def __init__(self, script: Script | Completer = "yes", *, fails: Sequence[Exception] = ()):
        self.script = script
        self.fails = list(fails)
        self.started: list[FakeEngine] = []
        self.wanted: list[tuple[str, ...]] = []
        self.failures: Mapping[str, str] = {}

    def __call__(self, project: Project, student_ids: Sequence[str]) -> FakeEngine:
        self.wanted.append(tuple(student_ids))
        if self.fails:
            raise self.fails.pop(0)
        completer = self.script
        if not isinstance(completer, Completer):
            completer = ScriptedTeacher(completer)
        engine = FakeEngine(completer, self.failures)
        self.started.append(engine)
        return engine


def sure(text: str, logprob: float = -0.1) -> Callable[[object], Completion]:
    """A script that always gives this answer, as sure as that."""
    return lambda request: answer_of(text, logprob=logprob)


@dataclass
class Running:
    """A gateway that is being served."""

    url: str
    kept: KeptRecords
    engines: Engines
    clients: list[httpx.Client] = field(default_factory=list[httpx.Client])

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def chat_url(self) -> str:
        return f"{self.url}/v1/chat/completions"

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """One chat request; header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return httpx.post(self.chat_url, content=body, headers=named, timeout=WAIT_S)
        return httpx.post(self.chat_url, json=body, headers=named, timeout=WAIT_S)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key="k", max_retries=0)

    def status(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/ready", timeout=WAIT_S).json()

    def until(self, state: str) -> dict[str, Any]:
        """What /ready says once the engine is in that state."""
        give_up_s = time.monotonic() + WAIT_S
        while (status := self.status())["engine"] != state:
            assert time.monotonic() < give_up_s, status
        return status


def reason_of(answer: httpx.Response) -> tuple[str, str]:
    """Who answered, and why."""
    return answer.headers["x-own-served-by"], answer.headers["x-own-reason"]


@contextlib.contextmanager
def gateway(
    project: Project,
    teacher_url: str | None,
    *,
    engines: Engines | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A gateway in front of one teacher; its engine is ready when a route wants one."""
    engines = engines or Engines()
    if teacher_url is not None:
        settings.setdefault("teachers", {"main": Upstream("main", teacher_url)})
        settings.setdefault("default_teacher", "main")
    kept = KeptRecords()
    app = Gateway(project, GatewaySettings(**settings), start_engine=engines, recorder=kept)
    with running(app) as url:
        yield Running(url, kept, engines)
    assert kept.is_closed


def followed(project: Project, stage: Stage, **fields: Any) -> Route:
    """A route of the check `exact` that stands at the beginning of a stage."""
    known: dict[str, Any] = {"check": "exact", "audit_frac": 0.5, "run_length": 200.0}
    route = follow(project, **{**known, **fields})
    stand(project, "tickets", first_standing(route.id, stage), reason="test")
    return route


def audits_when(
    project: Project, route: Route, is_enough: Callable[[list[Audit]], bool]
) -> list[Audit]:
    """The audits of a route, once there are enough."""
    give_up_s = time.monotonic() + WAIT_S
    while not is_enough(found := AuditLog(project, route.id).since()[0]):
        assert time.monotonic() < give_up_s, f"{len(found)} audits"
        time.sleep(0.02)
    return found


def chunk(text: str, reason: str | None = None) -> bytes:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return sse_event({"model": "rented-1", "choices": [choice]})


WHOLE = (chunk("a "), chunk("b"), chunk("", "stop"), DONE)  # a streamed answer: "a b"


def error_code(answer: httpx.Response) -> str:
    """The status of an error answer and its code; its shape is checked."""
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return f"{answer.status_code} {answer.json()['error']['code']}"
