"""The loss that never holds all scores: judged by autograd on full logits, and by finite steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ownweights.model.transformer import Transformer
from ownweights.student import loss as loss_module
from ownweights.student.loss import CHUNK_POSITIONS, token_loss
from ownweights.student.trainer import Batch, batch_loss
from tests.tiny import tiny_model

# float32 sums in another order: a few rounding errors of 1.2e-7 on values near one
CLOSE_REL, CLOSE_ABS = 2e-5, 2e-6
WIDTH, VOCABULARY = 12, 17
DRIFT = 0.01


def reference_loss(hidden: Tensor, head: Tensor, targets: Tensor, total: float) -> Tensor:
    """Cross-entropy on the full scores, by torch."""
    return F.cross_entropy(hidden @ head.T, targets, reduction="sum") / total


def make_problem(
    count: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Random hidden states, head and targets; the first two want gradients."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, WIDTH, generator=generator, dtype=dtype)
    head = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    targets = torch.randint(VOCABULARY, (count,), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets


def both(
    problem: Callable[[], tuple[Tensor, Tensor, Tensor]], total: float, scale: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """(loss, hidden's gradient, head's gradient) by us and by torch."""
    found: list[list[Tensor]] = []
    for function in (token_loss, reference_loss):
        hidden, head, targets = problem()
        value = function(hidden, head, targets, total) * scale
        value.backward()
        assert hidden.grad is not None and head.grad is not None
        found.append([value.detach(), hidden.grad, head.grad])
    return found[0], found[1]


def assert_close(ours: list[Tensor], theirs: list[Tensor], rel: float, absolute: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=rel, atol=absolute)


@given(
    count=st.integers(1, 40), chunk=st.integers(1, 41), total=st.integers(1, 90),
    seed=st.integers(0, 2**31), scale=st.sampled_from([1.0, -0.5, 3.0]),
)  # fmt: skip
def test_token_loss_matches_full_logits(
    count: int, chunk: int, total: int, seed: int, scale: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "CHUNK_POSITIONS", chunk)
        problem = partial(make_problem, count, seed, torch.float64)  # where rounding is no excuse
        assert_close(*both(problem, float(total), scale), rel=1e-10, absolute=1e-12)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_token_loss_matches_full_logits_at_the_chunk_boundary(extra: int) -> None:
    problem = partial(make_problem, CHUNK_POSITIONS + extra)
    assert_close(*both(problem, 1000.0), rel=CLOSE_REL, absolute=CLOSE_ABS)


def test_token_loss_passes_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_POSITIONS", 3)
    hidden, head, targets = make_problem(7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: token_loss(h, w, targets, 5.0), (hidden, head))


def test_token_loss_stays_finite_at_extreme_scores() -> None:
    hidden = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    value = token_loss(hidden, head, torch.tensor([0, 0]), 2.0)
    value.backward()
    assert float(value.detach()) == pytest.approx(1e4)  # one sure and right, one sure and wrong
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, torch.tensor([[0.0, 0.0], [-1.0, 0.0]]))


def test_token_loss_does_not_touch_its_inputs() -> None:
    hidden, head, targets = make_problem(5)
    before = [value.detach().clone() for value in (hidden, head, targets)]
    token_loss(hidden, head, targets, 5.0).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (hidden, head, targets), strict=True))


@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_token_loss_gives_a_frozen_side_no_gradient(frozen: str) -> None:
    hidden, head, targets = make_problem(6)
    sides = {"hidden": hidden, "head": head}
    sides[frozen].requires_grad_(False)
    token_loss(hidden, head, targets, 6.0).backward()
    expected = make_problem(6)
    reference_loss(*expected, 6.0).backward()
    for name, other in zip(("hidden", "head"), expected[:2], strict=True):
        if name == frozen:
            assert sides[name].grad is None
        else:
            torch.testing.assert_close(sides[name].grad, other.grad)


def test_token_loss_without_any_gradient_gives_the_value() -> None:
    hidden, head, targets = make_problem(6)
    with torch.inference_mode():
        value = token_loss(hidden, head, targets, 3.0)
    torch.testing.assert_close(value, reference_loss(hidden, head, targets, 3.0).detach())


@pytest.mark.parametrize("count", [1, 3, 1025])
def test_token_loss_gives_every_position_its_own(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 8, generator=generator)
    head = torch.randn(50, 8, generator=generator)
    targets = torch.randint(50, (count,), generator=generator)
    nats = torch.full((count,), torch.nan)
    loss = token_loss(hidden, head, targets, 7.0, nats)
    wanted = F.cross_entropy(hidden @ head.T, targets, reduction="none")
    torch.testing.assert_close(nats, wanted)
    torch.testing.assert_close(loss, wanted.sum() / 7)


def test_token_loss_of_nothing_is_zero() -> None:
    hidden = torch.empty(0, WIDTH, requires_grad=True)
    value = token_loss(hidden, torch.ones(VOCABULARY, WIDTH), torch.empty(0, dtype=torch.long), 0)
    value.backward()
    assert float(value.detach()) == 0.0
    assert hidden.grad is not None and hidden.grad.shape == (0, WIDTH)


def test_token_loss_divides_by_at_least_one() -> None:
    hidden, head, targets = make_problem(3)
    assert torch.equal(
        token_loss(hidden, head, targets, 0.0), token_loss(hidden, head, targets, 1.0)
    )


def entropy(hidden: Tensor, head: Tensor) -> float:
    logprobs = (hidden @ head.T).log_softmax(-1)
    return float(-(logprobs.exp() * logprobs).sum(-1).mean())


@pytest.mark.parametrize("chunk", [5, 1024])
def test_bfloat16_loss_does_not_drift(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """training.md c.5: after 50 steps, the entropy is that of full logits in float32."""
    monkeypatch.setattr(loss_module, "CHUNK_POSITIONS", chunk)
    entropies: list[float] = []
    for dtype, function in ((torch.bfloat16, token_loss), (torch.float32, reference_loss)):
        generator = torch.Generator().manual_seed(1)
        hidden = torch.randn(48, 32, generator=generator).requires_grad_()
        head = (0.3 * torch.randn(400, 32, generator=generator)).requires_grad_()
        targets = torch.randint(400, (48,), generator=generator)
        optimiser = torch.optim.AdamW([hidden, head], lr=1e-2)
        for _ in range(50):
            optimiser.zero_grad()
            function(hidden.to(dtype), head.to(dtype), targets, 48.0).backward()
            optimiser.step()
        entropies.append(entropy(hidden.detach(), head.detach()))
    assert 0.1 < entropies[1] < 5  # it has moved, and has not ended
    assert entropies[0] == pytest.approx(entropies[1], rel=DRIFT)


def test_bfloat16_loss_sums_in_float32() -> None:
    hidden, head, targets = (t.bfloat16() if t.is_floating_point() else t for t in make_problem(7))
    hidden, head = hidden.detach().requires_grad_(), head.detach().requires_grad_()
    nats = torch.empty(7)
    value = token_loss(hidden, head, targets, 7.0, nats)
    value.backward()
    wide = F.cross_entropy(hidden.float() @ head.float().T, targets)
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(wide.detach()), rel=5e-3)
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("scores", [1, WIDTH, VOCABULARY, 3 * VOCABULARY + 1])
def test_token_loss_of_a_large_vocabulary_takes_few_positions_at_a_time(
    monkeypatch: pytest.MonkeyPatch, scores: int
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_SCORES", scores)
    assert_close(*both(partial(make_problem, 9), 9.0), rel=CLOSE_REL, absolute=CLOSE_ABS)


# --- of a whole network: which positions are scored, and by which head


def random_batch(rows: int = 3, length: int = 9, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(7, 260, (rows, length), generator=generator)
    where = torch.randperm(rows * length, generator=generator)[:11].sort().values
    return Batch(tokens, where, torch.randint(260, (len(where),), generator=generator))


def loss_by_logits(model: Transformer, batch: Batch, total: float) -> Tensor:
    logits = model.logits(model(batch.tokens)).flatten(0, 1)
    return F.cross_entropy(logits[batch.where], batch.targets, reduction="sum") / total


@pytest.mark.parametrize("is_tied", [True, False])
def test_batch_loss_matches_full_logits_for_every_parameter(is_tied: bool) -> None:
    gradients: list[dict[str, Tensor]] = []
    for function in (batch_loss, loss_by_logits):
        model = tiny_model(3, tie_word_embeddings=is_tied)
        function(model, random_batch(), 11.0).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    assert ("lm_head.weight" in ours) is not is_tied
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_batch_loss_of_a_tied_head_sums_both_uses_of_the_embedding() -> None:
    model = tiny_model(3)
    embedding = model.model.embed_tokens.weight
    batch = random_batch()
    batch_loss(model, batch, 11.0).backward()
    assert embedding.grad is not None
    unread = torch.ones(len(embedding), dtype=torch.bool)
    unread[batch.tokens.unique()] = False
    assert unread.any() and (embedding.grad[unread].abs().sum(-1) > 0).all()  # by the head alone


def test_batch_loss_leaves_a_frozen_head_without_gradient() -> None:
    model = tiny_model(3)
    model.model.embed_tokens.requires_grad_(False)
    batch_loss(model, random_batch(), 11.0).backward()
    assert model.model.embed_tokens.weight.grad is None
    assert model.model.norm.weight.grad is not None
