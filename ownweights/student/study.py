"""What a student learns from, and how: the nouns that objectives and the run of a training share.

A `Study` is what is at hand: dataset, base, options. A `Lesson` is what an objective makes of it: a
loss and the batches, with what both say on the card. `objective/` holds one maker for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ownweights.core.completer import Sampler
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset.example import Example
from ownweights.dataset.load import Dataset
from ownweights.dataset.pairs import Pair
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer
from ownweights.student.examples import ExamplePlan, TokenRow
from ownweights.student.options import StudentOptions
from ownweights.student.prepare import Counts, Prepared, prepare, row_of
from ownweights.student.trainer import Objective, TokenObjective
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.load import load_model

MAX_PART_TOKENS = 8192
NUM_DEVELOP_ROWS = 512
TOKEN_BUDGET = 2_000_000
MIN_EPOCHS, MAX_EPOCHS = 2.0, 12.0


@dataclass(frozen=True, slots=True)
class Base:
    """The open weights that the student starts from, loaded."""

    name: str
    id: str
    path: Path
    model: Transformer
    template: ChatTemplate

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    @property
    def window(self) -> int:
        """Positions that the base reads at most."""
        return self.model.config.max_position_embeddings


@dataclass(frozen=True, slots=True)
class Materials:
    """What is learned from besides the dataset: `pairs` for dpo; for on-policy a `sampler` that
    continues prompts with the very weights that are trained, where the naive one is too slow."""

    pairs: Sequence[Pair] = ()
    sampler: Sampler | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that a lesson is made of."""

    project: Project
    dataset: Dataset
    base: Base
    options: StudentOptions
    materials: Materials


@dataclass(frozen=True, slots=True)
class Lesson:
    """A loss and its batches.

    `counts` says what became of the examples. `settings` and `parents` go on the card and into the
    student's id, `facts` on the card alone.
    `prepare(model, folder)` is called once before the first step, when the model is what it starts
    from; `measure(model)` gives what is said of the develop split at the end.
    """

    objective: Objective
    plan: ExamplePlan
    epochs: tuple[float, str]
    counts: Counts
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parents: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    prepare: Callable[[Transformer, Path], None] | None = None
    measure: Callable[[Transformer], Mapping[str, Any]] | None = None


def load_base(project: Project, name: str) -> Base:
    """A base by its name or folder, ready to be trained.

    Raises: ArtefactMissing, ModelError
    """
    path = resolve_base(project, name)
    template = ChatTemplate.load(path, Tokenizer.load(path))
    return Base(name, base_id(path), path, load_model(path), template)


def train_examples(study: Study, window: int | None = None) -> Prepared:
    """The train examples that fit the window (the base's, or a smaller one), and their rows.

    Raises: InputError when there are none
    """
    found = study.dataset.examples("train")
    if not found:
        raise InputError(
            f"the train split of dataset {study.dataset.id} is empty",
            hint="import or record more traffic, and build the dataset again",
        )
    prepared = encode_examples(study.base, found, window, turns=study.options.turns)
    if not prepared.rows:
        raise nothing_fits(study, prepared.counts.too_long, window)
    return prepared


def count_rows(rows: Sequence[TokenRow], *, num_examples: int) -> Counts:
    """What became of examples whose rows an objective made itself; the others are too long."""
    return Counts(
        examples=num_examples, rows=len(rows), too_long=num_examples - len(rows),
        tokens=sum(len(row.ids) for row in rows),
        trained_tokens=sum(len(row.trained_at()) for row in rows),
    )  # fmt: skip


def nothing_fits(study: Study, num: int, window: int | None = None) -> InputError:
    """The error that says that no example is short enough."""
    return InputError(
        f"no train example of dataset {study.dataset.id} fits the base's window of"
        f" {window or study.base.window} tokens ({num} are too long)",
        hint="choose a base with a longer window",
    )


def encode_examples(
    base: Base, examples: Sequence[Example], window: int | None = None, *, turns: str = "last"
) -> Prepared:
    """The examples that fit the window, and their token rows."""
    return prepare(base.template, min(base.window, window or base.window), examples, turns=turns)


def encode_answer(
    base: Base, messages: Sequence[Mapping[str, Any]], answer: str, window: int | None = None, *,
    turns: str = "last",
) -> TokenRow | None:  # fmt: skip
    """An answer to messages as a token row; None when it does not fit the window.

    Raises: Ineligible when the template refuses the messages
    """
    rendering = base.template.render(messages, answer, all_turns=turns == "all")
    return row_of(rendering, min(base.window, window or base.window))


def derive_epochs(rows: Sequence[TokenRow], options: StudentOptions) -> tuple[float, str]:
    """How often every example is visited, from a budget of tokens; and why."""
    if options.epochs is not None:
        return float(options.epochs), "as asked"
    num_tokens = sum(len(row.ids) for row in rows)
    epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, round(TOKEN_BUDGET / num_tokens, 1)))
    return epochs, f"{TOKEN_BUDGET:,} tokens over {num_tokens:,} a pass, {MIN_EPOCHS}-{MAX_EPOCHS}"


def fixed_epochs(options: StudentOptions, default: float, why: str) -> tuple[float, str]:
    """How often everything is visited, where a number of visits is the rule; and why."""
    return (default, why) if options.epochs is None else (float(options.epochs), "as asked")


def develop_rows(
    base: Base, dataset: Dataset, window: int | None = None, *, turns: str = "last"
) -> list[TokenRow]:
    """What is measured on: the first examples of develop that fit."""
    examples = dataset.examples("develop")[:NUM_DEVELOP_ROWS]
    return encode_examples(base, examples, window, turns=turns).rows


@torch.no_grad()
def mean_loss(
    model: Transformer, rows: Sequence[TokenRow], objective: Objective | None = None
) -> float | None:
    """Nats per trained token, or what an objective says instead; None of nothing."""
    if not rows:
        return None
    objective = objective or TokenObjective()
    plan = ExamplePlan(rows, epochs=1, rows_per_step=64, max_tokens=MAX_PART_TOKENS, seed=0)
    total, trained = 0.0, 0
    for step in range(plan.num_steps):
        for part in plan.batches(step):
            total += float(objective.loss(model, part, 1.0))
            trained += objective.weight(part)
    return round(total / trained, 5)
