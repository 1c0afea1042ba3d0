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


def scores_of(hidden: Tensor, head: Tensor, cap: float | None) -> Tensor:
    """Scores, capped where the network caps them, in float32 at least.

    Shapes: hidden (N, E), head (V, E) → (N, V)
    """
    scores = hidden @ head.T
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)


def uncapped_gradient(of_scores: Tensor, scores: Tensor, cap: float | None) -> Tensor:
    """The gradient of the products from that of the capped scores. Shapes: (N, V), both"""
    return of_scores if cap is None else of_scores * (1 - (scores / cap).square())


@dataclass(slots=True)
class HeadGradients:
    """Gradients of states (N, E) and head (V, E), filled from those of the scores."""

    of_hidden: Tensor | None
    of_head: Tensor | None

    @classmethod
    def wanted(cls, ctx: Any, hidden: Tensor, head: Tensor) -> HeadGradients:
        """Empty ones of those that autograd asks for; states and head are the first inputs."""
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        wide = torch.promote_types(head.dtype, torch.float32)
        return cls(
            torch.empty_like(hidden) if needs_hidden else None,
            torch.zeros_like(head, dtype=wide) if needs_head else None,
        )

    def add(self, rows: slice, of_scores: Tensor, hidden: Tensor, head: Tensor) -> None:
        """Take in the gradient of some positions' scores. Shapes: of_scores (N', V)"""
        if self.of_hidden is not None:
            self.of_hidden[rows] = of_scores.to(head.dtype) @ head
        if self.of_head is not None:
            kind = self.of_head.dtype
            self.of_head.addmm_(of_scores.to(kind).T, hidden[rows].to(kind))

    @property
    def is_wanted(self) -> bool:
        return self.of_hidden is not None or self.of_head is not None


class _TokenNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, cap: float | None
    ) -> Tensor:
        ctx.cap = cap
        each: list[Tensor] = []
        for rows in chunks(len(hidden), len(head)):
            scores = scores_of(hidden[rows], head, cap)  # (N', V)
            each.append(scores.logsumexp(-1) - scores.gather(1, targets[rows, None])[:, 0])
        ctx.save_for_backward(hidden, head, targets)
        return torch.cat(each) if each else hidden.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets = ctx.saved_tensors
        found = HeadGradients.wanted(ctx, hidden, head)
        for rows in chunks(len(hidden), len(head)):
            scores = scores_of(hidden[rows], head, ctx.cap)  # (N', V)
            grad = scores.softmax(-1)
            target = targets[rows, None]
            grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
            grad = uncapped_gradient(grad.mul_(grads[0][rows, None]), scores, ctx.cap)
            found.add(rows, grad, hidden, head)
        return found.of_hidden, found.of_head, None, None


def token_nats(
    hidden: Tensor, head: Tensor, targets: Tensor, *, cap: float | None = None
) -> Tensor:
    """What each target costs in nats (minus its logprob), differentiable one by one.

    Shapes: hidden (N, E), head (V, E), targets (N,) → (N,)
    """
    return _TokenNats.apply(hidden.to(head.dtype), head, targets, cap)


# the positions in turn, their scores (N', V), which it may overwrite → nats (N',) and the gradient
# of their sum by the scores (N', V)
Kernel = Callable[[slice, Tensor], tuple[Tensor, Tensor]]


class _KernelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, kernel: Kernel, scale: tuple[float, float | None]
    ) -> tuple[Tensor, Tensor]:
        total, cap = scale
        found, each = HeadGradients.wanted(ctx, hidden, head), list[Tensor]()
        for rows in chunks(len(hidden), len(head)):
            scores = scores_of(hidden[rows], head, cap)
            kept = scores if cap is None else scores.clone()  # the kernel may overwrite its own
            nats, grad = kernel(rows, scores)
            each.append(nats)
            if found.is_wanted:
                found.add(rows, uncapped_gradient(grad.div_(total), kept, cap), hidden, head)
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
    hidden: Tensor, head: Tensor, *, kernel: Kernel, total: float, nats: Tensor | None = None,
    cap: float | None = None,
) -> Tensor:  # fmt: skip
    """What a kernel says of every position, summed and divided by `total`; each one's goes to
    `nats`. Nothing costs zero. `cap` bounds scores before the kernel sees them.
    Shapes: hidden (N, E), head (V, E), nats (N,) → scalar
    """
    if not len(hidden):
        return hidden.sum() * 0.0
    states = hidden.to(head.dtype)
    loss, each = _KernelLoss.apply(states, head, kernel, (max(total, 1.0), cap))
    if nats is not None:
        nats.copy_(each)
    return loss
