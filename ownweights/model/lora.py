"""Low-rank adaptation: a linear layer whose weight is W + s·B·A.

Outside of training the sum is formed and multiplied by. A training step says what each layer
multiplies by (`acting`), and how its gradients are made. Both equal PEFT's x·Wᵀ + s·(x·Aᵀ)·Bᵀ up to
rounding (test_lora_gradients_match_peft, test_acting_gradients_match_peft).

Source: Hu et al. 2021, arXiv 2106.09685; rank-stabilised scale: Kalajdzievski 2023, arXiv
2312.03732.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.model.acting import Acting, projections

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Rank R, numerator alpha of the scale alpha / R, and the layers that are adapted."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Linear(nn.Module):
    """A linear layer that can carry one adapter; most have no bias.

    Shapes: weight (out, in), bias (out,), lora_a (R, in), lora_b (out, R); x (..., in) → (..., out)
    """

    def __init__(self, num_in: int, num_out: int, *, has_bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.zeros(num_out)) if has_bias else None
        self.lora_a: nn.Parameter | None = None
        self.lora_b: nn.Parameter | None = None
        self.scale = 0.0
        self.acting: Acting | None = None  # while a training step is computed

    def effective_weight(self) -> Tensor:
        """The weight that acts: W, or W + s·B·A, as formed where a step formed it already."""
        if self.acting is not None and self.acting.is_formed:
            return self.acting.weight
        if self.lora_a is None or self.lora_b is None:
            return self.weight
        return torch.addmm(self.weight, self.lora_b, self.lora_a, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return together((self,), x)[0]

    def attach(self, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        """Add a fresh adapter: A uniform as PEFT initialises it, B zero, the base frozen."""
        num_out, num_in = self.weight.shape
        bound = math.sqrt(1.0 / num_in)  # kaiming_uniform with a = √5, as PEFT
        a = torch.empty(config.rank, num_in).uniform_(-bound, bound, generator=generator)
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(torch.zeros(num_out, config.rank))
        self.scale = config.scale
        self.weight.requires_grad_(False)

    def merge(self) -> None:
        """Fold the adapter into the weight (in float32) and drop it."""
        if self.lora_a is not None:
            with torch.no_grad():
                self.weight.copy_(self.effective_weight())
            self.lora_a = self.lora_b = None


def together(layers: Sequence[Linear], x: Tensor) -> tuple[Tensor, ...]:
    """What each of several layers makes of one input. Shapes: x (..., in) → (..., out) for each"""
    acts = [layer.acting for layer in layers if layer.acting is not None]
    if len(acts) == len(layers):
        return projections(acts, x)
    return tuple(F.linear(x, layer.effective_weight(), layer.bias) for layer in layers)


def lora_layers(model: nn.Module, targets: Iterable[str]) -> dict[str, Linear]:
    """The linear layers of `model` whose last name is a target, by full name."""
    wanted = set(targets)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and name.rsplit(".", 1)[-1] in wanted
    }


def attach_lora(model: nn.Module, config: LoraConfig, seed: int = 0) -> list[nn.Parameter]:
    """Freeze the model, add adapters to its target layers; the trainable parameters in order."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    trainable: list[nn.Parameter] = []
    for layer in lora_layers(model, config.targets).values():
        layer.attach(config, generator)
        assert layer.lora_a is not None and layer.lora_b is not None, "attach adds both factors"
        trainable += [layer.lora_a, layer.lora_b]
    return trainable


def merge_lora(model: nn.Module) -> None:
    """Fold every adapter of the model into its weights."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.merge()
