"""`own weights`: students and bases as files for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import format_table, json_option, print_json, say
from ownweights.cli.weights.window import check, extend

if TYPE_CHECKING:
    from ownweights.weights.merge import Survival

_DTYPES = ("float32", "bfloat16", "float16")
_STORED = ("f32", "f16", "bf16", "q8_0")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def weights() -> None:
    """Files of numbers: merge, export, extend, check."""


weights.add_command(extend)
weights.add_command(check)


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
    from ownweights.weights.merge import MIN_COSINE, shown_survival

    dtype = given["dtype"] or ("f32" if given["is_adapter"] else "f16")
    if dtype not in _STORED or given["base_name"] or given["revision"]:
        raise UsageError(
            f"--dtype {dtype}, --base-name or --revision is for --peft",
            hint=f"--gguf takes --dtype {', '.join(_STORED)}",
        )
    if given["is_adapter"] and given["is_forced"]:
        raise UsageError("--force is about merged weights, and --adapter writes none")
    project, path = project_of(ctx), given["gguf"]
    if given["is_adapter"]:
        made = export_adapter_gguf(project, name, path, dtype=dtype)
    else:
        made = export_gguf(project, name, path, dtype=dtype, is_forced=given["is_forced"])
    survival = None if made.survival is None else shown_survival(made.survival)
    lost = made.survival is not None and made.survival.cosine < MIN_COSINE
    finding = (
        f"stored as {dtype}, most of the update may be lost; compare its answers, or --adapter"
    )
    return {
        "path": str(made.path), "kind": made.kind, "dtype": made.dtype, "survival": survival,
        "findings": [finding] if lost else [],
    }  # fmt: skip


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
        project_of(ctx), name, to=given["peft"], dtype=dtype, base_name=given["base_name"],
        revision=given["revision"],
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
