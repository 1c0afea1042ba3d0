"""The door: quick answers without heavy imports, and errors as words and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from ownweights import __version__
from ownweights.cli.commands import help_text
from ownweights.cli.main import main, project_of
from ownweights.core.project import Project

HEAVY = ("click", "numpy", "torch", "rich", "json", "typing", "dataclasses", "pathlib")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; before = set(sys.modules); from ownweights.cli.main import main; "
        f"assert main({words!r}) == 0; print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stderr.split())
    assert "ownweights.cli.main" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--project", "x", "--help"]])
def test_main_prints_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == help_text() + "\n"


def test_main_without_words_tells_the_help_and_exits_as_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", help_text() + "\n")


@pytest.mark.parametrize("words", [["--version"], ["--project", "x", "--version"]])
def test_main_prints_the_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"own {__version__}\n"


def test_main_reads_the_command_line_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["own", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"own {__version__}\n"


def test_module_is_the_command() -> None:
    words = [sys.executable, "-m", "ownweights.cli", "--version"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == f"own {__version__}\n"


def test_project_of_is_the_folder_named() -> None:
    project = Project(Path("/some/where"))
    parent = click.Context(click.Command("own"), obj=project)
    assert project_of(click.Context(click.Command("x"), parent=parent)) == project


def test_project_of_is_the_current_folder_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project_of(click.Context(click.Command("x"))) == Project(tmp_path)
