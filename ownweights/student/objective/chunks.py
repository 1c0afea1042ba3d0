"""Losses over the vocabulary, a few hundred positions at a time: what their kernels share.

A kernel makes the scores of some positions, turns them into their gradient on the spot, and hands
it to `HeadGradients`; nothing of the size positions × vocabulary outlives its turn. `token_nats`
keeps even less: it makes the scores again in the backward pass, so that each position may weigh
differently (training.md c.4; test_token_nats_match_full_logits_under_any_weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_POSITIONS, CHUNK_SCORES = 512, 1 << 24  # at most so many at a time, of both


def chunks(num_positions: int, vocab_size: int) -> Iterator[slice]:
    """The positions in turns, fewer at a time where the vocabulary is large."""
    size = max(1, min(CHUNK_POSITIONS, CHUNK_SCORES // vocab_size))
    for start in range(0, num_positions, size):
        yield slice(start, min(start + size, num_positions))


def scores_of(hidden: Tensor, head: Tensor) -> Tensor:
    """Scores, in float32 at least. Shapes: hidden (N, E), head (V, E) → (N, V)"""
    scores = hidden @ head.T
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


@dataclass(slots=True)
class HeadGradients:
    """Gradients of states (N, E) and head (V, E), filled from those of the scores."""

    of_hidden: Tensor | None
    of_head: Tensor | None

    @classmethod
    def wanted(cls, ctx: Any, hidden: Tensor, head: Tensor) -> HeadGradients:
        """Empty ones of those that autograd asks for; states and head are the first inputs."""
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        return cls(
            torch.empty_like(hidden) if needs_hidden else None,
            torch.zeros_like(head) if needs_head else None,
        )

    def add(self, rows: slice, of_scores: Tensor, hidden: Tensor, head: Tensor) -> None:
        """Take in the gradient of some positions' scores. Shapes: of_scores (N', V)"""
        if self.of_hidden is not None:
            self.of_hidden[rows] = of_scores.to(head.dtype) @ head
        if self.of_head is not None:
            self.of_head.addmm_(of_scores.to(hidden.dtype).T, hidden[rows])

    @property
    def is_wanted(self) -> bool:
        return self.of_hidden is not None or self.of_head is not None


class _TokenNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        each: list[Tensor] = []
        for rows in chunks(len(hidden), len(head)):
            scores = scores_of(hidden[rows], head)  # (N', V)
            each.append(scores.logsumexp(-1) - scores.gather(1, targets[rows, None])[:, 0])
        ctx.save_for_backward(hidden, head, targets)
        return torch.cat(each) if each else hidden.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets = ctx.saved_tensors
        found = HeadGradients.wanted(ctx, hidden, head)
        for rows in chunks(len(hidden), len(head)):
            grad = scores_of(hidden[rows], head).softmax(-1)  # (N', V)
            target = targets[rows, None]
            grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
            found.add(rows, grad.mul_(grads[0][rows, None]), hidden, head)
        return found.of_hidden, found.of_head, None


def token_nats(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """What each target costs in nats (minus its logprob), differentiable one by one.

    Shapes: hidden (N, E), head (V, E), targets (N,) → (N,)
    """
    return _TokenNats.apply(hidden, head, targets)


# the positions in turn, their scores (N', V), which it may overwrite → nats (N',) and the gradient
# of their sum by the scores (N', V)
Kernel = Callable[[slice, Tensor], tuple[Tensor, Tensor]]


class _KernelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, kernel: Kernel, total: float
    ) -> tuple[Tensor, Tensor]:
        found, each = HeadGradients.wanted(ctx, hidden, head), [hidden.new_zeros(0)]
        for rows in chunks(len(hidden), len(head)):
            nats, grad = kernel(rows, scores_of(hidden[rows], head))
            each.append(nats)
            if found.is_wanted:
                found.add(rows, grad.div_(total), hidden, head)
        ctx.save_for_backward(found.of_hidden, found.of_head)
        nats = torch.cat(each)
        ctx.mark_non_differentiable(nats)
        return nats.sum() / total, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_head = ctx.saved_tensors
        return (
            None if of_hidden is None else grads[0] * of_hidden,
            None if of_head is None else grads[0] * of_head,
            None,
            None,
        )


def kernel_loss(
    hidden: Tensor, head: Tensor, kernel: Kernel, total: float, nats: Tensor | None = None
) -> Tensor:
    """What a kernel says of every position, summed and divided by `total`; each one's goes to
    `nats`. Nothing costs zero. Shapes: hidden (N, E), head (V, E), nats (N,) → scalar
    """
    if not len(hidden):
        return hidden.sum() * 0.0
    loss, each = _KernelLoss.apply(hidden, head, kernel, max(total, 1.0))
    if nats is not None:
        nats.copy_(each)
    return loss
