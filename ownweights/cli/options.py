"""What options of several commands have in common: the name of a workload is checked."""

from __future__ import annotations

import re

import click


def workload_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name as it was given (a click callback); a mistake in the call where it can be none."""
    from ownweights.core.strict import NAME_PATTERN, NAME_SAYS

    if value is not None and not re.fullmatch(NAME_PATTERN, value):
        what = f"{value!r} cannot name a workload; use {NAME_SAYS}"
        raise click.BadParameter(what, ctx, param)
    return value
