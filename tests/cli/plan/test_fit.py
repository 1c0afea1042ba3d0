"""A training that does not fit is refused before it starts; `own doctor` says what one takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.cli.plan.fit import describe
from ownweights.core.project import Project
from ownweights.student.preflight import estimate as estimate_module
from ownweights.student.preflight.calibrate import Point, Shape, plan_points
from ownweights.student.preflight.estimate import Estimate
from tests.student.zoo import WORKLOAD, make_project
from tests.tiny import BASE_NAME

SETTINGS = f"""
[student.{WORKLOAD}]
base = "{BASE_NAME}"
rank = 4
epochs = 1
rows_per_step = 16
"""
MB = 10**6


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project on a machine where a token costs a megabyte, and a step 100."""
    project, _ = make_project(tmp_path)
    project.settings_path.write_text(SETTINGS, "utf-8")

    def measured(shape: Shape) -> list[Point]:
        return [
            replace(p, seconds=0.01 + 1e-4 * p.tokens, start_bytes=100 * MB,
                    peak_bytes=(200 + p.tokens) * MB)
            for p in plan_points(shape)
        ]  # fmt: skip

    monkeypatch.setattr(estimate_module, "measure", measured)
    monkeypatch.setattr(estimate_module, "_own_bytes", lambda: 0)
    return project


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(estimate_module, "available_bytes", lambda: count)


def test_train_refuses_what_does_not_fit(
    home: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(monkeypatch, 400 * MB)
    words = ["--project", str(home.root), "student", "train", "--workload", WORKLOAD]
    assert main(words) == 4
    out, errors = capsys.readouterr()
    assert out == ""
    assert "error: this training would need about 0." in errors
    rows = int(errors.split("hint: set rows_per_step = ")[1])
    assert not list(home.kind_dir("student").glob("*"))
    home.settings_path.write_text(SETTINGS.replace("= 16", f"= {rows}"), "utf-8")
    assert main(words) == 0
    assert "0.4 GB of memory" in capsys.readouterr().err


def test_train_of_something_small_measures_nothing(
    home: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10**11)
    monkeypatch.setattr(estimate_module, "measure", pytest.fail)
    words = ["--project", str(home.root), "student", "train", "--workload", WORKLOAD]
    assert main(words) == 0
    assert not (home.store_dir / "calibration").exists()


def test_doctor_says_what_a_training_takes(
    home: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found() -> tuple[int, dict[str, str]]:
        words = ["--project", str(home.root), "doctor", "--json", "--workload", WORKLOAD]
        code = main(words)
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    free(monkeypatch, 10**11)
    code, line = found()
    assert (code, line["what"], line["state"]) == (0, "training", "ok")
    assert "tokens/s), 0." in line["found"]
    free(monkeypatch, 300 * MB)
    code, line = found()
    assert (code, line["state"]) == (1, "bad")
    assert "set rows_per_step = " in line["found"]


def test_doctor_names_a_workload_without_a_dataset(
    home: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--project", str(home.root), "doctor", "--json", "--workload", "nothing"]
    assert main(words) == 1
    assert "no dataset of workload 'nothing'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.4, "12 s"), (600.0, "10 min"), (9000.0, "2.5 h")]
)
def test_describe_says_how_long(seconds: float, said: str) -> None:
    found = Estimate(2 * 10**9, 8 * 10**9, seconds, 1234.5, 77, 100)
    assert describe(found) == (
        f"about {said} for 77 steps (1,234 tokens/s), 2.0 GB of 8.0 GB of memory"
    )
