"""The static table of commands says what the commands themselves say."""

from __future__ import annotations

import importlib
import pkgutil

import click
import pytest

import ownweights.cli
from ownweights.cli.app import app
from ownweights.cli.commands import OPTIONS, SUMMARIES, help_text

PLUMBING = {"__main__", "app", "commands", "main", "options", "output"}


def command_of(module_name: str) -> click.Command | None:
    module = importlib.import_module(f"ownweights.cli.{module_name}")
    found = getattr(module, module_name, None)
    return found if isinstance(found, click.Command) else None


def test_commands_match_the_modules() -> None:
    modules = {info.name for info in pkgutil.iter_modules(ownweights.cli.__path__)} - PLUMBING
    nouns = {name for name in modules if command_of(name) is not None}
    assert nouns == set(SUMMARIES)


@pytest.mark.parametrize("name", SUMMARIES)
def test_summary_is_the_first_line_of_the_help(name: str) -> None:
    command = command_of(name)
    assert command is not None
    assert (command.help or "").strip().splitlines()[0] == SUMMARIES[name]


def every_command(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            found += every_command(child, f"{path} {name}")
    return found


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_and_option_has_help(name: str) -> None:
    command = command_of(name)
    assert command is not None
    for path, child in every_command(command, name):
        assert child.help, f"own {path} has no help text"
        for option in child.params:
            if isinstance(option, click.Option):
                assert option.help, f"own {path}: {option.opts[0]} has no help text"


def test_help_names_every_option_of_the_group() -> None:
    told = {word for left, _ in OPTIONS for word in left.replace(",", " ").split()}
    declared = {flag for option in app.params for flag in option.opts} | {"-h", "--help"}
    assert declared == told - {"DIR"}


def test_help_fits_a_terminal_of_85_columns() -> None:
    assert max(map(len, help_text().splitlines())) <= 85
