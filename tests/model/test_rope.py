"""Positions as rotations: lengths are kept, only distances matter, and transformers agrees."""

from __future__ import annotations

import pytest
import torch

from ownweights.model.rope import rope_table, rotate

# Angles are formed in float64 here and in float32 there: positions of 1e3 lose 1e-4 radians.
ANGLE_TOLERANCE = 2e-4
FLOAT32_TOLERANCE = 1e-5


def turned(x: torch.Tensor, position: int, theta: float = 1e4) -> torch.Tensor:
    """One vector (D,) as if it stood at `position`."""
    cos, sin = rope_table(x.shape[-1], position + 1, theta)
    return rotate(x.view(1, 1, 1, -1), cos[position:], sin[position:]).view(-1)


def test_rotate_leaves_position_zero_alone() -> None:
    x = torch.randn(8)
    assert torch.equal(turned(x, 0), x)


@pytest.mark.parametrize("head_dim", [2, 6, 24, 64])
def test_rotate_keeps_lengths(head_dim: int) -> None:
    x = torch.randn(head_dim)
    assert torch.allclose(turned(x, 17).norm(), x.norm(), atol=FLOAT32_TOLERANCE)


def test_rotate_makes_products_depend_on_distance_only() -> None:
    q, k = torch.randn(16), torch.randn(16)
    near, far = turned(q, 9) @ turned(k, 4), turned(q, 105) @ turned(k, 100)
    assert torch.allclose(near, far, atol=1e-4)


def test_rotate_takes_positions_by_row() -> None:
    cos, sin = rope_table(8, 10, 1e4)
    x = torch.randn(2, 1, 3, 8)
    positions = torch.tensor([[2], [7]])
    both = rotate(x, cos[positions], sin[positions])
    for row in range(2):
        at = positions[row]
        assert torch.equal(both[row : row + 1], rotate(x[row : row + 1], cos[at], sin[at]))


@pytest.mark.oracle
@pytest.mark.parametrize(("head_dim", "theta"), [(8, 1e4), (24, 5e5), (64, 1e6)])
def test_rope_table_matches_transformers(head_dim: int, theta: float) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = LlamaConfig(
        hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    positions = torch.arange(1000)[None]
    q = torch.randn(1, 1000, 2, head_dim)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions)
    theirs, _ = apply_rotary_pos_emb(q, q, cos, sin, unsqueeze_dim=2)
    ours = rotate(q, *rope_table(head_dim, 1000, theta))
    assert torch.allclose(ours, theirs, atol=10 * ANGLE_TOLERANCE)
