"""`own verdict`: judge a student, read what was found, and recompute it."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import json_option, print_json, print_listing, say, tell_broken
from ownweights.cli.trial import Case, claim_of, look, look_and_certify, on_engine, trial_options
from ownweights.core.errors import EXIT_ERROR, EXIT_REFUSED

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.verdict import Verdict
    from ownweights.verdict.develop import Developed
    from ownweights.verdict.preview import Preview
    from ownweights.verdict.voiding import Voided

MIN_PREFIX = 8  # of a fingerprint: fewer characters would name anyone


@click.group()
def verdict() -> None:
    """Is the student good enough: run, certify, show, report."""


@verdict.command()
@trial_options
@json_option
@click.pass_context
def run(
    ctx: click.Context, workload: str, student_id: str | None, as_json: bool, **given: Any
) -> None:
    """Judge a student on develop, and say what certifying it would take and bring.

    Spends nothing: no attempt is booked, no certify request is asked, no verdict is written.
    """
    from ownweights.verdict.report.preview import preview_text

    case = Case.of(project_of(ctx), workload, student_id, given)
    if case.options.keeps_answers:
        say("warning: `own verdict run` keeps nothing; `own verdict certify` keeps the answers")
    developed, seen = on_engine(case, look)
    if as_json:
        print_json(_foreseen(case, developed, seen))
    else:
        click.echo(preview_text(seen, developed.tuned.compared))


@verdict.command()
@trial_options
@json_option
@click.pass_context
def certify(
    ctx: click.Context, workload: str, student_id: str | None, as_json: bool, **given: Any
) -> None:
    """Judge a student on develop and certify, and write a certificate or a refusal.

    Says first what `own verdict run` says. The claim is fixed, and an attempt booked, before
    certify is asked; where no outcome could certify, nothing is booked. A refusal exits with 4, and
    so does a certificate of before that is void by now.
    """
    case = Case.of(project_of(ctx), workload, student_id, given)
    developed, seen, found = on_engine(case, look_and_certify)
    if found is None:
        _print_blocked(case, developed, seen, as_json=as_json)
        ctx.exit(EXIT_REFUSED)
    voided = _print(case.project, found, as_json=as_json)
    ctx.exit(0 if found.issued and not voided else EXIT_REFUSED)


@verdict.command()
@click.argument("verdict_id", required=False)
@json_option
@click.pass_context
def show(ctx: click.Context, verdict_id: str | None, as_json: bool) -> None:
    """Show a verdict as it is on disk, or list all verdicts."""
    from ownweights.verdict import list_verdicts, load_verdict

    project = project_of(ctx)
    if verdict_id:
        _print(project, load_verdict(project, verdict_id), as_json=True)
        return
    broken: dict[str, str] = {}
    listed = list_verdicts(project, on_broken=broken.__setitem__)
    empty = "no verdict yet: `own verdict certify`"
    print_listing(
        "verdict", [_row(project, one) for one in listed], broken, as_json=as_json, empty=empty
    )
    _tell_together(listed)


@verdict.command()
@click.argument("verdict_id")
@click.option("--html", "page", type=click.Path(dir_okay=False), help="Write a page to this file.")
@click.option("--usd-per-request", type=click.FloatRange(0, 1000), help="The teacher's price.")
@json_option
@click.pass_context
def report(
    ctx: click.Context,
    verdict_id: str,
    page: str | None,
    usd_per_request: float | None,
    as_json: bool,
) -> None:
    """Print a verdict for reading: claim, evidence, failing slices, assumptions.

    The page shows prompts and answers where `own verdict certify --keep-answers` kept them.
    """
    from ownweights.core.strict import Limits, check_value
    from ownweights.verdict import load_verdict

    if usd_per_request is not None:
        limits = Limits(at_least=0, at_most=1000)
        check_value(usd_per_request, float, limits, "usd_per_request")
    project = project_of(ctx)
    found = load_verdict(project, verdict_id)
    if page is None:
        _print(project, found, as_json=as_json)
        return
    write_page(project, found, Path(page), usd_per_request)
    say(f"wrote {page}")


@verdict.command()
@click.argument("verdict_id", metavar="ID|FOLDER")
@click.option("--signed-by", help="Fingerprint of the key that must have signed it.")
@json_option
@click.pass_context
def verify(ctx: click.Context, verdict_id: str, signed_by: str | None, as_json: bool) -> None:
    """Recompute a verdict from its judged requests, and check its signature.

    Give an id of this project, or a verdict's folder, wherever it was copied to.
    """
    from ownweights.verdict import verify_verdict
    from ownweights.verdict.voiding import void_reason

    project, folder, is_path = project_of(ctx), Path(verdict_id), os.sep in verdict_id
    kind_dir = folder.resolve().parent if is_path else project.kind_dir("verdict")
    found = verify_verdict(kind_dir, folder.resolve().name if is_path else verdict_id)
    voided = None if is_path else void_reason(project, found.id)  # only its own project knows
    wrong = list(found.differences)
    is_theirs = signed_by is None or (
        len(signed_by) >= MIN_PREFIX and found.signed_by.startswith(signed_by)
    )
    if not is_theirs:
        wrong.append(
            f"signed by {found.signed_by or 'nobody'}, expected {signed_by or 'a fingerprint'}"
        )
    if as_json:
        print_json({
            "id": found.id, "is_sound": not wrong, "signed_by": found.signed_by or None,
            "differences": wrong, "void": voided,
        })  # fmt: skip
    elif not wrong:
        click.echo(f"sound: the judged requests give the same verdict; signed by {found.signed_by}")
    for difference in wrong:
        say(difference)
    if voided:
        say(voided.sentence())
    ctx.exit(EXIT_ERROR if wrong else 0)


def write_page(project: Project, found: Verdict, path: Path, usd_per_request: float | None) -> None:
    """The report of a verdict as one HTML file, with prompts and answers where they are known."""
    from ownweights.core.artefact import appearing
    from ownweights.core.errors import ArtefactError
    from ownweights.dataset.load import load_dataset
    from ownweights.verdict.report.page import Told, report_page
    from ownweights.verdict.store import load_rows
    from ownweights.verdict.voiding import void_reason

    rows, answers = load_rows(project, found.id)
    prompts: dict[str, str] = {}
    if answers:
        try:
            dataset = load_dataset(project, found.subject.dataset)
            prompts = {
                one.id: str(one.messages[-1]["content"]) for one in dataset.examples("certify")
            }
        except ArtefactError as error:
            say(f"warning: the page shows no prompts: {error}")
    voided = void_reason(project, found.id)
    live, void_words = _live_savings(project, found), voided.sentence() if voided else ""
    told = Told(prompts, answers, usd_per_request, live, void_words)
    page = report_page(found, rows, told).encode("utf-8", "replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as draft:
        draft.write_bytes(page)


def _live_savings(project: Project, found: Verdict) -> str:
    """What the verdict's routes have saved so far, in words; empty where there is none."""
    from ownweights.cli.savings import find_savings, savings_text
    from ownweights.core.settings import load_settings
    from ownweights.route import list_routes

    settings, told, broken = load_settings(project), list[str](), dict[str, str]()
    routes = list_routes(project, broken.__setitem__)
    tell_broken("route", broken)
    for route in routes:
        if route.verdict_id != found.id:
            continue
        saved = find_savings(project, settings, route)
        if saved.served:
            told.append(
                f"On route {route.id} the student has answered {saved.served:,} of"
                f" {saved.requests:,} requests, in {saved.units:,} sessions or questions;"
                f" {saved.audits:,} of its answers were audited."
                + ("" if saved.usd is None else f" Saved after audits: USD {savings_text(saved)}.")
            )
    return " ".join(told)


def _print(project: Project, found: Verdict, *, as_json: bool) -> Voided | None:
    """Print a verdict and why it is void, if it is."""
    from ownweights.verdict import report_text
    from ownweights.verdict.voiding import void_reason

    voided = void_reason(project, found.id)
    if as_json:
        print_json({"id": found.id, **found.to_dict(), "void": voided})
    else:
        click.echo(report_text(found, voided.sentence() if voided else ""))
    return voided


def _foreseen(case: Case, developed: Developed, seen: Preview) -> dict[str, Any]:
    """What `own verdict run` prints as JSON."""
    facts = {field.name: getattr(seen, field.name) for field in fields(seen)}
    return {
        "workload": case.dataset.workload, "student": case.student_id, "dataset": case.dataset.id,
        "check": developed.check.name, "claim": claim_of(case.wanted),
        "compared": developed.tuned.compared, **facts, "in_words": seen.sentence(),
    }  # fmt: skip


def _print_blocked(case: Case, developed: Developed, seen: Preview, *, as_json: bool) -> None:
    """A refusal before anything was booked."""
    if as_json:
        preview = _foreseen(case, developed, seen)
        told = {"id": None, "issued": False, "reasons": [seen.blocked], "needed": seen.needed}
        print_json({**told, "preview": preview})
    else:
        click.echo(
            f"Not replaceable yet, and nothing was booked: {seen.blocked}.\n\n"
            f"What it would take: {seen.needs()}."
        )


def _tell_together(verdicts: list[Verdict]) -> None:
    """Which workloads' claims C stand among each other, where several have one."""
    from ownweights.verdict.claims import proved_together

    held = [one for one in verdicts if any(claim.name == "C" for claim in one.paired)]
    delta = min((one.claim.delta for one in held), default=0.05)
    found = proved_together(held, delta)
    if len(found) > 1:
        names = ", ".join(name for name, is_proved in found.items() if is_proved) or "none"
        say(
            f"claim C over all {len(found)} workloads that decided it: {names} (e-BH, on average"
            f" at most {delta:.1%} of those named are false)"
        )


def _row(project: Project, one: Verdict) -> dict[str, Any]:
    from ownweights.verdict.voiding import void_reason

    return {
        "id": one.id, "workload": one.subject.workload, "student": one.subject.student,
        "issued": one.issued, "coverage_frac": one.coverage_frac, "n": one.n,
        "attempt": one.attempt, "threshold": one.threshold,
        "is_void": void_reason(project, one.id) is not None,
    }  # fmt: skip
