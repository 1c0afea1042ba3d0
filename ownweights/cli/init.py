"""`own init`: write an own.toml in which every setting stands, commented out, with its default.

In: the settings' own reference. Out: text that loads as it is, and that still loads when every
setting in it is uncommented (test_init_text_loads_uncommented).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import click

from ownweights.cli.main import folder_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import say

if TYPE_CHECKING:
    from ownweights.core.settings import SettingHelp

EXAMPLE_URL = "https://api.openai.com/v1"
EXAMPLE_KEY = "OPENAI_API_KEY"
_HEAD = """\
# Settings of this project, reviewed like code. A line that starts with "#" shows what holds anyway;
# remove the "#" to change it. `own config show` prints each value and where it came from;
# a flag goes before a variable (OWN_GATEWAY_PORT), a variable before this file.
"""


@click.command()
@click.option("--base-url", help="Where the rented model's OpenAI-compatible API is.")
@click.option("--key-env", default=EXAMPLE_KEY, show_default=True,
              help="The environment variable that holds its key.")  # fmt: skip
@click.option(
    "--workload",
    callback=workload_name,
    default="tickets",
    show_default=True,
    help="A name for your requests.",
)
@click.option("--force", is_flag=True, help="Replace an own.toml that is there already.")
@click.pass_context
def init(
    ctx: click.Context, base_url: str | None, key_env: str, workload: str, force: bool
) -> None:
    """Write a commented own.toml."""
    from ownweights.core.artefact import write_atomic
    from ownweights.core.errors import UsageError
    from ownweights.core.settings import check_flags, describe_settings

    path = folder_of(ctx).settings_path
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", hint="--force replaces it")
    check_flags(
        {
            "teacher.main.base_url": EXAMPLE_URL if base_url is None else base_url,
            "teacher.main.key_env": key_env,
        }
    )
    given = {"base_url": base_url, "key_env": key_env} if base_url else {}
    text = format_settings(describe_settings(), workload=workload, teacher=given)
    write_atomic(path, text.encode())
    say(f"wrote {path}; `own config check` reads it")
    click.echo(path)


def format_settings(helps: Iterable[SettingHelp], *, workload: str, teacher: dict[str, str]) -> str:
    """A commented own.toml; the keys in `teacher` stand uncommented under [teacher.main]."""
    from ownweights.core.strict import toml_key

    names = {"<name>": "main", "<workload>": toml_key(workload)}
    tables: list[str] = [_HEAD]
    for prefix, rows in groupby(helps, key=lambda row: row.path.rsplit(".", 1)[0]):
        table = "workload.<workload>" if prefix == "workload.<name>" else prefix
        for word, name in names.items():
            table = table.replace(word, name)
        given = teacher if table == "teacher.main" else {}
        is_live = bool(given) or "." not in table
        lines = [f"{'' if is_live else '# '}[{table}]"]
        for row in rows:
            lines += _setting_lines(row, given)
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def _setting_lines(row: SettingHelp, given: dict[str, str]) -> list[str]:
    from ownweights.core.strict import toml_value

    key = row.path.rsplit(".", 1)[1]
    limits = f" ({row.limits})" if row.limits else ""
    told = textwrap.wrap(
        f"{key}: {row.help}{limits}", 98, initial_indent="#   ", subsequent_indent="#     ",
        break_on_hyphens=False,
    )  # fmt: skip
    if key in given:
        return [*told, f"{key} = {toml_value(given[key])}"]
    if row.is_required:
        return [*told, f"# {key} = {toml_value(EXAMPLE_URL)}"]
    return told if row.default is None else [*told, f"# {key} = {toml_value(row.default)}"]
