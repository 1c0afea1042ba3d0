"""One training step over given parts, and what it gave: how every objective is put to the same
laws (training.md c.1, 2, 3, 43)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ownweights.model.transformer import Transformer
from ownweights.student.trainer import Batch, Objective, Recipe, StepReport, Trainer
from tests.student.rows import SMALL, ListPlan
from tests.tiny import LORA, tiny_model, with_adapter

NO_CLIP = Recipe(1e-2, max_grad_norm=1e9)
# gradients of one batch summed in parts: float32 rounding of the sums
CLOSE_REL, CLOSE_ABS = 2e-4, 2e-6


def step_over(
    objective: Objective, parts: Sequence[Batch], model: Transformer | None = None
) -> tuple[StepReport, dict[str, Tensor], dict[str, Tensor]]:
    """The report of one step, the gradients it took, and the weights after it."""
    model = model or tiny_model(1, **SMALL)
    trainer = Trainer(model, ListPlan([parts]), recipe=NO_CLIP, run_id="r", objective=objective)
    taken: dict[str, Tensor] = {}
    for name, parameter in trainer.parameters.items():
        taken[name] = torch.zeros_like(parameter)
    total = sum(objective.weight(part) for part in parts)
    for part in parts:
        loss = objective.loss(model, part, total)
        grads = torch.autograd.grad(loss, list(trainer.parameters.values()), allow_unused=True)
        for name, grad in zip(taken, grads, strict=True):
            taken[name] += 0 if grad is None else grad
    report = trainer.train_step()
    return report, taken, {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_parts_equal_the_large_batch(
    objective: Objective, whole: Batch, split: Sequence[Batch]
) -> None:
    """Loss and gradients do not depend on how a step is cut into parts."""
    (one, large, _), (other, summed, _) = (step_over(objective, p) for p in ([whole], split))
    assert abs(one.loss - other.loss) <= 1e-4 * max(1.0, abs(one.loss))
    assert one.num_trained == other.num_trained
    for name, grad in large.items():
        torch.testing.assert_close(summed[name], grad, rtol=CLOSE_REL, atol=CLOSE_ABS)


def assert_nothing_trained_changes_nothing(objective: Objective, empty: Batch) -> None:
    """A step without trained tokens costs a finite zero and moves no weight."""
    model = tiny_model(1, **SMALL)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report, _, after = step_over(objective, [empty], model)
    assert report.loss == 0.0 and report.num_trained == 0
    assert all(torch.equal(before[name], after[name]) for name in before)


def assert_every_factor_moves(objective: Objective, batches: Sequence[Batch]) -> None:
    """Ten steps move every trainable tensor of an adapter."""
    model = with_adapter(tiny_model(1, **SMALL), 3, LORA)
    trainer = Trainer(
        model, ListPlan([batches] * 10), recipe=NO_CLIP, run_id="r", objective=objective
    )
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    for _ in trainer:
        pass
    assert [name for name, p in trainer.parameters.items() if torch.equal(before[name], p)] == []
