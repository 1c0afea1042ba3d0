"""`own verdict`: show, report and verify from a shell; run with an engine stood in for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ownweights.cli.main import main
from ownweights.cli.verdict import find_student
from ownweights.core.artefact import Artefact, draft_folder, seal
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.project import Project
from ownweights.dataset import build_dataset
from ownweights.traffic import TrafficStore
from ownweights.verdict import Claim, RunOptions, run_verdict
from ownweights.verdict.signing import own_fingerprint
from tests.dataset.records import many
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


def test_verdict_show_and_report_tell_the_risks(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = made(project)
    assert own(project, "show", known) == 0
    risks = json.loads(capsys.readouterr().out)["risks"]
    assert (risks["privacy"]["num_answers"], risks["safety"]["neither"]) == (500, 500)
    assert "set `canaries = N` in [workload.tickets]" in risks["not_extracted"]
    assert own(project, "report", known) == 0
    assert "Refusals beside the teacher's:\n  refused by both 0" in capsys.readouterr().out
    assert own(project, "report", known, "--html", tmp_path / "page.html") == 0
    assert "<h2>Private data and refusals</h2>" in (tmp_path / "page.html").read_text("utf-8")


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
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "id": known, "is_sound": True, "signed_by": own_fingerprint(project), "differences": [],
    }  # fmt: skip
    path = project.kind_dir("verdict") / known / "judged.jsonl"
    path.write_text(path.read_text() + "\n")
    assert own(project, "verify", known) == 1
    assert "is not what its card says" in capsys.readouterr().err


def test_verdict_verify_anywhere_and_by_whom(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, elsewhere = made(project), tmp_path / "elsewhere"
    shutil.copytree(project.kind_dir("verdict") / known, elsewhere / known)
    words = ["--project", str(tmp_path / "no project"), "verdict", "verify"]
    key = own_fingerprint(project)
    assert key is not None
    for said, code in ((key, 0), (key[:8], 0), (key[:7], 1), ("0" * 16, 1)):
        assert main([*words, str(elsewhere / known), "--signed-by", said]) == code
    assert f"signed by {key}, expected {'0' * 16}" in capsys.readouterr().err
    assert not (tmp_path / "no project").exists()


def test_verdict_of_an_unknown_id_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "report", "nope") == 1
    assert "verdict 'nope' does not exist" in capsys.readouterr().err


class StoodInEngine:
    """An engine whose student knows the answer to most requests."""

    started: tuple[str, ...] = ()
    harm_frac = 0.0
    wording = "answer {}"

    @classmethod
    def start(cls, project: Project, student_ids: Iterable[str]) -> StoodInEngine:
        cls.started = tuple(student_ids)
        cls.is_stopped = False
        return cls()

    def completer(self, student_id: str) -> ScriptedTeacher:
        def look_up(request: ChatRequest) -> Completion:
            number = int(last_user_text(request).split()[-1])
            is_wrong = number % 100 < 100 * self.harm_frac
            text = "wrong" if is_wrong else self.wording.format(number)
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


def test_verdict_run_takes_claims_from_the_file_and_flags(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text('[verdict.tickets]\nclaims = ["D"]\nmargin = 0.2\n')
    words = ("run", "--workload", "tickets", "--claims", "D,C", "--margin", "0.1", "--json")
    assert own(project, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["claim"]["paired"], found["claim"]["margin"]) == (["C", "D"], 0.1)
    assert [one["conclusion"] for one in found["paired"]] == ["not_worse", "undecided"]
    assert own(project, "run", "--workload", "tickets", "--claims", "E") == 2
    assert "verdict.tickets.claims" in capsys.readouterr().err


def claimed(project: Project, workload: str) -> str:
    """A verdict of `workload` whose claim C is proved or, for letters, refused."""
    data = worlds.dataset(100, 400)
    claim = Claim(alpha=0.5, beta=0.6, paired=("C",), margin=0.2)
    student = worlds.student(data, harm_frac=0.9 if workload == "letters" else 0.05)
    options = RunOptions(workload=workload)
    return run_verdict(data, student, project, "s", claim=claim, options=options).id


def test_verdict_show_tells_which_claims_stand_together(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    claimed(project, "tickets")
    assert own(project, "show") == 0
    assert "e-BH" not in capsys.readouterr().err  # one alone is no family
    claimed(project, "letters")
    made(project)  # without claims: it does not count
    assert own(project, "show", "--json") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["workload"] for line in said.out.splitlines()].count("letters") == 1
    assert "claim C over all 2 workloads that decided it: tickets (e-BH" in said.err


def test_verdict_run_draws_samples_as_flag_or_file_say(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[verdict.tickets]\nagreement = 3\n")
    for words, calls in (((), 4), (("--agreement", "1"), 2), (("--agreement", "0"), None)):
        own(project, "run", "--workload", "tickets", *words, "--json")
        compared = json.loads(capsys.readouterr().out)["subject"]["compared"]
        known = {row["kind"]: row["calls"] for row in compared}
        assert known.get("agreement") == calls


def test_verdict_run_for_streaming_says_what_it_needs(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "tickets", "--streaming") == 2
    assert "needs the state of the prompt" in capsys.readouterr().err
    project.settings_path.write_text("[verdict.tickets]\nstreaming = true\n")
    assert own(project, "run", "--workload", "tickets") == 2
    assert own(project, "run", "--workload", "tickets", "--no-streaming", "--json") == 0


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


# a judge in place of a check


def careful(request: ChatRequest) -> str:
    """Says which answer holds the number that was asked for."""
    text = request.messages[-1]["content"]
    asked, first, second = re.split(r"<<[0-9a-f]{24} (?:FIRST|SECOND) ANSWER>>", text)
    number = re.search(r"question (\d+)", asked)
    assert number is not None
    is_right = [f"answer {number[1]}\n" in part or f"{number[1]}!" in part
                for part in (first, second)]  # fmt: skip
    word = "TIE" if is_right[0] == is_right[1] else "FIRST" if is_right[0] else "SECOND"
    return f"VERDICT: {word}"


class StoodInClient(ScriptedTeacher):
    """The client of a rented judge."""

    made: ClassVar[list[StoodInClient]] = []
    says: ClassVar[Callable[[ChatRequest], str]] = careful

    def __init__(self, base_url: str, **known: Any) -> None:
        super().__init__(type(self).says)
        self.base_url, self.known = base_url, known
        type(self).made.append(self)


JUDGED_BY = """
[teacher.main]
base_url = "http://127.0.0.1:1/v1"
[teacher.jury]
base_url = "http://127.0.0.1:2/v1"
model = "judge-9"
key_env = "JURY_KEY"
timeout_s = 7.0
[verdict.tickets]
rubric = "Numbers alone count."
judge = "main"
"""


@pytest.fixture
def jury(student: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> list[StoodInClient]:
    monkeypatch.setattr("ownweights.teacher.client.TeacherClient", StoodInClient)
    monkeypatch.setattr(StoodInClient, "made", [])
    monkeypatch.setattr(StoodInEngine, "wording", "{}!")
    monkeypatch.setenv("JURY_KEY", "jury-key-7")
    project.settings_path.write_text(JUDGED_BY)
    return StoodInClient.made


def test_verdict_run_takes_a_judge(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "tickets", "--judge", "jury", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["issued"], found["subject"]["check"]) == (True, "judge")
    assert found["subject"]["judge"]["name"] == "jury"
    assert found["subject"]["judge"]["model"] == "judge-9"
    (client,) = jury
    assert (client.base_url, client.is_closed) == ("http://127.0.0.1:2/v1", True)
    assert (client.known["api_key"], client.known["timeout_s"]) == ("jury-key-7", 7.0)
    assert "Numbers alone count." in client.asked[0].messages[0]["content"]
    assert re.search(r"judge: \d,\d{3} calls \(0 known from before, 0 failed\)", said.err)
    assert "jury-key-7" not in said.out + said.err
    assert own(project, "verify", found["id"]) == 0


def test_verdict_run_pays_a_judge_once(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    for calls in ("1,", "0 calls"):
        assert own(project, "run", "--workload", "tickets", "--judge", "jury") == 0
        assert f"judge: {calls}" in capsys.readouterr().err
    assert jury[1].asked == []


def test_verdict_run_refuses_an_invalid_judge_with_three(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(StoodInClient, "says", lambda request: "VERDICT: FIRST")
    assert own(project, "run", "--workload", "tickets", "--judge", "jury") == 3
    said = capsys.readouterr().err
    assert "the judge 'jury' is invalid, so that nothing is certified by it" in said
    assert "self: 40 errors in 40" in said
    assert own(project, "show") == 0
    assert "no verdict yet" in capsys.readouterr().err
    assert jury[0].is_closed


def test_verdict_run_asks_people_first(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text(JUDGED_BY + "labels = 50\n")
    assert own(project, "run", "--workload", "tickets", "--judge", "jury") == 3
    said = capsys.readouterr().err
    assert "50 of the 50 answers drawn to measure the judge by have no human label yet" in said
    queue = project.store_dir / "judge" / "tickets" / "queue.jsonl"
    assert f"fill in the empty labels in {queue}" in said
    queue.write_text(queue.read_text().replace('"label":""', '"label":"tie"'))
    assert own(project, "run", "--workload", "tickets", "--judge", "jury", "--json") == 0
    agreement = json.loads(capsys.readouterr().out)["subject"]["judge"]["agreement"]
    assert agreement["confusion"] == {"true_yes": 0, "false_no": 0, "true_no": 50, "false_yes": 0}


def test_verdict_run_asks_the_judge_above(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    text = JUDGED_BY.replace('judge = "main"', 'judge = "jury"')
    project.settings_path.write_text(
        text.replace('127.0.0.1:1/v1"', '127.0.0.1:1/v1"\nmodel = "strong"')
        + 'judge_above = "main"\n'
    )
    assert own(project, "run", "--workload", "tickets", "--json") == 0
    judge = json.loads(capsys.readouterr().out)["subject"]["judge"]
    assert (judge["name"], [above["model"] for above in judge["above"]]) == ("jury", ["strong"])
    assert all(client.is_closed for client in jury)


def test_verdict_run_refuses_agreement_beside_a_judge(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "--workload", "tickets", "--judge", "jury", "--agreement", "2")
    assert own(project, *words) == 2
    assert "verdict.tickets sets agreement and a judge" in capsys.readouterr().err
    assert jury == []


def test_verdict_run_with_a_judge_that_cannot_be(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "run", "--workload", "tickets", "--judge", "jurry") == 2
    said = capsys.readouterr().err
    assert "'jurry' is no teacher: there is no [teacher.jurry]" in said
    assert "did you mean 'jury'?" in said
    assert own(project, "run", "--workload", "tickets") == 2  # `main` names no model
    assert "a judge must name its model" in capsys.readouterr().err


def test_verdict_show_names_what_is_broken(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    known = made(project)
    (project.kind_dir("verdict") / "stray").mkdir()
    assert own(project, "show") == 0
    captured = capsys.readouterr()
    assert known in captured.out and "warning: verdict stray is passed over" in captured.err
    assert own(project, "show", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [known, "stray"]
    assert "has no card.json" in rows[1]["broken"]
    assert own(project, "show", "stray") == 1


def test_find_student_passes_over_what_is_broken(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrafficStore.open(project) as store:
        store.add(many(40))
        dataset = build_dataset(store.records("w"), project, workload="w")
    folder = project.kind_dir("student")
    made: list[Artefact] = []
    for parent in (dataset.id, "gone", None):
        with draft_folder(folder) as draft:
            parents = {"dataset": parent} if parent else {}
            made.append(seal(draft, "student", identity={}, parents=parents))
    (folder / "stray").mkdir()
    assert find_student(project, "w", None) == (dataset, made[0])
    errors = capsys.readouterr().err
    assert errors.count("warning: student") == 3
    assert f"student {made[1].id} is passed over: dataset 'gone' does not exist" in errors
    assert own(project, "run", "--workload", "w", "--student", made[1].id) == 1
