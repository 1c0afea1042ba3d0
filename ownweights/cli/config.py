"""`own config`: the settings in force, where each came from, and what looks wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from ownweights.cli.main import folder_of
from ownweights.cli.output import json_option, print_json, print_rows, say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings


@click.group()
def config() -> None:
    """The settings in force, and where each came from."""


@config.command()
@click.argument("prefix", default="")
@json_option
@click.pass_context
def show(ctx: click.Context, prefix: str, as_json: bool) -> None:
    """Print every setting below PREFIX (say `gateway`) with its value and source."""
    from ownweights.core.errors import UsageError
    from ownweights.core.settings import load_settings

    rows = [
        {"setting": path, "value": value, "from": f"{source.kind} {source.where}".strip()}
        for path, value, source in load_settings(folder_of(ctx)).values()
        if path == prefix or path.startswith(f"{prefix}.") or not prefix
    ]
    if not rows:
        raise UsageError(f"there is no setting {prefix!r}", hint="`own config show` lists them all")
    print_rows(rows, as_json=as_json)


@config.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Read the settings strictly, and say what looks wrong with them."""
    from ownweights.core.settings import load_settings

    project = folder_of(ctx)
    settings = load_settings(project)
    build_checks(project, settings)
    doubts = find_doubts(settings, os.environ)
    if as_json:
        print_json({"path": project.settings_path, "doubts": doubts})
        return
    for doubt in doubts:
        say(f"doubtful: {doubt}")
    found = "is fine" if project.settings_path.exists() else "is not there; the defaults hold"
    click.echo(f"{project.settings_path} {found}")


def build_checks(project: Project, settings: Settings) -> None:
    """Name every check that is set, so that a wrong option or a missing file shows now."""
    from ownweights.cli.trial import check_of
    from ownweights.core.errors import SettingsError

    for workload, row in settings.verdict.items():
        try:
            check_of(project, row)
        except SettingsError as error:
            source = settings.sources[f"verdict.{workload}.check"]
            raise SettingsError(f"{source.where}: {error.what}", hint=error.hint) from None


def find_doubts(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """What is allowed but hardly meant: no teacher for all, or one whose key cannot be used."""
    from ownweights.core.errors import SettingsError
    from ownweights.core.strict import key_text

    doubts: list[str] = []
    for name, teacher in settings.teacher.items():
        try:
            if teacher.key_env and not key_text(teacher.key_env, environment.get(teacher.key_env)):
                doubts.append(f"teacher.{name}.key_env names {teacher.key_env}, which is not set")
        except SettingsError as error:
            doubts.append(f"teacher.{name}.key_env: {error.what}")
    if not settings.teacher:
        doubts.append("no [teacher.<name>] is set: the gateway has nobody to pass requests to")
    elif not settings.default_teacher:
        doubts.append(
            "several [teacher.<name>], and none is everybody's: requests of a workload that names"
            " no teacher fail"
        )
    return doubts
