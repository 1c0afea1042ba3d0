"""A network's weights in their serving form: few large tensors, rotary pairs as neighbours.

In: layers and rotary tables of a `Transformer`. Out: `Fused` layers and `Turns` for the `Runner`.
Invariant: the products are the Transformer's up to rounding (test_runner_matches_transformer).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ownweights.model.attention import Attention
from ownweights.model.config import ModelConfig
from ownweights.model.norm import RMSNorm
from ownweights.model.rope import RopeTable
from ownweights.model.transformer import Layer, SandwichLayer


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A layer's weights, transposed for x @ w; None for what a family does not have."""

    norm_1: Tensor  # (E,)
    qkv: Tensor  # (E, (H + 2K) D)
    out: Tensor  # (H D, E)
    norm_2: Tensor  # (E,), of what the feed-forward half reads
    gate_up: Tensor  # (E, 2 F)
    down: Tensor  # (F, E)
    window: int | None  # how far back it looks
    is_local: bool  # turned by the other base
    qkv_bias: Tensor | None  # ((H + 2K) D,)
    out_bias: Tensor | None  # (E,)
    gate_up_bias: Tensor | None  # (2 F,)
    down_bias: Tensor | None  # (E,)
    qk_norm: Tensor | None  # (H + K, D)
    norm_mixed: Tensor | None  # (E,), of what attention adds
    norm_fed: Tensor | None  # (E,), of what the feed-forward half adds


class Turns:
    """A rotary table as complex numbers, one a pair; pairs that do not turn have one."""

    def __init__(self, table: RopeTable, head_dim: int) -> None:
        self._table, self._pairs = table, head_dim // 2
        self._made: dict[bool, Tensor] = {}  # (S, D/2), by the side of the border

    def of_prompts(self, lengths: Tensor) -> Tensor:
        """For whole prompts, each by its length. Shapes: (B,) → (T, 1, D/2) or (B, T, 1, D/2)"""
        longest, border = int(lengths.max()), self._table.border
        turns = self._upto(longest)[:longest, None]  # (T, 1, D/2)
        if border is None or longest <= border or int(lengths.min()) > border:
            return turns
        short = self._upto(border)[torch.arange(longest).clamp_max(border - 1), None]
        return torch.where((lengths > border)[:, None, None, None], turns, short)

    def at(self, positions: Tensor) -> Tensor:
        """For one more token a row, each by its own length. Shapes: (B,) → (B, 1, 1, D/2)"""
        longest, border = int(positions.max()) + 1, self._table.border
        turns = self._upto(longest)[positions]  # (B, D/2)
        if border is not None and longest > border:
            short = self._upto(border)[positions.clamp_max(border - 1)]
            turns = torch.where((positions >= border)[:, None], turns, short)
        return turns[:, None, None]

    def _upto(self, length: int) -> Tensor:
        border = self._table.border
        key = border is not None and length > border
        found = self._made.get(key)
        if found is None or found.shape[0] < length:
            cos, sin = self._table.of(length)
            half = cos.shape[-1] // 2
            found = torch.complex(cos[:, :half], sin[:, :half])  # (S, W/2)
            still = found.new_ones(found.shape[0], self._pairs - half)
            found = self._made[key] = torch.cat([found, still], dim=-1)
        return found


def fuse(layer: Layer, config: ModelConfig) -> Fused:
    """A layer's weights as one pass of the runner reads them."""
    attention, mlp = layer.self_attn, layer.mlp
    is_sandwich = isinstance(layer, SandwichLayer)
    after = layer.post_attention_layernorm
    order = _pair_order(config)
    return Fused(
        norm_1=_multiplier(layer.input_layernorm),
        qkv=_transposed(*_turnable(attention, order), attention.v_proj.effective_weight()),
        out=_transposed(attention.o_proj.effective_weight()),
        norm_2=_multiplier(layer.pre_feedforward_layernorm if is_sandwich else after),
        gate_up=_transposed(mlp.gate_proj.effective_weight(), mlp.up_proj.effective_weight()),
        down=_transposed(mlp.down_proj.effective_weight()),
        window=attention.window,
        is_local=attention.is_local,
        qkv_bias=_joined(*_turnable_biases(attention, order), attention.v_proj.bias),
        out_bias=_joined(attention.o_proj.bias),
        gate_up_bias=_joined(mlp.gate_proj.bias, mlp.up_proj.bias),
        down_bias=_joined(mlp.down_proj.bias),
        qk_norm=_qk_norm(attention, order),
        norm_mixed=_multiplier(after) if is_sandwich else None,
        norm_fed=_multiplier(layer.post_feedforward_layernorm) if is_sandwich else None,
    )


def _pair_order(config: ModelConfig) -> Tensor:
    """A head's numbers in an order in which what is turned together lies together: the halves of
    what turns interleaved, then the rest. Shapes: → (D,)"""
    width = config.rotary_width
    turning = torch.arange(width).view(2, -1).t().reshape(-1)
    return torch.cat([turning, torch.arange(width, config.head_dim)])


def _turnable(attention: Attention, order: Tensor) -> list[Tensor]:
    """q and k weights with each head's rows in that order. Both are reordered alike, so their
    products are unchanged."""
    return [
        projection.effective_weight().unflatten(0, (-1, len(order)))[:, order].flatten(0, 1)
        for projection in (attention.q_proj, attention.k_proj)
    ]


def _turnable_biases(attention: Attention, order: Tensor) -> list[Tensor | None]:
    return [
        None if bias is None else bias.unflatten(0, (-1, len(order)))[:, order].flatten()
        for bias in (attention.q_proj.bias, attention.k_proj.bias)
    ]


def _qk_norm(attention: Attention, order: Tensor) -> Tensor | None:
    """What normalised queries and keys are multiplied by. Shapes: → (H + K, D)"""
    if attention.q_norm is None or attention.k_norm is None:
        return None
    heads = attention.num_heads, attention.num_kv_heads
    norms = (attention.q_norm, attention.k_norm)
    return torch.cat([
        _multiplier(norm)[order].expand(count, -1)
        for norm, count in zip(norms, heads, strict=True)
    ])  # fmt: skip


def _multiplier(norm: RMSNorm) -> Tensor:
    return norm.multiplier().detach()


def _joined(*biases: Tensor | None) -> Tensor | None:
    """Biases of products that are one product; all are there, or none is."""
    held = [bias.detach() for bias in biases if bias is not None]
    return torch.cat(held) if held else None


def _transposed(*weights: Tensor) -> Tensor:
    return torch.cat(weights).detach().t().contiguous()
