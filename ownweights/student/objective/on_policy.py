"""On-policy distillation: the student answers, and a local teacher judges each of its tokens.

Each step takes prompts of the train split, lets the student continue them (through any
`core.Sampler`; the naive `generate` where none is given), and minimises the reverse KL to the
teacher over the whole vocabulary at the sampled tokens. Trained are the sampled ids themselves,
never text that was tokenised again (training.md c.55; test_on_policy_trains_the_sampled_ids). What
is sampled depends on the weights, the seed and the step, so that a resumed run samples the same.

Source: Agarwal et al. 2023, arXiv 2306.13649; Lu et al. 2025, thinkingmachines.ai.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ownweights.core.completer import Sampler
from ownweights.core.errors import Ineligible
from ownweights.model.generate import NaiveSampler
from ownweights.student.examples import ExamplePlan, TokenRow, pad_rows
from ownweights.student.objective.distil import REVERSE, DistilObjective, Divergence
from ownweights.student.objective.local_teacher import load_teacher
from ownweights.student.study import (
    MAX_PART_TOKENS,
    Lesson,
    Study,
    count_rows,
    fixed_epochs,
    nothing_fits,
)
from ownweights.student.trainer import Batch
from ownweights.weights.student import assemble

EPOCHS, MAX_ANSWER_TOKENS = 1.0, 256
_SEEDS_A_STEP = 1 << 20  # more than prompts in a step


class SampledPlan(ExamplePlan):
    """Epochs over prompts, each continued anew by whatever the student is by then."""

    def __init__(
        self, prompts: Sequence[TokenRow], sampler: Sampler, *, max_answer_tokens: int,
        window: int, **how: Any,
    ) -> None:  # fmt: skip
        super().__init__(prompts, **how)
        self.sampler, self.max_answer_tokens, self.window = sampler, max_answer_tokens, window

    def batches(self, step: int) -> list[Batch]:
        """The prompts of a step with their sampled answers, in parts within the token budget."""
        prompts = [self.rows[i].ids for part in self._parts(step) for i in part]
        answers = self.sampler.sample(
            prompts, max_tokens=self.max_answer_tokens, temperature=1.0,
            seed=self.seed + step * _SEEDS_A_STEP,
        )  # fmt: skip
        rows = [
            TokenRow(np.concatenate([prompt, ids])[: self.window].astype(np.int32), len(prompt))
            for prompt, (ids, _) in zip(prompts, answers, strict=True)
        ]
        return [pad_rows(part) for part in _within(rows, self.max_tokens)]

    def observe(self, step: int, nats: Tensor) -> None:
        """Every epoch visits every prompt, whatever it cost."""


def on_policy_lesson(study: Study) -> Lesson:
    """The train split's prompts; answers are the student's own."""
    options, base = study.options, study.base
    teacher = load_teacher(study.project, str(options.teacher), base)
    window = min(base.window, teacher.window)
    examples = study.dataset.examples("train")
    prompts: list[TokenRow] = []
    for example in examples:
        try:
            ids = base.template.render_prompt(example.messages)
        except Ineligible:
            continue
        if len(ids) < window:
            prompts.append(TokenRow(np.array(ids, np.int32), len(ids)))
    if not prompts:
        raise nothing_fits(study, len(examples), window)
    room = options.max_answer_tokens or MAX_ANSWER_TOKENS
    divergence = Divergence(
        REVERSE if options.divergence is None else float(options.divergence),
        1.0 if options.temperature is None else float(options.temperature),
    )
    ends = assemble(base.id, base.model, base.path).end_ids  # those that serving stops at
    epochs = fixed_epochs(options, EPOCHS, f"{EPOCHS:g} visit to every prompt")
    plan = SampledPlan(
        prompts, study.materials.sampler or NaiveSampler(base.model, ends), max_answer_tokens=room,
        window=window, epochs=epochs[0], rows_per_step=options.rows_per_step,
        max_tokens=MAX_PART_TOKENS, seed=options.seed,
    )  # fmt: skip
    settings = {
        **teacher.settings, "divergence": divergence.beta, "temperature": divergence.temperature,
        "max_answer_tokens": room,
    }  # fmt: skip
    return Lesson(
        DistilObjective(teacher, divergence), plan, epochs,
        count_rows(prompts, num_examples=len(examples)),
        settings=settings, parents=teacher.parents,
    )  # fmt: skip


def _within(rows: Sequence[TokenRow], max_tokens: int) -> list[list[TokenRow]]:
    """Rows in parts of at most so many padded tokens, the longest first."""
    parts: list[list[TokenRow]] = [[]]
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        longest = len(parts[-1][0].ids) if parts[-1] else 0
        if parts[-1] and longest * (len(parts[-1]) + 1) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts
