"""`own route`: who answers which request, and the switch between student and teacher."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import json_option, print_json, print_rows, say

if TYPE_CHECKING:
    from ownweights.core.completer import Completer
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings
    from ownweights.route import Route
    from ownweights.route.rollout import Stage
    from ownweights.verdict import Subject


@click.group()
def route() -> None:
    """Who answers which request: status, promote, rollback."""


@route.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Print the active route of every workload that has one, and warn of what it cannot use.

    What it saves is the teacher's price of what the student answered, less what audits cost, with a
    95 % interval over sessions, from the recorded requests and the prices in [teacher.<name>].
    """
    from ownweights.cli.savings import find_savings, savings_text, teacher_name
    from ownweights.core.artefact import open_artefact
    from ownweights.core.errors import OwnError
    from ownweights.core.settings import load_settings
    from ownweights.route import read_active
    from ownweights.verdict.drift.store import open_incidents

    project = project_of(ctx)
    routes, faults = read_active(project)
    settings = load_settings(project)
    drifted = {name: incident.name for name, incident in open_incidents(project).items()}
    saved = {name: find_savings(project, settings, one) for name, one in routes.items()}
    rows = [
        {
            "workload": name, "route": one.id, "student": one.student_id,
            "verdict": one.verdict_id, "threshold": one.threshold,
            "stage": one.standing.stage if one.standing else "served",
            "share": one.standing.share if one.standing else 1.0,
            "frozen": bool(one.standing and one.standing.is_frozen),
            **_evidence_row(project, one),
            "incident": drifted.get(teacher_name(settings, one)),
            **({"savings": saved[name]} if as_json else {"saved_usd": savings_text(saved[name])}),
        }
        for name, one in routes.items()
    ]  # fmt: skip
    print_rows(rows, as_json=as_json, empty="no route: every request goes to the teacher")
    for name, fault in faults.items():
        say(f"warning: {name} goes to the teacher, for its route cannot be followed: {fault}")
    for name, one in routes.items():
        try:
            open_artefact(project.kind_dir("student"), one.student_id, "student", verify=True)
        except OwnError as fault:
            say(f"warning: {name} goes to the teacher, for its student cannot be loaded: {fault}")


@route.command()
@click.argument("verdict_id")
@click.option(
    "--stage", type=click.Choice(["shadow", "canary", "served"]),
    help="Where to begin instead of the setting route.<workload>.first_stage.",
)  # fmt: skip
@click.option("--reason", default="promoted", show_default=True, help="Kept in the history.")
@json_option
@click.pass_context
def promote(
    ctx: click.Context, verdict_id: str, stage: Stage | None, reason: str, as_json: bool
) -> None:
    """Send requests by what the certificate VERDICT_ID licenses, from now on.

    It begins with a few sessions and goes on by itself while audits are good; harm that rises takes
    it back. A refusal, or a certificate that is void, promotes nothing and exits with 4. A running
    gateway follows at the next request.
    """
    project = project_of(ctx)
    known = promote_verdict(project, verdict_id, stage=stage, reason=reason)
    standing = known.standing  # as it was promoted: a gateway may have moved it already
    assert standing is not None, "what was just promoted stands"
    foretold = _foretold(known)
    if as_json:
        print_json({
            "route": known.id, "workload": known.workload, "student": known.student_id,
            "stage": standing.stage, "share": standing.share, "foretold": foretold,
        })  # fmt: skip
    else:
        click.echo(known.id)
    say(f"{known.workload}: student {known.student_id} answers from score {known.threshold:.4g} up")
    say(f"it begins with {standing.stage}, {100 * standing.share:g} % of the sessions")
    for one in foretold:
        where = "in a canary" if one["stage"] == "canary" else "once it is served"
        say(f"should harm jump to {one['harm']:.0%} of its answers {where}, it is taken back within"
            f" {one['p90']} audits, nine times in ten (median {one['median']})")  # fmt: skip


@route.command()
@click.argument("workload", callback=workload_name)
@click.option("--to", metavar="ROUTE", default=None, help="An older route instead of the teacher.")
@click.option("--reason", default="rolled back", show_default=True, help="Kept in the history.")
@json_option
@click.pass_context
def rollback(ctx: click.Context, workload: str, to: str | None, reason: str, as_json: bool) -> None:
    """Send the requests of WORKLOAD back to the teacher, or by an older route."""
    from ownweights.route import active_id
    from ownweights.route import rollback as roll_back

    project = project_of(ctx)
    roll_back(project, workload, to=to, reason=reason)
    now = active_id(project, workload)
    if as_json:
        print_json({"workload": workload, "route": now})
    else:
        click.echo(now or "teacher")


@route.command()
@click.argument("workload", callback=workload_name)
@click.option("--off", is_flag=True, help="Let it go on by itself again.")
@json_option
@click.pass_context
def freeze(ctx: click.Context, workload: str, *, off: bool, as_json: bool) -> None:
    """Keep the route of WORKLOAD at its stage; harm that rises still takes it back."""
    from dataclasses import replace

    from ownweights.core.errors import UsageError
    from ownweights.route.route import active_standing, stand
    from ownweights.route.swap import swapping

    project = project_of(ctx)
    with swapping(project):
        standing = active_standing(project, workload)
        if standing is None:
            raise UsageError(f"workload {workload!r} has no active route: its teacher answers")
        stand(project, workload, replace(standing, is_frozen=not off),
              reason="goes on" if off else "frozen")  # fmt: skip
    word = "goes on by itself" if off else f"stays at {standing.stage}"
    if as_json:
        print_json({"workload": workload, "stage": standing.stage, "is_frozen": not off})
    else:
        click.echo(f"{workload} {word}")


@route.command()
@click.argument("workload", callback=workload_name)
@json_option
@click.pass_context
def replay(ctx: click.Context, workload: str, as_json: bool) -> None:
    """Make the recorded decisions of WORKLOAD again, and compare them with the log."""
    from ownweights.core.errors import EXIT_ERROR
    from ownweights.route import load_route
    from ownweights.route.replay import Logged
    from ownweights.route.replay import replay as decide_again
    from ownweights.traffic import TrafficStore

    project = project_of(ctx)
    with TrafficStore.open(project) as store:
        logged = (
            Logged(one.id, one.session, one.metadata["own"])
            for one in store.records(workload)
            if isinstance(one.metadata.get("own"), dict) and "route" in one.metadata["own"]
        )
        found = decide_again(logged, lambda route_id: load_route(project, route_id))
    if as_json:
        print_json({
            "workload": workload, "same": found.num_same, "left_out": found.num_left_out,
            "differences": found.differences,
        })  # fmt: skip
    else:
        click.echo(f"{found.num_same:,} decisions come out as recorded,"
                   f" {len(found.differences):,} otherwise")  # fmt: skip
    for difference in found.differences:
        say(difference)
    ctx.exit(EXIT_ERROR if found.differences else 0)


def _foretold(known: Route) -> list[dict[str, Any]]:
    """How soon a jump of harm would be caught, as rows; none where nothing can be audited."""
    from ownweights.route.foretell import foretell

    if not known.check:
        return []
    return [
        {"stage": one.stage, "harm": one.harm, "median": one.median, "p90": one.p90}
        for one in foretell(known)
    ]


def _evidence_row(project: Project, one: Route) -> dict[str, Any]:
    """What audits have shown so far, in a few numbers."""
    from ownweights.route.live import evidence_of

    found = evidence_of(project, one)
    is_served = one.standing is None or one.standing.stage == "served"  # nothing is left to prove
    return {
        "audits": found.num_judged, "units": found.num_units,
        "harms": found.num_harms, "missed": found.num_missed,
        "failures": found.num_failures,
        "alarm": round(found.alarm_frac, 4),
        "p_live": None if is_served else round(min(1.0, math.exp(-found.stake.log_stake)), 4),
    }  # fmt: skip


def promote_verdict(
    project: Project, verdict_id: str, *, stage: Stage | None = None, reason: str = "promoted"
) -> Route:
    """Promote a certificate under the workload's settings.

    Raises: NotCertified for a refusal, or a certificate that is void or was given more time;
    SettingsError where its judge is not the one of own.toml, so that live answers could not be
    audited
    """
    from ownweights.core.settings import load_settings
    from ownweights.route import promote as promote_it
    from ownweights.route.promotion import RouteTerms
    from ownweights.verdict import load_verdict

    subject, settings = load_verdict(project, verdict_id).subject, load_settings(project)
    if subject.judge:
        _check_judge(settings, subject)
    row = settings.route_of(subject.workload)
    terms = RouteTerms(row.timeout_s, row.max_prompt_tokens, row.audit_frac, row.run_length)
    first = stage or cast("Stage", row.first_stage)
    known = promote_it(project, verdict_id, terms=terms, stage=first, reason=reason)
    if known.timeout_s < row.timeout_s:
        workload, known_s = subject.workload, known.timeout_s
        say(f"{workload}: it waits {known_s:g} s for an answer, as the certificate did")
    return known


def _check_judge(settings: Settings, subject: Subject) -> None:
    """Raise SettingsError unless own.toml has the judge that certified: audits will ask it."""
    from ownweights.verdict.judge import Cascade, Judge
    from ownweights.verdict.judge.live import judge_names, missing_judge, refuse_other_judge

    nobody = cast("Completer", None)  # nothing is asked
    rubric, judges = settings.verdict_of(subject.workload).rubric, list[Judge]()
    for name in judge_names(subject.judge):
        if name not in settings.teacher:
            raise missing_judge(name)
        judges.append(Judge(nobody, settings.teacher[name].model, name=name, rubric=rubric))
    refuse_other_judge(subject.judge, Cascade(judges).identity)
