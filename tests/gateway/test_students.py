"""The engine child: started, swapped, restarted, stopped, with nobody waiting for it in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.chat import Completion
from ownweights.core.errors import (
    ArtefactMissing,
    CompleterError,
    CompleterTimeout,
    Ineligible,
)
from ownweights.core.project import Project
from ownweights.gateway.students import Students, file_marks, student_request
from tests.fakes import ScriptedTeacher
from tests.gateway.harness import Engines, FakeEngine, sure
from tests.route.samples import STUDENT, SYSTEM, body_of, drop_rule, route_of

OTHER = "0123456789ab"
ROUTE = route_of()
PROJECT = Project(Path("nowhere"))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.students.BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr("ownweights.gateway.students.LOOK_S", 0.001)


async def until(is_true: Callable[[], bool]) -> None:
    """Let the others run until it is so."""
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0)


def use(
    engines: Any, steps: Callable[[Students], Awaitable[Any]], project: Project = PROJECT
) -> Any:
    """What the steps make of students, which are closed afterwards."""

    async def whole() -> Any:
        students = Students(project, engines)
        try:
            return await steps(students)
        finally:
            await students.close()

    return asyncio.run(whole())


def test_students_start_an_engine_for_what_is_wanted() -> None:
    engines = Engines(sure("yes"))

    async def steps(students: Students) -> Completion:
        assert students.state == "off"
        students.want(frozenset({STUDENT, OTHER}))
        assert students.state == "loading"
        await until(lambda: students.state == "ready")
        return await students.complete(ROUTE, body_of())

    assert use(engines, steps).text == "yes"
    assert engines.wanted == [tuple(sorted((STUDENT, OTHER)))]
    assert engines.started[0].asked_for == [STUDENT]
    assert engines.started[0].num_stops == 1


def test_students_wanting_nothing_starts_nothing() -> None:
    engines = Engines()

    async def steps(students: Students) -> None:
        students.want(frozenset())
        for _ in range(10):
            await asyncio.sleep(0)
        assert students.state == "off"

    use(engines, steps)
    assert engines.wanted == []


def test_students_without_an_engine_say_so() -> None:
    async def steps(students: Students) -> None:
        with pytest.raises(CompleterError, match=f"no engine holds student {STUDENT}: off"):
            await students.complete(ROUTE, body_of())

    use(Engines(), steps)


def test_students_engine_without_that_student_says_so() -> None:
    async def steps(students: Students) -> None:
        students.want(frozenset({OTHER}))
        await until(lambda: students.state == "ready")
        with pytest.raises(CompleterError, match="no engine holds student"):
            await students.complete(ROUTE, body_of())

    use(Engines(), steps)


def test_students_stream_is_the_answer_and_keeps_the_engine_meanwhile() -> None:
    engines = Engines(sure("a longer answer"))

    async def steps(students: Students) -> str:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        chunks, texts = students.stream(ROUTE, body_of()), []
        async for chunk in chunks:
            texts.append(chunk.text)
            students.want(frozenset())
            for _ in range(9):
                await asyncio.sleep(0)
            assert engines.started[0].num_stops == 0
        await until(lambda: engines.started[0].num_stops == 1)
        return "".join(texts)

    assert use(engines, steps) == "a longer answer"


def test_students_stream_without_an_engine_says_so() -> None:
    async def steps(students: Students) -> None:
        with pytest.raises(CompleterError, match="no engine holds student"):
            await anext(students.stream(ROUTE, body_of()))

    use(Engines(), steps)


def test_students_use_one_completer_for_all_requests() -> None:
    engines = Engines(sure("yes"))

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        await asyncio.gather(*(students.complete(ROUTE, body_of()) for _ in range(20)))

    use(engines, steps)
    assert engines.started[0].asked_for == [STUDENT]
    inner = engines.started[0].inner
    assert isinstance(inner, ScriptedTeacher)
    assert inner.is_closed
    assert len(inner.asked) == 20


def test_students_restart_a_dead_engine() -> None:
    engines = Engines(sure("yes"))

    async def steps(students: Students) -> str | None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        engines.started[0].kill()
        with pytest.raises(CompleterError):
            await students.complete(ROUTE, body_of())
        await until(lambda: len(engines.started) == 2 and students.state == "ready")
        return (await students.complete(ROUTE, body_of())).text

    assert use(engines, steps) == "yes"
    assert [engine.num_stops for engine in engines.started] == [1, 1]


def test_students_notice_a_dead_engine_that_nobody_asked() -> None:
    engines = Engines()

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        engines.started[0].kill()
        await until(lambda: len(engines.started) == 2)

    use(engines, steps)


def test_students_try_again_until_the_engine_starts() -> None:
    engines = Engines(fails=[ArtefactMissing("no student"), RuntimeError("private"), OSError()])
    told: set[str | None] = set()

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))

        def is_ready() -> bool:
            told.add(students.fault)
            return students.state == "ready"

        await until(is_ready)
        assert students.fault is None

    use(engines, steps)
    assert len(engines.wanted) == 4
    assert told <= {None, "no student", "RuntimeError", "OSError"}


def test_students_wait_longer_after_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    real = asyncio.timeout

    def noted(delay: float | None) -> asyncio.Timeout:
        waits.append(delay)
        return real(0)

    engines = Engines(fails=[OSError()] * 4)

    async def steps(students: Students) -> None:
        monkeypatch.setattr("ownweights.gateway.students.asyncio.timeout", noted)
        students.want(frozenset({STUDENT}))
        while students.state != "ready":
            await asyncio.sleep(0)
        monkeypatch.undo()

    monkeypatch.setattr("ownweights.gateway.students.BACKOFF_S", (0.5, 1.0, 2.0))
    use(engines, steps)
    assert [wait for wait in waits if wait and wait >= 0.5] == [0.5, 1.0, 2.0, 2.0]


def test_students_new_wish_is_tried_at_once_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ownweights.gateway.students.BACKOFF_S", (3600.0,))
    engines = Engines(fails=[ArtefactMissing("no student")])

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "down")
        students.want(frozenset({OTHER}))
        await until(lambda: students.state == "ready")

    use(engines, steps)
    assert engines.wanted == [(STUDENT,), (OTHER,)]


def test_students_swap_lets_requests_finish() -> None:
    first_asked, go = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedTeacher):
        async def complete(self, request: Any, *, timeout_s: float | None = None) -> Completion:
            first_asked.set()
            await go.wait()
            return await super().complete(request, timeout_s=timeout_s)

    engines = Engines(Slow(sure("from the old one")))

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        asked = asyncio.ensure_future(students.complete(ROUTE, body_of()))
        await first_asked.wait()
        engines.script = sure("from the new one")
        students.want(frozenset({STUDENT, OTHER}))
        await until(lambda: len(engines.started) == 2 and students.state == "ready")
        assert (await students.complete(ROUTE, body_of())).text == "from the new one"
        assert engines.started[0].num_stops == 0
        go.set()
        assert (await asked).text == "from the old one"
        await until(lambda: engines.started[0].num_stops == 1)

    use(engines, steps)


def test_students_fewer_wanted_keep_the_engine() -> None:
    engines = Engines(sure("yes"))

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT, OTHER}))
        await until(lambda: students.state == "ready")
        students.want(frozenset({STUDENT}))
        assert students.state == "ready"
        assert (await students.complete(ROUTE, body_of())).text == "yes"

    use(engines, steps)
    assert len(engines.started) == 1


def test_students_none_wanted_stop_the_engine() -> None:
    engines = Engines()

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        students.want(frozenset())
        await until(lambda: engines.started[0].num_stops == 1)
        assert students.state == "off"

    use(engines, steps)


def test_students_close_stops_an_engine_that_is_still_starting() -> None:
    is_starting, go = threading.Event(), threading.Event()
    engines = Engines()

    def slow(project: Project, student_ids: Sequence[str]) -> FakeEngine:
        is_starting.set()
        assert go.wait(30)
        return engines(project, student_ids)

    async def whole() -> None:
        students = Students(PROJECT, slow)
        students.want(frozenset({STUDENT}))
        await until(is_starting.is_set)
        closing = asyncio.ensure_future(students.close())
        await asyncio.sleep(0)
        go.set()
        await closing

    asyncio.run(whole())
    assert [engine.num_stops for engine in engines.started] == [1]


def test_students_close_before_anything_is_allowed() -> None:
    async def steps(students: Students) -> None:
        await students.close()

    use(Engines(), steps)


def test_students_failures_of_single_students_are_told() -> None:
    engines = Engines()
    engines.failures = {OTHER: "adapter is damaged"}

    async def steps(students: Students) -> str | None:
        students.want(frozenset({STUDENT, OTHER}))
        await until(lambda: students.state == "ready")
        return students.fault

    assert use(engines, steps) == f"student {OTHER}: adapter is damaged"


def test_students_load_again_what_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Project(tmp_path).kind_dir("student") / OTHER
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(b"damaged")
    looks: list[Any] = []
    monkeypatch.setattr(
        "ownweights.gateway.students.file_marks",
        lambda *given: looks.append(file_marks(*given)) or looks[-1],
    )
    engines = Engines(sure("yes"))
    engines.failures = {OTHER: "adapter is damaged"}

    async def steps(students: Students) -> None:
        students.want(frozenset({STUDENT, OTHER}))
        await until(lambda: len(looks) > 5)
        assert len(engines.started) == 1  # nothing changed, so nothing is tried
        engines.failures = {}
        (folder / "adapter.safetensors").write_bytes(b"mended")
        await until(lambda: len(engines.started) == 2 and students.state == "ready")
        assert students.fault is None
        assert (await students.complete(ROUTE, body_of())).text == "yes"
        await until(lambda: engines.started[0].num_stops == 1)

    use(engines, steps, Project(tmp_path))
    assert caplog.messages == [
        f"the teacher answers where students do not: student {OTHER}: adapter is damaged",
        "all students are loaded again",
    ]


def test_students_reload_that_fails_keeps_the_engine_and_is_tried_again(tmp_path: Path) -> None:
    engines = Engines(sure("yes"))
    engines.failures = {OTHER: "it is gone"}

    async def steps(students: Students) -> str | None:
        students.want(frozenset({STUDENT, OTHER}))
        await until(lambda: students.state == "ready")
        engines.fails, engines.failures = [OSError()] * 3, {}
        (Project(tmp_path).kind_dir("student") / OTHER).mkdir(parents=True)
        (Project(tmp_path).kind_dir("student") / OTHER / "card.json").write_text("{}")
        await until(lambda: students.state == "down")
        assert (await students.complete(ROUTE, body_of())).text == "yes"
        await until(lambda: students.state == "ready" and len(engines.started) == 2)
        return students.fault

    assert use(engines, steps, Project(tmp_path)) is None
    assert len(engines.wanted) == 5


def test_file_marks_change_with_the_student_and_its_base(tmp_path: Path) -> None:
    project = Project(tmp_path)
    student, base = project.kind_dir("student") / STUDENT, project.kind_dir("base") / "mine"
    seen = [file_marks(project, [STUDENT])]
    for path, text in (
        (base / "config.json", "{}"),
        (student / "card.json", "[]"),
        (student / "card.json", '{"id": 1, "kind": 2, "files": {}, "identity": 3}'),
        (student / "card.json",
         '{"id": "1", "kind": "student", "files": {}, "parents": {}, "facts": {}, "created_at": "",'
         ' "identity": {"base_name": "mine"}}'),
        (base / "model.safetensors", "x"),
        (student / "adapter.safetensors", "x"),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        seen.append(file_marks(project, [STUDENT]))
    assert seen[0] == seen[1] == ()
    assert len(set(seen)) == len(seen) - 1
    assert file_marks(project, [STUDENT]) == seen[-1]


def complete_with(completer: Any, route: Any = ROUTE) -> Completion:
    async def steps(students: Students) -> Completion:
        students.want(frozenset({STUDENT}))
        await until(lambda: students.state == "ready")
        return await students.complete(route, body_of())

    return use(Engines(completer), steps)


def test_students_time_out_is_the_routes() -> None:
    with pytest.raises(CompleterTimeout):
        complete_with(ScriptedTeacher("x", is_stuck=True), route_of(timeout_s=0.01))


def test_students_engine_that_ignores_the_time_out_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ownweights.gateway.students.GRACE_S", 0.01)

    class Deaf(ScriptedTeacher):
        async def complete(self, request: Any, *, timeout_s: float | None = None) -> Completion:
            return await super().complete(request)

    with pytest.raises(CompleterTimeout, match=r"no answer within 0\.01 s"):
        complete_with(Deaf("x", is_stuck=True), route_of(timeout_s=0.01))


def test_students_other_errors_pass() -> None:
    def refuse(request: object) -> Completion:
        raise Ineligible("messages", "not me")

    with pytest.raises(Ineligible):
        complete_with(ScriptedTeacher(refuse))


def test_student_request_holds_only_what_the_student_knows() -> None:
    body = body_of(user="bob", stream=True, metadata={"a": "b"}, seed=3, temperature=1)
    assert dict(student_request(ROUTE, body).body) == {
        "model": STUDENT, "messages": body_of()["messages"], "temperature": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "certified", "limit"),
    [
        ({"max_tokens": 5}, {}, 5),
        ({"max_completion_tokens": 5}, {}, 5),
        ({}, {"max_tokens": 9}, 9),
        ({"max_tokens": 5}, {"max_tokens": 9}, 5),
        ({"max_tokens": 50}, {"max_tokens": 9}, 9),
        ({"max_tokens": None}, {}, None),
    ],
)
def test_student_request_takes_the_smaller_limit(
    asked: dict[str, Any], certified: dict[str, Any], limit: int | None
) -> None:
    request = student_request(route_of(decoding=certified), body_of(**asked))
    assert request.body.get("max_tokens") == limit


def test_student_request_is_pruned_as_its_dataset() -> None:
    user = body_of()["messages"]
    body = body_of(messages=[SYSTEM, *user])
    assert student_request(route_of(prune=drop_rule()), body).messages == user
    assert student_request(ROUTE, body).messages == [SYSTEM, *user]
