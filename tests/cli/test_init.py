"""`own init` writes a file that loads, commented or not, and never overwrites one by surprise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ownweights.cli.app import run
from ownweights.cli.init import EXAMPLE_KEY, EXAMPLE_URL, format_settings
from ownweights.core.project import Project
from ownweights.core.settings import Settings, describe_settings, load_settings


def settings_from(text: str, folder: Path) -> Settings:
    (folder / "own.toml").write_text(text)
    return load_settings(Project(folder), env={})


def test_init_writes_a_file_that_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--project", str(tmp_path), "init"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'own.toml'}\n"
    assert "wrote" in captured.err
    loaded = load_settings(Project(tmp_path), env={})
    assert {source.kind for _, _, source in loaded.values()} == {"default"}


def test_init_sets_the_teacher_that_is_given(tmp_path: Path) -> None:
    words = ["init", "--base-url", "http://127.0.0.1:9/v1", "--key-env", "MY_KEY"]
    assert run(["--project", str(tmp_path), *words]) == 0
    name, teacher = load_settings(Project(tmp_path), env={}).teacher_of("tickets")
    assert (name, teacher.base_url, teacher.key_env) == ("main", "http://127.0.0.1:9/v1", "MY_KEY")


def test_init_makes_the_project_folder(tmp_path: Path) -> None:
    assert run(["--project", str(tmp_path / "new"), "init"]) == 0
    assert (tmp_path / "new" / "own.toml").is_file()


def test_init_keeps_a_file_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.toml"
    path.write_text("# mine\n")
    assert run(["--project", str(tmp_path), "init"]) == 2
    assert capsys.readouterr().err == (
        f"error: {path} is there already\nhint: --force replaces it\n"
    )
    assert path.read_text() == "# mine\n"
    assert run(["--project", str(tmp_path), "init", "--force"]) == 0
    assert path.read_text() != "# mine\n"


def test_init_text_loads_uncommented(tmp_path: Path) -> None:
    text = format_settings(describe_settings(), workload="tickets", teacher={})
    live = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    loaded = settings_from(live, tmp_path)
    assert loaded.teacher["main"].base_url == EXAMPLE_URL
    assert set(loaded.student) == set(loaded.verdict) == set(loaded.route) == {"tickets"}
    assert loaded.student["tickets"] == Settings().student_of("other")
    assert loaded.gateway == Settings().gateway


def test_init_text_tells_every_setting() -> None:
    text = format_settings(describe_settings(), workload="tickets", teacher={})
    for row in describe_settings():
        key = row.path.rsplit(".", 1)[1]
        assert f"#   {key}: " in text
    assert max(map(len, text.splitlines())) <= 100


def test_init_text_wraps_between_words() -> None:
    text = format_settings(describe_settings(), workload="tickets", teacher={})
    words = " ".join(re.sub(r"(?m)^# *", "", text).split("\n"))
    assert "session-or-prompt" in words
    told = [line for line in text.splitlines() if line.startswith("#   ")]
    assert [line for line in told if "  " in line.lstrip("# ")] == []


def test_init_key_defaults_to_the_usual_variable(tmp_path: Path) -> None:
    run(["--project", str(tmp_path), "init", "--base-url", "http://127.0.0.1:9/v1"])
    assert load_settings(Project(tmp_path), env={}).teacher["main"].key_env == EXAMPLE_KEY


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--base-url", "api.example.com"], "expected an http:// or https:// address"),
        (["--base-url", ""], "expected an http:// or https:// address"),
        (["--base-url", "http://x/v1", "--key-env", "sk-abc-123"], "not the key itself"),
        (["--key-env", "sk-abc-123"], "not the key itself"),
        (["--workload", "../x"], "'../x' cannot name a workload"),
    ],
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_writes_nothing_that_would_not_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str,
    *, force: list[str],
) -> None:  # fmt: skip
    path = tmp_path / "own.toml"
    if force:
        path.write_text("# mine\n")
    assert run(["--project", str(tmp_path), "init", *words, *force]) == 2
    errors = capsys.readouterr().err
    assert says in errors and "abc-123" not in errors
    assert [one.read_text() for one in tmp_path.iterdir()] == (["# mine\n"] if force else [])


@pytest.mark.parametrize("workload", ["a.b", "1.0", "x-1"])
def test_init_quotes_the_name_of_a_workload(tmp_path: Path, workload: str) -> None:
    text = format_settings(describe_settings(), workload=workload, teacher={})
    live = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text).replace('teacher = ""', "")
    settings = settings_from(live, tmp_path)
    assert list(settings.workload) == list(settings.student) == [workload]
    assert list(settings.verdict) == list(settings.route) == [workload]
