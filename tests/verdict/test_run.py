"""A verdict from asking to artefact, with scripted students."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.artefact import open_artefact
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import (
    CompleterError,
    CompleterTimeout,
    ContextTooLong,
    Ineligible,
    SettingsError,
)
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.verdict import (
    Claim,
    RunOptions,
    Verdict,
    load_verdict,
    run_verdict,
    run_verdict_async,
)
from ownweights.verdict.drift.outcome import Incident
from ownweights.verdict.judged import FAILED, INELIGIBLE, read_judged
from ownweights.verdict.ledger import MemoryLedger
from ownweights.verdict.voiding import void_certificate, void_reason
from tests.dataset.records import answer, built, phrase, record
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def rows_of(project: Project, verdict_id: str):
    folder = open_artefact(project.kind_dir("verdict"), verdict_id, "verdict").path
    return read_judged(folder / "judged.jsonl")


class Watched(ScriptedTeacher):
    """A student that notes what was in the ledger when each request came."""

    def __init__(self, inner: ScriptedTeacher, ledger: MemoryLedger) -> None:
        super().__init__(inner.script)
        self.ledger = ledger
        self.booked: list[tuple[str, int]] = []

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        self.booked.append((last_user_text(request).split()[0], len(self.ledger._attempts)))
        return await super().complete(request, timeout_s=timeout_s)


def test_run_certifies_an_informative_student(project: Project) -> None:
    data = worlds.dataset(300, 600)
    found = run_verdict(data, worlds.student(data), project, "student1")
    assert found.issued
    assert 0.6 < found.coverage_frac < 0.95
    assert found.subject.check == "json"
    assert found.subject.workload == "tickets"
    assert found.subject.teachers == ("rented-1",)
    assert found.subject.decoding == {"temperature": 0}
    assert found.subject.units_per_record == pytest.approx(600 / 9000)
    assert found == load_verdict(project, found.id)
    folder = open_artefact(project.kind_dir("verdict"), found.id, "verdict", verify=True)
    assert sorted(folder.card["files"]) == ["certificate.json", "judged.jsonl"]
    assert folder.card["parents"] == {"student": "student1", "dataset": data.id}


def test_run_refuses_an_always_wrong_student(project: Project) -> None:
    data = worlds.dataset(100, 200)
    found = run_verdict(data, worlds.student(data, harm_frac=1.0), project, "student1")
    assert not found.issued
    folder = open_artefact(project.kind_dir("verdict"), found.id, "verdict")
    assert sorted(folder.card["files"]) == ["judged.jsonl", "refusal.json"]
    assert any(one.is_failing for one in found.slices)


def test_run_asks_as_a_route_will(project: Project) -> None:
    """Pruned, greedily, under the student's name, not streamed; other fields as they were asked."""
    data = worlds.dataset(2, 2)
    asked = dataclasses.replace(data.splits["develop"][0])
    asked.request["max_tokens"] = 7
    data.splits["develop"][0] = asked
    student = worlds.student(data)
    run_verdict(data, student, project, "student1", options=RunOptions(decoding={"seed": 3}))
    assert dict(student.asked[0].body) == {
        "model": "student1", "temperature": 0, "seed": 3, "max_tokens": 7,
        "messages": [{"role": "user", "content": "develop question 0"}],
    }  # fmt: skip


def test_run_asks_certify_only_after_booking(project: Project) -> None:
    data, ledger = worlds.dataset(40, 60), MemoryLedger()
    student = Watched(worlds.student(data), ledger)
    run_verdict(data, student, project, "student1", options=RunOptions(ledger=ledger))
    assert {booked for split, booked in student.booked if split == "develop"} == {0}
    assert {booked for split, booked in student.booked if split == "certify"} == {1}
    assert len(student.booked) == 100


def test_run_same_plan_returns_stored_verdict(project: Project) -> None:
    data = worlds.dataset(50, 80)
    first = run_verdict(data, worlds.student(data), project, "student1")
    again_asked = worlds.student(data)
    again = run_verdict(data, again_asked, project, "student1")
    assert again == first
    assert all(last_user_text(r).startswith("develop") for r in again_asked.asked)


def test_run_judges_a_damaged_verdict_again_and_mends_it(project: Project) -> None:
    data = worlds.dataset(50, 80)
    first = run_verdict(data, worlds.student(data), project, "student1")
    path = project.kind_dir("verdict") / first.id / "certificate.json"
    path.write_text(path.read_text()[:100])
    assert run_verdict(data, worlds.student(data), project, "student1") == first
    assert load_verdict(project, first.id) == first


def test_run_judges_a_void_verdict_again_and_it_stays_void(project: Project) -> None:
    """Kept answers give it another name; its name is not what was found out about it."""
    data = worlds.dataset(50, 80)
    first = run_verdict(data, worlds.student(data), project, "student1")
    known = void_certificate(project, first.id, reason="harm rose", by="route r1", at=7.0)
    shutil.rmtree(project.kind_dir("verdict") / first.id)
    options = RunOptions(keeps_answers=True)
    again = run_verdict(data, worlds.student(data), project, "student1", options=options)
    assert again.id != first.id
    assert void_reason(project, again.id) == dataclasses.replace(known, verdict_id=again.id)


def test_run_time_out_is_part_of_the_plan(project: Project) -> None:
    """Other time is another claim: late answers are losses, and on a route the teacher's."""
    data = worlds.dataset(50, 80)
    first = run_verdict(data, worlds.student(data), project, "student1")
    known = {"baseline": "main/1", "models": ["rented-1"], "fingerprints": ["fp"]}
    options = RunOptions(timeout_s=3.0, teacher_state=known)
    found = run_verdict(data, worlds.student(data), project, "student1", options=options)
    assert (first.subject.timeout_s, found.subject.timeout_s) == (10.0, 3.0)
    assert (first.attempt, found.attempt) == (1, 2)
    assert load_verdict(project, found.id).subject.teacher_state == known


def test_run_other_student_gets_no_used_unit(project: Project) -> None:
    data = worlds.dataset(100, 200)
    run_verdict(data, worlds.student(data), project, "student1")
    second_student = worlds.student(data)
    second = run_verdict(data, second_student, project, "student2")
    assert (second.issued, second.n, second.attempt, second.num_used) == (False, 0, 2, 200)
    assert "fresh traffic is needed" in second.reasons[0]
    assert all(last_user_text(r).startswith("develop") for r in second_student.asked)


def test_run_uses_fresh_units_beside_used_ones(project: Project) -> None:
    data = worlds.dataset(100, 200)
    run_verdict(data, worlds.student(data), project, "student1")
    more = worlds.dataset(100, 900, id="dataset00002")
    second = run_verdict(more, worlds.student(more), project, "student2")
    assert (second.n, second.attempt, second.num_used) == (700, 2, 200)
    assert second.issued


def test_run_cut_off_goes_on_with_its_attempt(project: Project) -> None:
    data, ledger = worlds.dataset(40, 60), MemoryLedger()
    dead: list[Any] = [None] * 40 + [CompleterError("the engine died")] * 60
    options = RunOptions(ledger=ledger, concurrency=1)
    with pytest.raises(CompleterError, match="the engine died"):
        run_verdict(
            data, FlakyTeacher(worlds.student(data), dead), project, "student1", options=options
        )
    found = run_verdict(data, worlds.student(data), project, "student1", options=options)
    assert (found.attempt, found.n) == (1, 60)


def test_run_counts_failures_and_ineligible_requests(project: Project) -> None:
    data = worlds.dataset(40, 60)
    inner = worlds.student(data)
    faults: list[Any] = [None] * 40 + [CompleterTimeout("slow"), CompleterError("broken")]
    found = run_verdict(
        data, FlakyTeacher(inner, faults), project, "student1", options=RunOptions(concurrency=1)
    )
    assert found.losses == 2
    failed = [row for row in rows_of(project, found.id) if row.status == FAILED]
    assert [row.harm for row in failed] == [None, None]


class Picky:
    """A student that cannot answer some requests."""

    def __init__(self, inner: ScriptedTeacher) -> None:
        self.inner = inner

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        number = int(last_user_text(request).split()[-1])
        if number % 10 == 0:
            raise Ineligible("tools", "no tools here")
        if number % 10 == 1:
            raise ContextTooLong(5000, 1024)
        return await self.inner.complete(request, timeout_s=timeout_s)

    def stream(self, request: ChatRequest, *, timeout_s: float | None = None):
        return self.inner.stream(request, timeout_s=timeout_s)

    async def close(self) -> None: ...


def test_run_leaves_what_the_student_cannot_answer_to_the_teacher(project: Project) -> None:
    data = worlds.dataset(50, 100)
    picky: Completer = Picky(worlds.student(data))
    found = run_verdict(data, picky, project, "student1")
    assert (found.ineligible, found.losses) == (20, 0)


def test_run_asks_nothing_that_the_gateway_would_keep_back(project: Project) -> None:
    data, student = worlds.dataset(10, 10), None
    student = worlds.student(data)
    seen: list[Any] = []

    def keep_all(body: Any) -> str:
        seen.append(body)
        return "ineligible:tools"

    found = run_verdict(data, student, project, "student1", options=RunOptions(ineligible=keep_all))
    assert (student.asked, found.ineligible, found.issued) == ([], 10, False)
    assert seen[0]["messages"][0]["role"] == "system"  # the request as the caller sent it
    assert {row.status for row in rows_of(project, found.id)} == {INELIGIBLE}


def test_run_raises_when_nothing_answers(project: Project) -> None:
    data = worlds.dataset(5, 5)
    flaky = FlakyTeacher(worlds.student(data), [CompleterError("no engine")] * 5)
    with pytest.raises(CompleterError, match="no engine"):
        run_verdict(data, flaky, project, "student1")
    assert not project.database_path.exists()  # and nothing is spent


def test_run_serves_no_cut_or_unreadable_answer(project: Project) -> None:
    data = worlds.dataset(60, 60)
    script: dict[str, Completion] = {}
    for index, one in enumerate([*data.splits["develop"], *data.splits["certify"]]):
        cut, broken = index % 3 == 0, index % 3 == 1
        text = one.target[:-1] if broken else one.target
        script[one.messages[-1]["content"]] = worlds.answer(text, 0.1, "length" if cut else "stop")
    student = ScriptedTeacher(lambda request: script[last_user_text(request)])
    found = run_verdict(data, student, project, "student1")
    served = [row for row in rows_of(project, found.id) if row.score > -100]
    assert len(served) == 40
    assert all(row.harm == 0.0 for row in served)


def test_run_tells_its_progress(project: Project) -> None:
    data, told = worlds.dataset(5, 7), []
    run_verdict(
        data, worlds.student(data), project, "student1",
        on_progress=lambda done, total, stage: told.append((stage, done, total)),
    )  # fmt: skip
    assert told[:5] == [("develop", i, 5) for i in range(1, 6)]
    assert told[5:] == [("certify", i, 7) for i in range(1, 8)]


def test_run_keeps_no_bodies_unless_asked(project: Project) -> None:
    data = worlds.dataset(5, 5)
    found = run_verdict(data, worlds.student(data), project, "student1")
    folder = open_artefact(project.kind_dir("verdict"), found.id, "verdict").path
    kept = (folder / "judged.jsonl").read_text()
    assert "question" not in kept
    assert "wrong" not in kept


def test_run_keeps_answers_when_asked(project: Project) -> None:
    data = worlds.dataset(5, 5)
    options = RunOptions(keeps_answers=True)
    found = run_verdict(
        data, worlds.student(data, harm_frac=0.0), project, "student1", options=options
    )
    folder = open_artefact(project.kind_dir("verdict"), found.id, "verdict").path
    lines = [json.loads(text) for text in (folder / "answers.jsonl").read_text().splitlines()]
    first = data.splits["develop"][0]
    assert lines[0] == {
        "id": "develop-0", "answer": first.target, "references": list(first.references)
    }  # fmt: skip
    assert len(lines) == 10


def test_run_obeys_the_claim_and_check(project: Project) -> None:
    data = worlds.dataset(100, 300)
    claim = Claim(alpha=0.5, beta=0.6, delta=0.2, min_coverage_frac=0.5)
    found = run_verdict(data, worlds.student(data), project, "student1", claim=claim, check="exact")
    assert (found.claim, found.subject.check) == (claim, "exact")
    assert found.coverage_frac == pytest.approx(1.0, abs=0.02)
    with pytest.raises(SettingsError, match="'jsn' is not a check"):
        run_verdict(data, worlds.student(data), project, "student1", check="jsn")


@pytest.mark.parametrize(
    ("check", "name", "answers"),
    [
        ("json  relative=0.0 tolerance=1", "json tolerance=1.0", "json"),
        ("text ignore=space,case", "text", "text"),
        ("custom entry=loose:harm", "custom entry=loose:harm sha256=", "text"),
    ],
)
def test_run_names_a_check_with_its_options(
    project: Project, check: str, name: str, answers: str
) -> None:
    data = worlds.dataset(100, 300)
    claim = Claim(alpha=0.5, beta=0.6, delta=0.2)
    project.root.mkdir(parents=True, exist_ok=True)
    # found from the project folder, and part of the name
    (project.root / "loose.py").write_text("def harm(answer, references): return 0\n")
    found = run_verdict(data, worlds.student(data), project, "student1", claim=claim, check=check)
    assert found.issued
    assert found.subject.check.removesuffix(found.subject.check[len(name) :]) == name
    assert found.subject.confidence["answers"] == answers
    again = run_verdict(
        data, worlds.student(data), project, "student1", claim=claim, check=found.subject.check
    )
    assert again == found  # its own name is the same plan: no new attempt


def test_run_takes_a_check_of_ones_own(project: Project) -> None:
    class HalfHarm:
        name = "half"
        is_graded = True

        def harm(self, answer: str | None, references: Any) -> float | None:
            return 0.0 if answer == references[0] else 0.5

    data = worlds.dataset(100, 500)
    claim = Claim(alpha=0.3, beta=0.3)
    found = run_verdict(
        data, worlds.student(data), project, "student1", claim=claim, check=HalfHarm()
    )
    assert found.issued
    assert found.subject.is_graded
    assert found.harms != int(found.harms) or found.harms > 0


def test_run_async_is_the_same_run(tmp_path: Path) -> None:
    data = worlds.dataset(50, 80)
    found = [
        run_verdict(data, worlds.student(data), Project(tmp_path / "a"), "student1"),
        asyncio.run(
            run_verdict_async(data, worlds.student(data), Project(tmp_path / "b"), "student1")
        ),
    ]
    assert found[0] == found[1]  # ids are content hashes


def test_run_is_blind_to_concurrency(tmp_path: Path) -> None:
    data = worlds.dataset(50, 80)
    found = [
        run_verdict(
            data, worlds.student(data), Project(tmp_path / str(width)), "student1",
            options=RunOptions(concurrency=width),
        )
        for width in (1, 64)
    ]  # fmt: skip
    assert found[0] == found[1]


MARCH = 1_709_600_000.0  # of 2024


def built_from(project: Project, *, undated: int = 0, failed: int = 0) -> Dataset:
    """A real dataset, of answers given one a minute; some may bear no date, or have none at all."""
    moments = [MARCH + 60 * number for number in range(120)]
    dated = [
        record(
            phrase(n),
            response={**answer(f"reply {n}", model="big-1"), "created": moment},
            id=f"d{n}",
        )
        for n, moment in enumerate(moments)
    ]
    rest = [record(phrase(500 + n), "hi", id=f"u{n}", model="big-1") for n in range(undated)]
    lost = [record(phrase(900 + n), id=f"f{n}", status="error") for n in range(failed)]
    return built(project, [*dated, *rest, *lost], allow_teachers=("big-1",))


def judged(project: Project, data: Dataset) -> Verdict:
    known = {
        one.messages[-1]["content"]: worlds.answer(one.target)
        for split in ("develop", "certify")
        for one in data.examples(split)
    }
    student = ScriptedTeacher(lambda request: known[last_user_text(request)])
    claim = Claim(alpha=0.6, beta=0.7)
    return run_verdict(data, student, project, "student1", claim=claim)


def test_run_says_of_which_period_a_built_dataset_is(project: Project) -> None:
    found = judged(project, built_from(project))
    assert found.issued
    assert found.subject.period == (MARCH, MARCH + 60 * 119)
    assert found == load_verdict(project, found.id)
    assert any("2024-03-05" in text and "one recorded period" in text for text in found.assumptions)
    assert found.subject.units_per_record == pytest.approx(found.n / 120)
    for opened_at, is_void in ((MARCH + 1, True), (MARCH, False), (MARCH - 9, False)):
        incident = Incident("main", opened_at, 0.0, 1, ("big-1",), (), ())
        assert incident.voids(found.subject) is is_void
    other = Incident("main", MARCH + 1, 0.0, 1, ("big-2",), (), ())
    assert not other.voids(found.subject)


def test_run_knows_no_period_where_some_answers_bear_no_date(project: Project) -> None:
    """An alarm must not be outlived by data of which nobody knows when they came."""
    data = built_from(project, undated=20)
    assert data.card["facts"]["period"] == [MARCH, MARCH + 60 * 119]
    found = judged(project, data)
    assert found.subject.period is None
    assert any("one recorded set of requests" in text for text in found.assumptions)
    assert Incident("main", MARCH - 9, 0.0, 1, ("big-1",), (), ()).voids(found.subject)


def test_run_says_how_many_requests_got_no_answer_of_the_teacher(project: Project) -> None:
    data = built_from(project, failed=60)
    num_lost = data.card["facts"]["skipped"]["certify"]["error"]
    found = judged(project, data)
    assert found.subject.unanswered == num_lost > 0
    assert f"{num_lost} of the recorded certify requests have no answer" in found.assumptions[0]
