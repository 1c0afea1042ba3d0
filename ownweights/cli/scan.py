"""`own scan`: what the traffic is, what it costs, and what a certificate could save of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, format_table, json_option, print_json, say

if TYPE_CHECKING:
    from ownweights.core.settings import Settings
    from ownweights.verdict.scan import Plan, Prices, WorkloadScan

MAX_REASONS = 6
_USD = click.FloatRange(0, 1_000_000)  # as in [teacher.<name>]
FLAGS = "flags"


@click.command()
@click.option("--workload", metavar="NAME", callback=workload_name, help="Only this workload.")
@click.option("--usd-per-mtok-in", type=_USD, help="The price of a million tokens read.")
@click.option("--usd-per-mtok-out", type=_USD, help="The price of a million tokens written.")
@json_option
@click.pass_context
def scan(
    ctx: click.Context, workload: str | None, usd_per_mtok_in: float | None,
    usd_per_mtok_out: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Before training: cost, repeats, the teacher's noise, what a proof needs.

    Prices are those of [teacher.<name>] unless given. What is claimed is what own.toml says.
    """
    from ownweights.core.errors import InputError
    from ownweights.core.settings import load_settings
    from ownweights.route import unanswerable
    from ownweights.traffic import TrafficStore
    from ownweights.verdict.scan import scan_records

    project = project_of(ctx)
    settings = load_settings(project)
    given = _given_prices(usd_per_mtok_in, usd_per_mtok_out)
    with TrafficStore.open(project, create=False) as store:
        total = store.count(workload)
        if not total:
            of = f" of workload {workload!r}" if workload else ""
            raise InputError(f"there is no record{of}", hint="`own traffic stats` lists them")
        with Progress("scan", total=total) as bar:
            found = scan_records(
                store.records(workload),
                lambda name: plan_of(settings, name, given),
                ineligible=unanswerable,
                on_progress=lambda done, _, note: bar(done, total, note),
            )
    for number, one in enumerate(found):
        if as_json:
            print_json(one)
            continue
        click.echo(("\n" if number else "") + scan_text(one))
    if any(one.cost is None for one in found):
        say("hint: --usd-per-mtok-in and --usd-per-mtok-out say what this costs")


def plan_of(settings: Settings, workload: str, given: Prices | None = None) -> Plan:
    """How the settings would study a workload, what they claim, and what its teacher takes."""
    from ownweights.cli.dataset import options_of
    from ownweights.cli.trial import claim_of
    from ownweights.verdict.scan import Plan

    claim = claim_of(settings.verdict_of(workload))
    return Plan(options_of(settings, workload), claim, given or prices_of(settings, workload))


def _given_prices(price_in: float | None, price_out: float | None) -> Prices | None:
    from ownweights.core.errors import UsageError
    from ownweights.verdict.scan import Prices

    if price_in is None and price_out is None:
        return None
    if price_in is None or price_out is None:
        raise UsageError(
            "a price needs both --usd-per-mtok-in and --usd-per-mtok-out",
            hint="give 0 for what costs nothing",
        )
    return Prices(price_in, price_out, source=FLAGS)


def prices_of(settings: Settings, workload: str) -> Prices | None:
    """The prices of a workload's teacher; None where none is known."""
    from ownweights.core.errors import SettingsError

    try:
        name, _ = settings.teacher_of(workload)
    except SettingsError:  # none, or which of several is not said: then no price is known
        return None
    return teacher_prices(settings, name)


def teacher_prices(settings: Settings, name: str) -> Prices | None:
    """What [teacher.<name>] takes: as own.toml says, else its maker's list; None where none does.

    Raises: SettingsError where it says only one of the two
    """
    from ownweights.core.errors import SettingsError
    from ownweights.teacher.prices import Prices, list_prices

    teacher = settings.teacher.get(name)
    if teacher is None:
        return None
    price_in, price_out = teacher.usd_per_mtok_in, teacher.usd_per_mtok_out
    if price_in is None and price_out is None:
        return list_prices(teacher.base_url, teacher.model)
    if price_in is None or price_out is None:
        raise SettingsError(
            f"teacher.{name} has one of usd_per_mtok_in and usd_per_mtok_out, expected both",
            hint="write 0 for what costs nothing",
        )
    return Prices(price_in, price_out, teacher.usd_per_mtok_cached)


def scan_text(one: WorkloadScan) -> str:
    """A scan for reading."""
    lines = [
        _volume(one),
        f"  requests      {one.repeats.distinct:,} distinct ({one.repeats.repeat_frac:.1%} exact"
        f" repeats), {one.repeats.questions:,} questions{_near(one)}",
        f"  units         {one.units.num:,} independent, by {one.units.split_by}"
        f" ({one.units.reason}); certify would hold {one.units.certify:,}",
        *_agreement(one),
        f"  tokens        {one.tokens.tokens_in:,.0f} read, {one.tokens.tokens_out:,.0f} written"
        f" {_counted(one)}",
        *_cost(one),
        f"  coverage      {one.coverage.coverable_frac:.1%} are asked in a form that a student can"
        f" answer{_kept_back(one)}",
        f"                a certificate covers no more than these{_extrapolated(one)}",
        *_needs(one),
    ]
    return "\n".join(lines)


def _extrapolated(one: WorkloadScan) -> str:
    share, cost = one.coverage.extrapolated_frac, one.cost
    if share is None:
        return ""
    usd = None if cost is None else cost.extrapolated_saving_usd
    saved = "" if usd is None else f" and save USD {usd:,.2f}"
    return (
        f"; extrapolated, as if requests asked once varied like those asked twice: it could"
        f" cover {share:.1%}{saved} at most"
    )


def _volume(one: WorkloadScan) -> str:
    period = one.period
    over = "over an unknown time"
    if period.days is not None:
        rate = "" if period.per_day is None else f", {period.per_day:,.0f} a day"
        over = f"over {period.days:.3g} days{rate}"
        if period.num_timed < one.records:
            over += f" (time known of {period.num_timed:,})"
    apart = "".join(
        f", {count:,} {what}"
        for count, what in ((one.by_student, "answered by a student"), (one.errors, "failed"))
        if count
    )
    by = ", ".join(one.models) or "nobody"
    return f"{one.workload}: {one.records:,} records {over}, answered by {by}{apart}"


def _near(one: WorkloadScan) -> str:
    if one.repeats.near is None:
        return ", too many or too long to look for near ones"
    return f", {one.repeats.near:,} of them near another"


def _agreement(one: WorkloadScan) -> list[str]:
    found = one.agreement
    if found.frac is None:
        return ["  teacher       no request was answered twice: how often it agrees with itself is"
                " unknown"]  # fmt: skip
    return [
        f"  teacher       agrees with itself in {found.agree} of {found.units} units asked twice:"
        f" {found.frac:.1%} ({found.low:.1%} to {found.high:.1%}), by check {found.check}",
        "                a student like it does no better against a fresh answer; on these, none"
        f" beats {found.ceiling:.1%}",
    ]


def _counted(one: WorkloadScan) -> str:
    tokens = one.tokens
    if tokens.recorded_frac == 1:
        return "(as recorded)"
    share = f"{1 - tokens.recorded_frac:.0%} of the answers " if tokens.recorded_frac else ""
    return f"({share}estimated, {tokens.chars_per_token:.2f} characters to a token)"


def _cost(one: WorkloadScan) -> list[str]:
    cost = one.cost
    if cost is None:
        return ["  cost          unknown: no price is given"]
    month, saved = "", ""
    if cost.usd_per_month is not None and cost.saving_usd_per_month is not None:
        month = f", USD {cost.usd_per_month:,.2f} a month"
        saved = f", USD {cost.saving_usd_per_month:,.2f} a month"
    return [
        f"  cost          USD {cost.usd:,.2f} for these records{month}{_source(cost.price_source)}",
        f"                a certificate could save USD {cost.saving_usd:,.2f} of it at most{saved},"
        " before the student's own cost and audits",
    ]


def _source(source: str) -> str:
    from ownweights.teacher.prices import OWN_TOML

    return "" if source in (OWN_TOML, FLAGS) else f" ({source})"


def _kept_back(one: WorkloadScan) -> str:
    reasons = list(one.coverage.kept_back.items())
    if not reasons:
        return ""
    told = ", ".join(f"{name} {count:,}" for name, count in reasons[:MAX_REASONS])
    more = f" and {len(reasons) - MAX_REASONS} more reasons" if len(reasons) > MAX_REASONS else ""
    return f"; the others: {told}{more}"


def _needs(one: WorkloadScan) -> list[str]:
    rows: list[dict[str, Any]] = [
        {
            "harm": f"{need.harm_frac:.0%}",
            "certify units": need.units,
            "records": need.records,
            "days": None if need.days is None else round(need.days, 1),
            "there are": _enough(need.units, one.units.certify),
        }
        for need in one.needs
    ]
    table = format_table(rows).splitlines()
    return ["  a certificate would need, if so many of the answers served did harm:",
            *(f"    {line}" for line in table)]  # fmt: skip


def _enough(units: int | None, held: int) -> str:
    if units is None:
        return "never enough"
    return "enough" if held >= units else f"{units - held:,} too few"
