"""Root-mean-square normalisation, plain and as Gemma scales it.

Source: Zhang & Sennrich 2019, arXiv 1910.07467.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.model.acting import rms_norm
from ownweights.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x over its root mean square, times a weight a dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def multiplier(self) -> Tensor:
        """What normalised numbers are multiplied by. Shapes: → (E,)"""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad or x.dtype != self.weight.dtype:
            return rms_norm(x, self.multiplier(), self.eps)
        return F.rms_norm(x, (x.shape[-1],), self.multiplier(), self.eps)


class OffsetRMSNorm(RMSNorm):
    """The multiplier is 1 + w, as the Gemma families store it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        nn.init.zeros_(self.weight)

    def multiplier(self) -> Tensor:
        return 1 + self.weight


def norm_of(config: ModelConfig, width: int) -> RMSNorm:
    """A norm as the family scales it."""
    kind = OffsetRMSNorm if config.family.is_sandwich else RMSNorm
    return kind(width, config.rms_norm_eps)
