"""`own weights extend` and `check`: a base with a longer window, and what it costs by position."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import base_name
from ownweights.cli.output import Progress, format_table, json_option, print_json, say
from ownweights.core.project import Project

_FILE = click.Path(dir_okay=False, path_type=Path)
_MAX_PIECES = 100_000  # messages that are read of the traffic


@dataclass(frozen=True, slots=True)
class Asked:
    """Which two bases are measured, on what text, and how thoroughly."""

    project: Project
    base: str
    against: str
    text: Path | None
    windows: int = 8
    trials: int = 4


@click.command()
@click.argument("base", metavar="BASE")
@click.option(
    "--to", "tokens", type=click.IntRange(1, 2**31 - 1), required=True, metavar="TOKENS",
    help="The new window.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["yarn", "ntk"]), default="yarn", show_default=True,
    help="How positions are turned beyond the old window.",
)  # fmt: skip
@click.option(
    "--name", callback=base_name, help="A new folder of the project.  [default: a base by id]"
)
@click.option("--check", "is_checked", is_flag=True, help="Measure it too, as own weights check.")
@click.option("--text", type=_FILE, help="With --check: text to measure on.  [default: traffic]")
@json_option
@click.pass_context
def extend(
    ctx: click.Context, *, base: str, tokens: int, method: str, name: str | None, is_checked: bool,
    text: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Prepare a base with a longer window: a configuration, and a recipe to fine-tune it by.

    The weights stay as they are. Until it is fine-tuned on long texts, the new base mostly costs
    something at short range: look with --check.
    """
    from ownweights.weights.extend import extend_base, fine_tune_recipe

    made = extend_base(project_of(ctx), base, tokens, method=method, name=name)
    recipe = fine_tune_recipe(made)
    told: dict[str, Any] = {
        "id": made.id, "path": str(made.path), "name": made.name, "method": method,
        "old_window": made.old_window, "new_window": made.new_window, "recipe": recipe,
    }  # fmt: skip
    if not as_json:
        say(recipe)
        click.echo(made.name)
    if is_checked:
        told |= _measure(Asked(project_of(ctx), made.name, base, text), as_json=as_json)
    if as_json:
        print_json(told)


@click.command()
@click.argument("base", metavar="BASE")
@click.option("--against", required=True, metavar="BASE", help="The base that it was made from.")
@click.option("--text", type=_FILE, help="Text to measure on.  [default: the project's traffic]")
@click.option("--windows", type=click.IntRange(1, 10_000), default=8, show_default=True,
              help="How many windows of text are read at most.")  # fmt: skip
@click.option("--trials", type=click.IntRange(1, 10_000), default=4, show_default=True,
              help="Hidden numbers for each length and depth.")  # fmt: skip
@json_option
@click.pass_context
def check(
    ctx: click.Context, *, base: str, against: str, text: Path | None, windows: int, trials: int,
    as_json: bool,
) -> None:  # fmt: skip
    """What a longer window costs and brings: perplexity by position, and a needle test."""
    asked = Asked(project_of(ctx), base, against, text, windows, trials)
    told = _measure(asked, as_json=as_json)
    if as_json:
        print_json(told)


def _measure(asked: Asked, *, as_json: bool) -> dict[str, Any]:
    """Measure both bases, print the two tables unless as JSON, and give them as JSON has them."""
    from ownweights.core.errors import UsageError
    from ownweights.model.tokenizer import Tokenizer
    from ownweights.weights.base import resolve_base
    from ownweights.weights.load import load_model
    from ownweights.weights.window import compare_by_position, needle_test

    old, new = (resolve_base(asked.project, name) for name in (asked.against, asked.base))
    tokenizer = Tokenizer.load(new)
    text = _text(asked.project, asked.text)
    ids = tokenizer.encode(text)
    if Tokenizer.load(old).encode(text) != ids:
        raise UsageError(
            f"{asked.against!r} reads the text as other tokens than {asked.base!r}",
            hint="--against takes the base that it was made from",
        )
    before, after = load_model(old), load_model(new)
    with Progress("windows") as bar:
        buckets = compare_by_position(before, after, ids, max_windows=asked.windows, on_window=bar)
    with Progress("hidden numbers") as bar:
        needles = needle_test(
            before, after, tokenizer=tokenizer, ids=ids, trials=asked.trials, on_cell=bar
        )
    told = {
        "perplexity": [asdict(one) for one in buckets],
        "needles": [asdict(one) for one in needles],
    }
    if not as_json:
        click.echo(format_table(told["perplexity"]))
        click.echo()
        click.echo(format_table(told["needles"]))
    return told


def _text(project: Project, path: Path | None) -> str:
    """The file, or what was asked and answered in the project's traffic."""
    from ownweights.core.errors import InputError
    from ownweights.traffic import TrafficStore
    from ownweights.traffic.chat import messages_fault
    from ownweights.traffic.workload import content_text

    if path is not None:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", where=str(path)) from None
    pieces: list[str] = []
    with TrafficStore.open(project, create=False) as store:
        for record in store.records(status="ok"):
            messages = record.request.get("messages") or []
            if messages_fault(messages) is None:
                pieces += [content_text(one.get("content")) for one in messages]
            pieces.append(record.answer_text or "")
            if len(pieces) > _MAX_PIECES:
                break
    return "\n".join(piece for piece in pieces if piece)
