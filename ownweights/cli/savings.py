"""What a route has saved, for `own route status` and the page of its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.cli.output import say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings
    from ownweights.route import Route
    from ownweights.route.savings import Savings
    from ownweights.verdict.scan import Prices


def find_savings(project: Project, settings: Settings, route: Route) -> Savings:
    """What the route has saved so far, at the prices of own.toml; says what to set for dollars."""
    from ownweights.core.errors import SettingsError
    from ownweights.route.savings import savings_of
    from ownweights.teacher.prices import OWN_TOML

    prices: Prices | None = None
    try:
        prices = _prices_of(settings, route)
    except SettingsError as error:
        say(f"warning: no price is known for {route.workload}: {error}")
    if prices is not None and prices.source != OWN_TOML:
        say(f"note: {route.workload} is counted at the {prices.source}; own.toml says no other")
    found = savings_of(project, route, prices, _judge_prices(project, settings, route))
    if prices is None and found.served:
        table = f"[teacher.{teacher_name(settings, route)}]"
        say(f"hint: set usd_per_mtok_in and usd_per_mtok_out in {table} to see what"
            f" {route.workload} saves")  # fmt: skip
    return found


def savings_text(found: Savings) -> str:
    """Dollars with their interval in a few characters; - where a price is not known."""
    if found.usd is None:
        return "-"
    if found.usd_low is None or found.usd_high is None:
        return f"{found.usd:,.2f}"
    return f"{found.usd:,.2f} ({found.usd_low:,.2f} to {found.usd_high:,.2f})"


def _prices_of(settings: Settings, route: Route) -> Prices | None:
    from ownweights.cli.scan import prices_of, teacher_prices

    if route.teacher:
        return teacher_prices(settings, route.teacher)
    return prices_of(settings, route.workload)


def _judge_prices(project: Project, settings: Settings, route: Route) -> Prices | None:
    """What judging takes at most; None where no model judges, or a price is not known."""
    from ownweights.cli.scan import teacher_prices
    from ownweights.core.errors import OwnError
    from ownweights.route import JUDGE
    from ownweights.verdict.judge.live import judge_names
    from ownweights.verdict.scan import Prices
    from ownweights.verdict.store import load_verdict

    if route.check != JUDGE:
        return None
    try:
        names = judge_names(load_verdict(project, route.verdict_id).subject.judge)
        known = [teacher_prices(settings, name) for name in names]
    except OwnError as error:
        say(f"warning: no price is known of the judge for {route.workload}: {error}")
        return None
    found = [one for one in known if one is not None]
    if not found or len(found) < len(known):
        tables = ", ".join(f"[teacher.{name}]" for name in names)
        say(f"hint: set usd_per_mtok_in and usd_per_mtok_out in {tables}, which judges audits of"
            f" {route.workload}")  # fmt: skip
        return None
    return Prices(
        max(one.usd_per_mtok_in for one in found), max(one.usd_per_mtok_out for one in found)
    )


def teacher_name(settings: Settings, route: Route) -> str:
    """What own.toml calls the teacher of a route; NAME where it does not say."""
    from ownweights.core.errors import SettingsError

    try:
        return route.teacher or settings.teacher_of(route.workload)[0]
    except SettingsError:
        return "NAME"
