"""Direct preference optimisation: of two answers to one request, the better one more, the other
less.

    loss of a pair = -log σ(β · (gain of chosen - gain of rejected)),  gain = log π - log reference

with sums, not means, over an answer's tokens. The reference is what the student starts from: the
base where the adapter is fresh (its B is zero), else the base with the adapter that is trained on.
Its logprobs are taken once, before the first step, from the first epoch's very batches, so that the
first step's loss is ln 2 and its margins are zero (training.md c.51;
test_first_step_of_a_warm_start_costs_ln_two).

Source: Rafailov et al. 2023, arXiv 2305.18290.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.core.artefact import appearing
from ownweights.core.errors import Ineligible, InputError
from ownweights.dataset.pairs import Pair
from ownweights.model.transformer import Transformer
from ownweights.student.examples import ExamplePlan, TokenRow, hash_rows, pad_rows
from ownweights.student.objective.chunks import token_nats
from ownweights.student.study import (
    MAX_PART_TOKENS,
    NUM_DEVELOP_ROWS,
    Base,
    Lesson,
    Study,
    count_rows,
    encode_answer,
    fixed_epochs,
    nothing_fits,
)
from ownweights.student.trainer import Batch, trained_states
from ownweights.weights.load import read_file
from ownweights.weights.save import write_tensors

BETA, EPOCHS = 0.1, 2.0
REFERENCE_NAME = "reference.safetensors"
RowPair = tuple[TokenRow, TokenRow]  # chosen, rejected


@dataclass(frozen=True, slots=True)
class PreferenceObjective:
    """The loss above; rows of a batch are chosen, rejected, chosen, rejected …"""

    beta: float = BETA

    def weight(self, batch: Batch) -> int:
        """Pairs of which anything is trained."""
        return int(_is_trained(batch).sum())

    def loss(
        self, model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
    ) -> Tensor:
        each = _nats(model, batch)  # (N,)
        if nats is not None:
            nats.copy_(each.detach())
        margins = self.margins(batch, each)[_is_trained(batch)]
        return F.softplus(-margins).sum() / max(total, 1.0)

    def margins(self, batch: Batch, nats: Tensor) -> Tensor:
        """By how much each pair is told apart better than by the reference.

        Shapes: nats (N,) of the trained tokens → (B / 2,)
        """
        gained = -row_sums(batch, nats) - batch.of_rows["reference"].to(nats.dtype)  # (B,)
        return self.beta * (gained[0::2] - gained[1::2])


class PairPlan(ExamplePlan):
    """Epochs over pairs: `rows_per_step` pairs a step, the two of a pair in one part."""

    def __init__(
        self, pairs: Sequence[RowPair], *, epochs: float, rows_per_step: int, max_tokens: int,
        seed: int,
    ) -> None:  # fmt: skip
        longest = [max(pair, key=lambda row: len(row.ids)) for pair in pairs]
        super().__init__(
            longest, epochs=epochs, rows_per_step=rows_per_step, max_tokens=max_tokens // 2,
            seed=seed,
        )  # fmt: skip
        self.pairs = list(pairs)
        self.reference = torch.zeros(len(pairs), 2)  # logprobs of chosen and rejected

    def batches(self, step: int) -> list[Batch]:
        """The parts of one step, each within the token budget."""
        return [self._batch(part) for part in self._parts(step)]

    def observe(self, step: int, nats: Tensor) -> None:
        """Every epoch visits every pair, whatever it cost."""

    def fill_reference(self, model: Transformer) -> None:
        """Take the model's logprobs as the reference's, over the first epoch's own batches."""
        for step in range(self.steps_per_epoch):
            for part in self._parts(step):
                batch = self._batch(part)
                with torch.no_grad():
                    nats = _nats(model, batch)
                self.reference[part] = -row_sums(batch, nats).float().view(-1, 2)

    def _batch(self, part: Sequence[int]) -> Batch:
        batch = pad_rows([row for index in part for row in self.pairs[index]])
        return replace(
            batch, of_rows={"reference": self.reference[list(part)].flatten()}, rows_together=2
        )


def dpo_lesson(study: Study) -> Lesson:
    """The preferences of the study's train split.

    Raises: InputError when there are none
    """
    options = study.options
    by_split = {
        split: [pair for pair in study.materials.pairs if pair.split == split]
        for split in ("train", "develop")
    }
    if not by_split["train"]:
        raise InputError(
            f"there is no pair of answers to learn from among requests of dataset"
            f" {study.dataset.id}'s train split",
            hint="send demonstrations and ratings to /v1/feedback, or give a file of pairs",
        )
    rows = _encode(study.base, by_split["train"])
    if not rows:
        raise nothing_fits(study, len(by_split["train"]))
    epochs = fixed_epochs(options, EPOCHS, f"{EPOCHS:g} visits to every pair")
    plan = PairPlan(
        rows, epochs=epochs[0], rows_per_step=options.rows_per_step, max_tokens=MAX_PART_TOKENS,
        seed=options.seed,
    )  # fmt: skip
    beta = BETA if options.dpo_beta is None else float(options.dpo_beta)
    objective = PreferenceObjective(beta)
    both = [row for pair in rows for row in pair]
    settings = {"dpo_beta": beta, "pairs_sha256": hash_rows(both)}
    sources = [pair.source for pair in by_split["train"]]
    facts = {"pairs": {name: sources.count(name) for name in sorted(set(sources))}}
    develop = _encode(study.base, by_split["develop"][: NUM_DEVELOP_ROWS // 2])
    measured = _DevelopPairs(objective, develop)
    counts = count_rows(plan.rows, num_examples=len(by_split["train"]))
    return Lesson(
        objective, plan, epochs, counts, settings=settings, facts=facts,
        prepare=partial(_prepare, plan, measured), measure=measured.measure,
    )  # fmt: skip


class _DevelopPairs:
    """Pairs of develop: how many are told apart rightly, before and after."""

    def __init__(self, objective: PreferenceObjective, pairs: Sequence[RowPair]) -> None:
        self.objective = objective
        self.plan = None
        if pairs:
            self.plan = PairPlan(
                pairs, epochs=1, rows_per_step=32, max_tokens=MAX_PART_TOKENS, seed=0
            )

    @torch.no_grad()
    def measure(self, model: Transformer) -> Mapping[str, Any]:
        """Mean loss and margin, and the share of pairs with a positive margin."""
        if self.plan is None:
            return {"develop_pairs": 0}
        found: list[Tensor] = []
        for step in range(self.plan.num_steps):
            for batch in self.plan.batches(step):
                nats = _nats(model, batch)
                found.append(self.objective.margins(batch, nats))
        margins = torch.cat(found)
        return {
            "develop_pairs": len(margins),
            "develop_pair_loss": round(float(F.softplus(-margins).mean()), 5),
            "develop_margin": round(float(margins.mean()), 5),
            "develop_pair_accuracy": round(float((margins > 0).float().mean()), 4),
        }


def _nats(model: Transformer, batch: Batch) -> Tensor:
    """What each trained token costs. Shapes: → (N,)"""
    states, head = trained_states(model, batch), model.head_weight()
    return token_nats(states, head, batch.targets, cap=model.logit_cap)


def row_sums(batch: Batch, values: Tensor) -> Tensor:
    """The sum over each row's trained positions. Shapes: values (N,) → (B,)"""
    num_rows, width = batch.tokens.shape
    return values.new_zeros(num_rows).index_add(0, batch.where // width, values)


def _is_trained(batch: Batch) -> Tensor:
    """Which pairs have trained tokens. Shapes: → (B / 2,) bool"""
    counts = row_sums(batch, torch.ones(len(batch.targets)))
    return (counts[0::2] + counts[1::2]) > 0


def _encode(base: Base, pairs: Sequence[Pair]) -> list[RowPair]:
    """The pairs that the template can write and of which both answers fit the base's window."""
    rows: list[RowPair] = []
    for pair in pairs:
        try:
            chosen = encode_answer(base, pair.messages, pair.chosen)
            rejected = encode_answer(base, pair.messages, pair.rejected)
        except Ineligible:  # the template refuses the messages
            continue
        if chosen is not None and rejected is not None:
            rows.append((chosen, rejected))
    return rows


def _prepare(plan: PairPlan, develop: _DevelopPairs, model: Transformer, folder: Path) -> None:
    """Reference logprobs, computed once for a run, and kept beside its checkpoint."""
    path = folder / REFERENCE_NAME
    plans = {"train": plan, **({} if develop.plan is None else {"develop": develop.plan})}
    if path.is_file():
        kept = read_file(path)
        if {n: t.shape for n, t in kept.items()} == {
            n: p.reference.shape for n, p in plans.items()
        }:
            for name, one in plans.items():
                one.reference.copy_(kept[name])
            return
    for one in plans.values():
        one.fill_reference(model)
    folder.mkdir(parents=True, exist_ok=True)
    with appearing(path) as draft:
        write_tensors({name: one.reference for name, one in plans.items()}, draft)
