"""The network: a Llama-shaped decoder, one path for training, prefill and decode.

In: token ids, and, where tokens were seen before, a cache. Out: hidden states; `logits` turns those
that are needed into vocabulary scores. Invariants: logits equal transformers'
(test_logits_match_*), and a cached continuation equals the whole pass
(test_cache_always_equals_full_pass).

    position p of row b lives at cache[:, b, :, p]; a query at position p sees cache slots 0..p
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.model.config import ModelConfig
from ownweights.model.lora import Linear
from ownweights.model.rope import rope_table, rotate


class KVCache:
    """Keys and values of the tokens seen so far, for `rows` sequences.

    Shapes: keys and values (L, B, K, S, D)
    """

    def __init__(self, config: ModelConfig, rows: int, max_positions: int) -> None:
        shape = (
            config.num_hidden_layers, rows, config.num_key_value_heads, max_positions,
            config.head_dim,
        )  # fmt: skip
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)

    @property
    def max_positions(self) -> int:
        return self.keys.shape[3]

    def write(self, layer: int, rows: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store new keys and values. Shapes: rows (B,), positions (B, T), k and v (B, T, K, D)"""
        index = rows[:, None].expand_as(positions)
        self.keys[layer, index, :, positions] = k
        self.values[layer, index, :, positions] = v


class RMSNorm(nn.Module):
    """Root-mean-square normalisation. Source: Zhang & Sennrich 2019, arXiv 1910.07467."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with grouped key/value heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, head = config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(width, self.num_heads * head)
        self.k_proj = Linear(width, self.num_kv_heads * head)
        self.v_proj = Linear(width, self.num_kv_heads * head)
        self.o_proj = Linear(self.num_heads * head, width)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, D), keys and values (B, T, K, D) of x (B, T, E), turned."""
        head = self.q_proj.weight.shape[0] // self.num_heads
        q = self.q_proj(x).unflatten(-1, (self.num_heads, head))  # (B, T, H, D)
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, head))  # (B, T, K, D)
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, head))  # (B, T, K, D)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Mix values. q (B, T, H, D), k and v (B, K, S, D), mask (B, T, S) → (B, T, E)."""
        q = q.transpose(1, 2)  # (B, H, T, D)
        group = self.num_heads // self.num_kv_heads
        if mask is not None and q.shape[2] == 1:
            q = q.reshape(q.shape[0], self.num_kv_heads, group, -1)  # group as query length
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
            return self.o_proj(out.reshape(out.shape[0], 1, -1))
        if group > 1:
            k = k.repeat_interleave(group, dim=1)  # (B, H, S, D)
            v = v.repeat_interleave(group, dim=1)
        if mask is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, T, E)


class MLP(nn.Module):
    """Gated feed-forward (SwiGLU). Source: Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer, hub names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)


class Decoder(nn.Module):
    """Embedding, layers and final norm; named `model` in hub checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.layers: Sequence[Layer] = layers  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Transformer(nn.Module):
    """A causal language model whose state dict has the hub's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head: Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)
        table = rope_table(config.head_dim, config.max_position_embeddings, config.rope_theta)
        self.rope_cos: Tensor
        self.rope_sin: Tensor
        self.register_buffer("rope_cos", table[0], persistent=False)
        self.register_buffer("rope_sin", table[1], persistent=False)

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
        positions: Tensor | None = None,
        visible: int | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Without a cache every row starts at position 0 and right padding is harmless. With a cache,
        `rows` (B,) are its rows, `positions` (B, T) where the new tokens stand, and `visible` the
        number of leading slots S that any query may need (default: all).

        Shapes: tokens (B, T) → (B, T, E)
        """
        if cache is None:
            return self._whole(tokens)
        assert rows is not None and positions is not None, "a cache needs rows and positions"
        slots = cache.max_positions if visible is None else visible
        mask = torch.arange(slots) <= positions[:, :, None]  # (B, T, S)
        cos, sin = self.rope_cos[positions], self.rope_sin[positions]  # (B, T, D)
        x = self.model.embed_tokens(tokens)  # (B, T, E)
        for index, layer in enumerate(self.model.layers):
            attention = layer.self_attn
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            cache.write(index, rows, positions, k, v)
            keys, values = cache.keys[index], cache.values[index]
            if rows.shape[0] != keys.shape[0]:
                keys, values = keys[rows], values[rows]
            x = x + attention.attend(q, keys[:, :, :slots], values[:, :, :slots], mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def _whole(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        cos, sin = self.rope_cos[:length], self.rope_sin[:length]  # (T, D)
        x = self.model.embed_tokens(tokens)  # (B, T, E)
        for layer in self.model.layers:
            attention = layer.self_attn
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            x = x + attention.attend(q, k.transpose(1, 2), v.transpose(1, 2), None)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def own_head(self) -> Linear:
        """The head as a layer that can carry an adapter; a tied one keeps the embedding's weight,
        of which only the scores change (test_tied_head_adapter_leaves_the_embedding)."""
        if self.lm_head is None:
            with torch.device("meta"):
                self.lm_head = Linear(self.config.hidden_size, self.config.vocab_size)
            shared = self.model.embed_tokens.weight
            assert isinstance(shared, nn.Parameter), "the embedding is a parameter"
            self.lm_head.weight = shared
        return self.lm_head

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores. Shapes: (..., E) → (..., V)"""
        if self.lm_head is None:
            return F.linear(hidden, self.model.embed_tokens.weight)
        return self.lm_head(hidden)


def initialise(model: Transformer, seed: int) -> None:
    """Random weights for pre-training: normal 0.02, residual outputs scaled by 1/√(2L)."""
    generator = torch.Generator().manual_seed(seed)
    shrink = (2 * model.config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0)
                continue
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 * (shrink if is_residual else 1.0)
            parameter.normal_(0.0, std, generator=generator)
