"""`own lineage`: where an artefact came from, and what its licences and terms allow."""

from __future__ import annotations

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import json_option, print_json, print_rows, say
from ownweights.core.errors import EXIT_ERROR, EXIT_OK, EXIT_REFUSED


@click.group()
def lineage() -> None:
    """Where an artefact came from, and what that allows: show, check, terms."""


@lineage.command()
@click.argument("artefact_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, artefact_id: str, as_json: bool) -> None:
    """Everything that artefact ID came from. The beginning of ID will do."""
    from ownweights.lineage import Node, find_artefact, trace

    project = project_of(ctx)
    root = trace(project, *find_artefact(project, artefact_id))
    if as_json:
        print_json(root.to_json())
        return

    def line(depth: int, node: Node) -> str:
        state = "" if node.state == "here" else f"  {node.state}"
        note = f"  ({node.note})" if node.note else ""
        made = node.card.get("created_at")
        return f"{'  ' * depth}{node.kind} {node.id}{state}{note}{'  ' + made if made else ''}"

    for depth, node in root.walk():
        click.echo(line(depth, node))
        for use in node.card.get("facts", {}).get("teachers", ()):
            days = f"{use['first_day']} to {use['last_day']}" if use["first_day"] else "day unknown"
            click.echo(
                f"{'  ' * (depth + 1)}answered by {use['model']}: {use['num_answers']} ({days}),"
                f" {use['licence']}: {use['trains']}"
                f"{', overridden by name' if use['is_overridden'] else ''}"
            )


@lineage.command()
@click.argument("artefact_id", metavar="[ID]", required=False)
@click.option(
    "--purpose",
    type=click.Choice(["internal", "distribution"]),
    default="internal",
    show_default=True,
    help="What it is for: your own use, or giving it to others.",
)
@json_option
@click.pass_context
def check(ctx: click.Context, artefact_id: str | None, purpose: str, as_json: bool) -> int:
    """Look for missing or changed parts and for terms that forbid, of ID or of everything.

    Exit code 1 for damage, 4 for a conflict with a licence or with terms.
    """
    from ownweights.lineage import all_artefacts, check_lineage, find_artefact

    project = project_of(ctx)
    chosen = [find_artefact(project, artefact_id)] if artefact_id else all_artefacts(project)
    findings = check_lineage(project, chosen, purpose)
    rows = [{"severity": f.severity, "kind": f.kind, "id": f.id, "what": f.what} for f in findings]
    print_rows(rows, as_json=as_json, empty=f"{len(chosen)} artefacts, nothing found")
    severities = {finding.severity for finding in findings}
    if "conflict" in severities and "damage" not in severities:
        say(f"refused: the lineage forbids {purpose} use")
        return EXIT_REFUSED
    return EXIT_ERROR if "damage" in severities else EXIT_OK


@lineage.command()
@click.argument("model")
@click.option("--day", metavar="YYYY-MM-DD", help="The day of the answers.  [default: unknown]")
@json_option
def terms(model: str, day: str | None, as_json: bool) -> None:
    """What is known about training on the answers of MODEL. Not legal advice."""
    from datetime import UTC, datetime

    from ownweights.core.errors import UsageError
    from ownweights.lineage import teacher_terms

    try:
        at = None if day is None else datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise UsageError(f"--day {day!r} is not a day", hint="write it as 2024-02-27") from None
    fact = teacher_terms(model, at)
    if as_json:
        print_json(fact.to_json())
        return
    print_rows([{"key": key, "value": value} for key, value in _told(fact.to_json())])


def _told(fact: dict[str, object]) -> list[tuple[str, object]]:
    return [
        (key, "; ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in fact.items()
        if value not in ("", [])
    ]
