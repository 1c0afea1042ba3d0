"""Every number that a command line takes is checked: nothing that cannot be is a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ownweights.cli.app import app, run

NUMERIC = (click.types.IntParamType, click.types.FloatParamType)
BAD = {"nan": "nan", "minus one": "-1", "400 digits": "9" * 400, "5000 digits": "9" * 5000}


Given = tuple[tuple[str, ...], click.Command, str]


def numeric_options(command: click.Command = app, path: tuple[str, ...] = ()) -> Iterator[Given]:
    """(words, command, option) of everything that takes a number."""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from numeric_options(inner, (*path, name))
    for option in command.params:
        if isinstance(option.type, NUMERIC):
            yield path, command, option.opts[0]


def needed_words(command: click.Command, folder: Path) -> list[str]:
    """What else the command must be given: paths that exist, and a name."""
    words: list[str] = []
    for one in command.params:
        if one.required:
            value = str(folder) if isinstance(one.type, click.Path) else "x"
            words += [value] if isinstance(one, click.Argument) else [one.opts[0], value]
    return words


OPTIONS = list(numeric_options())


def test_numeric_options_are_found() -> None:
    found = {(*path, option) for path, _, option in OPTIONS}
    assert ("student", "train", "--rank") in found and ("verdict", "run", "--timeout-s") in found
    assert len(found) >= 18


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("given", OPTIONS, ids=["-".join((*o[0], o[2])) for o in OPTIONS])
def test_a_number_that_cannot_be_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: Given, bad: str
) -> None:
    path, command, option = given
    words = [*path, *needed_words(command, tmp_path), f"{option}={bad}"]
    assert run(["--project", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err.replace("-", "_")
    assert said.startswith("error: ") and option[2:].replace("-", "_") in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "certify"])
@pytest.mark.parametrize("bad", ["0", "inf", "nan"])
def test_verdict_refuses_a_time_out_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str, verb: str
) -> None:
    words = ["verdict", verb, "--workload", "x", "--timeout-s", bad]
    assert run(["--project", str(tmp_path), *words]) == 2
    assert "timeout_s: expected between 0 and 86400 (exclusive)" in capsys.readouterr().err
