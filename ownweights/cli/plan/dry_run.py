"""`own student train --dry-run`: three examples with what is trained of them, and every setting.

On a terminal what is trained is coloured; elsewhere, and where NO_COLOR is set, it stands between
marks. Requests and answers are shown on stdout alone, to whoever asked
(test_dry_run_says_nothing_of_the_data_on_stderr).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.output import format_table, print_json, shown_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ownweights.core.project import Project
    from ownweights.dataset.load import Dataset
    from ownweights.dataset.pairs import Pair
    from ownweights.student.preflight.preview import Preview, ShownRow
    from ownweights.student.train import StudentOptions

TRAINED_STYLE, READ_STYLE = "bold black on green", "dim"
MARKS = ("⟦", "⟧")
MAX_SHOWN_CHARS = 2_000  # of a stretch that is only read; --json has all of it


def dry_run(
    project: Project, dataset: Dataset, options: StudentOptions, pairs: Sequence[Pair], *,
    as_json: bool,
) -> bool:  # fmt: skip
    """Print what a training would do; whether no probe of the template failed."""
    from ownweights.student.preflight.preview import preview_run
    from ownweights.student.study import Materials
    from ownweights.student.train import load_base

    base = load_base(project, options.base)
    found = preview_run(dataset, base, options, materials=Materials(pairs))
    if as_json:
        print_json(to_json(found))
    else:
        _print(found)
    return found.is_sound


def to_json(found: Preview) -> dict[str, Any]:
    """A preview as one JSON object."""
    return {
        "settings": found.settings, "derived": found.reasons, "counts": found.counts.to_json(),
        "template": list(found.probes), "examples": list(found.rows),
    }  # fmt: skip


def _print(found: Preview) -> None:
    for name, value in found.settings.items():
        reason = found.reasons.get(name)
        click.echo(f"{name} = {value}" + (f": {reason}" if reason else ""))
    click.echo()
    click.echo(format_table([
        {"template": one.what, "state": one.state, "found": one.found} for one in found.probes
    ]))  # fmt: skip
    click.echo()
    counts = found.counts
    click.echo(
        f"{counts.examples} examples: {counts.rows} rows, {counts.too_long} too long,"
        f" {counts.refused} refused by the template, {counts.untrained} without a trained token;"
        f" none is cut"
    )
    click.echo(
        f"{counts.tokens:,} tokens a pass, of which {counts.trained_frac:.1%} are trained;"
        f" the template leaves out text of {counts.dropped} examples;"
        f" {counts.changed} answers read otherwise as tokens"
    )
    for number, row in enumerate(found.rows, 1):
        click.echo(
            f"\nexample {number} of {len(found.rows)}: {len(row.ids)} tokens,"
            f" {sum(row.trained)} trained"
        )
        _print_row(row)


def _print_row(row: ShownRow) -> None:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        opened, closed = MARKS
        click.echo("".join(
            f"{opened}{shown_text(text)}{closed}" if is_trained else _cut(text)
            for is_trained, text in row.runs()
        ))  # fmt: skip
        return
    from rich.console import Console
    from rich.text import Text

    coloured = Text()
    for is_trained, text in row.runs():
        if is_trained:
            coloured.append(shown_text(text), TRAINED_STYLE)
        else:
            coloured.append(_cut(text), READ_STYLE)
    Console(highlight=False).print(coloured, soft_wrap=True)


def _cut(text: str) -> str:
    """The ends of a long stretch."""
    half = MAX_SHOWN_CHARS // 2
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"
    return shown_text(text)
