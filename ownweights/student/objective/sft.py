"""Supervised fine-tuning: the recorded answer to every request, by cross-entropy.

Where answers are JSON objects, some examples are made of several (`swap`).
"""

from __future__ import annotations

from ownweights.student.examples import ExamplePlan, TokenRow
from ownweights.student.prepare import Counts
from ownweights.student.study import (
    MAX_PART_TOKENS,
    Lesson,
    Study,
    derive_epochs,
    encode_answer,
    train_examples,
)
from ownweights.student.swap import Swapper
from ownweights.student.trainer import TokenObjective


def sft_lesson(study: Study) -> Lesson:
    """The recorded answers, each token weighing the same."""
    return Lesson(TokenObjective(), *answers_plan(study))


def answers_plan(
    study: Study, window: int | None = None
) -> tuple[ExamplePlan, tuple[float, str], Counts]:
    """Batches of the train split's answers, how often and why, and what became of the examples."""
    options = study.options
    prepared = train_examples(study, window)
    rows = prepared.rows
    epochs = derive_epochs(rows, options)
    swapper = Swapper(prepared.examples if options.swap else [], seed=options.seed)

    def varied(index: int, epoch: int) -> TokenRow:
        """The row that an example has in an epoch: with values of other examples, or its own."""
        swapped = swapper.swapped(index, epoch)
        if swapped is None:
            return rows[index]
        return encode_answer(study.base, *swapped, window, turns=options.turns) or rows[index]

    plan = ExamplePlan(
        rows, epochs=epochs[0], rows_per_step=options.rows_per_step, max_tokens=MAX_PART_TOKENS,
        seed=options.seed, hard_frac=options.hard_frac,
        vary=varied if swapper else None,
    )  # fmt: skip
    return plan, epochs, prepared.counts
