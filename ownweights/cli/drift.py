"""`own drift`: look at the rented endpoints, and say whether they are those certified against.

Exit codes: 0 same (or a baseline was taken), 3 could not tell, 4 changed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import Progress, json_option, print_json, say
from ownweights.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.core.settings import Settings
    from ownweights.verdict.drift import Canary, DriftMonitor, Manner, Plan

EXIT_CODES = {"same": EXIT_OK, "could_not_tell": EXIT_UNDECIDED, "changed": EXIT_REFUSED}
SECONDS_PER_H = 3600.0


@click.group()
def drift() -> None:
    """Is the rented model still the one certified against: status, run."""


@drift.command()
@click.argument("teacher", required=False)
@json_option
@click.pass_context
def status(ctx: click.Context, teacher: str | None, as_json: bool) -> int:
    """Print what is known of TEACHER, or of every teacher that has a baseline; asks nothing."""
    from ownweights.core.errors import ArtefactError
    from ownweights.core.settings import load_settings
    from ownweights.verdict.drift import drift_text, load_monitor, watched_teachers

    project = project_of(ctx)
    every_h = load_settings(project).drift.every_h
    monitors: list[DriftMonitor] = []
    codes: list[int] = []
    for name in watched_teachers(project) if teacher is None else [teacher]:
        try:
            monitors += [monitor] if (monitor := load_monitor(project, name)) else []
        except ArtefactError as error:
            if teacher is not None:
                raise
            say(f"warning: teacher {name} cannot be told of: {error}")
            codes.append(EXIT_UNDECIDED)
    if not monitors and not codes:
        say("no baseline yet: `own drift run` takes one")
        return EXIT_UNDECIDED if teacher else EXIT_OK
    for monitor in monitors:
        due_h = due_in_h(monitor, every_h, time.time())
        if as_json:
            print_json({**facts(monitor), "due_in_h": due_h})
        else:
            due = "now" if due_h <= 0 else f"in {due_h:.1f} h"
            click.echo(f"{drift_text(monitor)}\n  next look due {due}")
    codes += [EXIT_CODES[m.state.outcome] if m.state.looks else EXIT_OK for m in monitors]
    return max(codes)


@drift.command()
@click.argument("teacher", required=False)
@click.option("--renew", is_flag=True, help="Take a new baseline; it closes an open incident.")
@click.option("--if-due", is_flag=True, help="Do nothing before `every_h` has passed.")
@click.option("--num-canaries", type=int, help="Frozen requests, for a new baseline.")
@click.option("--false-alarm", type=float, help="Chance of ever alarming falsely, for the same.")
@click.option(
    "--concurrency", type=click.IntRange(1, 4096), default=8, show_default=True,
    help="Requests in flight at once.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
    help="Draws canaries and border prompts.",
)  # fmt: skip
@json_option
@click.pass_context
def run(
    ctx: click.Context, teacher: str | None, renew: bool, if_due: bool, as_json: bool, **given: Any
) -> int:
    """Look at TEACHER once; the first time, take the baseline that looks are compared with.

    An alarm opens an incident and voids the certificates that name the teacher's model. Exits with
    0 when it is the same, 3 when nobody could tell, 4 when it changed.
    """
    import asyncio

    from ownweights.core.settings import load_settings
    from ownweights.verdict.drift import drift_text, load_monitor

    project = project_of(ctx)
    flags = {f"drift.{key}": given[key] for key in ("num_canaries", "false_alarm")}
    settings = load_settings(project, flags=flags)
    name = teacher_named(settings, teacher)
    known = load_monitor(project, name)
    if known and if_due and not renew:
        due_h = due_in_h(known, settings.drift.every_h, time.time())
        if due_h > 0:
            void_certificates_of(project)  # a run that was killed may have left some
            say(f"teacher {name}: the next look is due in {due_h:.1f} h")
            return EXIT_CODES[known.state.outcome] if known.state.looks else EXIT_OK
    with Progress(f"drift {name}") as bar:
        manner = manner_of(settings, name, given["concurrency"], bar)
        if known is None or renew:
            found = asyncio.run(_take(project, settings, name, manner, seed=given["seed"]))
        else:
            found = asyncio.run(_look(project, settings, known, manner))
    void_certificates_of(project)
    if as_json:
        print_json(facts(found))
    else:
        click.echo(drift_text(found))
    return EXIT_CODES[found.state.outcome] if found.state.looks else EXIT_OK


def teacher_named(settings: Settings, teacher: str | None) -> str:
    """The teacher asked for, or the only one."""
    known = ", ".join(settings.teacher) or "none"
    if teacher is None and len(settings.teacher) == 1:
        return next(iter(settings.teacher))
    if teacher is None or teacher not in settings.teacher:
        what = "say which teacher" if teacher is None else f"there is no teacher {teacher!r}"
        raise UsageError(what, hint=f"own.toml has: {known}")
    return teacher


def due_in_h(monitor: DriftMonitor, every_h: float, now: float) -> float:
    """Hours until the next look is due; 0 or less when it is."""
    looks = monitor.state.looks
    last = looks[-1].at if looks else monitor.baseline.at - every_h * SECONDS_PER_H
    if last > now:  # the clock was wrong then, or is now: never wait for it
        return 0.0
    return (last - now) / SECONDS_PER_H + every_h


def facts(monitor: DriftMonitor) -> dict[str, Any]:
    """What a monitor knows, as data."""
    baseline, state = monitor.baseline, monitor.state
    return {
        "teacher": baseline.teacher,
        "outcome": state.outcome if state.looks else None,
        "baseline_at": baseline.at,
        "models": baseline.metadata.models,
        "fingerprints": baseline.metadata.fingerprints,
        "num_canaries": len(baseline.canaries),
        "num_probes": len(baseline.borders.probes) if baseline.borders else 0,
        "false_alarm": baseline.budget.false_alarm,
        "spent": monitor.spent,
        "unmeasured": baseline.unmeasured,
        "num_looks": len(state.looks),
        "look": state.looks[-1] if state.looks else None,
        "incident": state.incident,
    }


def void_certificates_of(project: Project) -> None:
    """Void what any incident voids, send its routes back to the teacher, and say which."""
    from ownweights.route.live import withdraw_void
    from ownweights.verdict import list_verdicts
    from ownweights.verdict.drift import incidents
    from ownweights.verdict.voiding import void_certificates

    verdicts = list_verdicts(project)
    for incident in incidents(project, on_broken=lambda what: say(f"warning: {what}")):
        voided = void_certificates(
            project, verdicts, incident.voids, reason=incident.reason, by=incident.name
        )
        for one in voided:
            say(f"certificate {one.verdict_id} is void: {one.reason}")
    _void_unread(project, {verdict.id for verdict in verdicts})
    for line in withdraw_void(project):
        say(line)


def _void_unread(project: Project, read_ids: set[str]) -> None:
    """Void what is followed, cannot be read, and so may name a teacher with an open incident."""
    from ownweights.cli.savings import teacher_name
    from ownweights.core.settings import load_settings
    from ownweights.route import read_active
    from ownweights.verdict.drift.store import open_incidents
    from ownweights.verdict.voiding import void_certificate

    settings, opened = load_settings(project), open_incidents(project)
    for route in read_active(project)[0].values():
        incident = opened.get(teacher_name(settings, route))
        if incident is not None and route.verdict_id not in read_ids:
            reason = f"{incident.reason}, and the certificate cannot be read to see what it names"
            void_certificate(project, route.verdict_id, reason=reason, by=incident.name)
            say(f"certificate {route.verdict_id} is void: {reason}")


def manner_of(settings: Settings, name: str, concurrency: int, bar: Progress) -> Manner:
    """How the endpoint is asked."""
    from ownweights.verdict.drift import Manner

    return Manner(concurrency, settings.teacher[name].timeout_s, bar)


async def _take(
    project: Project, settings: Settings, name: str, manner: Manner, *, seed: int
) -> DriftMonitor:
    from ownweights.verdict.drift import save_baseline, take_baseline

    canaries = _canaries(project, settings, name, seed)
    model = settings.teacher[name].model or str(canaries[0].body.get("model", ""))
    async with _client(settings, name) as client:
        taken = await take_baseline(
            client, canaries, teacher=name, plan=plan_of(settings, seed), at=time.time(),
            model=model, manner=manner,
        )  # fmt: skip
    return save_baseline(project, taken)


async def _look(
    project: Project, settings: Settings, known: DriftMonitor, manner: Manner
) -> DriftMonitor:
    from ownweights.verdict.drift import save_look

    async with _client(settings, known.baseline.teacher) as client:
        asked = await known.ask(client, manner)
    found = known.judge(asked, at=time.time())
    save_look(project, found, asked)
    return found


def plan_of(settings: Settings, seed: int) -> Plan:
    """What `[drift]` says of a new baseline."""
    from ownweights.verdict.drift import Plan

    row = settings.drift
    return Plan(
        row.false_alarm, row.num_probes, row.draws, row.answers, row.on_metadata == "alarm",
        seed=seed,
    )  # fmt: skip


def _client(settings: Settings, name: str) -> Any:
    from ownweights.teacher.client import TeacherClient
    from ownweights.teacher.kinds import Kind

    row = settings.teacher[name]
    return TeacherClient.from_env(
        row.base_url, key_env=row.key_env, model=row.model or None, timeout_s=row.timeout_s,
        max_retries=row.max_retries, kind=Kind(row.kind, row.api_version, row.max_tokens),
    )  # fmt: skip


def _canaries(project: Project, settings: Settings, name: str, seed: int) -> list[Canary]:
    """Canaries from the workloads that this teacher answers.

    Raises: UsageError when none of them has a recorded answer
    """
    from ownweights.dataset.select import in_chat
    from ownweights.traffic import TrafficStore
    from ownweights.verdict.drift import pick_canaries

    with TrafficStore.open(project, create=False) as store:
        records = (
            record
            for stats in store.workloads()
            if settings.teacher_of(stats.workload)[0] == name
            for record in map(in_chat, store.records(workload=stats.workload))
            if record.status == "ok" and record.role != "student" and record.protocol == "chat"
        )
        found = pick_canaries(records, settings.drift.num_canaries, seed=seed)
    if not found:
        raise UsageError(
            f"no recorded request was answered by teacher {name!r}",
            hint="own traffic import FILE, or record some through own serve",
        )
    return found
