"""`own config` prints what is in force and why, and refuses what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownweights.cli.app import run
from ownweights.cli.config import find_doubts
from ownweights.core.project import Project
from ownweights.core.settings import Settings, load_settings

OWN_TOML = '[gateway]\nport = 9000\n\n[teacher.main]\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "own.toml").write_text(OWN_TOML)
    return Project(tmp_path)


def config(project: Project, *words: str) -> int:
    return run(["--project", str(project.root), "config", *words])


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[object, str]]:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["setting"]: (row["value"], row["from"]) for row in rows}


def test_config_show_says_where_each_value_came_from(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_GATEWAY_HOST", "127.0.0.2")
    assert config(project, "show", "--json") == 0
    rows = shown(capsys)
    assert rows["gateway.port"] == (9000, "file own.toml:2")
    assert rows["gateway.host"] == ("127.0.0.2", "environment OWN_GATEWAY_HOST")
    assert rows["gateway.timeout_s"][1] == "default"
    assert len(rows) == len(list(load_settings(project, env={}).values()))


def test_config_show_narrows_to_a_table(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config(project, "show", "gateway", "--json") == 0
    assert {name.split(".")[0] for name in shown(capsys)} == {"gateway"}
    assert config(project, "show", "gateway.port") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["gateway.port", "9000", "file",
                                                               "own.toml:2"]  # fmt: skip


def test_config_show_refuses_a_setting_that_is_not(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config(project, "show", "gatewa") == 2
    assert "error: there is no setting 'gatewa'" in capsys.readouterr().err


def test_config_check_names_the_file(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert config(project, "check") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{project.settings_path} is fine\n", "")


def test_config_check_without_a_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config(Project(tmp_path), "check") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'own.toml'} is not there; the defaults hold\n"
    assert captured.err.startswith("doubtful: no [teacher.<name>] is set")


def test_config_check_refuses_an_unknown_key(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[gateway]\nprot = 1\n")
    assert config(project, "check") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "own.toml:2" in captured.err
    assert "hint: did you mean 'port'?" in captured.err


def test_config_check_builds_every_check(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    text = OWN_TOML + '[verdict.tickets]\ncheck = "json tolerance=0.1"\n[verdict.letters]\n'
    project.settings_path.write_text(text)
    assert config(project, "check") == 0
    project.settings_path.write_text(text.replace("tolerance", "tolerence"))
    assert config(project, "check") == 2
    captured = capsys.readouterr()
    assert ": check 'json' has no option 'tolerence'" in captured.err
    assert "own.toml:" in captured.err
    assert "hint: did you mean 'tolerance'?" in captured.err


def test_config_check_prints_its_doubts_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config(Project(tmp_path), "check", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(tmp_path / "own.toml")
    assert len(told["doubts"]) == 1


def test_find_doubts_names_a_key_that_is_not_set(project: Project) -> None:
    project.settings_path.write_text(OWN_TOML + 'key_env = "MY_KEY"\n')
    settings = load_settings(project, env={})
    assert find_doubts(settings, {}) == ["teacher.main.key_env names MY_KEY, which is not set"]
    assert find_doubts(settings, {"MY_KEY": "secret\r\n"}) == []
    (doubt,) = find_doubts(settings, {"MY_KEY": "gëheim"})
    assert "MY_KEY holds what cannot be an API key" in doubt and "heim" not in doubt


def test_find_doubts_misses_a_teacher_for_all(project: Project) -> None:
    other = '[teacher.other]\nbase_url = "http://other/v1"\n'
    project.settings_path.write_text(OWN_TOML + other)
    (doubt,) = find_doubts(load_settings(project, env={}), {})
    assert "none is everybody's" in doubt
    project.settings_path.write_text(f'{other}fallback = ["main"]\n{OWN_TOML}')
    assert find_doubts(load_settings(project, env={}), {}) == []


def test_find_doubts_misses_a_teacher() -> None:
    assert find_doubts(Settings(), {}) == [
        "no [teacher.<name>] is set: the gateway has nobody to pass requests to"
    ]
