"""One model in its serving form: fused weights, and a KV store whose rows and length grow as
needed.

In: a `Transformer`. Out: the last states of whole prompts (`read`), whose `scores` are the next
tokens' logits (`prefill` is both), or logits of one more token a row (`decode`).
Few large operations instead of many small ones, for at this size Python and dispatch cost as much
as the arithmetic: q, k and v are one product, gate and up another; weights lie transposed; rotary
pairs are made neighbours so that turning them is one complex product. Invariant: the logits are the
Transformer's up to rounding (test_runner_matches_transformer).

    kv[layer, row, position] = k of every head, then v of every head, both turned to `position`
    rows 0..n-1 are in use: a batch is a slice, never a gather
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.model.transformer import Attention, Layer, Transformer

MIN_ROWS, MIN_POSITIONS = 8, 128
WINDOW_STEP = 32  # visible lengths are rounded up to this, for even shapes


@dataclass(frozen=True, slots=True, eq=False)
class _Fused:
    """A layer's weights, transposed for x @ w."""

    norm_1: Tensor  # (E,)
    qkv: Tensor  # (E, (H + 2K) D)
    out: Tensor  # (H D, E)
    norm_2: Tensor  # (E,)
    gate_up: Tensor  # (E, 2 F)
    down: Tensor  # (F, E)


class Runner:
    """Runs one model over a batch whose rows are dense: the first `n` rows of the store."""

    def __init__(self, model: Transformer) -> None:
        config = model.config
        self.config = config
        self.window = config.max_position_embeddings
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._layers = [_fuse(layer, config.head_dim) for layer in model.model.layers]
        self._embedding = model.model.embed_tokens.weight.detach()
        head = self._embedding if model.lm_head is None else model.lm_head.effective_weight()
        self._head = head.detach().t().contiguous()  # (E, V)
        self._norm = model.model.norm.weight.detach()
        half = config.head_dim // 2
        self._turns = torch.complex(model.rope_cos[:, :half], model.rope_sin[:, :half])  # (S, D/2)
        self._kv = torch.zeros(config.num_hidden_layers, 0, 0, 2 * self._kv_heads * config.head_dim)

        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())

    @property
    def kv_bytes(self) -> int:
        """Memory the KV store takes now."""
        return self._kv.numel() * self._kv.element_size()

    @torch.inference_mode()
    def read(self, prompts: list[list[int]], first_row: int) -> Tensor:
        """Read whole prompts into rows `first_row`, ...; the state at each prompt's last token.

        Shapes: → (B, E), after the final norm
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        self._reserve(first_row + len(prompts), longest)
        tokens = torch.tensor([p + [0] * (longest - len(p)) for p in prompts])  # (B, T)
        rows = slice(first_row, first_row + len(prompts))
        turns = self._turns[:longest, None]  # (T, 1, D/2)
        x = F.embedding(tokens, self._embedding)  # (B, T, E)
        for index, layer in enumerate(self._layers):
            q, kv = self._project(x, layer, turns)
            self._kv[index, rows, :longest] = kv
            k, v = self._split(kv)
            x = self._finish(x, self._attend(q, k, v), layer)
        return self._normed(x[torch.arange(len(prompts)), lengths - 1])  # (B, E)

    @torch.inference_mode()
    def scores(self, states: Tensor) -> Tensor:
        """Vocabulary scores. Shapes: (B, E) → (B, V)"""
        return torch.mm(states, self._head)

    def prefill(self, prompts: list[list[int]], first_row: int) -> Tensor:
        """`read` whole prompts; the scores after each prompt's last token. Shapes: → (B, V)"""
        return self.scores(self.read(prompts, first_row))

    @torch.inference_mode()
    def decode(self, tokens: list[int], positions: list[int]) -> Tensor:
        """Read one more token into each of the first rows. Shapes: tokens (B,) → (B, V)"""
        count, visible = len(tokens), self._visible(max(positions) + 1)
        self._reserve(count, visible)
        at = torch.tensor(positions)  # (B,)
        rows = torch.arange(count)
        mask = torch.zeros(count, visible).masked_fill_(
            torch.arange(visible) > at[:, None], -torch.inf
        )[:, None, None]  # (B, 1, 1, S)
        turns = self._turns[at][:, None, None]  # (B, 1, 1, D/2)
        x = F.embedding(torch.tensor(tokens), self._embedding)[:, None]  # (B, 1, E)
        for index, layer in enumerate(self._layers):
            q, kv = self._project(x, layer, turns)
            store = self._kv[index]
            store[rows, at] = kv[:, 0]
            k, v = self._split(store[:count, :visible])
            x = self._finish(x, self._attend_one(q, k, v, mask), layer)
        return self.scores(self._normed(x[:, 0]))

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions over another row."""
        self._kv[:, target, :length] = self._kv[:, source, :length]

    def _project(self, x: Tensor, layer: _Fused, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, T, H, D) and what is stored of the tokens (B, T, 2 K D)."""
        batch, length, width = x.shape
        turned = self._heads + self._kv_heads
        x = F.rms_norm(x, (width,), layer.norm_1, self.config.rms_norm_eps)
        qkv = torch.mm(x.view(-1, width), layer.qkv).view(batch, length, -1, self.config.head_dim)
        pairs = torch.view_as_complex(qkv[:, :, :turned].unflatten(-1, (-1, 2)))
        qk = torch.view_as_real(pairs * turns).flatten(-2)  # (B, T, H + K, D)
        kv = torch.cat([qk[:, :, self._heads :], qkv[:, :, turned:]], dim=2)
        return qk[:, :, : self._heads], kv.flatten(2)

    def _split(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, S, D) of stored tokens (B, S, 2 K D)."""
        heads = kv.unflatten(-1, (2, self._kv_heads, -1)).transpose(1, 3)  # (B, K, 2, S, D)
        return heads[:, :, 0], heads[:, :, 1]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of prompts among themselves. Shapes: q (B, T, H, D) → (B T, H D)"""
        group = self._heads // self._kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
        return out.transpose(1, 2).reshape(q.shape[0] * q.shape[1], -1)

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """One new token a row; the heads that share keys stand as query positions."""
        batch, _, _, head = q.shape
        q = q.reshape(batch, self._kv_heads, -1, head)  # (B, K, H/K, D)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(batch, -1)

    def _finish(self, x: Tensor, mixed: Tensor, layer: _Fused) -> Tensor:
        """What follows attention in a layer. Shapes: x (B, T, E), mixed (B T, H D) → (B, T, E)"""
        flat = torch.addmm(x.view(-1, x.shape[-1]), mixed, layer.out)
        normed = F.rms_norm(flat, (flat.shape[-1],), layer.norm_2, self.config.rms_norm_eps)
        gate, up = torch.mm(normed, layer.gate_up).chunk(2, dim=-1)
        return torch.addmm(flat, F.silu(gate).mul_(up), layer.down).view(x.shape)

    def _normed(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self._norm, self.config.rms_norm_eps)

    def _visible(self, length: int) -> int:
        return min(-(-length // WINDOW_STEP) * WINDOW_STEP, max(self.window, length))

    def _reserve(self, rows: int, positions: int) -> None:
        """Have room for so many rows and positions; what is stored stays. Zeros, for what is masked
        must still be a number."""
        layers, has_rows, has_positions, width = self._kv.shape
        if rows <= has_rows and positions <= has_positions:
            return
        new_rows = max(has_rows, MIN_ROWS, _power_of_two(rows))
        new_positions = max(has_positions, MIN_POSITIONS, _power_of_two(positions))
        grown = torch.zeros(layers, new_rows, min(new_positions, self.window), width)
        grown[:, :has_rows, :has_positions] = self._kv
        self._kv = grown


def _fuse(layer: Layer, head_dim: int) -> _Fused:
    attention, mlp = layer.self_attn, layer.mlp
    return _Fused(
        norm_1=layer.input_layernorm.weight.detach(),
        qkv=_transposed(*_turnable(attention, head_dim), attention.v_proj.effective_weight()),
        out=_transposed(attention.o_proj.effective_weight()),
        norm_2=layer.post_attention_layernorm.weight.detach(),
        gate_up=_transposed(mlp.gate_proj.effective_weight(), mlp.up_proj.effective_weight()),
        down=_transposed(mlp.down_proj.effective_weight()),
    )


def _turnable(attention: Attention, head_dim: int) -> list[Tensor]:
    """q and k weights with each head's halves interleaved: what is turned together lies together.
    Both are reordered alike, so their products are unchanged."""
    return [
        projection.effective_weight()
        .unflatten(0, (-1, 2, head_dim // 2))
        .transpose(1, 2)
        .flatten(0, 2)
        for projection in (attention.q_proj, attention.k_proj)
    ]


def _transposed(*weights: Tensor) -> Tensor:
    return torch.cat(weights).detach().t().contiguous()


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
