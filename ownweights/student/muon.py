"""Muon for a CPU: the momentum of a matrix, made nearly orthogonal, is its step.

In: matrices with gradients. Out: matrices moved by `lr · 0.2 · √max(rows, columns)` times the
orthogonal factor of their Nesterov momentum, so that a step has about the RMS of AdamW's at the
same rate. It is `torch.optim.Muon` with the iteration in float32 instead of bfloat16, which
processors without matrix units are slow at, and with matrices of one shape iterated together; the
two agree up to bfloat16's rounding (test_muon_matches_torch).

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon (the iteration and its coefficients);
Liu et al. 2025, arXiv 2502.16982 (the scale)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
RMS_OF_ADAMW = 0.2
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS, _EPS = 5, 1e-7


class Muon(torch.optim.Optimizer):
    """Moves matrices; everything else wants another optimiser."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"]), "matrices"

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix that has a gradient."""
        assert closure is None, "the loss is not computed again"
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            by_shape: defaultdict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for matrix in moved:
                by_shape[min(matrix.shape), max(matrix.shape)].append(matrix)
            for (_, longer), alike in by_shape.items():
                rate = group["lr"] * RMS_OF_ADAMW * math.sqrt(longer)
                wide = [_as_wide(self._momentum(matrix)) for matrix in alike]
                for matrix, step in zip(alike, orthogonalised(torch.stack(wide)), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(step if step.shape == matrix.shape else step.T, alpha=rate)

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        """The gradient looked at one step ahead (Nesterov)."""
        assert matrix.grad is not None, "only matrices with gradients are moved"
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(state["momentum"], MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values moved near one (between about 0.7 and 1.2).

    Shapes: (N, R, C) → (N, R, C), fastest where R ≤ C
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + _EPS)  # (N, R, C)
    for _ in range(_STEPS):
        gram = x @ x.mT  # (N, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def _as_wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
