"""What a linear layer multiplies by during a training step, and its gradients without waste.

In: activations, the weights as prepared once for a step (`Acting`). Out: products whose backward
makes just what is trained: no gradient of a frozen weight, none below the lowest adapter, one sum
for the input of layers that share it, and nothing kept of a feed-forward layer but its input and
its two projections. Gradients of the factors come in float32 whatever the compute dtype.
Invariants: the gradients equal those of plain autograd
(test_projections_match_autograd, test_gated_mlp_matches_autograd) and PEFT's
(test_acting_gradients_match_peft).

    formed   y = x·W′ᵀ, W′ = W + s·B·A formed once a step    one dense product forward
    beside   y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ                          where W′ would lose s·B·A in rounding
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Acting:
    """A layer's weight for a step, and its factors where the gradient goes to them directly.

    `lora_a` and `lora_b` are the float32 parameters, `a` and `b` what is multiplied (of the
    weight's dtype). `is_formed`: the weight holds s·B·A already.
    Shapes: weight (out, in), bias (out,), a (R, in), b (out, R)
    """

    weight: Tensor
    bias: Tensor | None = None
    lora_a: Tensor | None = None
    lora_b: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 0.0
    is_formed: bool = True

    @property
    def leaves(self) -> tuple[Tensor | None, ...]:
        """What may want a gradient."""
        return self.weight, self.bias, self.lora_a, self.lora_b

    @property
    def factor_dtype(self) -> torch.dtype:
        """That of the parameters, in which their gradients add up."""
        return torch.float32 if self.lora_a is None else self.lora_a.dtype

    def product(self, x: Tensor) -> Tensor:
        """Shapes: x (N, in) → (N, out)"""
        out = x @ self.weight.T
        if self.bias is not None:
            out += self.bias
        if self.a is not None and self.b is not None and not self.is_formed:
            out.addmm_(x @ self.a.T, self.b.T, alpha=self.scale)
        return out

    def backward(
        self, x: Tensor, grad: Tensor, wanted: Sequence[bool], into: Tensor | None
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The input's gradient, added to `into`, and those of the four leaves.

        `wanted` says of the input and of each leaf whether it wants one.
        Shapes: x (N, in), grad (N, out), into (N, in)
        """
        found: list[Tensor | None] = [None, None, None, None]
        if wanted[0]:
            into = grad @ self.weight if into is None else into.addmm_(grad, self.weight)
        if wanted[1]:
            found[0] = grad.T @ x
        if wanted[2]:
            found[1] = grad.sum(0, dtype=torch.float32 if grad.dtype == torch.bfloat16 else None)
        if self.a is None or self.b is None:
            return into, found
        inner = grad @ self.b  # (N, R)
        if into is not None and wanted[0] and not self.is_formed:
            into.addmm_(inner, self.a, alpha=self.scale)
        if wanted[3]:
            found[2] = (inner.T @ x).to(self.factor_dtype).mul_(self.scale)
        if wanted[4]:
            found[3] = (grad.T @ (x @ self.a.T)).to(self.factor_dtype).mul_(self.scale)
        return into, found


class _Projections(torch.autograd.Function):
    """Several layers that read one input."""

    @staticmethod
    def forward(ctx: Any, acts: Sequence[Acting], x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        flat = x.flatten(0, -2)  # (N, in)
        ctx.save_for_backward(flat)
        ctx.acts, ctx.shape = acts, x.shape
        return tuple(act.product(flat).view(*x.shape[:-1], -1) for act in acts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (flat,) = ctx.saved_tensors
        needs = ctx.needs_input_grad
        into: Tensor | None = None
        found: list[Tensor | None] = []
        for index, (act, grad) in enumerate(zip(ctx.acts, grads, strict=True)):
            wanted = (needs[1], *needs[2 + 4 * index : 6 + 4 * index])
            into, more = act.backward(flat, grad.flatten(0, -2), wanted, into)
            found += more
        return None, None if into is None else into.view(ctx.shape), *found


class _GatedMlp(torch.autograd.Function):
    """down(silu(gate(x)) · up(x)), whose middle is computed again in backward."""

    @staticmethod
    def forward(ctx: Any, acts: Sequence[Acting], x: Tensor, *leaves: Tensor) -> Tensor:
        flat = x.flatten(0, -2)  # (N, E)
        gate, up = acts[0].product(flat), acts[1].product(flat)  # (N, F)
        ctx.save_for_backward(flat, gate, up)
        ctx.acts, ctx.shape = acts, x.shape
        return acts[2].product(F.silu(gate).mul_(up)).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        flat, gate, up = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad = grads[0].flatten(0, -2)  # (N, E)
        is_below = any(needs[1:10])  # the input or a leaf of gate and up wants a gradient
        opened = F.silu(gate)  # (N, F)
        inner, of_down = ctx.acts[2].backward(
            opened * up, grad, (is_below, *needs[10:14]), None
        )  # (N, F)
        if inner is None:
            return None, None, *([None] * 8), *of_down
        of_gate = torch.ops.aten.silu_backward(inner * up, gate)  # (N, F)
        of_up = inner.mul_(opened)
        into, of_gates = ctx.acts[0].backward(flat, of_gate, (needs[1], *needs[2:6]), None)
        into, of_ups = ctx.acts[1].backward(flat, of_up, (needs[1], *needs[6:10]), into)
        into = None if into is None else into.view(ctx.shape)
        return None, into, *of_gates, *of_ups, *of_down


def projections(acts: Sequence[Acting], x: Tensor) -> tuple[Tensor, ...]:
    """What each layer makes of one input. Shapes: x (..., in) → (..., out) for each"""
    return _Projections.apply(acts, x, *(leaf for act in acts for leaf in act.leaves))


def gated_mlp(gate: Acting, up: Acting, down: Acting, x: Tensor) -> Tensor:
    """A SwiGLU feed-forward layer. Shapes: x (..., E) → (..., E)"""
    acts = (gate, up, down)
    return _GatedMlp.apply(acts, x, *(leaf for act in acts for leaf in act.leaves))


class _RMSNorm(torch.autograd.Function):
    """Keeps its input and one number a row; inside, everything in the weight's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(weight.dtype)
        inverse = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(eps).rsqrt_()  # (...)
        inverse = inverse.unsqueeze(-1)
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad, unit = grads[0].to(weight.dtype), x.to(weight.dtype) * inverse  # (..., E), both
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad * unit).flatten(0, -2).sum(0)  # (E,)
        scaled = grad * weight
        along = torch.linalg.vecdot(scaled, unit).div_(x.shape[-1]).unsqueeze(-1)  # (..., 1)
        of_x = scaled.sub_(unit.mul_(along)).mul_(inverse)
        return of_x.to(x.dtype), of_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square normalisation. Shapes: x (..., E), weight (E,) → (..., E)"""
    return _RMSNorm.apply(x, weight, eps)
