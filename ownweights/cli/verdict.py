"""`own verdict`: judge a student, read what was found, and recompute it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, json_option, print_json, print_listing, say, tell_broken
from ownweights.core.errors import EXIT_ERROR, EXIT_REFUSED

if TYPE_CHECKING:
    from ownweights.core.artefact import Artefact
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings
    from ownweights.core.tables import VerdictSettings
    from ownweights.dataset.load import Dataset
    from ownweights.verdict import Check, Claim, RunOptions, Verdict
    from ownweights.verdict.judge import JudgeCheck, People

MIN_PREFIX = 8  # of a fingerprint: fewer characters would name anyone


@click.group()
def verdict() -> None:
    """Is the student good enough: run, show, report."""


@verdict.command()
@click.option(
    "--workload",
    required=True,
    callback=workload_name,
    help="The workload whose newest student is judged.",
)
@click.option("--student", "student_id", help="A student by id instead of the newest.")
@click.option("--alpha", type=float, help="Greatest share of all requests that may come to harm.")
@click.option("--beta", type=float, help="Greatest share of the requests served that may.")
@click.option("--delta", type=float, help="Chance, over all attempts, that a certificate is wrong.")
@click.option("--min-coverage-frac", type=float, help="Smallest share served that is worth it.")
@click.option("--claims", metavar="C,D", help="Prove besides: C quality, D the teacher's noise.")
@click.option("--margin", type=float, help="By how much the student may be worse in C and D.")
@click.option("--check", help="What harm is: `auto`, or a check with its options.")
@click.option("--judge", metavar="NAME", help="The teacher that judges, in place of a check.")
@click.option("--agreement", type=int, help="Answers drawn beside each one, to see if they agree.")
@click.option(
    "--streaming/--no-streaming", default=None, help="Decide before the answer, so that it streams."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 4096), default=32, show_default=True,
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
    settings = load_settings(project, flags=flags)
    check_of(project, settings.verdict_of(workload))  # before anything is asked
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
    broken: dict[str, str] = {}
    listed = list_verdicts(project, on_broken=broken.__setitem__)
    empty = "no verdict yet: `own verdict run`"
    print_listing("verdict", [_row(one) for one in listed], broken, as_json=as_json, empty=empty)
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

    The page shows prompts and answers where `own verdict run --keep-answers` kept them.
    """
    from ownweights.verdict import load_verdict

    project = project_of(ctx)
    found = load_verdict(project, verdict_id)
    if page is None:
        _print(found, as_json=as_json)
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

    folder, is_path = Path(verdict_id), os.sep in verdict_id
    kind_dir = folder.resolve().parent if is_path else project_of(ctx).kind_dir("verdict")
    found = verify_verdict(kind_dir, folder.resolve().name if is_path else verdict_id)
    wrong = list(found.differences)
    if signed_by and not (len(signed_by) >= MIN_PREFIX and found.signed_by.startswith(signed_by)):
        wrong.append(f"signed by {found.signed_by or 'nobody'}, expected {signed_by}")
    if as_json:
        print_json({
            "id": found.id, "is_sound": not wrong, "signed_by": found.signed_by or None,
            "differences": wrong,
        })  # fmt: skip
    elif not wrong:
        click.echo(f"sound: the judged requests give the same verdict; signed by {found.signed_by}")
    for difference in wrong:
        say(difference)
    ctx.exit(EXIT_ERROR if wrong else 0)


def write_page(project: Project, found: Verdict, path: Path, usd_per_request: float | None) -> None:
    """The report of a verdict as one HTML file, with prompts and answers where they are known."""
    from ownweights.core.artefact import write_atomic
    from ownweights.core.errors import ArtefactError
    from ownweights.dataset.load import load_dataset
    from ownweights.verdict.report.page import Told, report_page
    from ownweights.verdict.store import load_rows

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
    told = Told(prompts, answers, usd_per_request, _live_savings(project, found))
    write_atomic(path, report_page(found, rows, told).encode("utf-8", "replace"))


def _live_savings(project: Project, found: Verdict) -> str:
    """What the verdict's routes have saved so far, in words; empty where there is none."""
    from ownweights.cli.savings import find_savings, savings_text
    from ownweights.core.settings import load_settings
    from ownweights.route import list_routes

    settings, told = load_settings(project), list[str]()
    for route in list_routes(project):
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


def find_student(
    project: Project, workload: str, student_id: str | None
) -> tuple[Dataset, Artefact]:
    """The student asked for, or the newest one of a workload, and the dataset it learned from.

    Students that cannot be read, or whose dataset cannot, are passed over with a warning.
    Raises: ArtefactMissing when there is none, UsageError when it belongs to another workload
    """
    from ownweights.core.artefact import open_artefact, read_artefacts
    from ownweights.core.errors import ArtefactMissing, UsageError

    folder = project.kind_dir("student")
    if student_id:
        student = open_artefact(folder, student_id, "student")
        dataset = _studied(project, student)
        if dataset.workload != workload:
            raise UsageError(f"student {student.id} learned {dataset.workload!r}, not {workload!r}")
        return dataset, student
    broken: dict[str, str] = {}
    pairs = read_artefacts(
        folder, "student", lambda one: (_studied(project, one), one), broken.__setitem__
    )
    tell_broken("student", broken)
    found = [(dataset, student) for dataset, student in pairs if dataset.workload == workload]
    if found:
        return found[-1]
    raise ArtefactMissing(
        f"there is no student of workload {workload!r}",
        hint=f"own student train --workload {workload}",
    )


def _studied(project: Project, student: Artefact) -> Dataset:
    """The dataset that a student learned from."""
    from ownweights.dataset.load import load_dataset

    return load_dataset(project, str(student.card["parents"].get("dataset", "")))


def judge_with_progress(
    project: Project,
    dataset: Dataset,
    student_id: str,
    *,
    settings: Settings,
    options: RunOptions,
) -> Verdict:
    """Run a verdict on an engine of its own, with a bar."""
    import asyncio

    from ownweights.engine import EngineProcess
    from ownweights.verdict import run_verdict_async

    wanted = settings.verdict_of(dataset.workload)
    options = replace(options, agreement=wanted.agreement, streaming=wanted.streaming)

    async def run() -> Verdict:
        async with judging(project, dataset.workload, settings, options.concurrency) as judge:
            return await run_verdict_async(
                dataset, engine.completer(student_id), project, student_id,
                claim=claim_of(wanted), check=judge or check_of(project, wanted), on_progress=bar,
                options=options,
            )  # fmt: skip

    engine = EngineProcess.start(project, [student_id])
    try:
        with Progress(f"verdict {dataset.workload}") as bar:
            return asyncio.run(run())
    finally:
        engine.stop()


@contextlib.asynccontextmanager
async def judging(
    project: Project, workload: str, settings: Settings, concurrency: int
) -> AsyncIterator[JudgeCheck | None]:
    """The judge that the settings name, None where a check decides; tells what it has cost.

    Raises: SettingsError where its teacher names no model, or its key is not set
    """
    wanted = settings.verdict_of(workload)
    if not wanted.judge:
        yield None
        return
    from ownweights.teacher.client import TeacherClient
    from ownweights.verdict.judge import (
        Cascade,
        Judge,
        JudgeCheck,
        JudgeOptions,
        People,
        ReplyCache,
    )  # fmt: skip

    folder = project.store_dir / "judge" / workload
    folder.mkdir(parents=True, exist_ok=True)
    cache, judges = ReplyCache(folder / "replies.jsonl"), list[Judge]()
    async with contextlib.AsyncExitStack() as stack:
        for name in filter(None, (wanted.judge, wanted.judge_above)):
            row = settings.teacher[name]
            client = TeacherClient(
                row.base_url, model=row.model or None, api_key=row.read_key(),
                timeout_s=row.timeout_s, max_retries=row.max_retries,
            )  # fmt: skip
            await stack.enter_async_context(client)
            options = JudgeOptions(concurrency=concurrency, timeout_s=row.timeout_s)
            judges.append(
                Judge(
                    client, row.model, name=name, rubric=wanted.rubric, options=options, cache=cache
                )
            )
        people = People(folder / "queue.jsonl", wanted.labels)
        check = JudgeCheck(Cascade(judges), people)
        try:
            yield check
        finally:
            _tell_judging(check, people)


def _tell_judging(check: JudgeCheck, people: People) -> None:
    spent = check.judge.spent
    say(
        f"judge: {spent.calls:,} calls ({spent.cached:,} known from before, {spent.failed:,}"
        f" failed), {spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens"
    )
    if check.queued:
        say(f"judge: {check.queued:,} answers it left open are written to {people.path}")


def claim_of(settings: VerdictSettings) -> Claim:
    """The claim that a settings table stands for."""
    from ownweights.verdict import Claim

    return Claim(
        settings.alpha, settings.beta, settings.delta, settings.min_coverage_frac,
        paired=settings.claims, margin=settings.margin,
    )  # fmt: skip


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


def _row(one: Verdict) -> dict[str, Any]:
    return {
        "id": one.id, "workload": one.subject.workload, "student": one.subject.student,
        "issued": one.issued, "coverage_frac": one.coverage_frac, "n": one.n,
        "attempt": one.attempt, "threshold": one.threshold,
    }  # fmt: skip
