"""The loss of soft-capped scores: judged by autograd on full logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ownweights.student import capped_loss
from ownweights.student.capped_loss import capped_token_loss
from ownweights.student.trainer import Batch, batch_loss
from tests.student.test_loss import CLOSE_ABS, CLOSE_REL, make_problem
from tests.tiny import tiny_model
from tests.variants import VARIANTS


@pytest.mark.parametrize("cap", [0.5, 3.0, 50.0])
@pytest.mark.parametrize("chunk", [7, 64])
def test_capped_token_loss_matches_full_logits(
    cap: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """training.md c.4: with soft-capping too, the gradient is autograd's on full scores."""
    monkeypatch.setattr(capped_loss, "CHUNK_POSITIONS", chunk)
    hidden, head, targets = make_problem(40)
    nats = torch.empty(40)
    found = capped_token_loss(hidden, head, targets=targets, total=7.0, cap=cap, nats=nats)
    found.backward()
    ours = [found.detach(), nats.sum() / 7.0, hidden.grad, head.grad]
    hidden, head, targets = make_problem(40)
    capped = cap * torch.tanh(hidden @ head.T / cap)
    expected = F.cross_entropy(capped, targets, reduction="sum") / 7.0
    expected.backward()
    theirs = [expected.detach(), expected.detach(), hidden.grad, head.grad]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine is not None and other is not None
        torch.testing.assert_close(mine, other, rtol=CLOSE_REL, atol=CLOSE_ABS)


def test_capped_token_loss_of_nothing_is_zero() -> None:
    hidden, head, targets = make_problem(0)
    found = capped_token_loss(hidden, head, targets=targets, total=0.0, cap=3.0)
    assert float(found.detach()) == 0.0


@pytest.mark.parametrize("is_training", [True, False])
def test_batch_loss_of_a_capped_network_is_that_of_its_logits(is_training: bool) -> None:
    model, tokens = tiny_model(**VARIANTS["gemma2"]), torch.arange(7, 27).view(2, 10)
    where, targets = torch.tensor([3, 8, 14]), torch.tensor([11, 5, 40])
    with torch.set_grad_enabled(is_training):
        found = batch_loss(model, Batch(tokens, where, targets), 3.0)
        logits = model.logits(model(tokens)).flatten(0, 1)[where]
    expected = F.cross_entropy(logits, targets)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=CLOSE_REL)
