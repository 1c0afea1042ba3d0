"""Options that several commands share."""

from __future__ import annotations

from typing import Any

import click
import pytest

from ownweights.cli.options import filter_of, filter_options, moment_of
from ownweights.traffic.query import RecordFilter

CONTEXT = click.Context(click.Command("x"))
PARAM = click.Option(["--since"])


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        (None, None),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T00:01", 60.0),
        ("1970-01-01 00:00:01", 1.0),
        ("1970-01-01T00:00:00+01:00", -3600.0),
        ("2024-02-29T12:00:00Z", 1_709_208_000.0),
    ],
)
def test_moment_of_is_utc_unless_it_says_otherwise(said: str | None, moment: float | None) -> None:
    assert moment_of(CONTEXT, PARAM, said) == moment


@pytest.mark.parametrize("said", ["", "yesterday", "2023-02-29", "12:00", "1e9"])
def test_moment_of_refuses_what_is_no_day(said: str) -> None:
    with pytest.raises(click.BadParameter, match="is no day; write 2024-02-27"):
        moment_of(CONTEXT, PARAM, said)


def test_filter_options_make_a_filter() -> None:
    seen: list[Any] = []

    @click.command()
    @filter_options
    def look(**only: Any) -> None:
        seen.append(filter_of(only))

    look.main([], standalone_mode=False)
    look.main(
        ["--workload", "w", "--status", "ok", "--role", "student", "--model", "m", "--upstream",
         "u", "--protocol", "chat", "--key", "k", "--session", "s", "--user", "e", "--since",
         "1970-01-02", "--until", "1970-01-03"],
        standalone_mode=False,
    )  # fmt: skip
    assert seen[0] == RecordFilter()
    assert seen[0].is_everything
    assert seen[1] == RecordFilter(
        "w", "ok", "student", "m", "u", "chat", "k", "s", "e", 86_400.0, 172_800.0
    )


@pytest.mark.parametrize(
    "words",
    [["--status", "fine"], ["--role", "nobody"], ["--protocol", "x"], ["--workload", "a b"]],
)
def test_filter_options_refuse_what_is_unknown(words: list[str]) -> None:
    @click.command()
    @filter_options
    def look(**only: Any) -> None:
        raise AssertionError(only)

    with pytest.raises(click.BadParameter):
        look.main(words, standalone_mode=False)
