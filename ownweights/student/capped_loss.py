"""Next-token loss of families whose scores pass through a soft cap (Gemma 2).

As `loss`, it never holds all scores: a few hundred positions at a time, scored again for their
gradient, which equals autograd's on full logits (test_capped_token_loss_matches_full_logits).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ownweights.student.loss import CHUNK_POSITIONS


def capped_token_loss(
    hidden: Tensor, head: Tensor, *, targets: Tensor, total: float, cap: float,
    nats: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Cross-entropy of c·tanh(score / c) summed over positions, divided by `total`.

    Shapes: hidden (N, E), head (V, E), targets (N,), nats (N,) → scalar, in nats
    """
    if hidden.shape[0] == 0:
        return hidden.sum() * 0.0
    parts: list[Tensor] = []
    for start in range(0, hidden.shape[0], CHUNK_POSITIONS):
        rows = slice(start, start + CHUNK_POSITIONS)
        given = (hidden[rows], head, targets[rows], cap)
        if torch.is_grad_enabled():
            parts.append(
                checkpoint(_nats, *given, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
            )
        else:
            parts.append(_nats(*given))
    each = torch.cat(parts)
    if nats is not None:
        nats.copy_(each.detach())
    return each.sum() / max(total, 1.0)


def _nats(hidden: Tensor, head: Tensor, targets: Tensor, cap: float) -> Tensor:
    """What each position loses. Shapes: hidden (N, E), head (V, E), targets (N,) → (N,)"""
    scores = hidden.to(head.dtype) @ head.T  # (N, V)
    scores = cap * torch.tanh(scores.to(torch.promote_types(scores.dtype, torch.float32)) / cap)
    return F.cross_entropy(scores, targets, reduction="none")
