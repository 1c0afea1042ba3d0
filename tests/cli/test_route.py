"""`own route`: promote, status, rollback, from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownweights.cli.app import run
from ownweights.core.project import Project
from ownweights.route import active_dir, active_id, active_routes
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import Audit
from ownweights.route.route import active_standing
from ownweights.traffic import TrafficStore
from ownweights.verdict.judge import Cascade, Judge
from ownweights.verdict.voiding import void_certificate
from tests.fakes import ScriptedTeacher
from tests.route.samples import follow, make_artefact, make_verdict
from tests.route.test_savings import record
from tests.verdict.drift.endpoints import with_incident


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def own(project: Project, *words: str) -> int:
    return run(["--project", str(project.root), "route", *words])


def test_route_promote_makes_the_route_active(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = make_verdict(project)
    assert own(project, "promote", verdict.id[:6]) == 0
    told = capsys.readouterr()
    route = active_routes(project)["tickets"]
    assert told.out == f"{route.id}\n"
    assert f"student {route.student_id} answers from score -0.25 up" in told.err


def test_route_promote_takes_the_workloads_settings(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[route.tickets]\ntimeout_s = 2.5\nmax_prompt_tokens = 99\n")
    assert own(project, "promote", make_verdict(project).id, "--json") == 0
    route = active_routes(project)["tickets"]
    assert (route.timeout_s, route.max_prompt_tokens) == (2.5, 99)
    told = json.loads(capsys.readouterr().out)
    foretold = [(one["stage"], one["harm"]) for one in told.pop("foretold")]
    assert foretold == [(stage, harm) for stage in ("canary", "served") for harm in (0.25, 0.5)]
    assert told == {
        "route": route.id, "workload": "tickets", "student": route.student_id,
        "stage": "canary", "share": 0.05,
    }  # fmt: skip


def test_route_promote_refusal_exits_with_four(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "promote", make_verdict(project, issued=False).id) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert "is a refusal: too few units" in told.err
    assert "hint: everything stays with the teacher" in told.err
    assert active_routes(project) == {}


def test_route_promote_unknown_verdict_is_an_error(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "promote", "abc") == 1
    assert "verdict 'abc' does not exist" in capsys.readouterr().err


def test_route_status_lists_what_is_active(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tickets, mail = follow(project), follow(project, workload="mail", threshold=-1.0)
    assert own(project, "status", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["workload"], row["route"], row["threshold"]) for row in rows] == [
        ("mail", mail.id, -1.0),
        ("tickets", tickets.id, -0.5),
    ]


def test_route_status_without_routes_says_who_answers(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "status") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "every request goes to the teacher" in told.err


def test_route_status_warns_of_a_route_that_cannot_be_followed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    route = follow(project)
    assert route.path is not None
    route.path.unlink()
    assert own(project, "status") == 0
    assert "warning: tickets goes to the teacher" in capsys.readouterr().err


def test_route_status_warns_of_a_damaged_student(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    student = make_artefact(project, "student")
    follow(project, student_id=student.id)
    assert own(project, "status") == 0
    assert "warning" not in capsys.readouterr().err
    (student.path / "file.txt").write_text("changed")
    assert own(project, "status") == 0
    assert "its student cannot be loaded" in capsys.readouterr().err


def test_route_unreadable_pointer_is_told_and_mended(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(project)
    (active_dir(project) / "tickets").write_bytes(b"\xff\xfe")
    assert own(project, "status") == 0
    told = capsys.readouterr().err
    assert "cannot be read" in told and "own route rollback tickets" in told
    assert own(project, "rollback", "tickets") == 0
    assert own(project, "status") == 0
    assert "warning" not in capsys.readouterr().err


def test_route_rollback_to_the_teacher_and_to_a_route(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = follow(project), follow(project, threshold=-0.25)
    assert own(project, "rollback", "tickets", "--to", old.id) == 0
    assert active_id(project, "tickets") == old.id
    assert own(project, "rollback", "tickets", "--reason", "drift", "--json") == 0
    assert active_id(project, "tickets") is None
    first, second = capsys.readouterr().out.splitlines()
    assert first == old.id
    assert json.loads(second) == {"workload": "tickets", "route": None}


def test_route_rollback_of_nothing_is_a_usage_error(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "rollback", "tickets") == 2
    assert "its teacher answers already" in capsys.readouterr().err


def test_route_freezes_and_goes_on(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    verdict_id = make_verdict(project).id
    assert own(project, "freeze", "tickets") == 2
    assert "has no active route" in capsys.readouterr().err
    assert own(project, "promote", verdict_id, "--stage", "shadow") == 0
    assert own(project, "freeze", "tickets") == 0
    assert "tickets stays at shadow" in capsys.readouterr().out
    standing = active_standing(project, "tickets")
    assert standing is not None
    assert (standing.stage, standing.is_frozen) == ("shadow", True)
    assert own(project, "freeze", "tickets", "--off", "--json") == 0
    assert json.loads(capsys.readouterr().out)["is_frozen"] is False


def test_route_status_shows_stage_and_evidence(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "promote", make_verdict(project).id) == 0
    route = active_routes(project)["tickets"]
    for harm in (0.0, 1.0, None):
        AuditLog(project, route.id).append(Audit("q", 0.0, "canary", "audit", harm, share=0.05))
    capsys.readouterr()
    assert own(project, "status", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["stage"], row["share"], row["audits"], row["harms"]) == ("canary", 0.05, 3, 2.0)
    assert 0 < row["alarm"] < 1


JURY = '[teacher.jury]\nbase_url = "http://x/v1"\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (JURY, None),
        ("", "own.toml does not have"),
        (JURY.replace('"m"', '"m2"'), "its model is another now"),
        (
            JURY + '[verdict.tickets]\njudge = "jury"\nrubric = "Be kind."\n',
            "its rubric is another now",
        ),
    ],
)
def test_route_promote_needs_the_judge_that_certified(
    project: Project, capsys: pytest.CaptureFixture[str], toml: str, said: str | None
) -> None:
    judge = Cascade([Judge(ScriptedTeacher("x"), "m", name="jury")]).identity
    verdict_id = make_verdict(project, check="judge", judge=judge).id
    project.settings_path.write_text(toml)
    code = own(project, "promote", verdict_id, "--json")
    told = capsys.readouterr()
    if said is None:
        assert code == 0
        assert json.loads(told.out)["foretold"]  # it is audited
        assert active_routes(project)["tickets"].check == "judge"
    else:
        assert code == 2
        assert said in told.err
        assert active_routes(project) == {}


def test_route_status_names_an_open_incident(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text('[teacher.main]\nbase_url = "http://x/v1"\n')
    follow(project)
    for wanted in (None, "main/9"):
        assert own(project, "status", "--json") == 0
        assert json.loads(capsys.readouterr().out)["incident"] == wanted
        with_incident(project, "main")


def test_route_status_says_what_is_saved(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dollars where own.toml has prices, else what to set."""
    route = follow(project)
    served = record("student", "a" * 10, "yes", route=route.id)
    told = record("teacher", "b" * 30, "nope", session="s2", route=route.id)
    with TrafficStore.open(project) as store:
        store.add([served, told])
    project.settings_path.write_text('[teacher.main]\nbase_url = "http://x/v1"\n')
    assert own(project, "status", "--json") == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["savings"]["usd"] is None
    assert "hint: set usd_per_mtok_in and usd_per_mtok_out in [teacher.main]" in found.err
    with project.settings_path.open("a") as file:
        file.write("usd_per_mtok_in = 20000\nusd_per_mtok_out = 100000\n")
    assert own(project, "status", "--json") == 0
    saved = json.loads(capsys.readouterr().out)["savings"]
    assert (saved["requests"], saved["served"], saved["audits"], saved["units"]) == (2, 1, 0, 2)
    assert saved["usd"] == pytest.approx(0.8)
    assert saved["usd_low"] < 0.8 < saved["usd_high"]
    assert own(project, "status") == 0
    assert "0.80 (" in capsys.readouterr().out


def test_route_promote_refuses_what_is_void(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict_id = make_verdict(project).id
    void_certificate(project, verdict_id, reason="drift of the teacher", by="incident 1")
    assert own(project, "promote", verdict_id) == 4
    assert "is void: drift of the teacher" in capsys.readouterr().err
