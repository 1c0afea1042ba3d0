"""Rotary position embedding, half-rotation convention of the hub's Llama checkpoints.

Source: Su et al. 2021, arXiv 2104.09864. Checked: tests/model/test_rope.py against transformers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(head_dim: int, max_positions: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position.

    Shapes: → cos (S, D), sin (S, D), the second half of D repeating the first
    """
    inverse = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (D/2,)
    angles = torch.arange(max_positions, dtype=torch.float64)[:, None] * inverse  # (S, D/2)
    angles = torch.cat([angles, angles], dim=-1)  # (S, D)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys to their positions.

    Shapes: x (B, T, heads, D), cos and sin (T, D) or (B, T, D) → as x
    """
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)  # (..., T, 1, D)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
