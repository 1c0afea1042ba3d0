"""`own verdict`: show, report and verify from a shell; run with an engine stood in for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.project import Project
from ownweights.verdict import run_verdict
from tests.fakes import ScriptedTeacher, last_user_text
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def own(project: Project, *words: object) -> int:
    return main(["--project", str(project.root), "verdict", *map(str, words)])


def made(project: Project, *, harm_frac: float = 0.2) -> str:
    data = worlds.dataset(100, 400)
    return run_verdict(data, worlds.student(data, harm_frac=harm_frac), project, "student1").id


def test_verdict_show_lists_all(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert own(project, "show") == 0
    assert "no verdict yet: `own verdict run`" in capsys.readouterr().err
    known = made(project)
    assert own(project, "show", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["id"], row["workload"], row["issued"]) == (known, "tickets", True)


def test_verdict_show_prints_one_as_json(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    known = made(project)
    assert own(project, "show", known[:8]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["claim"]["alpha"], found["n"]) == (known, 0.05, 400)


def test_verdict_report_is_for_reading(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    known = made(project, harm_frac=1.0)
    assert own(project, "report", known) == 0
    assert capsys.readouterr().out.startswith("Not replaceable yet")
    assert own(project, "report", known, "--json") == 0
    assert json.loads(capsys.readouterr().out)["issued"] is False


def test_verdict_verify_says_sound_or_what_differs(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    known = made(project)
    assert own(project, "verify", known) == 0
    assert capsys.readouterr().out.startswith("sound")
    assert own(project, "verify", known, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": known, "is_sound": True, "differences": [],
    }  # fmt: skip
    path = project.kind_dir("verdict") / known / "judged.jsonl"
    path.write_text(path.read_text() + "\n")
    assert own(project, "verify", known) == 1
    assert "is not what its card says" in capsys.readouterr().err


def test_verdict_of_an_unknown_id_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "report", "nope") == 1
    assert "verdict 'nope' does not exist" in capsys.readouterr().err


class StoodInEngine:
    """An engine whose student knows the answer to most requests."""

    started: tuple[str, ...] = ()
    harm_frac = 0.0

    @classmethod
    def start(cls, project: Project, student_ids: Iterable[str]) -> StoodInEngine:
        cls.started = tuple(student_ids)
        cls.is_stopped = False
        return cls()

    def completer(self, student_id: str) -> ScriptedTeacher:
        def look_up(request: ChatRequest) -> Completion:
            number = int(last_user_text(request).split()[-1])
            is_wrong = number % 100 < 100 * self.harm_frac
            text = "wrong" if is_wrong else f"answer {number}"
            return worlds.answer(text, 5.0 if is_wrong else 0.1 + number % 7 / 100)

        return ScriptedTeacher(look_up)

    def stop(self) -> None:
        type(self).is_stopped = True


@pytest.fixture
def student(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset on disk, a student's card over it, and an engine that needs no weights."""
    monkeypatch.setattr("ownweights.engine.EngineProcess", StoodInEngine)
    with draft_folder(project.kind_dir("dataset")) as draft:
        for split in ("train", "develop", "certify", "test"):
            lines: list[str] = []
            for number in range(300):
                text = f"{split} question {number}"
                row: dict[str, Any] = {
                    "id": f"{split}-{number}", "unit": f"prompt:{text}",
                    "request": {"messages": [{"role": "user", "content": text}]},
                    "target": f"answer {number}", "references": [f"answer {number}"],
                    "model": "rented-1", "metadata": {},
                }  # fmt: skip
                lines.append(json.dumps(row) + "\n")
            (draft / f"{split}.jsonl").write_text("".join(lines))
        dataset = seal(
            draft, "dataset",
            identity={"workload": "tickets", "split_by": "prompt", "prune": None},
        )  # fmt: skip
    with draft_folder(project.kind_dir("student")) as draft:
        (draft / "adapter_config.json").write_text("{}")
        return seal(draft, "student", identity={}, parents={"dataset": dataset.id}).id


def test_verdict_run_issues_and_stops_the_engine(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "tickets", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["issued"] is True
    assert found["subject"]["student"] == student
    assert found["subject"]["check"] == "exact"
    assert (StoodInEngine.started, StoodInEngine.is_stopped) == ((student,), True)


def test_verdict_run_refuses_with_four(
    project: Project, student: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(StoodInEngine, "harm_frac", 1.0)
    assert own(project, "run", "--workload", "tickets") == 4
    assert capsys.readouterr().out.startswith("Not replaceable yet")


def test_verdict_run_takes_the_claim_from_flags_before_the_file(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[verdict.tickets]\nalpha = 0.2\nbeta = 0.3\n")
    assert own(project, "run", "--workload", "tickets", "--alpha", "0.04", "--json") == 0
    claim = json.loads(capsys.readouterr().out)["claim"]
    assert (claim["alpha"], claim["beta"], claim["delta"]) == (0.04, 0.3, 0.05)


def test_verdict_run_takes_a_check_with_options(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text('[verdict.tickets]\ncheck = "json"\n')
    words = ("run", "--workload", "tickets", "--check", "text ignore=space,case,punctuation")
    assert own(project, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["subject"]["check"] == "text ignore=case,punctuation,space"


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("text ignor=case", "check 'text' has no option 'ignor'; it has: ignore"),
        ("sql database=absent.db", "absent.db, which cannot be read"),
        ("Text", "expected a check and its options"),
    ],
)
def test_verdict_run_refuses_a_check_before_it_starts_anything(
    project: Project, student: str, capsys: pytest.CaptureFixture[str], check: str, says: str
) -> None:
    StoodInEngine.started = ()
    assert own(project, "run", "--workload", "tickets", "--check", check) == 2
    assert says in capsys.readouterr().err
    assert StoodInEngine.started == ()


def test_verdict_run_without_a_student_says_what_to_do(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "tickets") == 1
    said = capsys.readouterr().err
    assert "there is no student of workload 'tickets'" in said
    assert "hint: own student train --workload tickets" in said


def test_verdict_run_refuses_a_student_of_another_workload(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "letters", "--student", student) == 2
    assert f"student {student} learned 'tickets', not 'letters'" in capsys.readouterr().err
