"""Distillation from an API's top logprobs: the loss over k + 1 outcomes, and a whole student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ownweights.core.errors import InputError
from ownweights.student.examples import pad_rows
from ownweights.student.objective.align import Known
from ownweights.student.objective.chunks import kernel_loss
from ownweights.student.objective.logprobs import (
    OutcomeObjective,
    known_outcomes,
    with_outcomes,
)
from ownweights.student.study import encode_examples, load_base
from ownweights.student.train import train_student
from ownweights.student.trainer import Batch, StepReport, batch_loss
from ownweights.traffic import Record
from tests.student.objective.steps import (
    assert_every_factor_moves,
    assert_nothing_trained_changes_nothing,
    assert_parts_equal_the_large_batch,
)
from tests.student.rows import empty_batch, make_rows
from tests.student.zoo import ANIMALS, QUICK, make_project, make_records
from tests.tiny import BASE_NAME, VOCAB_SIZE, tiny_model


def outcomes(batch: Batch, seed: int, *, most: int = 4) -> list[Known]:
    """For each trained position some random ids, the target among them, and their shares."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Known] = []
    for target in batch.targets.tolist():
        size = int(torch.randint(1, most + 1, (), generator=generator))
        ids = {target, *torch.randint(7, VOCAB_SIZE, (size - 1,), generator=generator).tolist()}
        shares = torch.rand(len(ids) + 1, generator=generator)
        shares /= shares.sum()
        found.append(dict(zip(sorted(ids), shares.tolist(), strict=False)))
    return found


def by_hand(scores: Tensor, known: Sequence[Known], targets: Tensor, ce_frac: float) -> Tensor:
    """The definition, one position at a time. Shapes: scores (N, V) → (N,)"""
    each: list[Tensor] = []
    for row, one, target in zip(scores.softmax(-1), known, targets.tolist(), strict=True):
        theirs = torch.tensor([*one.values()], dtype=scores.dtype)
        mine = row[list(one)]
        tail, rest = 1 - theirs.sum(), 1 - mine.sum()
        kl = (theirs * (theirs.log() - mine.log())).sum()
        if tail > 1e-6:
            kl = kl + tail * (tail.log() - rest.log())
        each.append((1 - ce_frac) * kl - ce_frac * row[target].log())
    return torch.stack(each)


@given(seed=st.integers(0, 2**31), ce_frac=st.sampled_from([0.0, 0.3, 1.0]))
def test_outcome_loss_matches_full_distributions(seed: int, ce_frac: float) -> None:
    batch = pad_rows(make_rows(2, seed))
    known = outcomes(batch, seed)
    told = with_outcomes(batch, known)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(
        len(known), VOCAB_SIZE, generator=generator, dtype=torch.float64, requires_grad=True
    )
    expected = by_hand(scores, known, batch.targets, ce_frac)
    (wanted,) = torch.autograd.grad(expected.sum(), scores)
    nats, grad = OutcomeObjective(ce_frac).of_scores(
        scores.detach().clone(), told.of_positions["told_ids"],
        told.of_positions["told_shares"].double(), batch.targets,
    )  # fmt: skip
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-6)


def test_outcome_loss_passes_gradcheck() -> None:
    ids, shares = (
        torch.tensor([[1, 2], [0, 0], [3, 4]]),
        torch.tensor([[0.5, 0.2], [1.0, 0.0], [0.1, 0.1]], dtype=torch.float64),
    )
    targets = torch.tensor([1, 0, 3])
    hidden = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    head = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    objective = OutcomeObjective(0.2)

    def loss(states: Tensor, weight: Tensor) -> Tensor:
        return kernel_loss(
            states, weight,
            kernel=lambda rows, s: objective.of_scores(s, ids[rows], shares[rows], targets[rows]),
            total=2.0,
        )  # fmt: skip

    assert torch.autograd.gradcheck(loss, (hidden, head))


def test_outcome_loss_of_sure_tokens_is_cross_entropy() -> None:
    batch = pad_rows(make_rows(4))
    told = with_outcomes(batch, [{target: 1.0} for target in batch.targets.tolist()])
    model = tiny_model(1)
    ours = OutcomeObjective().loss(model, told, 5.0)
    torch.testing.assert_close(ours, batch_loss(model, batch, 5.0), rtol=1e-5, atol=1e-6)


def test_outcome_loss_in_parts_equals_the_large_batch() -> None:
    """training.md c.1, c.2."""
    rows = make_rows(9, 3)

    def part(some: slice) -> Batch:
        batch = pad_rows(rows[some])
        ids = [{t: 0.6, (t + 1) % VOCAB_SIZE: 0.3} for t in batch.targets.tolist()]
        return with_outcomes(batch, ids)

    parts = [part(slice(0, 1)), part(slice(1, 4)), part(slice(4, 9))]
    assert_parts_equal_the_large_batch(OutcomeObjective(), part(slice(0, 9)), parts)


def test_outcome_loss_of_nothing_changes_nothing() -> None:
    """training.md c.3."""
    assert_nothing_trained_changes_nothing(OutcomeObjective(), with_outcomes(empty_batch(), []))


def test_outcome_loss_moves_every_factor() -> None:
    """training.md c.43."""
    batch = pad_rows(make_rows(4))
    assert_every_factor_moves(OutcomeObjective(), [with_outcomes(batch, outcomes(batch, 1))])


# --- a whole student


def told_records(*, unsure: float = 0.1, whole: bool = True) -> list[Record]:
    """The zoo's answers, told letter by letter (or as one token) with an alternative each."""
    records: list[Record] = []
    for record in make_records():
        answer = record.answer_text or ""
        tokens = list(answer) if whole else [answer]
        content: list[dict[str, Any]] = [
            {
                "token": token, "logprob": math.log(1 - unsure), "bytes": list(token.encode()),
                "top_logprobs": [
                    {"token": token, "logprob": math.log(1 - unsure), "bytes": None},
                    {"token": "z", "logprob": math.log(unsure / 2), "bytes": [122]},
                ],
            }
            for token in tokens
        ]  # fmt: skip
        assert record.response is not None
        choice = {**record.response["choices"][0], "logprobs": {"content": content}}
        records.append(replace(record, response={**record.response, "choices": [choice]}))
    return records


def test_logprobs_student_learns_the_teachers_doubt(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path, told_records(unsure=0.4))
    reports: list[StepReport] = []
    options = replace(QUICK, objective="logprobs", epochs=60, rank=16, hard_frac=1.0)
    made = train_student(dataset, project, options=options, on_step=reports.append)
    facts = made.card["facts"]
    assert facts["aligned_frac"] == 1.0
    assert facts["with_logprobs"] == dataset.counts["train"]
    assert facts["develop_logprobs_loss"] < 0.3 * reports[0].loss
    # it is as unsure as its teacher: cross-entropy stays above -log 0.6 on the letters
    letters = sum(len(animal) for animal in ANIMALS) / len(ANIMALS)
    sure = -math.log(0.6) * letters / (letters + 1)
    assert reports[-1].loss < 0.2 and facts["develop_loss"] > 0.9 * sure


def test_known_outcomes_counts_what_could_be_aligned(tmp_path: Path) -> None:
    """Tokens of whole words are cut otherwise than the base's bytes: plain cross-entropy there."""
    project, dataset = make_project(tmp_path, told_records(whole=False))
    base = load_base(project, BASE_NAME)
    made = encode_examples(base, dataset.examples("train"))
    known, share = known_outcomes(base, made.examples, made.rows)
    assert share == 0.0
    for row, one in zip(made.rows, known, strict=True):
        assert one == [{token: 1.0} for token in row.ids[row.num_prompt :].tolist()]


def test_logprobs_need_a_dataset_that_has_some(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    with pytest.raises(InputError, match="was recorded with its alternatives"):
        train_student(dataset, project, options=replace(QUICK, objective="logprobs"))


def test_divergence_of_known_outcomes_is_never_negative() -> None:
    batch = pad_rows(make_rows(3))
    known = outcomes(batch, 5)
    told = with_outcomes(batch, known)
    scores = torch.randn(len(known), VOCAB_SIZE)
    nats, _ = OutcomeObjective().of_scores(
        scores, told.of_positions["told_ids"], told.of_positions["told_shares"], batch.targets
    )
    assert (nats > -1e-6).all()
