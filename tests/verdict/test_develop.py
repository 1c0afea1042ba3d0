"""The first phase of a verdict by itself, and what the second takes on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.verdict import Claim, RunOptions, Verdict, run_verdict
from ownweights.verdict.develop import Developed, develop, foresee
from ownweights.verdict.ledger import MemoryLedger
from ownweights.verdict.preview import Preview
from ownweights.verdict.run import certify_student
from ownweights.verdict.trial import Trial
from tests.fakes import ScriptedTeacher, last_user_text
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def trial(
    project: Project, student_id: str = "student1", *, num_certify: int = 300, **known
) -> tuple[Trial, ScriptedTeacher]:
    data = worlds.dataset(200, num_certify)
    student = worlds.student(data)
    return Trial(data, student, project, student_id, **known), student


def looked(one: Trial) -> tuple[Developed, Preview]:
    developed = asyncio.run(develop(one))
    return developed, foresee(one, developed)


def test_develop_spends_nothing(project: Project) -> None:
    one, student = trial(project)
    seen = [looked(one)[1] for _ in range(3)]
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0].attempt, seen[0].n, seen[0].num_used) == (1, 300, 0)
    assert {last_user_text(request).split()[0] for request in student.asked} == {"develop"}
    assert list(project.root.rglob("*")) == []


def test_phases_by_hand_are_the_whole_run(tmp_path: Path) -> None:
    one, _ = trial(Project(tmp_path / "a"))
    by_hand = asyncio.run(_both(one))
    data = worlds.dataset(200, 300)
    whole = run_verdict(data, worlds.student(data), Project(tmp_path / "b"), "student1")
    assert by_hand == whole  # ids are content hashes


async def _both(one: Trial) -> Verdict:
    return await certify_student(one, await develop(one))


def test_develop_is_taken_on_and_not_asked_again(project: Project) -> None:
    one, student = trial(project)
    developed = asyncio.run(develop(one))
    assert [row.split for row in developed.rows([{}] * 200)] == ["develop"] * 200
    asyncio.run(certify_student(one, developed))
    asked = [last_user_text(request).split()[0] for request in student.asked]
    assert asked == ["develop"] * 200 + ["certify"] * 300


def test_foresee_says_what_then_comes(project: Project) -> None:
    one, _ = trial(project, num_certify=600)
    developed, seen = looked(one)
    found = asyncio.run(certify_student(one, developed))
    assert (found.attempt, found.delta_spent, found.n) == (seen.attempt, seen.delta_spent, seen.n)
    assert found.issued and seen.coverage_frac == pytest.approx(found.coverage_frac, abs=0.15)
    assert seen.needed.units is not None and seen.needed.units < 600
    assert {one.key for one in seen.slices} == {"request", "target.intent"}


def test_foresee_knows_a_plan_that_was_judged(project: Project) -> None:
    one, _ = trial(project)
    developed, _ = looked(one)
    found = asyncio.run(certify_student(one, developed))
    again = foresee(one, developed)
    assert (again.verdict_id, again.attempt, again.n) == (found.id, 1, 300)
    shutil.rmtree(project.kind_dir("verdict") / found.id)
    gone = foresee(one, developed)
    assert (gone.verdict_id, gone.attempt, gone.n) == (None, 1, 300)


def test_foresee_sees_the_units_that_others_used(project: Project) -> None:
    first, _ = trial(project)
    asyncio.run(_both(first))
    second, _ = trial(project, "student2", num_certify=400)
    seen = looked(second)[1]
    assert (seen.attempt, seen.n, seen.num_used) == (2, 100, 300)
    assert seen.blocked is None and seen.fewest == 96  # ln(.0076) / ln(.95)


def test_foresee_asks_the_ledger_that_certify_books_in(project: Project) -> None:
    options, claim = RunOptions(ledger=MemoryLedger(), workload="letters"), Claim(beta=0.2)
    one, _ = trial(project, options=options, claim=claim)
    assert looked(one)[1].attempt == 1
    asyncio.run(_both(one))
    other, _ = trial(project, "student2", options=options, claim=claim)
    assert looked(other)[1].attempt == 2
    assert not project.database_path.exists()
