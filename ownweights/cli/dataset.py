"""`own dataset`: make what the student will study, look at it, take it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, json_option, print_json, print_listing, print_rows, say

if TYPE_CHECKING:
    from ownweights.core.settings import Settings
    from ownweights.dataset import Dataset, DatasetOptions

_SPLITS = ("train", "develop", "certify", "test")


@click.group()
def dataset() -> None:
    """What the student will study: build, show, export."""


@dataset.command()
@click.option(
    "--workload",
    required=True,
    callback=workload_name,
    metavar="NAME",
    help="The workload to study.",
)
@click.option(
    "--split-by",
    metavar="WHAT",
    help="Keep together: auto, session, prompt, or a metadata key.  [default: own.toml]",
)
@click.option(
    "--allow-teacher",
    "allow_teachers",
    multiple=True,
    metavar="MODEL",
    help="Learn from this model although its terms deny it; may be repeated.",
)
@click.option(
    "--licence", metavar="SPDX", help="The licence of answers that people wrote, say CC-BY-4.0."
)
@click.option("--no-prune", is_flag=True, help="Let the student read a static system prompt.")
@json_option
@click.pass_context
def build(
    ctx: click.Context, *, workload: str, split_by: str | None, allow_teachers: tuple[str, ...],
    licence: str | None, no_prune: bool, as_json: bool,
) -> None:  # fmt: skip
    """Select, split and seal the records of a workload; the same records give the same id."""
    from dataclasses import replace

    from ownweights.core.settings import load_settings
    from ownweights.dataset import build_dataset
    from ownweights.traffic import TrafficStore

    project = project_of(ctx)
    options = options_of(load_settings(project), workload)
    options = replace(
        options,
        split_by=options.split_by if split_by is None else split_by,
        allow_teachers=(*options.allow_teachers, *allow_teachers),
        data_licence=licence,
        prune_system=options.prune_system and not no_prune,
    )
    with TrafficStore.open(project) as store, Progress(f"dataset {workload}") as progress:
        made = build_dataset(
            store.records(workload),
            project,
            workload=workload,
            options=options,
            on_progress=progress,
        )
    _tell(made)
    print_json(made.card) if as_json else click.echo(made.id)


def options_of(settings: Settings, workload: str) -> DatasetOptions:
    """The options that the settings give for a workload."""
    from ownweights.dataset import DatasetOptions

    chosen = settings.workload_of(workload)
    return DatasetOptions(
        split_by=chosen.split_by,
        prune_system=chosen.prune_system,
        allow_teachers=chosen.allow_teachers,
        canaries=chosen.canaries,
        declared_terms={
            teacher.model: teacher.terms
            for teacher in settings.teacher.values()
            if teacher.model and teacher.terms
        },
    )


@dataset.command("list")
@click.option("--workload", callback=workload_name, metavar="NAME", help="Only this workload.")
@json_option
@click.pass_context
def list_(ctx: click.Context, workload: str | None, as_json: bool) -> None:
    """All datasets, oldest first."""
    from ownweights.dataset import list_datasets

    broken: dict[str, str] = {}
    rows = [
        {"id": one.id, "workload": one.workload, **one.counts, "created": one.card["created_at"]}
        for one in list_datasets(project_of(ctx), broken.__setitem__)
        if workload in (None, one.workload)
    ]
    print_listing("dataset", rows, broken, as_json=as_json, empty="there is no dataset yet")


@dataset.command()
@click.argument("dataset_id", metavar="ID")
@click.option("--verify", is_flag=True, help="Hash every file again.")
@click.option("--removed", is_flag=True, help="List the duplicates that were left out.")
@json_option
@click.pass_context
def show(
    ctx: click.Context, dataset_id: str, *, verify: bool, removed: bool, as_json: bool
) -> None:
    """The card of a dataset. The beginning of ID will do."""
    from ownweights.dataset.load import check_facts, load_dataset

    found = check_facts(load_dataset(project_of(ctx), dataset_id, verify=verify))
    if removed:
        keys = ("id", "split", "reason", "like", "asks")
        rows = [{key: row[key] for key in keys} for row in found.removed()]
        print_rows(rows, as_json=as_json, empty="nothing was left out")
        return
    if as_json:
        print_json(found.card)
        return
    click.echo(f"dataset {found.id} of workload {found.workload}, {found.card['created_at']}")
    click.echo(f"split by {found.split_by}: {found.card['facts']['split_by_reason']}")
    click.echo(_prune_text(found))
    if canaries := _canaries_text(found):
        click.echo(canaries)
    print_rows(_split_rows(found))
    click.echo("")
    print_rows(
        [
            {key: use[key] for key in ("model", "num_answers", "trains", "licence", "first_day")}
            for use in found.card["facts"]["teachers"]
        ],
        empty="nobody answered what is studied",
    )
    for warning in found.card["facts"]["warnings"]:
        say(f"warning: {warning}")


@dataset.command()
@click.argument("dataset_id", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--split",
    type=click.Choice(_SPLITS),
    default="train",
    show_default=True,
    help="Which examples to write.",
)
@click.option("--pruned", is_flag=True, help="Write what the student sees, not what was asked.")
@json_option
@click.pass_context
def export(
    ctx: click.Context, *, dataset_id: str, file: Path, split: str, pruned: bool, as_json: bool
) -> None:
    """Write a split of dataset ID to FILE as OpenAI fine-tuning JSON lines."""
    from ownweights.dataset import export_split, load_dataset

    found = load_dataset(project_of(ctx), dataset_id)
    num_written, num_left_out = export_split(found, split, file, pruned=pruned)
    if as_json:
        print_json({"file": str(file), "written": num_written, "left_out": num_left_out})
        return
    left_out = f", {num_left_out} without an answer in text left out" if num_left_out else ""
    click.echo(f"{file}: {num_written} examples of {split}{left_out}")


def _tell(made: Dataset) -> None:
    facts = made.card["facts"]
    counts = ", ".join(f"{split} {count:,}" for split, count in made.counts.items())
    say(f"dataset {made.id}: {counts}")
    say(f"split by {made.split_by}: {facts['split_by_reason']}")
    say(_prune_text(made))
    if canaries := _canaries_text(made):
        say(canaries)
    left_out: dict[str, int] = {}
    for reasons in facts["removed"].values():
        for reason, count in reasons.items():
            left_out[reason] = left_out.get(reason, 0) + count
    if any(left_out.values()):
        say("left out as duplicates: " + _listing(left_out))
    skipped: dict[str, int] = {}
    for reasons in facts["skipped"].values():
        for reason, count in reasons.items():
            skipped[reason] = skipped.get(reason, 0) + count
    if skipped:
        say("not studied: " + _listing(skipped))
    for warning in facts["warnings"]:
        say(f"warning: {warning}")


def _listing(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)


def _prune_text(found: Dataset) -> str:
    if found.prune is None:
        return "system prompt: none, or not the same in every request"
    drops = found.prune.drops_system
    return f"system prompt: static, {'left out of' if drops else 'kept in'} what the student sees"


def _canaries_text(found: Dataset) -> str:
    from ownweights.dataset.canary import canaries_of

    canaries = canaries_of(found.card)
    planted = [one for one in canaries if one.is_planted]
    if not planted:
        return ""
    rows = sum(one.num_planted for one in planted)
    return (
        f"canaries: {len(planted)} made-up secrets planted in {rows} examples of train,"
        f" {len(canaries) - len(planted)} kept out of it"
    )


def _split_rows(found: Dataset) -> list[dict[str, Any]]:
    facts = found.card["facts"]
    return [
        {
            "split": split,
            "examples": found.counts[split],
            "units": facts["units"][split],
            "duplicates": sum(facts["removed"].get(split, {}).values()),
            "skipped": sum(facts["skipped"][split].values()),
            "only_judged": sum(facts["held_out_only"].get(split, {}).values()),
        }
        for split in _SPLITS
    ]
