"""A verdict whose score needs more than one greedy answer, or less."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ownweights.core.artefact import open_artefact
from ownweights.core.chat import ChatRequest, Completion, Features
from ownweights.core.errors import CompleterError, UsageError
from ownweights.core.project import Project
from ownweights.verdict import RunOptions, run_verdict, verify_verdict
from ownweights.verdict.confidence import Confidence
from ownweights.verdict.judged import read_judged
from tests.fakes import ScriptedTeacher, last_user_text
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def rows_of(project: Project, verdict_id: str):
    folder = open_artefact(project.kind_dir("verdict"), verdict_id, "verdict").path
    return read_judged(folder / "judged.jsonl")


class Student(ScriptedTeacher):
    """Wrong on a fifth of the prompts. Its words never show it; its samples or its states may.

    Asked with a seed, it wavers where it is wrong, if `wavers`; `state` says it before.
    """

    def __init__(
        self, data: worlds.FakeDataset, *, wavers: bool = False, tells: bool = False
    ) -> None:
        self.wavers, self.tells = wavers, tells
        rng = np.random.default_rng(0)
        self.known = {
            one.messages[-1]["content"]: (one.target, rng.random() < 0.2, rng.normal(size=8))
            for split in ("develop", "certify")
            for one in data.splits[split]
        }
        super().__init__(self._say)

    def _say(self, request: ChatRequest) -> Completion:
        target, is_wrong, state = self.known[last_user_text(request)]
        text = '{"intent": "wrong"}' if is_wrong else target
        seed = request.body.get("seed")
        if seed is not None and self.wavers and is_wrong and seed % 2:
            text = f'{{"intent": "sample {seed}"}}'
        plain = worlds.features(0.1)
        shift = 3.0 * is_wrong if self.tells else 0.0
        told = Features(
            plain.token_ids, plain.token_logprobs, plain.margins,
            (state + shift * (np.arange(8) == 0)).astype(np.float32),
        )  # fmt: skip
        return Completion(text, "stop", features=told)


def asked_by(student: Student, split: str) -> list[Any]:
    return [r.body.get("seed") for r in student.asked if last_user_text(r).startswith(split)]


def test_run_asks_for_samples_and_certifies_by_agreement(project: Project) -> None:
    data = worlds.dataset(200, 400)
    student = Student(data, wavers=True)
    found = run_verdict(data, student, project, "s1", options=RunOptions(agreement=4))
    assert found.issued
    assert found.subject.confidence["kind"] == "agreement"
    assert found.subject.confidence["samples"] == 4
    assert found.subject.confidence["check"] == "json"
    assert asked_by(student, "develop").count(3) == 200
    assert len(asked_by(student, "certify")) == 400 * 5
    assert 0.7 < found.coverage_frac < 0.9
    assert found.harms == 0
    assert verify_verdict(project.kind_dir("verdict"), found.id).is_sound


def test_run_asks_no_samples_of_certify_where_they_do_not_help(project: Project) -> None:
    data = worlds.dataset(100, 200)
    student = Student(data)
    found = run_verdict(data, student, project, "s1", options=RunOptions(agreement=2))
    assert found.subject.confidence["kind"] not in ("agreement", "gate")
    assert len(asked_by(student, "develop")) == 300
    assert asked_by(student, "certify") == [None] * 200
    kinds = {row["kind"]: row["calls"] for row in found.subject.compared}
    assert kinds["agreement"] == 3


def test_run_without_agreement_draws_nothing(project: Project) -> None:
    data = worlds.dataset(50, 100)
    student = Student(data, wavers=True)
    found = run_verdict(data, student, project, "s1")
    assert {r.body.get("seed") for r in student.asked} == {None}
    assert "agreement" not in {row["kind"] for row in found.subject.compared}


def test_run_certifies_by_a_gate_that_knows_before(project: Project) -> None:
    data = worlds.dataset(300, 600)
    student = Student(data, tells=True)
    found = run_verdict(data, student, project, "s1")
    assert found.issued
    gate = Confidence.from_dict(found.subject.confidence)
    assert gate.decides_before_generating
    for row in rows_of(project, found.id):
        if row.split == "certify":
            prompt = row.id.replace("-", " question ")
            done = student.script(ChatRequest.of([{"role": "user", "content": prompt}]))
            assert row.score == pytest.approx(gate.score_before(done.features))
    assert verify_verdict(project.kind_dir("verdict"), found.id).is_sound


def test_run_for_streaming_gives_a_gate_or_refuses(project: Project) -> None:
    """A gate that knows nothing is a gate all the same, and the verdict is a refusal."""
    data = worlds.dataset(200, 300)
    streaming = RunOptions(streaming=True)
    found = run_verdict(data, Student(data), project, "s1", options=streaming)
    assert found.subject.confidence["kind"] == "gate"
    assert not found.issued
    with pytest.raises(UsageError, match="needs the state of the prompt"):
        run_verdict(data, worlds.student(data), project, "s2", options=streaming)


def test_run_scores_of_develop_come_from_other_units(project: Project) -> None:
    """The values of the final fit, in the order of fits that had not seen the unit."""
    data = worlds.dataset(200, 100)
    student = Student(data, tells=True)
    found = run_verdict(data, student, project, "s1", options=RunOptions(streaming=True))
    gate = Confidence.from_dict(found.subject.confidence)
    told, final = [], []
    for row in rows_of(project, found.id):
        if row.split == "develop":
            prompt = row.id.replace("-", " question ")
            done = student.script(ChatRequest.of([{"role": "user", "content": prompt}]))
            told.append(row.score)
            final.append(gate.score_before(done.features))
    assert sorted(told) == sorted(final)
    assert told != final


def test_run_other_scores_wanted_is_another_plan(project: Project) -> None:
    data = worlds.dataset(100, 100)
    first = run_verdict(data, Student(data), project, "s1")
    again = run_verdict(data, Student(data), project, "s1", options=RunOptions(agreement=2))
    assert (again.id, again.attempt) != (first.id, first.attempt)
    same = run_verdict(data, Student(data), project, "s1")
    assert same == first


def test_run_answer_whose_sample_failed_is_not_served(project: Project) -> None:
    data = worlds.dataset(200, 300)
    student = Student(data, wavers=True)
    say = student._say

    def fail_sometimes(request: ChatRequest) -> Completion:
        if request.body.get("seed") == 1 and last_user_text(request).endswith("7"):
            raise CompleterError("gone")
        return say(request)

    student.script = fail_sometimes
    found = run_verdict(data, student, project, "s1", options=RunOptions(agreement=4))
    assert found.subject.confidence["kind"] == "agreement"
    assert found.losses == 0
    served = [r for r in rows_of(project, found.id) if r.split == "certify" and r.score > -np.inf]
    assert len(served) == 270
    assert not any(row.id.endswith("7") for row in served)


class Jury:
    """What a verdict needs of a judge, as far as these tests come."""

    name, is_graded = "judge", False
    identity = facts = spent = MappingProxyType({})

    async def judge_all(self, *given: Any, **named: Any) -> list[float | None]:
        raise AssertionError("nobody is asked")


def test_run_refuses_agreement_beside_a_judge(project: Project) -> None:
    data = worlds.dataset(5, 5)
    student = Student(data)
    with pytest.raises(UsageError, match="needs a check that compares two answers by a rule"):
        run_verdict(data, student, project, "s1", check=Jury(), options=RunOptions(agreement=2))
    assert student.asked == []
