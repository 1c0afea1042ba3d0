"""Distillation: at every trained token the student's distribution moves to a local teacher's.

    loss of a position = a · CE + (1 - a) · τ² · D(student, teacher), both softened by τ

    D = KL(t‖s)                                   divergence 0, forward
        KL(s‖t)                                   divergence 1, reverse
        β·KL(t‖m) + (1-β)·KL(s‖m), m = βt+(1-β)s  between them, the generalised JSD

τ² keeps the size of the gradient. The teacher reads the very ids that the student reads: its
tokenizer must be the student's, and where one model has more rows than the tokenizer has ids, both
are cut to the ids and normalised again (training.md c.53). Scores of both models exist for a few
hundred positions at a time. Gradients are closed forms (test_divergence_matches_autograd).

Source: Hinton et al. 2015, arXiv 1503.02531; Agarwal et al. 2023, arXiv 2306.13649 (JSD).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ownweights.model.transformer import Transformer
from ownweights.student.objective.chunks import kernel_loss, scores_of
from ownweights.student.objective.local_teacher import LocalTeacher, load_teacher
from ownweights.student.objective.sft import answers_plan
from ownweights.student.study import Lesson, Study, develop_rows, mean_loss
from ownweights.student.trainer import Batch, trained_states

FORWARD, REVERSE = 0.0, 1.0
CE_FRAC = 0.1


@dataclass(frozen=True, slots=True)
class Divergence:
    """How a student is compared with its teacher."""

    beta: float = FORWARD
    temperature: float = 1.0
    ce_frac: float = 0.0

    def of_scores(self, scores: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What each position costs, and the gradient of their sum by the student's scores.

        Shapes: scores and theirs (N, V), targets (N,) → (N,), (N, V)
        """
        tau, share = self.temperature, 1.0 - self.ce_frac
        log_s, log_t = (scores / tau).log_softmax(-1), (theirs / tau).log_softmax(-1)  # (N, V)
        nats, grad = _compare(self.beta, log_s, log_t)
        nats, grad = nats * (share * tau * tau), grad.mul_(share * tau)
        if self.ce_frac:
            log_p, target = scores.log_softmax(-1), targets[:, None]
            nats = nats - self.ce_frac * log_p.gather(1, target)[:, 0]
            grad.add_(log_p.exp(), alpha=self.ce_frac)
            grad.scatter_add_(1, target, torch.full_like(target, -self.ce_frac, dtype=grad.dtype))
        return nats, grad

    def to_json(self) -> dict[str, float]:
        """As it stands on the card."""
        return {
            "divergence": self.beta, "temperature": self.temperature, "ce_frac": self.ce_frac
        }  # fmt: skip


def _compare(beta: float, log_s: Tensor, log_t: Tensor) -> tuple[Tensor, Tensor]:
    """A divergence of each row, and its gradient by the scores that log_s is the log-softmax of."""
    if beta == FORWARD:
        t = log_t.exp()
        return (t * (log_t - log_s)).sum(-1), log_s.exp() - t
    s = log_s.exp()
    if beta == REVERSE:
        by_s = log_s - log_t  # up to a constant, which the softmax's gradient takes out
        nats = (s * by_s).sum(-1)
        return nats, s * (by_s - nats[:, None])
    t = log_t.exp()
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    by_s = (1.0 - beta) * (log_s - log_m)
    nats = beta * (t * (log_t - log_m)).sum(-1) + (s * by_s).sum(-1)
    return nats, s * (by_s - (s * by_s).sum(-1, keepdim=True))


@dataclass(frozen=True, slots=True)
class DistilObjective:
    """The loss above, of a student of any size, against one teacher."""

    teacher: LocalTeacher
    divergence: Divergence

    def weight(self, batch: Batch) -> int:
        return len(batch.targets)

    def loss(
        self, model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
    ) -> Tensor:
        hidden = trained_states(model, batch)  # (N, E)
        with torch.no_grad():
            theirs = trained_states(self.teacher.model, batch)  # (N, E')
        num = self.teacher.num_ids
        their_head, head = self.teacher.model.head_weight()[:num], model.head_weight()[:num]
        their_cap = self.teacher.model.logit_cap

        def kernel(rows: slice, scores: Tensor) -> tuple[Tensor, Tensor]:
            their_scores = scores_of(theirs[rows], their_head, their_cap).to(scores.dtype)
            return self.divergence.of_scores(scores, their_scores, batch.targets[rows])

        return kernel_loss(hidden, head, kernel=kernel, total=total, nats=nats, cap=model.logit_cap)


def distil_lesson(study: Study) -> Lesson:
    """The recorded answers, at each token the teacher's whole distribution."""
    options = study.options
    teacher = load_teacher(study.project, str(options.teacher), study.base)
    divergence = Divergence(
        FORWARD if options.divergence is None else float(options.divergence),
        1.0 if options.temperature is None else float(options.temperature),
        CE_FRAC if options.ce_frac is None else float(options.ce_frac),
    )
    plan, epochs, counts = answers_plan(study, teacher.window)
    objective = DistilObjective(teacher, divergence)
    return Lesson(
        objective, plan, epochs, counts,
        settings={**teacher.settings, **divergence.to_json()}, parents=teacher.parents,
        measure=partial(measure_develop, study, objective, teacher.window),
    )  # fmt: skip


def measure_develop(
    study: Study, objective: DistilObjective, window: int, model: Transformer
) -> Mapping[str, Any]:
    """The loss on develop's answers, per token."""
    found = mean_loss(model, develop_rows(study.base, study.dataset, window), objective)
    return {"develop_distil_loss": found}
