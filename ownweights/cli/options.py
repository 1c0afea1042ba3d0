"""What options of several commands have in common: the name of a workload, which records."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ownweights.traffic.query import RecordFilter

_STATUSES = ("ok", "partial", "error")
_ROLES = ("teacher", "student", "imported")
_PROTOCOLS = ("chat", "completions", "embeddings", "responses", "messages")


def workload_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name as it was given (a click callback); a mistake in the call where it can be none."""
    return _checked_name("workload", ctx, param, value)


def key_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The same for the name of a key."""
    return _checked_name("key", ctx, param, value)


def base_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The same for the name of a base."""
    return _checked_name("base", ctx, param, value)


def _checked_name(
    noun: str, ctx: click.Context, param: click.Parameter, value: str | None
) -> str | None:
    from ownweights.core.strict import NAME_PATTERN, NAME_SAYS

    if value is not None and not re.fullmatch(NAME_PATTERN, value):
        raise click.BadParameter(f"{value!r} cannot name a {noun}; use {NAME_SAYS}", ctx, param)
    return value


def moment_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A day or a moment in UTC as unix seconds (a click callback)."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        what = f"{value!r} is no day; write 2024-02-27 or 2024-02-27T08:30 (UTC)"
        raise click.BadParameter(what, ctx, param) from None


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose records; `filter_of` makes a RecordFilter of them."""
    options = (
        click.option("--workload", callback=workload_name, metavar="NAME",
                     help="Only this workload."),
        click.option("--status", type=click.Choice(_STATUSES), help="Only this status."),
        click.option("--role", type=click.Choice(_ROLES), help="Only what these answered."),
        click.option("--model", metavar="NAME", help="Only answers of this model."),
        click.option("--upstream", metavar="NAME", help="Only through this teacher of own.toml."),
        click.option("--protocol", type=click.Choice(_PROTOCOLS), help="Only this protocol."),
        click.option("--key", "key_id", metavar="ID", help="Only with this key of the gateway."),
        click.option("--session", metavar="NAME", help="Only this session."),
        click.option("--user", "end_user", metavar="NAME", help="Only this end user."),
        click.option("--since", callback=moment_of, metavar="DAY", help="From then on (UTC)."),
        click.option("--until", callback=moment_of, metavar="DAY", help="Before then (UTC)."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(given: Mapping[str, Any]) -> RecordFilter:
    """The records that the options ask for."""
    from ownweights.traffic.query import RecordFilter

    return RecordFilter(**given)
