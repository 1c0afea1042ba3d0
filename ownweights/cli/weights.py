"""`own weights`: students and bases as files for other engines, and a base with a longer window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import base_name
from ownweights.cli.output import Progress, format_table, json_option, print_json, say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.weights.merge import Survival

_DTYPES = ("float32", "bfloat16", "float16")
_STORED = ("f32", "f16", "bf16", "q8_0")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def weights() -> None:
    """Files of numbers: merge, export, extend, check."""


@weights.command()
@click.argument("student_id", metavar="STUDENT")
@click.option("--to", type=_FOLDER, help="A new folder.  [default: a base of the project]")
@click.option(
    "--dtype", type=click.Choice(_DTYPES), default="bfloat16", show_default=True,
    help="What the weights are stored as.",
)  # fmt: skip
@click.option("--force", "is_forced", is_flag=True, help="Write it though rounding loses it.")
@json_option
@click.pass_context
def merge(
    ctx: click.Context, *, student_id: str, to: Path | None, dtype: str, is_forced: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Fold a student's adapter into its base, as a checkpoint that everybody reads.

    The sum is formed in float32 and rounded once. What rounding leaves of the update is printed
    layer by layer; a merge that lost it is refused (exit code 4).
    """
    from ownweights.weights.merge import merge_student, shown_survival

    made = merge_student(project_of(ctx), student_id, to=to, dtype=dtype, is_forced=is_forced)
    rows = [_row(one) for one in (*made.layers, made.overall)]
    if as_json:
        print_json({
            "id": made.id, "path": str(made.path), "dtype": dtype,
            "survival": shown_survival(made.overall), "layers": rows,
            "canary_error": made.canary_error,
        })  # fmt: skip
        return
    say(format_table(rows))
    if made.canary_error is not None:
        say(f"canary logits differ from the student's by {made.canary_error:.2g} of their size")
    click.echo(made.path if to else made.id)


@weights.command()
@click.argument("name", metavar="STUDENT|BASE")
@click.option("--gguf", type=_FILE, help="Write a GGUF file for llama.cpp.")
@click.option("--peft", type=_FOLDER, help="Write the adapter as a new PEFT folder.")
@click.option(
    "--adapter", "is_adapter", is_flag=True, help="With --gguf: the adapter alone, for its base."
)
@click.option(
    "--dtype", type=click.Choice([*_STORED, *_DTYPES]),
    help="What numbers are stored as: f32, f16, bf16 or q8_0 in GGUF; float32, bfloat16 or float16"
    " in PEFT.  [default: f16, of an adapter 32 bits]",
)  # fmt: skip
@click.option("--base-name", help="With --peft: what others call the base.  [default: its folder]")
@click.option("--revision", help="With --peft: which revision of it.  [default: its content hash]")
@click.option("--force", "is_forced", is_flag=True, help="Write it though rounding loses it.")
@json_option
@click.pass_context
def export(ctx: click.Context, name: str, as_json: bool, **given: Any) -> None:
    """Write a student or a base for llama.cpp (GGUF), or a student's adapter for PEFT.

    What the other engine could not load, or would load as something else, is refused by name.
    """
    from ownweights.core.errors import UsageError

    if (given["gguf"] is None) == (given["peft"] is None):
        raise UsageError("say either --gguf FILE or --peft FOLDER")
    told = _export_peft(ctx, name, given) if given["peft"] else _export_gguf(ctx, name, given)
    if as_json:
        print_json(told)
        return
    for finding in told.pop("findings", ()):
        say(f"warning: {finding}")
    for key, value in told.items():
        if key != "path" and value is not None:
            say(f"{key}: {value}")
    click.echo(told["path"])


def _export_gguf(ctx: click.Context, name: str, given: dict[str, Any]) -> dict[str, Any]:
    from ownweights.core.errors import UsageError
    from ownweights.weights.export.gguf_file import export_adapter_gguf, export_gguf
    from ownweights.weights.merge import shown_survival

    dtype = given["dtype"] or ("f32" if given["is_adapter"] else "f16")
    if dtype not in _STORED or given["base_name"] or given["revision"]:
        raise UsageError(
            f"--dtype {dtype}, --base-name or --revision is for --peft",
            hint=f"--gguf takes --dtype {', '.join(_STORED)}",
        )
    project, path = project_of(ctx), given["gguf"]
    if given["is_adapter"]:
        made = export_adapter_gguf(project, name, path, dtype=dtype)
    else:
        made = export_gguf(project, name, path, dtype=dtype, is_forced=given["is_forced"])
    survival = None if made.survival is None else shown_survival(made.survival)
    return {"path": str(made.path), "kind": made.kind, "dtype": made.dtype, "survival": survival}


def _export_peft(ctx: click.Context, name: str, given: dict[str, Any]) -> dict[str, Any]:
    from ownweights.core.errors import UsageError
    from ownweights.weights.export.peft_folder import export_peft

    dtype = given["dtype"] or "float32"
    if dtype not in _DTYPES or given["is_adapter"] or given["is_forced"]:
        raise UsageError(
            f"--dtype {dtype}, --adapter or --force is for --gguf",
            hint=f"--peft takes --dtype {', '.join(_DTYPES)}",
        )
    made = export_peft(
        project_of(ctx), name, given["peft"], dtype=dtype,
        base_name=given["base_name"], revision=given["revision"],
    )  # fmt: skip
    return {
        "path": str(made.path), "kind": "adapter", "dtype": dtype, "rank": made.rank,
        "base": made.base, "revision": made.revision, "canary_error": made.canary_error,
        "findings": list(made.findings),
    }  # fmt: skip


def _row(one: Survival) -> dict[str, Any]:
    return {
        "layer": one.layer, "cosine": round(one.cosine, 6),
        "unchanged_frac": round(one.unchanged_frac, 6), "update_norm": round(one.update_norm, 6),
    }  # fmt: skip


@weights.command()
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
        told |= _check(ctx, made.name, base, text, as_json=as_json)
    if as_json:
        print_json(told)


@weights.command()
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
    told = _check(ctx, base, against, text, windows=windows, trials=trials, as_json=as_json)
    if as_json:
        print_json(told)


def _check(
    ctx: click.Context, name: str, against: str, text: Path | None, *, as_json: bool,
    windows: int = 8, trials: int = 4,
) -> dict[str, Any]:  # fmt: skip
    """Measure both bases, print the two tables unless as JSON, and give them as JSON has them."""
    from dataclasses import asdict

    from ownweights.model.tokenizer import Tokenizer
    from ownweights.weights.base import resolve_base
    from ownweights.weights.load import load_model
    from ownweights.weights.window import compare_by_position, needle_test

    project = project_of(ctx)
    old, new = resolve_base(project, against), resolve_base(project, name)
    tokenizer = Tokenizer.load(new)
    ids = tokenizer.encode(_text(project, text))
    before, after = load_model(old), load_model(new)
    with Progress("windows") as bar:
        buckets = compare_by_position(before, after, ids, max_windows=windows, on_window=bar)
    with Progress("hidden numbers") as bar:
        needles = needle_test(before, after, tokenizer, ids, trials=trials, on_cell=bar)
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
    from ownweights.traffic.workload import content_text

    if path is not None:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", where=str(path)) from None
    pieces: list[str] = []
    with TrafficStore.open(project, create=False) as store:
        for record in store.records(status="ok"):
            messages = record.request.get("messages") or ()
            pieces += [content_text(one.get("content")) for one in messages]
            pieces.append(record.answer_text or "")
    return "\n".join(piece for piece in pieces if piece)
