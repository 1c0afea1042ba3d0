"""A dataset's examples as token rows of one base, and what became of those that are none.

In: examples, the base's chat template and window. Out: rows, and counts by reason. Nothing is ever
cut short: an example longer than the window is left out whole (test_prepare_never_cuts_an_answer).
An example that the template refuses, or of which no token would be trained, is counted; when there
are more than one in a hundred, something is wrong with the template, and that is an error
(test_prepare_stops_when_too_many_are_refused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ownweights.core.errors import Ineligible, InputError
from ownweights.dataset.example import Example
from ownweights.model.template import ChatTemplate, Rendering
from ownweights.student.examples import TokenRow

MAX_LOST_FRAC = 0.01  # of the examples, that the template may refuse or leave without a label


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a split's examples. `dropped` are trained, though the template leaves out
    some of their text; `changed` are answers that read otherwise once they are tokens."""

    examples: int = 0
    rows: int = 0
    too_long: int = 0
    refused: int = 0
    untrained: int = 0
    dropped: int = 0
    changed: int = 0
    tokens: int = 0
    trained_tokens: int = 0

    @property
    def trained_frac(self) -> float:
        """Of all tokens that are read."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """As `own student train --dry-run --json` says it."""
        return {**asdict(self), "trained_frac": round(self.trained_frac, 4)}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows in the order of the examples that have one; rows of further turns come last."""

    examples: list[Example]
    rows: list[TokenRow]
    counts: Counts


@dataclass(slots=True)
class _Tally:
    """Counts while they grow, and why the first example was refused."""

    too_long: int = 0
    refused: int = 0
    untrained: int = 0
    dropped: int = 0
    changed: int = 0
    why: str = ""


def prepare(
    template: ChatTemplate, window: int, examples: Sequence[Example], *, turns: str = "last"
) -> Prepared:
    """The rows that a base with a window of so many tokens trains on.

    `turns` "all" trains every answer of a conversation: within one row where the template writes
    earlier answers as they were served, else in rows of their own.
    Raises: InputError when the template refuses more than one example in a hundred
    """
    tally = _Tally()
    kept: list[Example] = []
    rows: list[TokenRow] = []
    further: list[TokenRow] = []
    for example in examples:
        rendering = _render(template, example, turns, tally)
        row = None if rendering is None else row_of(rendering, window)
        if rendering is None:
            continue
        if row is None:
            tally.too_long += 1
        elif not len(row.trained_at()):
            tally.untrained += 1
        else:
            kept.append(example)
            rows.append(row)
            further += _turns_apart(template, window, example, rendering)
    _refuse_if_lost(tally, len(examples))
    return Prepared(kept, [*rows, *further], _counts(tally, len(examples), [*rows, *further]))


def row_of(rendering: Rendering, window: int) -> TokenRow | None:
    """An example as a row; None when it does not fit the window."""
    if len(rendering.ids) > window:
        return None
    mask = None if rendering.mask is None else np.array(rendering.mask, bool)
    return TokenRow(np.array(rendering.ids, np.int32), rendering.num_prompt, mask)


def _render(
    template: ChatTemplate, example: Example, turns: str, tally: _Tally
) -> Rendering | None:
    try:
        rendering = template.render(example.messages, example.target, all_turns=turns == "all")
    except Ineligible as error:
        tally.refused += 1
        tally.why = tally.why or error.what
        return None
    tally.dropped += bool(rendering.dropped)
    said = template.tokenizer.decode(rendering.ids[rendering.num_prompt : -1])
    tally.changed += said != example.target
    return rendering


def _turns_apart(
    template: ChatTemplate, window: int, example: Example, rendering: Rendering
) -> list[TokenRow]:
    """Rows of the earlier answers that are not trained in the example's own row."""
    rows: list[TokenRow] = []
    for index in rendering.untrained_turns:
        said: Mapping[str, Any] = example.messages[index]
        content = said.get("content")
        answer = content if isinstance(content, str) and not said.get("tool_calls") else said
        try:
            row = row_of(template.render(example.messages[:index], answer), window)
        except Ineligible:  # nothing was asked before it, or the template cannot write it
            continue
        if row is not None:
            rows.append(row)
    return rows


def _refuse_if_lost(tally: _Tally, num_examples: int) -> None:
    lost = tally.refused + tally.untrained
    if lost > MAX_LOST_FRAC * num_examples:
        why = f": {tally.why}" if tally.why else ""
        raise InputError(
            f"{lost} of {num_examples} examples cannot be trained with the base's chat template"
            f" ({tally.refused} refused, {tally.untrained} without a trained token){why}",
            hint="own student train --dry-run shows what the template does; choose another base",
        )


def _counts(tally: _Tally, num_examples: int, rows: Sequence[TokenRow]) -> Counts:
    return Counts(
        examples=num_examples, rows=len(rows), too_long=tally.too_long, refused=tally.refused,
        untrained=tally.untrained, dropped=tally.dropped, changed=tally.changed,
        tokens=sum(len(row.ids) for row in rows),
        trained_tokens=sum(len(row.trained_at()) for row in rows),
    )  # fmt: skip
