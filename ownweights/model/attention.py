"""Causal self-attention with grouped key/value heads, and its kinds.

Plain heads run without a mask wherever causality is all there is to say. Layers that look back a
limited way need one only for texts longer than their window; norms on queries and keys, biases and
soft-capped scores cost nothing where a checkpoint has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.model.config import ModelConfig
from ownweights.model.lora import Linear, together
from ownweights.model.norm import RMSNorm, norm_of
from ownweights.model.rope import rotate


class Attention(nn.Module):
    """One layer's attention. `window`: how far back it looks; `is_local`: turned by the other base.

    `scale` is what scores are multiplied by; None stands for 1/√D.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        variant, width, head = config.variant, config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        is_sliding = config.is_sliding(layer)
        self.window = variant.window if is_sliding else None
        self.is_local = is_sliding and variant.local_rope_theta is not None
        scalar = variant.query_scalar
        self.scale = None if scalar is None or scalar == head else scalar**-0.5
        has_bias = variant.has_qkv_bias
        self.q_proj = Linear(width, self.num_heads * head, has_bias=has_bias)
        self.k_proj = Linear(width, self.num_kv_heads * head, has_bias=has_bias)
        self.v_proj = Linear(width, self.num_kv_heads * head, has_bias=has_bias)
        self.o_proj = Linear(self.num_heads * head, width, has_bias=variant.has_out_bias)
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.family.has_qk_norm:
            self.q_norm, self.k_norm = norm_of(config, head), norm_of(config, head)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, D), keys and values (B, T, K, D) of x (B, T, E), turned."""
        head = self.q_proj.weight.shape[0] // self.num_heads
        q, k, v = together((self.q_proj, self.k_proj, self.v_proj), x)
        q = q.unflatten(-1, (self.num_heads, head))  # (B, T, H, D)
        k = k.unflatten(-1, (self.num_kv_heads, head))  # (B, T, K, D)
        v = v.unflatten(-1, (self.num_kv_heads, head))  # (B, T, K, D)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Mix values. q (B, T, H, D), k and v (B, K, S, D), mask (B, T, S) → (B, T, E)."""
        q = q.transpose(1, 2)  # (B, H, T, D)
        group = self.num_heads // self.num_kv_heads
        if mask is not None and q.shape[2] == 1:
            q = q.reshape(q.shape[0], self.num_kv_heads, group, -1)  # group as query length
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=self.scale)
            return self.o_proj(out.reshape(out.shape[0], 1, -1))
        if group > 1:
            k = k.repeat_interleave(group, dim=1)  # (B, H, S, D)
            v = v.repeat_interleave(group, dim=1)
        if mask is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=self.scale)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, T, E)


class CappedAttention(Attention):
    """Scores pass through c·tanh(score / c), which no fused kernel computes (Gemma 2)."""

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        cap = config.variant.attention_softcap
        assert cap is not None, "only capped networks need this"
        self.cap = cap

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = q.transpose(1, 2).unflatten(1, (self.num_kv_heads, -1))  # (B, K, H/K, T, D)
        kv = k[:, :, None], v[:, :, None]
        out = capped_attention(q, kv, mask, scale=self.scale, cap=self.cap)
        return self.o_proj(out.flatten(1, 2).transpose(1, 2).flatten(2))  # (B, T, E)


def capped_attention(
    q: Tensor, kv: tuple[Tensor, Tensor], mask: Tensor | None, *, scale: float | None, cap: float
) -> Tensor:
    """Attention with soft-capped scores; causal where there is no mask.

    Shapes: q (B, K, G, T, D), k and v of `kv` (B, K, 1, S, D), mask (B, T, S) → (B, K, G, T, D)
    """
    k, v = kv
    scores = q @ k.transpose(-1, -2)  # (B, K, G, T, S)
    scores = torch.tanh(scores * ((scale or q.shape[-1] ** -0.5) / cap)) * cap
    if mask is None:
        mask = causal_mask(q.shape[-2], None, q.device)[None]
    scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    return scores.softmax(-1) @ v


def causal_mask(length: int, window: int | None, device: torch.device | None = None) -> Tensor:
    """What each position of a whole text sees: itself and, within the window, what came before.

    Shapes: → (T, T), true where query t may look at s
    """
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril_()
    return mask if window is None else mask.triu_(1 - window)
