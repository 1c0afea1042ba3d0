"""`own student train --dry-run`: all that there is to see, on stdout, and nothing anywhere else."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from tests.student.zoo import WORKLOAD, make_project
from tests.tiny import BASE_NAME, CHAT_TEMPLATE, save_byte_tokenizer

SETTINGS = f'[student.{WORKLOAD}]\nbase = "{BASE_NAME}"\nrank = 4\nrows_per_step = 8\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project, _ = make_project(tmp_path_factory.mktemp("home"))
    project.settings_path.write_text(SETTINGS, "utf-8")
    return project


def dry_run(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), "student", "train", "--workload", WORKLOAD,
                 "--dry-run", *words])  # fmt: skip


def test_dry_run_marks_what_is_trained(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(home) == 0
    out = capsys.readouterr().out
    assert "⟦" in out and out.count("<|end|>⟧") == 3
    assert "example 3 of 3: " in out
    assert "learning_rate = 0.0085: 0.003 at width 256" in out
    assert "0 too long" in out and "none is cut" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(("bos", "prompt "))] \
        == [["bos", "ok"], ["prompt", "ok"]]  # fmt: skip


def test_dry_run_says_nothing_of_the_data_on_stderr(
    home: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(home)
    assert capsys.readouterr().err == ""


def test_dry_run_trains_and_writes_nothing(home: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*")}
    dry_run(home)
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*")} == before


def test_dry_run_prints_json(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(home, "--json", "--turns", "all") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["too_long"] == 0
    assert found["settings"]["turns"] == "all"
    assert set(found["derived"]) >= {"epochs", "learning_rate"}
    assert {one["what"]: one["state"] for one in found["template"]}["end"] == "ok"
    for one in found["examples"]:
        assert len(one["ids"]) == len(one["trained"]) == len(one["pieces"])
        assert one["pieces"][-1] == "<|end|>" and one["trained"][-1] is True


def test_dry_run_fails_where_a_probe_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = make_project(tmp_path)
    project.settings_path.write_text(SETTINGS, "utf-8")
    thinking = CHAT_TEMPLATE.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|>(hm)' }}")
    save_byte_tokenizer(project.root / BASE_NAME, chat_template=thinking)
    assert dry_run(project) == 1
    assert "prompt" in capsys.readouterr().out


@pytest.mark.parametrize("is_plain", [False, True])
def test_dry_run_colours_a_terminal_unless_told_not_to(home: Project, is_plain: bool) -> None:
    """What is trained is green on a terminal; with NO_COLOR it stands between marks."""
    leader, follower = pty.openpty()
    words = ["--project", str(home.root), "student", "train", "--workload", WORKLOAD, "--dry-run"]
    code = f"import sys; from ownweights.cli.main import main; sys.exit(main({words!r}))"
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    if is_plain:
        environment["NO_COLOR"] = "1"
    with subprocess.Popen([sys.executable, "-c", code], stdout=follower, env=environment) as shell:
        os.close(follower)
        seen = b""
        while True:
            try:
                more = os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            if not more:
                break
            seen += more
    os.close(leader)
    assert shell.returncode == 0
    assert (b"\x1b[1;30;42m" in seen) != is_plain
    assert ("⟦".encode() in seen) == is_plain
