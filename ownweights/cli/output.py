"""What a command prints: data as JSON or an aligned table on stdout, talk and progress on stderr.

Invariants: stdout holds nothing but data (test_say_goes_to_stderr); JSON is one line that any
strict parser reads (test_print_json_writes_one_strict_line); a table has a line for each row,
whatever a stranger's text holds (test_format_table_keeps_strange_text_on_its_line); without a
terminal, progress is a line now and then instead of a bar
(test_progress_without_a_terminal_is_periodic).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO
from unicodedata import category

import click

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_EVERY_S = 10.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; dataclasses are objects, infinities and NaN null."""
    click.echo(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def print_rows(
    rows: Iterable[Mapping[str, Any]], *, as_json: bool = False, empty: str = "nothing yet"
) -> None:
    """Print rows as an aligned table, or as one JSON object a line."""
    listed = list(rows)
    if as_json:
        for row in listed:
            print_json(row)
    elif listed:
        click.echo(format_table(listed))
    else:
        say(empty)


def print_listing(
    kind: str,
    rows: Iterable[Mapping[str, Any]],
    broken: Mapping[str, str],
    *,
    as_json: bool,
    empty: str,
) -> None:
    """Print a row for each artefact of a kind; those that cannot be read are named, with reasons.

    As JSON they are objects with `id` and `broken`, else warnings on stderr.
    """
    if as_json:
        print_rows(
            [*rows, *({"id": id_, "broken": why} for id_, why in broken.items())], as_json=True
        )
        return
    print_rows(rows, empty=empty)
    tell_broken(kind, broken)


def tell_broken(kind: str, broken: Mapping[str, str]) -> None:
    """Warn of artefacts that were passed over because they cannot be read."""
    for id_, why in broken.items():
        say(f"warning: {kind} {id_} is passed over: {why}")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the keys of the first, numbers to the right, text to the left."""
    heads = list(rows[0])
    cells = [[_cell(row.get(head)) for head in heads] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    is_number = [
        all(isinstance(row.get(head), int | float | None) for row in rows) for head in heads
    ]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in [heads, *cells]
    )


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    click.echo(text, err=True)


class Progress:
    """How far a long task is, on stderr: a bar on a terminal, elsewhere a line every ten seconds.

    Called as `progress(done, total, note)`, which is what `on_progress` arguments expect.
    """

    def __init__(
        self, label: str, *, total: float | None = None, stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.label = label
        self._total = total
        self._stream = stream or sys.stderr
        self._clock = clock
        self._told_at = clock()
        self._last = ""
        self._told = ""
        self._bar = _open_bar(label, total) if self._stream.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last != self._told:
            self._tell()

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        self._total = total if total is not None else self._total
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=self._total, note=note)
            return
        of = f"/{_cell(self._total)}" if self._total is not None else ""
        self._last = f"{self.label}: {_cell(done)}{of}{'  ' + note if note else ''}"
        if self._clock() - self._told_at >= LINE_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at, self._told = self._clock(), self._last
        print(self._last, file=self._stream, flush=True)


def _open_bar(label: str, total: float | None) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:g}/{task.total:g}" if total else "{task.completed:g}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(label, total=total, note="")
    bar.start()
    return bar


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    text = str(value)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    """A character as a terminal may have it: what would move its cursor is written as an escape."""
    return character if character.isprintable() else ascii(character)[1:-1]


def shown_text(text: str) -> str:
    """Text of any number of lines as a terminal may have it: what would command it, or turn the
    order of what it shows, is written as an escape; joiners within letters stay."""
    if text.isprintable():
        return text
    kept = ("\n", "\t", "\u200c", "\u200d")
    return "".join(
        one if one in kept or category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else ascii(one)[1:-1]
        for one in text
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    to_python = getattr(value, "item", None)
    if to_python is not None and getattr(value, "ndim", None) == 0:  # a numpy scalar
        value = to_python()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
