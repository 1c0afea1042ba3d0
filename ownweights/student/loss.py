"""Next-token loss that never holds all scores at once.

Scores of a few hundred positions at a time are turned into their gradient on the spot, so memory is
chunk × vocabulary whatever the batch, and positions that train nothing are never scored.
The gradient equals autograd's on full logits (test_token_loss_matches_full_logits); an empty batch
gives zero (test_token_loss_of_nothing_is_zero).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_POSITIONS = 1024  # at most; fewer where the vocabulary is large
CHUNK_SCORES = 1 << 23


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, total: float
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        wide = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_head = torch.zeros_like(head, dtype=wide) if needs_head else None
        nats = hidden.new_empty(hidden.shape[0], dtype=wide)
        chunk = min(CHUNK_POSITIONS, max(1, CHUNK_SCORES // head.shape[0]))
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            scores = (hidden[rows] @ head.T).to(wide)  # (N, V)
            target = targets[rows, None]  # (N, 1)
            scores -= scores.amax(-1, keepdim=True)  # in place: passes over memory cost the most
            of_target = scores.gather(1, target)  # (N, 1)
            norm = scores.exp_().sum(-1, keepdim=True)  # (N, 1)
            nats[rows] = norm.log().sub_(of_target)[:, 0]
            if not needs_hidden and not needs_head:
                continue
            grad = scores.div_(norm)  # softmax
            grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
            grad.div_(total)
            grad = grad.to(head.dtype)
            if grad_hidden is not None:
                torch.mm(grad, head, out=grad_hidden[rows])
            if grad_head is not None:
                if grad.dtype == wide:
                    grad_head.addmm_(grad.T, hidden[rows])
                else:  # sums over chunks stay in float32
                    grad_head += grad.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.mark_non_differentiable(nats)
        return nats.sum() / total, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        grad, _ = grads
        return (
            None if grad_hidden is None else grad * grad_hidden,
            None if grad_head is None else grad * grad_head,
            None,
            None,
        )


def token_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, total: float, nats: Tensor | None = None
) -> Tensor:
    """Cross-entropy summed over positions, divided by `total` (the batch's trained tokens).

    Dividing by the whole batch's count, not by each part's, makes accumulated gradients equal the
    large batch's. What each position lost is written into `nats`, where that is given.
    Shapes: hidden (N, E), head (V, E), targets (N,), nats (N,) → scalar, in nats
    """
    if hidden.shape[0] == 0:
        return hidden.sum() * 0.0
    loss, each = _TokenLoss.apply(hidden.to(head.dtype), head, targets, max(total, 1.0))
    if nats is not None:
        nats.copy_(each)
    return loss
