"""What a training would read and learn, shown before it runs.

In: a dataset, a base, options. Out: a `Preview`: three rows token by token, the settings with the
reason of each derived one, what became of the examples, and how the base's template behaves.
Nothing is trained or written. What is shown is what would be trained
(test_preview_shows_the_rows_that_are_trained); it holds people's text, so it goes to whoever asked
for it and into no log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ownweights.dataset.load import Dataset
from ownweights.model.probe import Probe, probe_template
from ownweights.model.tokenizer import Detokenizer, Tokenizer
from ownweights.student.examples import TokenRow
from ownweights.student.prepare import Counts
from ownweights.student.study import Materials
from ownweights.student.train import Base, Run, StudentOptions, plan_run, reasons_of

NUM_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row: ids, which of them are trained, and the text that each adds (often none, where a
    character takes several tokens)."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    pieces: tuple[str, ...]

    def runs(self) -> list[tuple[bool, str]]:
        """Text in stretches: whether it is trained, and what it says."""
        both = zip(self.trained, self.pieces, strict=True)
        return [
            (is_trained, "".join(piece for _, piece in group))
            for is_trained, group in groupby(both, key=lambda pair: pair[0])
        ]


@dataclass(frozen=True, slots=True)
class Preview:
    """All that there is to see before a run."""

    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    counts: Counts
    probes: Sequence[Probe]
    rows: Sequence[ShownRow]

    @property
    def is_sound(self) -> bool:
        """Whether no probe failed."""
        return all(probe.state != "failed" for probe in self.probes)


def preview_run(
    dataset: Dataset, base: Base, options: StudentOptions, *, materials: Materials | None = None
) -> Preview:
    """What `train_student` would do with the same arguments.

    Raises: InputError when no example fits, or the template refuses too many
    """
    run = plan_run(dataset, base, options, materials=materials)
    settings = {key: value for key, value in run.settings.items() if key != "derived"}
    return Preview(
        settings, {**run.settings["derived"], **reasons_of(run)}, run.counts,
        probe_template(base.template, base.model.config.eos_token_ids),
        [show_row(base.template.tokenizer, row) for row in _chosen(run)],
    )  # fmt: skip


def show_row(tokenizer: Tokenizer, row: TokenRow) -> ShownRow:
    """A row with the text of each token; special tokens are spelled out."""
    detokenizer = Detokenizer(tokenizer)
    pieces: list[str] = []
    for id_ in row.ids.tolist():
        if id_ not in tokenizer.added:
            pieces.append(detokenizer.push([id_]))
            continue
        if pieces:  # what was withheld belongs before it
            pieces[-1] += detokenizer.flush()
        detokenizer = Detokenizer(tokenizer)
        pieces.append(tokenizer.token_text(id_))
    if pieces:
        pieces[-1] += detokenizer.flush()
    trained = [False] * len(pieces)
    for at in row.trained_at().tolist():
        trained[at] = True
    return ShownRow(tuple(row.ids.tolist()), tuple(trained), tuple(pieces))


def _chosen(run: Run) -> list[TokenRow]:
    """The shortest row, the one in the middle, and the longest."""
    rows = sorted(run.plan.rows, key=lambda row: len(row.ids))
    places = sorted({0, len(rows) // 2, len(rows) - 1})
    return [rows[place] for place in places[:NUM_SHOWN]]
