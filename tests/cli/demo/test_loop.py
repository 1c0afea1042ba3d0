"""The demo's own figures: what is compared with test answers, and what no rule can compare."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ownweights.cli.demo.loop import NO_RULE, make_verdict, rule_of, send_test_split
from ownweights.cli.demo.rehearsal import Figures
from ownweights.core.artefact import Artefact, open_artefact
from ownweights.core.project import Project
from ownweights.dataset.load import Dataset, load_dataset
from ownweights.verdict import Subject, check_named
from tests.cli.stood_in import JUDGED_BY, StoodInClient, StoodInEngine, seal_student
from tests.teacher.servers import replay_of, running


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def learned(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Artefact]:
    """A dataset and its student, whose engine is stood in for."""
    monkeypatch.setattr("ownweights.engine.client.EngineProcess", StoodInEngine)
    student = open_artefact(project.kind_dir("student"), seal_student(project), "student")
    return load_dataset(project, student.card["parents"]["dataset"]), student


def test_rule_of_finds_files_from_the_project(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def harm(answer, references): return 0 if answer else 1\n"
    (project.root / "mine.py").write_text(text)
    name = check_named("custom entry=mine:harm", project.root).name
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    rule = rule_of(project, Subject(check=name))
    assert rule is not None and rule.name == name
    assert (rule.harm("x", ["y"]), rule.harm("", ["y"])) == (0, 1)
    assert not os.path.exists("mine.py")


def test_rule_of_a_judge_is_none(project: Project) -> None:
    assert rule_of(project, Subject(check="judge", judge={"name": "jury"})) is None


def test_make_verdict_by_a_rule_compares_test_answers(
    project: Project, learned: tuple[Dataset, Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoodInEngine, "harm_frac", 0.1)
    figures = Figures()
    verdict = make_verdict(project, *learned, figures)
    assert (verdict.issued, figures.verdict) == (True, verdict)
    assert figures.exact_frac == 0.9  # 270 of 300
    assert {text.split()[0] for text in StoodInEngine.asked} == {"develop", "certify", "test"}


def test_make_verdict_by_a_judge_compares_no_test_answers(
    project: Project,
    learned: tuple[Dataset, Artefact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ownweights.teacher.client.TeacherClient", StoodInClient)
    monkeypatch.setattr(StoodInClient, "made", [])
    monkeypatch.setattr(StoodInEngine, "wording", "{}!")
    monkeypatch.setenv("JURY_KEY", "key-of-the-jury")
    project.settings_path.write_text(JUDGED_BY.replace('judge = "main"', 'judge = "jury"'))
    figures = Figures()
    verdict = make_verdict(project, *learned, figures)
    assert (verdict.issued, verdict.subject.judge["name"]) == (True, "jury")
    assert figures.exact_frac is None
    assert NO_RULE in capsys.readouterr().err
    assert {text.split()[0] for text in StoodInEngine.asked} == {"develop", "certify"}
    assert figures.to_json()["exact_frac"] is None


@pytest.mark.parametrize("is_compared", [True, False])
def test_send_test_split_without_a_rule_counts_who_answered(
    learned: tuple[Dataset, Artefact], capsys: pytest.CaptureFixture[str], is_compared: bool
) -> None:
    """A third of the answers is worse, which only a rule can tell."""
    dataset, _ = learned
    answers = {
        str(one.messages[-1]["content"]): "worse" if number % 3 == 0 else one.target
        for number, one in enumerate(dataset.examples("test"))
    }
    figures = Figures()
    check = check_named("exact") if is_compared else None
    with running(replay_of(answers)) as url:
        send_test_split(f"{url}/v1", dataset, check, figures)
    assert figures.served == {"student": 0, "teacher": 300}
    said = capsys.readouterr().err
    if is_compared:
        assert figures.test_harm_frac == 0.3333 and "worse: 33.33% of all" in said
    else:
        assert figures.test_harm_frac is figures.test_selective_harm_frac is None
        assert "worse: not compared" in said
