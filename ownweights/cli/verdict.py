"""`own verdict`: judge a student, read what was found, and recompute it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import Progress, json_option, print_json, print_rows, say
from ownweights.core.errors import EXIT_ERROR, EXIT_REFUSED

if TYPE_CHECKING:
    from ownweights.core.artefact import Artefact
    from ownweights.core.project import Project
    from ownweights.core.tables import VerdictSettings
    from ownweights.dataset.load import Dataset
    from ownweights.verdict import Check, Claim, RunOptions, Verdict


@click.group()
def verdict() -> None:
    """Is the student good enough: run, show, report."""


@verdict.command()
@click.option("--workload", required=True, help="The workload whose newest student is judged.")
@click.option("--student", "student_id", help="A student by id instead of the newest.")
@click.option("--alpha", type=float, help="Greatest share of all requests that may come to harm.")
@click.option("--beta", type=float, help="Greatest share of the requests served that may.")
@click.option("--delta", type=float, help="Chance, over all attempts, that a certificate is wrong.")
@click.option("--min-coverage-frac", type=float, help="Smallest share served that is worth it.")
@click.option("--check", help="What harm is: `auto`, or a check with its options.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=32, show_default=True,
    help="Requests in flight at once.",
)  # fmt: skip
@click.option("--timeout-s", type=float, default=60.0, show_default=True, help="For each answer.")
@click.option("--keep-answers", is_flag=True, help="Keep answers and references beside the scores.")
@json_option
@click.pass_context
def run(
    ctx: click.Context, workload: str, student_id: str | None, as_json: bool, **given: Any
) -> None:
    """Ask a student develop and certify, judge it, and write a certificate or a refusal.

    The claim is fixed, and an attempt booked, before certify is asked; a refusal exits with 4.
    """
    from ownweights.core.settings import load_settings
    from ownweights.route import unanswerable
    from ownweights.verdict import RunOptions

    project = project_of(ctx)
    options = RunOptions(
        workload=workload, concurrency=given.pop("concurrency"), timeout_s=given.pop("timeout_s"),
        keeps_answers=given.pop("keep_answers"), ineligible=unanswerable,
    )  # fmt: skip
    flags = {f"verdict.{workload}.{key}": value for key, value in given.items()}
    settings = load_settings(project, flags=flags).verdict_of(workload)
    check_of(project, settings)  # before anything is asked
    dataset, student = find_student(project, workload, student_id)
    found = judge_with_progress(project, dataset, student.id, settings=settings, options=options)
    _print(found, as_json=as_json)
    ctx.exit(0 if found.issued else EXIT_REFUSED)


@verdict.command()
@click.argument("verdict_id", required=False)
@json_option
@click.pass_context
def show(ctx: click.Context, verdict_id: str | None, as_json: bool) -> None:
    """Show a verdict as it is on disk, or list all verdicts."""
    from ownweights.verdict import list_verdicts, load_verdict

    project = project_of(ctx)
    if verdict_id:
        found = load_verdict(project, verdict_id)
        print_json({"id": found.id, **found.to_dict()})
        return
    rows = [_row(one) for one in list_verdicts(project)]
    print_rows(rows, as_json=as_json, empty="no verdict yet: `own verdict run`")


@verdict.command()
@click.argument("verdict_id")
@json_option
@click.pass_context
def report(ctx: click.Context, verdict_id: str, as_json: bool) -> None:
    """Print a verdict for reading: claim, evidence, failing slices, assumptions."""
    from ownweights.verdict import load_verdict

    _print(load_verdict(project_of(ctx), verdict_id), as_json=as_json)


@verdict.command()
@click.argument("verdict_id")
@json_option
@click.pass_context
def verify(ctx: click.Context, verdict_id: str, as_json: bool) -> None:
    """Recompute a verdict from its judged requests, and compare."""
    from ownweights.verdict import verify_verdict

    wrong = verify_verdict(project_of(ctx), verdict_id)
    if as_json:
        print_json({"id": verdict_id, "is_sound": not wrong, "differences": wrong})
    elif not wrong:
        click.echo("sound: the judged requests give the same verdict")
    for difference in wrong:
        say(difference)
    ctx.exit(EXIT_ERROR if wrong else 0)


def find_student(
    project: Project, workload: str, student_id: str | None
) -> tuple[Dataset, Artefact]:
    """The student asked for, or the newest one of a workload, and the dataset it learned from.

    Raises: ArtefactMissing when there is none, UsageError when it belongs to another workload
    """
    from ownweights.core.artefact import list_artefacts, open_artefact
    from ownweights.core.errors import ArtefactMissing, UsageError
    from ownweights.dataset.load import load_dataset

    folder = project.kind_dir("student")
    students = (
        [open_artefact(folder, student_id, "student")]
        if student_id
        else reversed(list_artefacts(folder, "student"))
    )
    for student in students:
        dataset = load_dataset(project, student.card["parents"]["dataset"])
        if dataset.workload == workload:
            return dataset, student
        if student_id:
            raise UsageError(f"student {student.id} learned {dataset.workload!r}, not {workload!r}")
    raise ArtefactMissing(
        f"there is no student of workload {workload!r}",
        hint=f"own student train --workload {workload}",
    )


def judge_with_progress(
    project: Project,
    dataset: Dataset,
    student_id: str,
    *,
    settings: VerdictSettings,
    options: RunOptions,
) -> Verdict:
    """Run a verdict on an engine of its own, with a bar."""
    from ownweights.engine import EngineProcess
    from ownweights.verdict import run_verdict

    engine = EngineProcess.start(project, [student_id])
    try:
        with Progress(f"verdict {dataset.workload}") as bar:
            return run_verdict(
                dataset, engine.completer(student_id), project, student_id,
                claim=claim_of(settings), check=check_of(project, settings), on_progress=bar,
                options=options,
            )  # fmt: skip
    finally:
        engine.stop()


def claim_of(settings: VerdictSettings) -> Claim:
    """The claim that a settings table stands for."""
    from ownweights.verdict import Claim

    return Claim(settings.alpha, settings.beta, settings.delta, settings.min_coverage_frac)


def check_of(project: Project, settings: VerdictSettings) -> Check | None:
    """The check that a settings table names; None chooses it by the targets.

    Raises: SettingsError for an unknown check or option, or a file that it needs and cannot read
    """
    from ownweights.verdict import check_named

    return None if settings.check == "auto" else check_named(settings.check, project.root)


def _print(found: Verdict, *, as_json: bool) -> None:
    from ownweights.verdict import report_text

    if as_json:
        print_json({"id": found.id, **found.to_dict()})
    else:
        click.echo(report_text(found))


def _row(one: Verdict) -> dict[str, Any]:
    return {
        "id": one.id, "workload": one.subject.workload, "student": one.subject.student,
        "issued": one.issued, "coverage_frac": one.coverage_frac, "n": one.n,
        "attempt": one.attempt, "threshold": one.threshold,
    }  # fmt: skip
