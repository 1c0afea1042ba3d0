"""The engine child that answers for students: started, replaced when routes change, restarted.

In: the student ids that the active routes name. Out: completions, or a CompleterError while there
is no engine, so that the caller falls back to the teacher. The gateway never waits for an engine.
Invariants: a dead engine is restarted, each time later (test_students_restart_a_dead_engine); a
student that did not load is tried again when its files change
(test_students_load_again_what_was_mended); an engine is stopped only when nobody waits for it
(test_students_swap_lets_requests_finish).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from ownweights.core.artefact import read_card
from ownweights.core.chat import ChatRequest, Completion, CompletionChunk
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, CompleterTimeout, OwnError
from ownweights.core.project import Project
from ownweights.dataset.prune import PruneRule, apply_prune
from ownweights.route import Route, plain_messages
from ownweights.route.decide import confidence_of
from ownweights.verdict import Check, check_named
from ownweights.verdict.confidence.agreement import complete_with_agreement
from ownweights.weights.base import resolve_base

log = logging.getLogger("ownweights.gateway")
LOOK_S = 0.5  # how often a quiet engine is asked whether it lives
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
SETTLED_S = 60.0  # an engine that lived so long has its failures forgotten
GRACE_S = 1.0  # past the route's time-out: for an engine that does not keep it


class NotLoaded(CompleterError):
    """No engine holds the student, or its score cannot be had: says nothing of the student."""


class Engine(Protocol):
    """What the gateway needs of `ownweights.engine.EngineProcess`."""

    @property
    def failures(self) -> Mapping[str, str]: ...

    def completer(self, student_id: str) -> Completer: ...

    def is_alive(self) -> bool: ...

    def stop(self) -> Any: ...


StartEngine = Callable[[Project, Sequence[str]], Engine]
FileMarks = tuple[tuple[str, int, int], ...]


@dataclass(eq=False)
class _Running:
    """An engine, the students it holds, and how many requests wait for it."""

    engine: Engine
    student_ids: frozenset[str]
    files: FileMarks = ()  # of the students, as they were before it loaded them
    since_s: float = field(default_factory=time.monotonic)
    num_waiting: int = 0
    completers: dict[str, Completer] = field(default_factory=dict)

    def completer(self, student_id: str) -> Completer:
        if student_id not in self.completers:
            self.completers[student_id] = self.engine.completer(student_id)
        return self.completers[student_id]


class Students:
    """Keeps one engine running for the students that are wanted; `state` says how it stands."""

    def __init__(self, project: Project, start_engine: StartEngine) -> None:
        self._project = project
        self._start_engine = start_engine
        self._wanted: frozenset[str] = frozenset()
        self._running: _Running | None = None
        self._retired: set[_Running] = set()
        self._starting: asyncio.Future[Engine] | None = None
        self._changed = asyncio.Event()
        self._num_failures = 0
        self._task: asyncio.Task[None] | None = None
        self.state = "off"
        self.fault: str | None = None

    def want(self, student_ids: frozenset[str]) -> None:
        """Hold these students from now on."""
        if student_ids != self._wanted:
            self._wanted = student_ids
            self._num_failures = 0
            if self._running is None or not student_ids <= self._running.student_ids:
                self.state = "loading" if student_ids else self.state
            self._changed.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._keep())

    async def complete(self, route: Route, body: dict[str, Any]) -> Completion:
        """The student's answer to a request; CompleterError or its like when there is none."""
        async with self._asking(route) as completer:
            check = await self._agreement_check(route)
            return await _complete(completer, student_request(route, body), route, check)

    async def stream(self, route: Route, body: dict[str, Any]) -> AsyncIterator[CompletionChunk]:
        """The student's answer in pieces, with the same errors; close it to stop asking."""
        async with self._asking(route) as completer:
            request = student_request(route, body)
            chunks = completer.stream(request, timeout_s=route.timeout_s)
            async with contextlib.aclosing(cast(Any, chunks)):
                async for chunk in chunks:
                    yield chunk

    async def _agreement_check(self, route: Route) -> Check | None:
        """What says whether sampled answers agree; None for a score that samples none.

        Raises: NotLoaded where it reads a file that is not as it was certified
        """
        from ownweights.verdict.confidence import AGREEMENT

        confidence = confidence_of(route)
        if confidence.kind != AGREEMENT:
            return None
        try:
            return await asyncio.to_thread(check_named, confidence.check, self._project.root)
        except OwnError as error:  # says nothing of the student
            what = f"route {route.id} cannot score answers: {error.what}"
            raise NotLoaded(what, hint=error.hint) from None

    @contextlib.asynccontextmanager
    async def _asking(self, route: Route) -> AsyncIterator[Completer]:
        """Who answers for a route's student; the engine is kept while it is asked."""
        running = self._running
        if running is None or route.student_id not in running.student_ids:
            raise NotLoaded(f"no engine holds student {route.student_id}: {self.state}")
        running.num_waiting += 1
        try:
            yield running.completer(route.student_id)
        except CompleterTimeout:
            raise
        except CompleterError:
            self._changed.set()  # perhaps the engine died: look now
            raise
        finally:
            running.num_waiting -= 1
            if running in self._retired and not running.num_waiting:
                self._changed.set()

    async def close(self) -> None:
        """Stop the engine, also one that is still starting."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._starting is not None:
            with contextlib.suppress(Exception):
                self._retired.add(_Running(await self._starting, frozenset()))
        if self._running is not None:
            self._retire(self._running)
        for running in list(self._retired):
            await self._stop(running)
        self.state = "off"

    async def _keep(self) -> None:
        """For ever: have an engine that holds what is wanted, and stop those that are not."""
        while True:
            self._changed.clear()
            await self._look()
            for running in [r for r in self._retired if not r.num_waiting]:
                await self._stop(running)
            wait_s = LOOK_S
            if self.state == "down":
                wait_s = BACKOFF_S[min(self._num_failures, len(BACKOFF_S)) - 1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _look(self) -> None:
        running = self._running
        if running is not None and not running.engine.is_alive():
            self._retire(running)
            if time.monotonic() - running.since_s > SETTLED_S:
                self._num_failures = 0
            self._fail("the engine process ended by itself")
        elif not self._wanted:
            if running is not None:
                self._retire(running)
            self.state, self.fault = "off", None
        elif running is None or not self._wanted <= running.student_ids or self._is_mended(running):
            await self._start()

    def _is_mended(self, running: _Running) -> bool:
        """Whether a student that is wanted did not load, and files have changed since."""
        missing = self._wanted & running.engine.failures.keys()
        return bool(missing) and file_marks(self._project, running.student_ids) != running.files

    async def _start(self) -> None:
        wanted, self.state = self._wanted, "loading"
        files = file_marks(self._project, wanted)
        self._starting = asyncio.ensure_future(
            asyncio.to_thread(self._start_engine, self._project, sorted(wanted))
        )
        try:
            engine = await asyncio.shield(self._starting)
        except Exception as error:  # whatever it is, the teacher goes on answering
            self._starting = None
            self._fail(str(error) if isinstance(error, OwnError) else type(error).__name__)
            return
        self._starting = None
        if self._running is not None:
            self._retire(self._running)
        self._running = _Running(engine, wanted, files)
        faults = [f"student {name}: {why}" for name, why in engine.failures.items()]
        self.state = "ready"
        self._say("; ".join(faults) or None)
        self._changed.set()

    def _fail(self, fault: str) -> None:
        self.state = "down"
        self._say(fault)
        self._num_failures += 1

    def _say(self, fault: str | None) -> None:
        """Keep what is wrong, and log it when it is new."""
        if fault is not None and fault != self.fault:
            log.warning("the teacher answers where students do not: %s", fault)
        elif fault is None and self.fault is not None:
            log.warning("all students are loaded again")
        self.fault = fault

    def _retire(self, running: _Running) -> None:
        self._retired.add(running)
        if running is self._running:
            self._running = None

    async def _stop(self, running: _Running) -> None:
        self._retired.discard(running)
        for completer in running.completers.values():
            with contextlib.suppress(Exception):
                await completer.close()
        with contextlib.suppress(Exception):
            await asyncio.to_thread(running.engine.stop)


async def _complete(
    completer: Completer, request: ChatRequest, route: Route, check: Check | None
) -> Completion:
    """The answer with all that the route's score is made of."""
    confidence = confidence_of(route)
    try:
        async with asyncio.timeout(route.timeout_s + GRACE_S):
            if check is None:
                return await completer.complete(request, timeout_s=route.timeout_s)
            return await complete_with_agreement(
                completer, request, check, samples=confidence.samples, timeout_s=route.timeout_s
            )
    except CompleterTimeout:
        raise
    except TimeoutError:
        raise CompleterTimeout(f"no answer within {route.timeout_s} s") from None


def file_marks(project: Project, student_ids: Iterable[str]) -> FileMarks:
    """Name, change time and size of every file that students are made of, their bases' too."""
    marks: list[tuple[str, int, int]] = []
    for student_id in sorted(student_ids):
        folder = project.kind_dir("student") / student_id
        for path in [*_files_in(folder), *_files_in(_base_of(project, folder))]:
            with contextlib.suppress(OSError):
                found = path.stat()
                marks.append((str(path), found.st_ctime_ns, found.st_size))
    return tuple(marks)


def _files_in(folder: Path | None) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder is not None else []
    except OSError:
        return []


def _base_of(project: Project, student: Path) -> Path | None:
    try:
        identity = read_card(student)["identity"]
        return resolve_base(project, str(identity["base_name"]))
    except (OwnError, OSError, KeyError, TypeError):
        return None


def student_request(route: Route, body: dict[str, Any]) -> ChatRequest:
    """The request as the student sees it: pruned as in its dataset, decoded as it was certified."""
    rule = None if route.prune is None else PruneRule.from_json(route.prune)
    wanted: dict[str, Any] = {
        "model": route.student_id,
        "messages": apply_prune(rule, plain_messages(body["messages"])),
        "temperature": 0,
        **route.decoding,
    }
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    limits = [limit for limit in (asked, wanted.get("max_tokens")) if limit is not None]
    if limits:
        wanted["max_tokens"] = min(limits)
    return ChatRequest(wanted)
