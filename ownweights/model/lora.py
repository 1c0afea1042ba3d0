"""Low-rank adaptation: a linear layer whose weight is W + s·B·A.

Outside of training the sum is formed and multiplied by. A training step says what each layer
multiplies by (`acting`), and how its gradients are made. Both equal PEFT's x·Wᵀ + s·(x·Aᵀ)·Bᵀ up to
rounding (test_lora_gradients_match_peft, test_acting_gradients_match_peft).

Source: Hu et al. 2021, arXiv 2106.09685; rank-stabilised scale: Kalajdzievski 2023, arXiv
2312.03732.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.model.acting import Acting, projections
from ownweights.model.packed import PackedWeight, pack, packed_product

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HEAD = "lm_head"  # adapted on request; where it is tied, only what it scores changes


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
        self.packed: PackedWeight | None = None
        self.acting: Acting | None = None  # while a training step is computed

    def effective_weight(self) -> Tensor:
        """The weight that acts: W, or W + s·B·A, as formed where a step formed it already."""
        if self.acting is not None and self.acting.is_formed:
            return self.acting.weight
        weight = self.weight if self.packed is None else self.packed.whole()
        if self.lora_a is None or self.lora_b is None:
            return weight
        return torch.addmm(weight, self.lora_b, self.lora_a, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            return together((self,), x)[0]
        y = packed_product(x, self.packed)
        if self.bias is not None:
            y = y + self.bias.to(x.dtype)
        if self.lora_a is None or self.lora_b is None:
            return y
        inner = F.linear(x, self.lora_a.to(x.dtype))  # (..., R)
        return y + F.linear(inner, self.lora_b.to(x.dtype)) * self.scale

    def pack(self, form: str) -> None:
        """Hold the frozen weight in fewer bits; its shape stays, its numbers go."""
        self.packed = pack(self.weight, form)
        self.weight = nn.Parameter(self.weight.to("meta"), requires_grad=False)

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
        assert self.packed is None, "an adapter is merged into the weights that were packed"
        if self.lora_a is not None:
            merged = self.effective_weight().detach()  # not in place: a tied head is the embedding
            self.weight = nn.Parameter(merged, requires_grad=self.weight.requires_grad)
            self.lora_a = self.lora_b = None


def together(layers: Sequence[Linear], x: Tensor) -> tuple[Tensor, ...]:
    """What each of several layers makes of one input. Shapes: x (..., in) → (..., out) for each"""
    acts = [layer.acting for layer in layers if layer.acting is not None]
    if len(acts) == len(layers):
        return projections(acts, x)
    if any(layer.packed is not None for layer in layers):
        return tuple(layer(x) for layer in layers)
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
    """Freeze the model, add adapters to its target layers; the trainable parameters in order.

    A network whose head is a target must have one of its own: `Transformer.own_head`.
    """
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


@contextmanager
def formed_weights(model: nn.Module) -> Iterator[None]:
    """Every adapted weight formed once, for all that is computed meanwhile without gradients; a
    packed one stays packed."""
    adapted = [
        (layer, layer.weight, layer.lora_a, layer.lora_b) for layer in model.modules()
        if isinstance(layer, Linear) and layer.lora_a is not None and layer.packed is None
    ]  # fmt: skip
    try:
        for layer, *_ in adapted:
            merged = layer.effective_weight().detach()
            layer.weight = nn.Parameter(merged, requires_grad=False)
            layer.lora_a = layer.lora_b = None
        yield
    finally:
        for layer, weight, a, b in adapted:
            layer.weight, layer.lora_a, layer.lora_b = weight, a, b
