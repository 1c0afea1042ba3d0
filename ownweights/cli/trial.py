"""What `own verdict run` and `own verdict certify` share: flags, student, judge, engine, phases.

In: a workload with its settings. Out: what develop showed (`look`), and what certifying came
to (`look_and_certify`). Invariant: looking books and writes nothing
(test_verdict_run_spends_nothing).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, say, tell_broken

if TYPE_CHECKING:
    from ownweights.core.artefact import Artefact
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings
    from ownweights.core.tables import VerdictSettings
    from ownweights.dataset.load import Dataset
    from ownweights.verdict import Check, Claim, RunOptions, Verdict
    from ownweights.verdict.develop import Developed
    from ownweights.verdict.judge import JudgeCheck, People
    from ownweights.verdict.preview import Preview
    from ownweights.verdict.trial import Trial

Command = TypeVar("Command", bound=Callable[..., Any])
Found = TypeVar("Found")

_OPTIONS = (
    click.option(
        "--workload",
        required=True,
        callback=workload_name,
        help="The workload whose newest student is judged.",
    ),
    click.option("--student", "student_id", help="A student by id instead of the newest."),
    click.option(
        "--alpha", type=float, help="Greatest share of all requests that may come to harm."
    ),
    click.option("--beta", type=float, help="Greatest share of the requests served that may."),
    click.option(
        "--delta", type=float, help="Chance, over all attempts, that a certificate is wrong."
    ),
    click.option("--min-coverage-frac", type=float, help="Smallest share served that is worth it."),
    click.option(
        "--claims", metavar="C,D", help="Prove besides: C quality, D the teacher's noise."
    ),
    click.option("--margin", type=float, help="By how much the student may be worse in C and D."),
    click.option("--check", help="What harm is: `auto`, or a check with its options."),
    click.option("--judge", metavar="NAME", help="The teacher that judges, in place of a check."),
    click.option(
        "--agreement", type=int, help="Answers drawn beside each one, to see if they agree."
    ),
    click.option(
        "--streaming/--no-streaming",
        default=None,
        help="Decide before the answer, so that it streams.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 4096),
        default=32,
        show_default=True,
        help="Requests in flight at once.",
    ),
    click.option(
        "--timeout-s", type=float, help="For each answer, instead of route.<workload>.timeout_s."
    ),
    click.option(
        "--keep-answers", is_flag=True, help="Keep answers and references beside the scores."
    ),
)


def trial_options(command: Command) -> Command:
    """The flags that say who is judged, for which claim, and how (a decorator)."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Case:
    """A student that is to be judged, on the dataset it learned from, as the settings say."""

    project: Project
    dataset: Dataset
    student_id: str
    settings: Settings
    options: RunOptions

    @property
    def wanted(self) -> VerdictSettings:
        return self.settings.verdict_of(self.dataset.workload)

    @classmethod
    def of(cls, project: Project, workload: str, student_id: str | None, given: Any) -> Case:
        """The case that the flags describe.

        Raises: SettingsError for a claim or check that cannot be; ArtefactMissing for no student;
        ArtefactError for one that was changed, or whose dataset was
        """
        from ownweights.core.artefact import open_artefact
        from ownweights.core.settings import load_settings
        from ownweights.route import unanswerable
        from ownweights.verdict import RunOptions

        timeout_s = given.pop("timeout_s")
        options = RunOptions(
            workload=workload, concurrency=given.pop("concurrency"),
            keeps_answers=given.pop("keep_answers"), ineligible=unanswerable,
            **({} if timeout_s is None else {"timeout_s": timeout_s}),
        )  # fmt: skip
        flags = {f"verdict.{workload}.{key}": value for key, value in given.items()}
        settings = load_settings(project, flags=flags)
        wanted = settings.verdict_of(workload)
        claim_of(wanted)  # before anything is asked
        check_of(project, wanted)
        dataset, student = find_student(project, workload, student_id)
        for kind, name in (("student", student.id), ("dataset", dataset.id)):
            open_artefact(project.kind_dir(kind), name, kind, verify=True)  # a verdict names both
        options = replace(
            options, agreement=wanted.agreement, streaming=wanted.streaming,
            timeout_s=timeout_s or settings.route_of(workload).timeout_s,
            teacher_state=teacher_state(project, settings, workload),
        )  # fmt: skip
        return cls(project, dataset, student.id, settings, options)


def teacher_state(project: Project, settings: Settings, workload: str) -> dict[str, Any]:
    """What `own drift` knows of who answers a workload; empty where no baseline was taken."""
    from ownweights.core.errors import ArtefactError, SettingsError
    from ownweights.verdict.drift.store import baseline_name, load_monitor

    try:
        name, _ = settings.teacher_of(workload)
        monitor = load_monitor(project, name)
    except SettingsError:  # no teacher is set: its answers were imported
        return {}
    except ArtefactError as error:
        say(f"warning: the certificate will name no drift baseline: {error}")
        return {}
    if monitor is None:
        return {}
    baseline, incident = monitor.baseline, monitor.state.incident
    return {
        "baseline": baseline_name(project, name), "taken_at": baseline.at,
        "models": list(baseline.metadata.models),
        "fingerprints": list(baseline.metadata.fingerprints),
        "incident": incident.name if incident else None,
    }  # fmt: skip


def on_engine(case: Case, phases: Callable[[Trial], Awaitable[Found]]) -> Found:
    """What the phases come to, while the student answers on an engine of its own."""
    import asyncio

    from ownweights.engine import EngineProcess
    from ownweights.verdict.trial import Trial

    project, workload, options = case.project, case.dataset.workload, case.options

    async def judged() -> Found:
        async with judging(project, workload, case.settings, options.concurrency) as judge:
            trial = Trial(
                case.dataset, engine.completer(case.student_id), project, case.student_id,
                claim_of(case.wanted), judge or check_of(project, case.wanted), None, options,
            )  # fmt: skip
            return await phases(trial)

    engine = EngineProcess.start(project, [case.student_id])
    try:
        return asyncio.run(judged())
    finally:
        engine.stop()


async def look(trial: Trial) -> tuple[Developed, Preview]:
    """Judge develop, with a bar; what it showed, and what certifying would take."""
    from ownweights.verdict.develop import develop, foresee

    with Progress(f"develop {trial.workload}") as bar:
        developed = await develop(replace(trial, on_progress=bar))
    return developed, foresee(trial, developed)


async def look_and_certify(trial: Trial) -> tuple[Developed, Preview, Verdict | None]:
    """Judge develop, tell of it, and certify; no verdict where no outcome could certify."""
    from ownweights.verdict.report.preview import preview_text
    from ownweights.verdict.run import certify_student

    developed, seen = await look(trial)
    say(preview_text(seen, developed.tuned.compared) + "\n")
    if seen.blocked and not seen.verdict_id:
        return developed, seen, None
    with Progress(f"certify {trial.workload}") as bar:
        found = await certify_student(replace(trial, on_progress=bar), developed)
    return developed, seen, found


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
    from ownweights.teacher.kinds import Kind
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
                kind=Kind(row.kind, row.api_version, row.max_tokens),
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
