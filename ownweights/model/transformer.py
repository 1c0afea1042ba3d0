"""The network: one dense decoder for every family, one path for training, prefill and decode.

In: token ids, and, where tokens were seen before, a cache. Out: hidden states; `logits` turns those
that are needed into vocabulary scores. Invariants: logits equal transformers'
(test_logits_match_*, test_family_matches_transformers), and a cached continuation equals the whole
pass (test_cache_always_equals_full_pass).

    position p of row b lives at cache[:, b, :, p]; a query at position p sees cache slots 0..p
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownweights.core.errors import ContextTooLong
from ownweights.model.acting import gated_mlp
from ownweights.model.attention import Attention, CappedAttention, causal_mask
from ownweights.model.config import ModelConfig
from ownweights.model.lora import Linear, together
from ownweights.model.norm import norm_of
from ownweights.model.rope import RopeTable
from ownweights.model.scaling import UNSCALED


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
        self._is_long = torch.zeros(rows, dtype=torch.bool)  # read as a text past the border

    @property
    def max_positions(self) -> int:
        return self.keys.shape[3]

    def note_lengths(self, rows: Tensor, positions: Tensor, border: int) -> None:
        """Remember on which side of the border rows were read; one that crosses must begin anew.

        Shapes: rows (B,), positions (B, T)
        """
        is_long = positions.amax(1) >= border
        assert not bool((is_long & ~self._is_long[rows] & (positions[:, 0] > 0)).any()), (
            f"a text that grows past {border} tokens is read again from its start"
        )
        self._is_long[rows] = is_long

    def write(self, layer: int, rows: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store new keys and values. Shapes: rows (B,), positions (B, T), k and v (B, T, K, D)"""
        index = rows[:, None].expand_as(positions)
        self.keys[layer, index, :, positions] = k
        self.values[layer, index, :, positions] = v


class MLP(nn.Module):
    """Gated feed-forward (SwiGLU, or GeGLU). Source: Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, has_bias = (
            config.hidden_size, config.intermediate_size, config.variant.has_mlp_bias,
        )  # fmt: skip
        self.gate_proj = Linear(width, inner, has_bias=has_bias)
        self.up_proj = Linear(width, inner, has_bias=has_bias)
        self.down_proj = Linear(inner, width, has_bias=has_bias)
        self.activate = ACTIVATIONS[config.family.activation]

    def forward(self, x: Tensor) -> Tensor:
        gate, up, down = self.gate_proj.acting, self.up_proj.acting, self.down_proj.acting
        if self.activate is F.silu and gate is not None and up is not None and down is not None:
            return gated_mlp(gate, up, down, x)
        opened, inner = together((self.gate_proj, self.up_proj), x)
        return self.down_proj(self.activate(opened) * inner)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


class Layer(nn.Module):
    """One decoder layer, hub names."""

    def __init__(self, config: ModelConfig, index: int = 0) -> None:
        super().__init__()
        kind = Attention if config.variant.attention_softcap is None else CappedAttention
        self.input_layernorm = norm_of(config, config.hidden_size)
        self.self_attn = kind(config, index)
        self.post_attention_layernorm = norm_of(config, config.hidden_size)
        self.mlp = MLP(config)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention. Shapes: x and mixed (B, T, E) → (B, T, E)"""
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x))


class SandwichLayer(Layer):
    """Gemma's layer: what each half adds is normalised as well as what it reads."""

    def __init__(self, config: ModelConfig, index: int = 0) -> None:
        super().__init__(config, index)
        self.pre_feedforward_layernorm = norm_of(config, config.hidden_size)
        self.post_feedforward_layernorm = norm_of(config, config.hidden_size)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.post_attention_layernorm(mixed)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Decoder(nn.Module):
    """Embedding, layers and final norm; named `model` in hub checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kind = SandwichLayer if config.family.is_sandwich else Layer
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = nn.ModuleList(kind(config, index) for index in range(config.num_hidden_layers))
        self.layers: Sequence[Layer] = layers  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = norm_of(config, config.hidden_size)
        self.embedding_scale = config.hidden_size**0.5 if config.family.is_sandwich else None

    def embed(self, tokens: Tensor) -> Tensor:
        """Where the stream begins. Shapes: (B, T) → (B, T, E)"""
        x = self.embed_tokens(tokens)
        if self.embedding_scale is None:
            return x
        return x * x.new_tensor(self.embedding_scale)  # rounded to x's format, as Gemma has it


class Transformer(nn.Module):
    """A causal language model whose state dict has the hub's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head: Linear | None = None
        self.compute_dtype: torch.dtype | None = None  # of a training step, where not float32
        self.acting_head: Tensor | None = None  # a tied head in that dtype
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)
        window = config.max_position_embeddings
        rope, width = config.rope, config.rotary_width
        self.rope = RopeTable(width, rope.theta, rope.scaling, window)
        self.local_rope: RopeTable | None = None
        if rope.local_theta is not None:
            self.local_rope = RopeTable(width, rope.local_theta, UNSCALED, window)
        windows = {layer.self_attn.window for layer in self.model.layers}
        self._windows = sorted(one for one in windows if one is not None)

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
        positions: Tensor | None = None,
        visible: int | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Without a cache every row starts at position 0 and right padding is harmless, where
        `lengths` (B,) says how long rows are without it (frequencies may depend on it: see `rope`;
        test_rows_beside_a_longer_one_cost_what_they_cost_alone). With a cache,
        `rows` (B,) are its rows, `positions` (B, T) where the new tokens stand, and `visible` the
        number of leading slots S that any query may need (default: all).

        Shapes: tokens (B, T) → (B, T, E)
        """
        if cache is None:
            return self._whole(tokens, lengths)
        assert rows is not None and positions is not None, "a cache needs rows and positions"
        slots = cache.max_positions if visible is None else visible
        self._check_cache(cache, rows, positions)
        masks = self._cached_masks(positions, slots)
        turns = self.rope.at(positions)  # (B, T, D) each
        local = turns if self.local_rope is None else self.local_rope.at(positions)
        x = self.model.embed(tokens)  # (B, T, E)
        for index, layer in enumerate(self.model.layers):
            attention = layer.self_attn
            cos, sin = local if attention.is_local else turns
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            cache.write(index, rows, positions, k, v)
            keys, values = cache.keys[index], cache.values[index]
            if rows.shape[0] != keys.shape[0]:
                keys, values = keys[rows], values[rows]
            mask = masks[attention.window]
            mixed = attention.attend(q, keys[:, :, :slots], values[:, :, :slots], mask)
            x = layer.finish(x, mixed)
        return self.model.norm(x)

    def _whole(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        length = tokens.shape[1]
        cos, sin = self.rope.of(length, tokens.device)
        turns = local = cos[:length], sin[:length]  # (T, D) each
        if lengths is not None and self.rope.border is not None and length > self.rope.border:
            places = torch.arange(length, device=tokens.device)
            turns = local = self.rope.at(torch.minimum(places, lengths[:, None] - 1))  # (B, T, D)
        if self.local_rope is not None:
            cos, sin = self.local_rope.of(length, tokens.device)
            local = cos[:length], sin[:length]
        masks: dict[int | None, Tensor] = {  # a text within the window needs none
            window: causal_mask(length, window, tokens.device)[None]
            for window in self._windows
            if window < length
        }
        x = self.model.embed(tokens)  # (B, T, E)
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        for layer in self.model.layers:
            attention = layer.self_attn
            cos, sin = local if attention.is_local else turns
            q, k, v = attention.project(layer.input_layernorm(x), cos, sin)
            mask = masks.get(attention.window)
            x = layer.finish(x, attention.attend(q, k.transpose(1, 2), v.transpose(1, 2), mask))
        return self.model.norm(x)

    def _cached_masks(self, positions: Tensor, slots: int) -> dict[int | None, Tensor]:
        """What new tokens see, by window. Shapes: positions (B, T) → (B, T, S) each"""
        places, last = torch.arange(slots), positions[:, :, None]
        causal = places <= last  # (B, T, S)
        masks: dict[int | None, Tensor] = {None: causal}
        for window in self._windows:
            masks[window] = causal if window >= slots else causal & (places > last - window)
        return masks

    def _check_cache(self, cache: KVCache, rows: Tensor, positions: Tensor) -> None:
        """Refuse what a cache cannot hold exactly (see `rope`)."""
        if self.config.variant.scaling.rope_type == "dynamic":
            window, length = self.config.max_position_embeddings, int(positions.max()) + 1
            if length > window:
                raise ContextTooLong(length, window)
        border = self.rope.border
        if border is not None:
            cache.note_lengths(rows, positions, border)

    @property
    def logit_cap(self) -> float | None:
        """The bound c of scores that are capped, as c·tanh(score / c); None where they are not."""
        return self.config.variant.logit_softcap

    def head_weight(self) -> Tensor:
        """What turns hidden states into scores, as the training step has it. Shapes: → (V, E)"""
        if self.lm_head is not None:
            return self.lm_head.effective_weight()
        return self.model.embed_tokens.weight if self.acting_head is None else self.acting_head

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
            scores = F.linear(hidden, self.model.embed_tokens.weight)
        else:
            scores = self.lm_head(hidden)
        cap = self.logit_cap
        return scores if cap is None else cap * torch.tanh(scores / cap)


def initialise(model: Transformer, seed: int) -> None:
    """Random weights for pre-training: normal 0.02, residual outputs scaled by 1/√(2L)."""
    generator = torch.Generator().manual_seed(seed)
    shrink = (2 * model.config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                is_zero = name.endswith(".bias") or model.config.family.is_sandwich
                parameter.fill_(0.0 if is_zero else 1.0)
                continue
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 * (shrink if is_residual else 1.0)
            parameter.normal_(0.0, std, generator=generator)
