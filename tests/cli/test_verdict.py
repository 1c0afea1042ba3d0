"""`own verdict`: show, report and verify from a shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.verdict import Claim, RunOptions, run_verdict
from ownweights.verdict.signing import own_fingerprint
from ownweights.verdict.voiding import void_certificate
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
    assert "no verdict yet: `own verdict certify`" in capsys.readouterr().err
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
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "id": known, "is_sound": True, "signed_by": own_fingerprint(project), "differences": [],
        "void": None,
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
    for said, code in ((key, 0), (key[:8], 0), (key[:7], 1), ("", 1), ("0" * 16, 1)):
        assert main([*words, str(elsewhere / known), "--signed-by", said]) == code
    assert f"signed by {key}, expected {'0' * 16}" in capsys.readouterr().err
    assert not (tmp_path / "no project").exists()


def test_verdict_that_is_void_says_so_first(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, page = made(project), tmp_path / "page.html"
    void_certificate(project, known, reason="harm rose <b>", by="route r1")
    words = "Void: this certificate no longer holds. harm rose <b> (by route r1)"
    assert own(project, "report", known) == 0
    assert capsys.readouterr().out.startswith(words + "\n\nThe student may answer")
    assert own(project, "report", known, "--html", page) == 0
    html = page.read_text()
    assert ">certified<" not in html and 'class="stamp">void<' in html
    assert "no longer holds. harm rose &lt;b&gt;" in html
    assert own(project, "verify", known) == 0
    said = capsys.readouterr()
    assert said.out.startswith("sound") and words in said.err
    for command in (("show", known), ("verify", known, "--json"), ("report", known, "--json")):
        assert own(project, *command) == 0
        assert json.loads(capsys.readouterr().out)["void"]["reason"] == "harm rose <b>"
    assert own(project, "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["is_void"] is True


def test_verdict_of_an_unknown_id_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "report", "nope") == 1
    assert "verdict 'nope' does not exist" in capsys.readouterr().err


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


def test_verdict_page_passes_over_a_route_that_cannot_be_read(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, page = made(project), tmp_path / "page.html"
    project.kind_dir("route").mkdir(parents=True)
    (project.kind_dir("route") / "0123456789ab.toml").write_text("torn = [")
    assert own(project, "report", known, "--html", page) == 0
    assert "warning: route 0123456789ab is passed over" in capsys.readouterr().err
    assert "<h1>" in page.read_text("utf-8")
