"""Kernels that never hold all scores: judged by autograd on full logits, and by finite steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ownweights.student.objective import chunks as module
from ownweights.student.objective.chunks import chunks, kernel_loss, token_nats
from tests.student.test_loss import make_problem


@given(
    count=st.integers(0, 40), chunk=st.integers(1, 41), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_token_nats_match_full_logits_under_any_weights(count: int, chunk: int, seed: int) -> None:
    """training.md c.4: each position's gradient is scaled by its own upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, generator=generator, dtype=torch.float64)
    found: list[list[Tensor]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_POSITIONS", chunk)
        for ours in (True, False):
            hidden, head, targets = make_problem(count, seed, torch.float64)
            each = (
                token_nats(hidden, head, targets)
                if ours
                else F.cross_entropy(hidden @ head.T, targets, reduction="none")
            )
            (each * weights).sum().backward()
            assert hidden.grad is not None and head.grad is not None
            found.append([each.detach(), hidden.grad, head.grad])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_token_nats_pass_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 3)
    hidden, head, targets = make_problem(7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: token_nats(h, w, targets), (hidden, head))


@given(num=st.integers(0, 3000), vocab=st.integers(1, 1 << 26))
def test_chunks_always_tile_and_stay_small(num: int, vocab: int) -> None:
    seen = 0
    for rows in chunks(num, vocab):
        assert rows.start == seen
        size = rows.stop - rows.start
        assert 0 < size <= module.CHUNK_POSITIONS
        assert size == 1 or size * vocab <= module.CHUNK_SCORES
        seen = rows.stop
    assert seen == num


def test_kernel_loss_of_nothing_is_zero() -> None:
    hidden = torch.empty(0, 12, requires_grad=True)

    def kernel(rows: slice, scores: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("there is nothing to score")

    value = kernel_loss(hidden, torch.ones(17, 12), kernel=kernel, total=0)
    value.backward()
    assert float(value.detach()) == 0.0
    assert hidden.grad is not None and hidden.grad.shape == (0, 12)
