"""Names and rows of llama.cpp."""

from __future__ import annotations

import pytest
import torch

from ownweights.core.errors import ModelError
from ownweights.model.rope import rope_table, rotate
from ownweights.weights.export.names import gguf_name, gguf_rows, interleave_rows
from tests.tiny import CONFIG, tiny_model


def test_gguf_name_knows_every_tensor_of_the_network() -> None:
    names = [gguf_name(name) for name in tiny_model(tie_word_embeddings=False).state_dict()]
    assert len(set(names)) == len(names)
    assert {"token_embd.weight", "output_norm.weight", "output.weight"} <= set(names)
    assert {"blk.0.attn_q.weight", "blk.1.ffn_down.weight", "blk.1.ffn_norm.weight"} <= set(names)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.x_norm.weight", "vision.weight", "model.layers.x.mlp.up_proj"],
)
def test_gguf_name_refuses_what_it_does_not_know(name: str) -> None:
    with pytest.raises(ModelError, match=f"tensor {name} has no name in GGUF"):
        gguf_name(name)


def test_interleave_rows_matches_rotation() -> None:
    """Turning neighbouring pairs of the interleaved rows gives the interleaved turned rows."""
    heads, width, length = 3, 8, 5
    rows = torch.randn(heads * width, 6, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(1))
    cos, sin = rope_table(width, length, 10_000.0)
    ours = rotate((x @ rows.T).unflatten(-1, (heads, width)), cos, sin)
    pairs = (x @ interleave_rows(rows, heads).T).unflatten(-1, (heads, width // 2, 2))
    c, s = cos[:, None, : width // 2], sin[:, None, : width // 2]
    turned = torch.stack(
        [pairs[..., 0] * c - pairs[..., 1] * s, pairs[..., 0] * s + pairs[..., 1] * c], dim=-1
    )
    expected = torch.stack([ours[..., : width // 2], ours[..., width // 2 :]], dim=-1)
    assert torch.allclose(turned, expected, atol=1e-5)


def test_gguf_rows_moves_queries_and_keys_alone() -> None:
    rows = torch.arange(32.0)[:, None]
    moved = gguf_rows("model.layers.0.self_attn.q_proj.weight", rows, CONFIG)
    assert moved[:8, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    keys = gguf_rows("model.layers.0.self_attn.k_proj.weight", rows[:16], CONFIG)
    assert keys[8:, 0].tolist() == [8, 12, 9, 13, 10, 14, 11, 15]
    bias = gguf_rows("model.layers.0.self_attn.q_proj.bias", rows[:, 0], CONFIG)
    assert bias[:8].tolist() == moved[:8, 0].tolist()
    for name in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"):
        assert gguf_rows(f"model.layers.0.{name}.weight", rows, CONFIG) is rows
