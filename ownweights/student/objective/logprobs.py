"""Distillation from a rented teacher: the top log-probabilities that its API told, and a tail.

    loss of a position = KL(teacher‖student) over k + 1 outcomes: the k tokens told, and "another"

The student's chance of "another" is what its softmax leaves to all other tokens. Where nothing is
known (our token is cut otherwise, or ends the turn), the answer's own token is the one outcome and
the loss is plain cross-entropy. The gradient is the softmax minus a target distribution: what was
told at the told tokens, and the tail spread as the student spreads it
(test_outcome_loss_matches_full_distributions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownweights.core.errors import InputError
from ownweights.dataset.example import Example
from ownweights.model.transformer import Transformer
from ownweights.student.examples import ExamplePlan, TokenRow, pad_rows
from ownweights.student.objective.align import Known, align, vocabulary_bytes
from ownweights.student.objective.chunks import kernel_loss
from ownweights.student.study import (
    MAX_PART_TOKENS,
    NUM_DEVELOP_ROWS,
    Base,
    Lesson,
    Study,
    derive_epochs,
    encode_examples,
    train_examples,
)
from ownweights.student.trainer import Batch, trained_states

_TINY = 1e-7  # a tail below this is rounding of probabilities that sum to one


@dataclass(frozen=True, slots=True)
class OutcomeObjective:
    """The loss above, mixed with a share of plain cross-entropy on the answer's own tokens."""

    ce_frac: float = 0.0

    def weight(self, batch: Batch) -> int:
        return len(batch.targets)

    def loss(
        self, model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
    ) -> Tensor:
        ids, shares = batch.of_positions["told_ids"], batch.of_positions["told_shares"]

        def kernel(rows: slice, scores: Tensor) -> tuple[Tensor, Tensor]:
            return self.of_scores(scores, ids[rows], shares[rows], batch.targets[rows])

        hidden = trained_states(model, batch)
        head, cap = model.head_weight(), model.logit_cap
        return kernel_loss(hidden, head, kernel=kernel, total=total, nats=nats, cap=cap)

    def of_scores(
        self, scores: Tensor, ids: Tensor, shares: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each position costs, and the gradient of their sum by the scores.

        Shapes: scores (N, V), ids and shares (N, k), targets (N,) → (N,), (N, V)
        """
        log_p = scores.log_softmax(-1)  # (N, V)
        shares = shares.to(scores.dtype)
        log_told = log_p.gather(1, ids)  # (N, k)
        others = log_p.scatter(1, ids, -torch.inf)  # (N, V)
        tail = (1.0 - shares.sum(-1)).clamp_min(0.0)  # (N,)
        tail = torch.where(tail > _TINY, tail, 0.0)
        nats = _kl(shares, log_told).sum(-1) + _kl(tail, others.logsumexp(-1))
        ce = -log_p.gather(1, targets[:, None])  # (N, 1)
        aim = others.softmax(-1).mul_(tail[:, None])  # (N, V), the target distribution
        aim.scatter_add_(1, ids, shares)
        aim.mul_(1.0 - self.ce_frac)
        aim.scatter_add_(1, targets[:, None], torch.full_like(ce, self.ce_frac))
        return (1.0 - self.ce_frac) * nats + self.ce_frac * ce[:, 0], log_p.exp_().sub_(aim)


class OutcomePlan(ExamplePlan):
    """Epochs over examples with what is known at each of their trained tokens."""

    def __init__(self, rows: Sequence[TokenRow], known: Sequence[list[Known]], **how: Any) -> None:
        super().__init__(rows, **how)
        self.known = list(known)

    def batches(self, step: int) -> list[Batch]:
        """The parts of one step, each within the token budget."""
        return [
            with_outcomes(
                pad_rows([self.rows[i] for i in part]), [o for i in part for o in self.known[i]]
            )
            for part in self._parts(step)
        ]


def logprobs_lesson(study: Study) -> Lesson:
    """The recorded answers, with what their teacher told of its alternatives.

    Raises: InputError when it told nothing
    """
    options = study.options
    prepared = train_examples(study)
    examples, rows = prepared.examples, prepared.rows
    if not any(example.logprobs for example in examples):
        raise InputError(
            f"no answer of dataset {study.dataset.id}'s train split was recorded with its"
            " alternatives",
            hint="ask the teacher with `logprobs: true` and `top_logprobs: 20`, then build the"
            " dataset again",
        )
    known, shared = known_outcomes(study.base, examples, rows)
    epochs = derive_epochs(rows, options)
    plan = OutcomePlan(
        rows, known, epochs=epochs[0], rows_per_step=options.rows_per_step,
        max_tokens=MAX_PART_TOKENS, seed=options.seed, hard_frac=options.hard_frac,
    )  # fmt: skip
    ce_frac = 0.0 if options.ce_frac is None else float(options.ce_frac)
    objective = OutcomeObjective(ce_frac)
    return Lesson(
        objective, plan, epochs, prepared.counts,
        settings={"ce_frac": ce_frac},
        facts={
            "with_logprobs": sum(bool(example.logprobs) for example in examples),
            "aligned_frac": round(shared, 4),
        },
        measure=partial(_measure, study, objective),
    )  # fmt: skip


def known_outcomes(
    base: Base, examples: Sequence[Example], rows: Sequence[TokenRow]
) -> tuple[list[list[Known]], float]:
    """What is known at each trained token of each row, and the share of the answers' tokens at
    which the teacher's word is used. Elsewhere the answer's own token is sure."""
    tokenizer = base.tokenizer
    vocabulary = vocabulary_bytes(tokenizer)
    known: list[list[Known]] = []
    num_told, num_tokens = 0, 0
    for example, row in zip(examples, rows, strict=True):
        ids = row.ids[row.num_prompt :].tolist()
        said = align(tokenizer, vocabulary, ids[:-1], example.logprobs)
        num_told += sum(one is not None for one in said)
        num_tokens += len(said)
        pairs = zip([*said, None], ids, strict=True)
        known.append([one or {token_id: 1.0} for one, token_id in pairs])
    return known, num_told / max(1, num_tokens)


def with_outcomes(batch: Batch, known: Sequence[Known]) -> Batch:
    """The batch with what is known at each of its trained positions; where that is less than
    elsewhere, its first outcome is repeated with no share."""
    most = max((len(one) for one in known), default=1)
    ids = np.zeros((len(known), most), np.int64)
    shares = np.zeros((len(known), most), np.float32)
    for row, one in enumerate(known):
        ids[row] = next(iter(one))
        ids[row, : len(one)] = list(one)
        shares[row, : len(one)] = list(one.values())
    told = {"told_ids": torch.from_numpy(ids), "told_shares": torch.from_numpy(shares)}
    return replace(batch, of_positions=told)


def _measure(study: Study, objective: OutcomeObjective, model: Transformer) -> dict[str, Any]:
    """The loss on develop, per token, where its answers were told of too."""
    found = study.dataset.examples("develop")[:NUM_DEVELOP_ROWS]
    prepared = encode_examples(study.base, found)
    examples, rows = prepared.examples, prepared.rows
    if not rows:
        return {"develop_logprobs_loss": None}
    known, _ = known_outcomes(study.base, examples, rows)
    plan = OutcomePlan(
        rows, known, epochs=1, rows_per_step=64, max_tokens=MAX_PART_TOKENS, seed=0
    )  # fmt: skip
    total, num = 0.0, 0
    with torch.no_grad():
        for step in range(plan.num_steps):
            for part in plan.batches(step):
                total += float(objective.loss(model, part, 1.0))
                num += len(part.targets)
    return {"develop_logprobs_loss": round(total / num, 5)}


def _kl(share: Tensor, log_q: Tensor) -> Tensor:
    """share · (log share - log q), and 0 of no share."""
    is_some = share > 0
    safe = torch.where(is_some, share, 1.0)
    return torch.where(is_some, share * (safe.log() - log_q), 0.0)
