"""`own key`: keys of the gateway's own, each with what it may do and spend.

In: names and limits. Out: a secret, once, when a key is made; else what is known of keys, never the
secret (test_key_add_prints_the_secret_once).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import key_name, workload_name
from ownweights.cli.output import json_option, print_json, print_rows, say
from ownweights.core.errors import UsageError

if TYPE_CHECKING:
    from ownweights.gateway.keys import Key, KeyStore, Limits, Spent

MOST = 2**31 - 1
NO_LIMIT = object()  # what the word `none` says; None is an option that was not given


def _amount(kind: type[int] | type[float], at_least: float) -> Any:
    """A callback that reads a number from a limit on, or `none`."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or value == "none":
            return NO_LIMIT if value else None
        try:
            number = kind(value)
        except ValueError:
            number = kind(-1)
        if not at_least <= number <= MOST:  # NaN too
            what = f"{value!r} is not a number from {at_least:g} to {MOST:,}, or none"
            raise click.BadParameter(what, ctx, param)
        return number

    return read


def _day_or_none(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    if value is None or value == "none":
        return NO_LIMIT if value else None
    try:
        day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        what = f"{value!r} is not a day; write it as 2027-01-31"
        raise click.BadParameter(what, ctx, param) from None
    if day.timestamp() <= time.time():
        what = f"{value} has begun already: the key would be refused at once"
        raise click.BadParameter(what, ctx, param)
    return day.timestamp()


def _each_a_workload(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    for name in value:
        workload_name(ctx, param, name)
    return value


_limit_options = [
    click.option("--workload", "workloads", multiple=True, callback=_each_a_workload,
                 metavar="NAME", help="A workload it may ask for; several times for several."
                 "  [default: all]"),
    click.option("--budget-usd", metavar="X|none", callback=_amount(float, 0),
                 help="What it may spend at teachers, in US dollars; none is no limit."),
    click.option("--per", "budget_per", type=click.Choice(["day", "month", "total"]), default=None,
                 help="The budget's period, in UTC.  [default: month]"),
    click.option("--requests-per-min", metavar="N|none", callback=_amount(int, 1),
                 help="Requests a minute, at each gateway; none is no limit."),
    click.option("--tokens-per-min", metavar="N|none", callback=_amount(int, 1),
                 help="Tokens read and written a minute, at each gateway; none is no limit."),
    click.option("--record/--no-record", "is_recorded", default=None,
                 help="Whether its requests are recorded; what they cost counts anyway."
                 "  [default: recorded]"),
    click.option("--students/--no-students", "may_ask_students", default=None,
                 help="Whether students may answer it.  [default: they may]"),
    click.option("--expires", "expires_at", metavar="YYYY-MM-DD|none", callback=_day_or_none,
                 help="The first day (UTC) on which it is refused; none is never."),
]  # fmt: skip


def _with_limits(command: Any) -> Any:
    for option in reversed(_limit_options):
        command = option(command)
    return command


@click.group()
def key() -> None:
    """Keys of the gateway's own, with budgets and rates: add, list, set, revoke."""


@key.command()
@click.argument("name", callback=key_name)
@_with_limits
@json_option
@click.pass_context
def add(ctx: click.Context, name: str, *, as_json: bool, **given: Any) -> None:
    """Make a key for NAME, and print it: once, for only its hash is kept.

    Whoever holds it asks teachers on your account, within these limits.
    """
    from ownweights.gateway.keys import Limits, new_key

    with _open_store(ctx) as store:
        secret, made = new_key(name, _changed(Limits(), given))
        store.add(made)
    if as_json:
        print_json({"name": name, "id": made.id, "key": secret})
        return
    say(f"{name} is {made.id}; this is the only time that the key is shown:")
    click.echo(secret)


@key.command("list")
@click.option("--all", "is_all", is_flag=True, help="Revoked keys too.")
@json_option
@click.pass_context
def list_(ctx: click.Context, is_all: bool, as_json: bool) -> None:
    """Each key with its limits, and what it spent of its budget.

    `estimated` is the share of that for which answers did not say their tokens, `unpriced` how many
    requests are not in it because no price is known.
    """
    rows: list[dict[str, Any]] = []
    if _is_any_made(ctx):
        with _open_store(ctx) as store:
            keys = [one for one in store.every() if is_all or one.revoked_at is None]
            spent = _sums(store, keys)
        rows = [_row(one, spent[one.id]) for one in keys]
    print_rows(rows, as_json=as_json, empty="there is no key; own key add NAME makes one")


@key.command("set")
@click.argument("name")
@_with_limits
@click.option("--any-workload", is_flag=True, help="It may ask for every workload.")
@click.pass_context
def set_(ctx: click.Context, name: str, any_workload: bool, **given: Any) -> None:
    """Change limits of the key NAME (or its id); those not given stay."""
    if any_workload and given["workloads"]:
        raise UsageError("--any-workload and --workload exclude each other")
    with _open_found(ctx, name) as (store, found):
        limits = _changed(found.limits, given)
        if any_workload:
            limits = dataclasses.replace(limits, workloads=())
        if limits == found.limits:
            raise UsageError(f"nothing is to be changed of {name}", hint="own key set --help")
        store.change(found.id, limits)
    say(f"{found.name} ({found.id}) is changed; gateways follow within a second")


@key.command()
@click.argument("name")
@click.pass_context
def revoke(ctx: click.Context, name: str) -> None:
    """End the key NAME (or its id) for good; gateways refuse it within a second."""
    with _open_found(ctx, name) as (store, found):
        store.revoke(found.id)
    say(f"{found.name} ({found.id}) is revoked")


@contextmanager
def _open_store(ctx: click.Context) -> Iterator[KeyStore]:
    from ownweights.gateway.keys import KeyStore

    with KeyStore.open(project_of(ctx)) as store:
        yield store


def _is_any_made(ctx: click.Context) -> bool:
    """Whether keys may be there; looking makes no project."""
    from ownweights.core.database import has_database

    return has_database(project_of(ctx).database)


@contextmanager
def _open_found(ctx: click.Context, name: str) -> Iterator[tuple[KeyStore, Key]]:
    """The store, and the key of this name or id in it; UsageError where there is none."""
    known = ""
    if _is_any_made(ctx):
        with _open_store(ctx) as store:
            if found := store.find(name):
                yield store, found
                return
            known = ", ".join(one.name for one in store.every() if one.revoked_at is None)
    raise UsageError(f"there is no key {name!r}", hint=f"there are: {known or 'none'}")


def _changed(limits: Limits, given: dict[str, Any]) -> Limits:
    """Limits with what was given on the command line."""
    told = {name: value for name, value in given.items() if value not in (None, ())}
    anew = {name: None if value is NO_LIMIT else value for name, value in told.items()}
    return dataclasses.replace(limits, **anew)


def _sums(store: KeyStore, keys: list[Key]) -> dict[str, Spent]:
    """What each key spent in the present period of its budget."""
    from ownweights.gateway.keys import Spent
    from ownweights.gateway.keys.key import day_of, first_day

    today = day_of(time.time())
    begin = {one.id: first_day(one.limits.budget_per, today) for one in keys}
    sums = {one.id: Spent() for one in keys}
    for key_id, day, spent in store.read_spend():
        if key_id in sums and day >= begin[key_id]:
            sums[key_id] += spent
    return sums


def _row(one: Key, spent: Spent) -> dict[str, Any]:
    limits = one.limits
    return {
        "name": one.name,
        "id": one.id,
        "state": one.state(time.time()),
        "workloads": ", ".join(limits.workloads) or "all",
        "spent_usd": spent.usd,
        "budget_usd": limits.budget_usd,
        "per": limits.budget_per,
        "requests": spent.requests,
        "tokens": spent.tokens,
        "estimated": spent.estimated_frac,
        "unpriced": spent.unpriced,
        "requests_per_min": limits.requests_per_min,
        "tokens_per_min": limits.tokens_per_min,
        "recorded": limits.is_recorded,
        "students": limits.may_ask_students,
        "expires": None if limits.expires_at is None else _day(limits.expires_at),
    }


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
