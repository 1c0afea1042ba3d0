"""`own route`: who answers which request, and the switch between student and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import json_option, print_json, print_rows, say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.route import Route


@click.group()
def route() -> None:
    """Who answers which request: status, promote, rollback."""


@route.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Print the active route of every workload that has one, and warn of what it cannot use."""
    from ownweights.core.artefact import open_artefact
    from ownweights.core.errors import OwnError
    from ownweights.route import read_active

    project = project_of(ctx)
    routes, faults = read_active(project)
    rows = [
        {
            "workload": name, "route": one.id, "student": one.student_id,
            "verdict": one.verdict_id, "threshold": one.threshold,
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
@click.option("--reason", default="promoted", show_default=True, help="Kept in the history.")
@json_option
@click.pass_context
def promote(ctx: click.Context, verdict_id: str, reason: str, as_json: bool) -> None:
    """Send requests by what the certificate VERDICT_ID licenses, from now on.

    A refusal promotes nothing and exits with 4. A running gateway follows at the next request.
    """
    known = promote_verdict(project_of(ctx), verdict_id, reason=reason)
    if as_json:
        print_json({"route": known.id, "workload": known.workload, "student": known.student_id})
    else:
        click.echo(known.id)
    say(f"{known.workload}: student {known.student_id} answers from score {known.threshold:.4g} up")


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


def promote_verdict(project: Project, verdict_id: str, *, reason: str = "promoted") -> Route:
    """Promote a certificate under the workload's settings.

    Raises: NotCertified for a refusal
    """
    from ownweights.core.settings import load_settings
    from ownweights.route import promote as promote_it
    from ownweights.verdict import load_verdict

    workload = load_verdict(project, verdict_id).subject.workload
    row = load_settings(project).route_of(workload)
    return promote_it(
        project, verdict_id, timeout_s=row.timeout_s, max_prompt_tokens=row.max_prompt_tokens,
        reason=reason,
    )  # fmt: skip
