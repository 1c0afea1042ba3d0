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

import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.engine.fused import Fused, Turns, fuse
from ownweights.model.attention import capped_attention, causal_mask
from ownweights.model.transformer import ACTIVATIONS, Transformer

MIN_ROWS, MIN_POSITIONS = 8, 128
WINDOW_STEP = 32  # visible lengths are rounded up to this, for even shapes


class Runner:
    """Runs one model over a batch whose rows are dense: the first `n` rows of the store."""

    def __init__(self, model: Transformer) -> None:
        config = model.config
        self.config = config
        self.window = config.max_position_embeddings
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._layers = [fuse(layer, config) for layer in model.model.layers]
        self._embedding = model.model.embed_tokens.weight.detach()
        head = self._embedding if model.lm_head is None else model.lm_head.effective_weight()
        self._head = head.detach().t().contiguous()  # (E, V)
        self._norm = model.model.norm.multiplier().detach()
        self._embedding_scale = model.model.embedding_scale
        self._activate = ACTIVATIONS[config.family.activation]
        variant = config.variant
        self._attention_cap, self._logit_cap = variant.attention_softcap, variant.logit_softcap
        self._scale = model.model.layers[0].self_attn.scale
        self.border = model.rope.border
        self._turns = Turns(model.rope, config.head_dim)
        self._local_turns = self._turns
        if model.local_rope is not None:
            self._local_turns = Turns(model.local_rope, config.head_dim)
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
        turns = self._turns.of_prompts(lengths)  # (T, 1, D/2), or (B, T, 1, D/2)
        local = turns if self._local_turns is self._turns else self._local_turns.of_prompts(lengths)
        x = self._embed(tokens)  # (B, T, E)
        for index, layer in enumerate(self._layers):
            q, kv = self._project(x, layer, local if layer.is_local else turns)
            self._kv[index, rows, :longest] = kv
            k, v = self._split(kv)
            x = self._finish(x, self._attend(q, k, v, layer.window), layer)
        return self._normed(x[torch.arange(len(prompts)), lengths - 1])  # (B, E)

    @torch.inference_mode()
    def scores(self, states: Tensor) -> Tensor:
        """Vocabulary scores. Shapes: (B, E) → (B, V)"""
        scores, cap = torch.mm(states, self._head), self._logit_cap
        return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)

    def prefill(self, prompts: list[list[int]], first_row: int) -> Tensor:
        """`read` whole prompts; the scores after each prompt's last token. Shapes: → (B, V)"""
        return self.scores(self.read(prompts, first_row))

    @torch.inference_mode()
    def read_anew(self, text: list[int], row: int, logits: Tensor) -> None:
        """Read a whole text into a row again, and put what follows it into `logits` (B, V)."""
        logits[row] = self.prefill([text], row)[0]

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
        turns = self._turns.at(at)  # (B, 1, 1, D/2)
        local = turns if self._local_turns is self._turns else self._local_turns.at(at)
        masks = self._windowed(mask, at)
        x = self._embed(torch.tensor(tokens)[:, None])  # (B, 1, E)
        for index, layer in enumerate(self._layers):
            q, kv = self._project(x, layer, local if layer.is_local else turns)
            store = self._kv[index]
            store[rows, at] = kv[:, 0]
            k, v = self._split(store[:count, :visible])
            x = self._finish(x, self._attend_one(q, k, v, masks[layer.window]), layer)
        return self.scores(self._normed(x[:, 0]))

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions over another row."""
        self._kv[:, target, :length] = self._kv[:, source, :length]

    def _project(self, x: Tensor, layer: Fused, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, T, H, D) and what is stored of the tokens (B, T, 2 K D)."""
        batch, length, width = x.shape
        turned = self._heads + self._kv_heads
        x = F.rms_norm(x, (width,), layer.norm_1, self.config.rms_norm_eps)
        flat = x.view(-1, width)
        if layer.qkv_bias is None:
            qkv = torch.mm(flat, layer.qkv)
        else:
            qkv = torch.addmm(layer.qkv_bias, flat, layer.qkv)
        qkv = qkv.view(batch, length, -1, self.config.head_dim)
        if layer.qk_norm is not None:
            head = (self.config.head_dim,)
            qk = F.rms_norm(qkv[:, :, :turned], head, None, self.config.rms_norm_eps)
            qkv[:, :, :turned] = qk.mul_(layer.qk_norm)
        pairs = torch.view_as_complex(qkv[:, :, :turned].unflatten(-1, (-1, 2)))
        qk = torch.view_as_real(pairs * turns).flatten(-2)  # (B, T, H + K, D)
        kv = torch.cat([qk[:, :, self._heads :], qkv[:, :, turned:]], dim=2)
        return qk[:, :, : self._heads], kv.flatten(2)

    def _split(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, S, D) of stored tokens (B, S, 2 K D)."""
        heads = kv.unflatten(-1, (2, self._kv_heads, -1)).transpose(1, 3)  # (B, K, 2, S, D)
        return heads[:, :, 0], heads[:, :, 1]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Causal attention of prompts among themselves. Shapes: q (B, T, H, D) → (B T, H D)"""
        batch, length, heads, _ = q.shape
        is_masked = window is not None and window < length
        mask = causal_mask(length, window)[None, None] if is_masked else None
        if self._attention_cap is not None:
            return self._attend_capped(q, k, v, None if mask is None else mask[0])
        group = heads // self._kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, mask, is_causal=mask is None, scale=self._scale
        )
        return out.transpose(1, 2).reshape(batch * length, -1)

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """One new token a row; the heads that share keys stand as query positions."""
        batch, _, _, head = q.shape
        if self._attention_cap is not None:
            return self._attend_capped(q, k, v, mask[:, 0] == 0)
        q = q.reshape(batch, self._kv_heads, -1, head)  # (B, K, H/K, D)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self._scale)
        return out.reshape(batch, -1)

    def _attend_capped(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention with soft-capped scores. Shapes: q (B, T, H, D), mask (B, T, S) → (B T, H D)"""
        cap = self._attention_cap
        assert cap is not None, "only capped networks come here"
        grouped = q.transpose(1, 2).unflatten(1, (self._kv_heads, -1))  # (B, K, H/K, T, D)
        kv = k[:, :, None], v[:, :, None]
        out = capped_attention(grouped, kv, mask, scale=self._scale, cap=cap)
        return out.flatten(1, 2).transpose(1, 2).reshape(q.shape[0] * q.shape[1], -1)

    def _windowed(self, mask: Tensor, at: Tensor) -> dict[int | None, Tensor]:
        """The mask of each window: -inf beyond it too. Shapes: mask (B, 1, 1, S), at (B,)"""
        masks: dict[int | None, Tensor] = {None: mask}
        visible = mask.shape[-1]
        for window in {layer.window for layer in self._layers} - {None}:
            assert window is not None, "None was taken out"
            if window >= visible:
                masks[window] = mask
                continue
            is_past = torch.arange(visible) <= at[:, None] - window  # (B, S)
            masks[window] = mask.masked_fill(is_past[:, None, None], -torch.inf)
        return masks

    def _embed(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self._embedding)
        return x if self._embedding_scale is None else x * self._embedding_scale

    def _finish(self, x: Tensor, mixed: Tensor, layer: Fused) -> Tensor:
        """What follows attention in a layer. Shapes: x (B, T, E), mixed (B T, H D) → (B, T, E)"""
        flat = self._added(
            x.view(-1, x.shape[-1]), mixed, (layer.out, layer.out_bias), layer.norm_mixed
        )
        normed = F.rms_norm(flat, (flat.shape[-1],), layer.norm_2, self.config.rms_norm_eps)
        if layer.gate_up_bias is None:
            both = torch.mm(normed, layer.gate_up)
        else:
            both = torch.addmm(layer.gate_up_bias, normed, layer.gate_up)
        gate, up = both.chunk(2, dim=-1)
        fed = self._activate(gate).mul_(up)
        return self._added(flat, fed, (layer.down, layer.down_bias), layer.norm_fed).view(x.shape)

    def _added(
        self, flat: Tensor, x: Tensor, weights: tuple[Tensor, Tensor | None], norm: Tensor | None
    ) -> Tensor:
        """The stream, and what a half of a layer adds to it. Shapes: flat (N, E), x (N, in)"""
        weight, bias = weights
        if norm is None:
            flat = torch.addmm(flat, x, weight)
            return flat if bias is None else flat.add_(bias)
        more = torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
        return flat + F.rms_norm(more, (more.shape[-1],), norm, self.config.rms_norm_eps)

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


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
