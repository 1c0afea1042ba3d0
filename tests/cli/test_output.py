"""Data on stdout, talk on stderr; tables that line up; progress that does not flood a log."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from ownweights.cli.output import (
    LINE_EVERY_S,
    Progress,
    format_table,
    json_option,
    print_json,
    print_rows,
    say,
)


@dataclass(frozen=True)
class Point:
    x: float
    where: Path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        (Point(1.5, Path("/p")), '{"x": 1.5, "where": "/p"}'),
        ({"risk": float("-inf"), "nan": float("nan")}, '{"risk": null, "nan": null}'),
        ((np.float32(0.5), np.int64(3), np.array(2)), "[0.5, 3, 2]"),
        ({1: "é\u2028"}, '{"1": "é\u2028"}'),
    ],
)
def test_print_json_writes_one_strict_line(
    value: Any, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(value)
    assert capsys.readouterr().out == text + "\n"


def test_say_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


ROWS = [
    {"name": "tickets", "count": 12, "frac": 0.25, "on": True},
    {"name": "a", "count": 1234, "frac": None, "on": False},
]


def test_format_table_lines_up() -> None:
    assert format_table(ROWS).splitlines() == [
        "name     count  frac   on",
        "tickets     12  0.25  yes",
        "a         1234     -   no",
    ]


def test_format_table_shortens_floats() -> None:
    assert format_table([{"x": 0.123456}]).splitlines()[1] == "0.1235"
    assert format_table([{"x": 12345678.9}]).splitlines()[1] == "12345679"


def test_print_rows_writes_a_table_or_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS)
    assert capsys.readouterr().out == format_table(ROWS) + "\n"
    print_rows(iter(ROWS), as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


def test_print_rows_says_when_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], empty="no records yet")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no records yet\n")
    print_rows([], as_json=True)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_json_option_is_named_as_json() -> None:
    @click.command()
    @json_option
    def probe(as_json: bool) -> None:
        print_json(as_json)

    assert CliRunner().invoke(probe, ["--json"]).stdout == "true\n"
    assert CliRunner().invoke(probe, []).stdout == "false\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_progress_without_a_terminal_is_periodic() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("training", total=100, stream=stream, clock=clock) as progress:
        for done in range(100):
            clock.now_s = done * LINE_EVERY_S / 40
            progress(done + 1, note=f"loss {done}")
    assert stream.getvalue().splitlines() == [
        "training: 41/100  loss 40",
        "training: 81/100  loss 80",
        "training: 100/100  loss 99",
    ]


def test_progress_learns_its_total_late() -> None:
    stream = io.StringIO()
    with Progress("reading", stream=stream, clock=Clock()) as progress:
        progress(1)
        progress(2, 4)
    assert stream.getvalue() == "reading: 2/4\n"


def test_progress_that_never_moved_says_nothing() -> None:
    stream = io.StringIO()
    with Progress("waiting", stream=stream):
        pass
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", total=10, stream=Terminal()) as progress:
        progress(10, note="loss 0.1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err


def test_format_table_keeps_strange_text_on_its_line() -> None:
    """An endpoint may call its model anything."""
    table = format_table([{"model": "m\x1b[2J\nyes\x00 \u202eü", "ok": False}])
    assert table.splitlines()[1:] == [r"m\x1b[2J\nyes\x00 \u202eü  no"]
