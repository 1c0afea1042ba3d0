"""`own base`: pre-train the open weights that students start from, and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import Progress, json_option, print_json, say

if TYPE_CHECKING:
    from ownweights.student.base import BaseRecipe


@click.group()
def base() -> None:
    """The open weights that students start from: train, show."""


@base.command()
@click.argument("recipe_file", type=click.Path(path_type=Path))
@click.option(
    "--corpus",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder with books/*.txt.gz and text_*/docs.jsonl.",
)
@click.option(
    "--traffic",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder with the recorded workloads that the recipe names.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for text and checkpoints.  [default: .own/base/.run]",
)
@click.option(
    "--max-steps",
    type=click.IntRange(1, 2**31 - 1),
    help="Stop after so many steps; the next call goes on.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context, *, recipe_file: Path, corpus: Path, traffic: Path, work: Path | None,
    max_steps: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Pre-train a base by a recipe; a run that was stopped goes on where it was."""
    from ownweights.model.memory import keep_freed_memory

    keep_freed_memory()
    from ownweights.student.base import prepare_text, read_recipe
    from ownweights.student.publish import publish_base

    recipe = read_recipe(recipe_file)
    work = work or project_of(ctx).kind_dir("base") / ".run"
    say(f"text: reading {corpus} (once; minutes)")
    text = prepare_text(recipe, corpus, traffic, work)
    say(f"text: {text['num_tokens']:,} tokens, {text['removed_sentences']} sentences left out")
    if not _run(recipe, work, max_steps):
        say(f"stopped; the same command goes on from {work}")
        return
    made = publish_base(recipe, work, project_of(ctx), corpus=corpus)
    if as_json:
        print_json({"id": made.id, "path": str(made.path), **made.card["facts"]})
    else:
        click.echo(made.id)


@base.command()
@click.argument("name", default="seedling")
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Show what a base is: its configuration, its id, and its card where it has one."""
    from ownweights.weights.base import base_id, resolve_base

    folder = resolve_base(project_of(ctx), name)
    shown: dict[str, Any] = {"name": name, "id": base_id(folder), "path": str(folder)}
    for key, file in (("config", "config.json"), ("card", "card.json")):
        if (folder / file).is_file():
            shown[key] = _read_object(folder / file)
    print_json(shown)


def _read_object(path: Path) -> dict[str, Any]:
    import json

    from ownweights.core.errors import ModelError

    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _run(recipe: BaseRecipe, work: Path, max_steps: int | None) -> bool:
    """Train up to the end or up to `max_steps` more; whether the end was reached."""
    from ownweights.student.base import pretrain

    done = 0
    with Progress("pre-train", total=recipe.train.steps) as bar:
        for report, trainer in pretrain(recipe, work):
            done += 1
            speed = report.num_tokens / report.seconds
            bar(report.step, report.num_steps, f"loss {report.loss:.3f}  {speed:,.0f} tokens/s")
            if max_steps is not None and done >= max_steps and report.step < report.num_steps:
                trainer.save_checkpoint(work)
                return False
    return True
