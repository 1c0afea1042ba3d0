"""`own drift`: baseline, looks, alarms and voided certificates, against a teacher on loopback."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli import drift
from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.route import active_id
from ownweights.traffic import TrafficStore, make_record
from ownweights.verdict import run_verdict
from ownweights.verdict.drift import load_monitor
from ownweights.verdict.drift.store import drift_dir
from ownweights.verdict.voiding import void_reason
from tests.dataset.records import in_messages
from tests.route.samples import follow
from tests.teacher.servers import asked, completion, free_port, replay_of, running
from tests.verdict import worlds

QUESTIONS = [f"question {i}" for i in range(40)]
SAME = {question: f"answer to {question}" for question in QUESTIONS}
SHOUTED = {question: f"AN ANSWER TO {question}!" for question in QUESTIONS}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    with TrafficStore.open(project) as store:
        store.add(
            make_record(asked(question), completion(SAME[question]), role="teacher", workload="t")
            for question in QUESTIONS
        )
    return project


def own(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), "drift", *words])


def point_at(project: Project, url: str, **more: object) -> None:
    lines = ["[teacher.main]", f'base_url = "{url}/v1"', "max_retries = 0", "[drift]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in {"num_probes": 0, **more}.items()]
    project.settings_path.write_text("\n".join(lines) + "\n")


def ran(project: Project, answers: dict[str, str], *words: str, **more: object) -> int:
    with running(replay_of(answers)) as url:
        point_at(project, url, **more)
        return own(project, "run", *words)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_drift_run_takes_a_baseline_then_says_same(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(project, SAME, "--json") == 0
    first = printed(capsys)
    assert (first["outcome"], first["num_canaries"], first["num_looks"]) == (None, 40, 0)
    assert first["models"] == ["rented-1"]
    assert ran(project, SAME, "--json") == 0
    second = printed(capsys)
    assert (second["outcome"], second["num_looks"], second["incident"]) == ("same", 1, None)
    assert 0 < second["spent"] < second["false_alarm"] == 0.05


def test_drift_run_asks_messages_in_their_chat_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    records = [
        make_record(asked(question), completion(SAME[question]), role="teacher", workload="t")
        for question in QUESTIONS
    ]
    other = replace(records[0], id="other", protocol="responses")
    with TrafficStore.open(project) as store:
        store.add([*map(in_messages, records), other])
    assert ran(project, SAME, "--json") == 0
    assert printed(capsys)["num_canaries"] == 40
    assert ran(project, SAME, "--json") == 0
    assert printed(capsys)["outcome"] == "same"


def test_drift_run_alarms_with_four_and_voids_certificates(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    data = worlds.dataset(100, 400)  # its teacher is rented-1 too
    made = run_verdict(data, worlds.student(data), project, "student1")
    assert ran(project, SAME) == 0
    assert ran(project, SAME) == 0
    assert void_reason(project, made.id) is None
    assert ran(project, SHOUTED) == 4
    told = capsys.readouterr()
    assert "teacher main: CHANGED" in told.out
    assert f"certificate {made.id} is void: the endpoint behind rented-1 changed" in told.err
    voided = void_reason(project, made.id)
    assert voided is not None
    assert voided.by.startswith("main/")
    assert own(project, "status") == 4


def test_drift_alarm_voids_beside_a_damaged_monitor(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    data = worlds.dataset(100, 400)
    made = run_verdict(data, worlds.student(data), project, "student1")
    for name in ("main (copy)", "other"):
        (drift_dir(project) / name / "0001").mkdir(parents=True)
        (drift_dir(project) / name / "0001" / "baseline.json").write_text("{")
    assert ran(project, SAME) == 0
    capsys.readouterr()
    assert own(project, "status") == 3
    told = capsys.readouterr()
    assert "teacher main: baseline of 40 canaries" in told.out
    assert "warning: teacher other cannot be told of" in told.err
    assert ran(project, SHOUTED) == 4
    assert void_reason(project, made.id) is not None
    assert "warning: " in capsys.readouterr().err
    assert own(project, "status", "other") == 1


def test_drift_alarm_voids_a_followed_certificate_that_cannot_be_read(project: Project) -> None:
    """Who knows which teacher it names? Nobody follows it while its teacher has an incident."""
    route = follow(project, workload="t")
    assert ran(project, SAME) == 0
    assert active_id(project, "t") == route.id
    assert ran(project, SHOUTED) == 4
    voided = void_reason(project, route.verdict_id)
    assert voided is not None
    assert "cannot be read" in voided.reason
    assert active_id(project, "t") is None


def test_drift_run_if_due_voids_what_a_killed_run_left(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(project: Project) -> None:
        raise SystemExit(137)

    data = worlds.dataset(100, 400)
    made = run_verdict(data, worlds.student(data), project, "student1")
    assert ran(project, SAME) == 0
    with monkeypatch.context() as patched:
        patched.setattr(drift, "void_certificates_of", killed)
        assert ran(project, SHOUTED) == 137
    assert void_reason(project, made.id) is None
    assert ran(project, SHOUTED, "--if-due") == 4
    assert void_reason(project, made.id) is not None


def test_drift_look_of_a_clock_that_ran_ahead_is_due(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran(project, SAME) == 0
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: 4e9)
        assert ran(project, SAME) == 0
    assert ran(project, SHOUTED, "--if-due") == 4


def test_drift_run_names_the_channel(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(project, SAME) == 0
    capsys.readouterr()
    assert ran(project, SHOUTED, "--json") == 4
    found = printed(capsys)
    assert {"length", "score"} <= {one["channel"] for one in found["incident"]["findings"]}


def test_drift_run_of_a_dead_teacher_could_not_tell(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(project, SAME) == 0
    point_at(project, f"http://127.0.0.1:{free_port()}")
    assert own(project, "run") == 3
    assert "could not tell" in capsys.readouterr().out


def test_drift_run_without_an_endpoint_takes_no_baseline(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(project, f"http://127.0.0.1:{free_port()}")
    assert own(project, "run") == 1
    assert "no canary was answered 2 times by teacher 'main'" in capsys.readouterr().err
    assert load_monitor(project, "main") is None


def test_drift_run_renews_the_baseline(project: Project) -> None:
    assert ran(project, SAME) == 0
    assert ran(project, SHOUTED) == 4
    assert ran(project, SHOUTED, "--renew") == 0
    assert ran(project, SHOUTED) == 0
    assert len(list((drift_dir(project) / "main").iterdir())) == 2


def test_drift_run_if_due_waits(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(project, SAME) == 0
    assert ran(project, SAME, "--if-due") == 0  # the first look is due at once
    capsys.readouterr()
    assert ran(project, SHOUTED, "--if-due") == 0
    assert "the next look is due in 24.0 h" in capsys.readouterr().err
    assert ran(project, SHOUTED, "--if-due", every_h=0.0) == 4


def test_drift_run_takes_flags_before_the_file(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--num-canaries", "20", "--false-alarm", "0.2", "--json")
    assert ran(project, SAME, *words, num_canaries=30) == 0
    found = printed(capsys)
    assert (found["num_canaries"], found["false_alarm"]) == (20, 0.2)


@pytest.mark.parametrize(
    ("settings", "words", "says"),
    [
        ("", (), "say which teacher\nhint: own.toml has: none"),
        ('[teacher.a]\nbase_url = "http://a/v1"\n', ("b",), "there is no teacher 'b'"),
        ('[teacher.a]\nbase_url = "http://a/v1"\n[teacher.b]\nbase_url = "http://b/v1"\n', (),
         "hint: own.toml has: a, b"),
        ("[drift]\nnum_canary = 3\n", (), "'num_canary' is not a setting of [drift]"),
        ("[drift]\nfalse_alarm = 0\n", (), "drift.false_alarm: expected between 0 and 1"),
    ],
)  # fmt: skip
def test_drift_run_refuses_what_it_does_not_know(
    project: Project, capsys: pytest.CaptureFixture[str], settings: str, words: tuple[str, ...],
    says: str,
) -> None:  # fmt: skip
    project.settings_path.write_text(settings)
    assert own(project, "run", *words) == 2
    assert says in capsys.readouterr().err


def test_drift_run_needs_recorded_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Project(tmp_path / "empty")
    empty.root.mkdir()
    point_at(empty, "http://127.0.0.1:9")
    assert own(empty, "run") == 1
    assert "hint: own traffic import" in capsys.readouterr().err
    TrafficStore.open(empty).close()
    assert own(empty, "run") == 2
    assert "no recorded request was answered by teacher 'main'" in capsys.readouterr().err


def test_drift_status_of_nobody_says_what_to_do(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "status") == 0
    assert "no baseline yet: `own drift run` takes one" in capsys.readouterr().err
    assert own(project, "status", "main") == 3


def test_drift_status_tells_of_every_teacher(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(project, SAME) == 0
    capsys.readouterr()
    assert own(project, "status", "--json") == 0
    found = printed(capsys)
    assert (found["teacher"], found["outcome"]) == ("main", None)
    assert found["due_in_h"] <= 0
    assert own(project, "status") == 0
    assert "next look due now" in capsys.readouterr().out
    assert ran(project, SAME) == 0
    assert own(project, "status") == 0
    assert "next look due in 24.0 h" in capsys.readouterr().out


def test_drift_run_says_what_it_cannot_measure(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replay teacher knows no one-token prompts; 40 canaries are too few for text."""
    assert ran(project, SAME, "--json", num_probes=5) == 0
    found = printed(capsys)
    assert found["num_probes"] == 0
    assert found["unmeasured"] == {
        "text": "40 canaries were answered, and 44 are needed",
        "border": "no one-token prompt was answered",
    }
    assert ran(project, SAME, "--json", num_probes=5) == 0
    channels = [one["channel"] for one in printed(capsys)["look"]["findings"]]
    assert channels == ["metadata", "length", "format", "refusal", "score"]


def test_drift_run_notes_a_new_name_where_that_is_no_alarm(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(project, SAME, on_metadata="note") == 0
    capsys.readouterr()
    folder = drift_dir(project) / "main" / "0001"
    text = (folder / "baseline.json").read_text()
    (folder / "baseline.json").write_text(text.replace('"rented-1"', '"rented-0"'))
    assert ran(project, SAME, on_metadata="note") == 0
    assert "note      model rented-1 where rented-0 was" in capsys.readouterr().out
