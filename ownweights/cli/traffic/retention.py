"""`own traffic prune` and `own traffic delete`: what goes, by age and by whose it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import moment_of
from ownweights.cli.output import Progress, json_option, print_json, say
from ownweights.core.errors import EXIT_ERROR, UsageError

if TYPE_CHECKING:
    from ownweights.cli.traffic.erase import Erasure
    from ownweights.traffic.retention import PruneReport


@click.command()
@click.option("--before", callback=moment_of, metavar="DAY", help="Records older than this, whole.")
@click.option(
    "--bodies-before", callback=moment_of, metavar="DAY",
    help="Requests and answers older than this; the rest of the records stays.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_context
def prune(
    ctx: click.Context, *, before: float | None, bodies_before: float | None, dry_run: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Take out what is older than [store] in own.toml says, or than a day; free its space.

    Datasets keep what they hold.
    """
    from ownweights.core.settings import load_settings
    from ownweights.traffic import TrafficStore
    from ownweights.traffic.retention import prune

    project = project_of(ctx)
    kept = load_settings(project).store
    with TrafficStore.open(project, create=False) as store, Progress("pruning") as progress:
        report = prune(
            store, time.time(), keep_bodies_days=kept.keep_bodies_days,
            keep_metadata_days=kept.keep_metadata_days, bodies_before=bodies_before, before=before,
            dry_run=dry_run, on_progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        would = "would go" if dry_run else "went"
        say(f"{report.records} records {would} whole, {report.bodies} lost their bodies")
        _tell_freed(report)
    return EXIT_ERROR if report.unreadable else 0


@click.command()
@click.option("--user", metavar="NAME", help="All records of this end user.")
@click.option("--session", metavar="NAME", help="All records of this session.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="This record; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--with-backups", is_flag=True,
    help="Delete the copies of the index from before migrations too, which hold the rows.",
)  # fmt: skip
@json_option
@click.pass_context
def delete(
    ctx: click.Context, *, user: str | None, session: str | None, ids: tuple[str, ...],
    dry_run: bool, yes: bool, with_backups: bool, as_json: bool,
) -> int:  # fmt: skip
    """Erase records for good: rows, bodies, and their examples in datasets.

    Students trained on them are marked, their certificates void.
    """
    from ownweights.cli.traffic.erase import erase_everywhere
    from ownweights.traffic import TrafficStore
    from ownweights.traffic.erase import Whose, masked_names

    project, name = project_of(ctx), user if user is not None else session
    masked = () if name is None else masked_names(project, name)
    whose = Whose(user, session, tuple(ids), masked)
    with TrafficStore.open(project, create=False) as store, Progress("erasing") as progress:
        if not (dry_run or yes):
            _confirm(erase_everywhere(store, whose, dry_run=True))
        done = erase_everywhere(
            store, whose, with_backups=with_backups, dry_run=dry_run, on_progress=progress
        )
    print_json(_facts(done)) if as_json else _tell(done, dry_run=dry_run)
    is_whole = done.store is None or (done.store.is_clean and not done.store.unreadable)
    return 0 if is_whole else EXIT_ERROR


def _confirm(would: Erasure) -> None:
    _tell(would, dry_run=True)
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to ask", hint="give --yes, or --dry-run to look first")
    click.confirm("Erase them for good?", abort=True, err=True)


def _tell(done: Erasure, *, dry_run: bool) -> None:
    say(f"{done.records} records {'would be' if dry_run else 'are'} erased")
    for one in done.datasets:
        counts = ", ".join(f"{count} of {split}" for split, count in one.counts.items() if count)
        say(f"dataset {one.dataset_id}: {counts}")
    for student in done.students:
        say(f"student {student} was trained on some of them; own student train makes it anew")
    for verdict in done.voided:
        say(f"certificate {verdict} is void")
    for name in done.copies:
        say(f"{name} is a copy of the index and holds the rows; --with-backups deletes it")
    for name in done.elsewhere:
        say(f"warning: {Path('.own') / name} holds what some of them ask; look at it by hand")
    if done.store is not None:
        _tell_freed(done.store)


def _tell_freed(report: PruneReport) -> None:
    if report.freed_bytes:
        say(f"{report.segments} segments written anew, {report.freed_bytes:,} bytes freed")
    for segment in report.unreadable:
        say(f"warning: segment {segment} is damaged, or on another machine, and still holds what"
            " went; own traffic prune there frees it, verify --repair gives it up")  # fmt: skip
    if not report.is_clean:
        say("warning: another process reads the index, whose log may still hold what went;"
            " own traffic prune empties it once that ended (Postgres: VACUUM FULL)")  # fmt: skip


def _facts(done: Erasure) -> dict[str, Any]:
    return {
        "records": done.records, "datasets": done.datasets, "students": done.students,
        "voided": done.voided, "copies": done.copies, "elsewhere": done.elsewhere,
        "store": done.store,
    }  # fmt: skip
