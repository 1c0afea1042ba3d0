"""Distillation from a local teacher: divergences against torch, vocabularies, a whole student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Raw
from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.examples import pad_rows
from ownweights.student.loss import token_loss
from ownweights.student.objective import chunks as chunks_module
from ownweights.student.objective.distil import DistilObjective, Divergence
from ownweights.student.objective.local_teacher import LocalTeacher, check_same_words
from ownweights.student.train import train_student
from ownweights.student.trainer import StepReport
from tests.student.objective.steps import (
    assert_every_factor_moves,
    assert_nothing_trained_changes_nothing,
    assert_parts_equal_the_large_batch,
)
from tests.student.rows import SMALL, empty_batch, make_rows
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME, VOCAB_SIZE, make_base, tiny_model

WIDTHS = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


def by_torch(how: Divergence, scores: Tensor, theirs: Tensor, targets: Tensor) -> Tensor:
    """The same, by torch's own KL on full distributions."""
    log_s = F.log_softmax(scores / how.temperature, -1)
    log_t = F.log_softmax(theirs / how.temperature, -1)
    if how.beta == 0:
        each = F.kl_div(log_s, log_t, log_target=True, reduction="none").sum(-1)
    elif how.beta == 1:
        each = F.kl_div(log_t, log_s, log_target=True, reduction="none").sum(-1)
    else:
        log_m = (how.beta * log_t.exp() + (1 - how.beta) * log_s.exp()).log()
        each = how.beta * F.kl_div(log_m, log_t, log_target=True, reduction="none").sum(-1)
        each = each + (1 - how.beta) * F.kl_div(
            log_m, log_s, log_target=True, reduction="none"
        ).sum(-1)
    ce = F.cross_entropy(scores, targets, reduction="none")
    return how.ce_frac * ce + (1 - how.ce_frac) * how.temperature**2 * each


@given(
    beta=WIDTHS, temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    ce_frac=st.sampled_from([0.0, 0.1, 1.0]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_divergence_matches_autograd(
    beta: float, temperature: float, ce_frac: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores, theirs = (
        torch.randn(6, 11, generator=generator, dtype=torch.float64) * 3 for _ in range(2)
    )
    targets = torch.randint(11, (6,), generator=generator)
    how = Divergence(beta, temperature, ce_frac)
    leaf = scores.clone().requires_grad_()
    expected = by_torch(how, leaf, theirs, targets)
    (wanted,) = torch.autograd.grad(expected.sum(), leaf)
    nats, grad = how.of_scores(scores.clone(), theirs.clone(), targets)
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_divergence_from_oneself_is_nothing(beta: float) -> None:
    scores = torch.randn(5, 9, dtype=torch.float64)
    nats, grad = Divergence(beta).of_scores(scores, scores, torch.zeros(5, dtype=torch.long))
    assert nats.abs().max() < 1e-12 and grad.abs().max() < 1e-12


def teacher_of(seed: int = 7, num_ids: int = VOCAB_SIZE, **changes: int) -> LocalTeacher:
    model = tiny_model(seed, **changes).requires_grad_(False)
    return LocalTeacher("t", "t", "base", model, num_ids)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rows", [1, 4, 1024])
def test_distil_loss_matches_full_logits(
    beta: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """training.md c.53: a teacher with more rows, a student with fewer, cut to the tokenizer's."""
    monkeypatch.setattr(chunks_module, "CHUNK_POSITIONS", rows)
    teacher = teacher_of(num_ids=VOCAB_SIZE - 3, vocab_size=VOCAB_SIZE + 9)
    how = Divergence(beta, 2.0, 0.2)
    model, batch = tiny_model(1), pad_rows(make_rows(4))
    batch.targets.clamp_(max=VOCAB_SIZE - 4)
    loss = DistilObjective(teacher, how).loss(model, batch, 9.0)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    other, num = tiny_model(1), teacher.num_ids
    scores = other.logits(other(batch.tokens)).flatten(0, 1)[batch.where][:, :num]
    theirs = teacher.model.logits(teacher.model(batch.tokens)).flatten(0, 1)[batch.where][:, :num]
    expected = by_torch(how, scores, theirs, batch.targets).sum() / 9.0
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, parameter in other.named_parameters():
        grad = grads[name]
        assert grad is not None and parameter.grad is not None
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_distil_of_all_cross_entropy_is_token_loss() -> None:
    teacher, model, batch = teacher_of(), tiny_model(1), pad_rows(make_rows(4))
    loss = DistilObjective(teacher, Divergence(0.0, 1.0, 1.0)).loss(model, batch, 5.0)
    hidden = model(batch.tokens).flatten(0, 1)[batch.where]
    expected = token_loss(hidden, model.model.embed_tokens.weight, batch.targets, 5.0)
    torch.testing.assert_close(loss, expected)


def test_distil_passes_gradcheck() -> None:
    how = Divergence(0.4, 1.5, 0.1)
    theirs = torch.randn(4, 7, dtype=torch.float64)
    targets = torch.tensor([0, 3, 6, 2])
    hidden = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    head = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)

    def loss(states: Tensor, weight: Tensor) -> Tensor:
        return chunks_module.kernel_loss(
            states,
            weight,
            kernel=lambda rows, s: how.of_scores(s, theirs[rows], targets[rows]),
            total=3.0,
        )

    assert torch.autograd.gradcheck(loss, (hidden, head))


def test_distil_in_parts_equals_the_large_batch() -> None:
    """training.md c.1, c.2."""
    rows = make_rows(9, 3)
    parts = [pad_rows(rows[:1]), pad_rows(rows[1:4]), pad_rows(rows[4:])]
    objective = DistilObjective(teacher_of(**SMALL), Divergence(0.5))
    assert_parts_equal_the_large_batch(objective, pad_rows(rows), parts)


def test_distil_of_nothing_changes_nothing() -> None:
    """training.md c.3."""
    objective = DistilObjective(teacher_of(**SMALL), Divergence())
    assert_nothing_trained_changes_nothing(objective, empty_batch())


def test_distil_moves_every_factor() -> None:
    """training.md c.43."""
    objective = DistilObjective(teacher_of(**SMALL), Divergence(1.0))
    assert_every_factor_moves(objective, [pad_rows(make_rows(4))])


# --- which teachers fit


def test_teacher_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """training.md c.52: the first id that is another text is named."""
    make_base(tmp_path / "mine")
    make_base(tmp_path / "theirs")
    raw = Raw.from_file(str(tmp_path / "theirs" / "tokenizer.json")).to_str()
    changed = raw.replace('"!":7', '"!":8', 1).replace('"\\"":8', '"\\"":7', 1)
    assert changed != raw
    (tmp_path / "theirs" / "tokenizer.json").write_text(changed, "utf-8")
    ours, theirs = (Tokenizer.load(tmp_path / name) for name in ("mine", "theirs"))
    assert check_same_words(ours, ours, "t") == VOCAB_SIZE
    with pytest.raises(ModelError) as caught:
        check_same_words(ours, theirs, "t")
    assert caught.value.what == (
        "teacher 't' has another tokenizer: id 7 is '\"', the student's is '!'"
    )


def test_distil_student_comes_near_its_teacher(tmp_path: Path) -> None:
    """A larger teacher with more rows than the tokenizer has ids (c.53), end to end."""
    project, dataset = make_project(tmp_path)
    big = tmp_path / "big"
    make_base(big, 5, hidden_size=64, head_dim=16, vocab_size=VOCAB_SIZE + 64)
    reports: list[StepReport] = []
    options = replace(
        QUICK, objective="distil", teacher="big", epochs=12, rank=16, ce_frac=0.0, swap=False
    )
    made = train_student(dataset, project, options=options, on_step=reports.append)
    assert sum(r.loss for r in reports[-5:]) < 0.7 * sum(r.loss for r in reports[:5])
    identity = made.card["identity"]
    assert (identity["objective"], identity["divergence"]) == ("distil", 0.0)
    assert made.card["parents"]["teacher_base"] == identity["teacher"]
    assert made.card["facts"]["develop_distil_loss"] < reports[0].loss


def test_distil_from_a_student_names_it(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    teacher = train_student(dataset, project, options=QUICK)
    options = replace(QUICK, objective="distil", teacher=teacher.id, divergence=1.0, epochs=0.5)
    made = train_student(dataset, project, options=options)
    assert made.card["parents"]["teacher_student"] == teacher.id
    assert made.card["identity"]["teacher_name"] == teacher.id
    assert made.card["identity"]["base_name"] == BASE_NAME
