"""Scores by the agreement of sampled answers: which are drawn, and by what check they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.chat import Completion
from ownweights.core.project import Project
from ownweights.gateway.students import NotLoaded, Students
from ownweights.verdict import check_named
from tests.fakes import ScriptedTeacher
from tests.gateway.harness import Engines
from tests.route.samples import STUDENT, answer_of, body_of, route_of

NUMBERS = {"weights": [0.0] * 7 + [1.0], "center": [0.0] * 8, "scale": [1.0] * 8}


def use(engines: Engines, steps: Callable[[Students], Awaitable[Any]], root: Path) -> Any:
    """What the steps make of students that are loaded."""

    async def whole() -> Any:
        students = Students(Project(root), engines)
        students.want(frozenset({STUDENT}))
        try:
            async with asyncio.timeout(30):
                while students.state != "ready":
                    await asyncio.sleep(0)
            return await steps(students)
        finally:
            await students.close()

    return asyncio.run(whole())


def test_students_draw_the_answers_that_an_agreement_needs(tmp_path: Path) -> None:
    confidence = {"kind": "agreement", "samples": 3, "check": "exact", **NUMBERS}
    route = route_of(confidence=confidence)

    def say(request: Any) -> Completion:
        return answer_of("other" if request.body.get("seed") == 2 else "yes")

    engines = Engines(say)

    async def steps(students: Students) -> Completion:
        return await students.complete(route, body_of())

    found = use(engines, steps, tmp_path)
    assert found.features is not None
    assert found.features.agreement == pytest.approx(2 / 3)
    inner = engines.started[0].inner
    assert isinstance(inner, ScriptedTeacher)
    assert [one.body.get("seed") for one in inner.asked] == [None, 1, 2, 3]


def test_students_agreement_finds_the_files_of_its_check(tmp_path: Path) -> None:
    """From the project's folder; where they are not as certified, nobody is blamed."""
    (tmp_path / "alike.py").write_text("def harm(answer, references):\n    return 0\n")
    name = check_named("custom entry=alike:harm", tmp_path).name
    route = route_of(confidence={"kind": "agreement", "samples": 2, "check": name, **NUMBERS})
    engines = Engines(lambda request: answer_of(f"a {request.body.get('seed')}"))

    async def steps(students: Students) -> None:
        found = await students.complete(route, body_of())
        assert found.features is not None
        assert found.features.agreement == 1.0
        (tmp_path / "alike.py").write_text("def harm(answer, references):\n    return 1\n")
        with pytest.raises(NotLoaded, match="cannot score answers"):
            await students.complete(route, body_of())

    use(engines, steps, tmp_path)
