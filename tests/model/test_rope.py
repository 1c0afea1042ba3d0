"""Positions as rotations: lengths are kept, only distances matter, and transformers agrees."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ownweights.model.rope import RopeTable, inverse_frequencies, rope_table, rotate
from ownweights.model.scaling import Scaling

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


YARN = Scaling("yarn", factor=16.0, original_max_position_embeddings=4096)
# The golden values of a head of 128 at base 10,000, checked once with transformers 5.23.
YARN_GOLDEN = {
    0: 1.0, 20: 0.05623412877, 30: 0.0085268440, 40: 8.817889e-4, 46: 8.334509e-5, 63: 7.2173871e-6,
}  # fmt: skip


def test_yarn_has_its_golden_values() -> None:
    """training.md e3"""
    found, factor = inverse_frequencies(128, 1e4, YARN, 65536, 65536)
    assert factor == pytest.approx(1.2772588722239782, rel=1e-15)
    for pair, value in YARN_GOLDEN.items():
        assert float(found[pair]) == pytest.approx(value, rel=1e-6)


def test_yarn_leaves_fast_pairs_alone_and_divides_slow_ones() -> None:
    """The ramp lies between pairs that turn 32 times and once in the window: 20.94, 45.03."""
    plain, _ = inverse_frequencies(128, 1e4, Scaling(), 4096, 4096)
    found, _ = inverse_frequencies(128, 1e4, YARN, 65536, 65536)
    assert torch.equal(found[:21], plain[:21])
    assert torch.allclose(found[46:], plain[46:] / 16, rtol=1e-12)
    assert bool((found[21:46] < plain[21:46]).all() and (found[21:46] > plain[21:46] / 16).all())
    real = Scaling("yarn", factor=16.0, original_max_position_embeddings=4096, truncate=False)
    by_real, _ = inverse_frequencies(128, 1e4, real, 65536, 65536)
    share = (21 - 20.944481620616) / (45.026881273755 - 20.944481620616)
    assert float(by_real[21]) == pytest.approx(
        float(plain[21]) * (share / 16 + 1 - share), rel=1e-12
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"attention_factor": 1.5}, 1.5),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({"mscale": 0.707}, 1.2772588722239782),
        ({"mscale": 1.0, "mscale_all_dim": 0.5}, 1.2772588722239782 / 1.1386294361119891),
    ],
)
def test_yarn_multiplies_by_what_its_numbers_say(
    numbers: dict[str, float], expected: float
) -> None:
    scaling = Scaling("yarn", factor=16.0, original_max_position_embeddings=4096, **numbers)
    assert inverse_frequencies(128, 1e4, scaling, 65536, 1)[1] == pytest.approx(expected)


def test_dynamic_ntk_has_its_golden_base() -> None:
    """training.md e3: base 10,000, 128 wide, four times as long: 40889.942"""
    scaling = Scaling("dynamic", factor=4.0)
    found, _ = inverse_frequencies(128, 1e4, scaling, 4096, 7168)  # 4 · 7168 / 4096 - 3 = 4
    assert float(found[1]) == pytest.approx(40889.942 ** (-2 / 128), rel=1e-8)
    within, _ = inverse_frequencies(128, 1e4, scaling, 4096, 4096)
    assert torch.equal(within, inverse_frequencies(128, 1e4, Scaling(), 4096, 4096)[0])


def test_linear_scaling_stretches_positions() -> None:
    cos, _ = RopeTable(8, 1e4, Scaling("linear", factor=4.0), 64).of(64)
    plain, _ = rope_table(8, 16, 1e4)
    assert torch.allclose(cos[::4], plain, atol=FLOAT32_TOLERANCE)


def test_rope_table_grows_without_changing_what_it_gave() -> None:
    table = RopeTable(8, 1e4, Scaling(), 1 << 17)
    short = table.of(10)[0].clone()
    assert table.of(9000)[0].shape[0] == 16384
    assert torch.equal(table.of(10)[0][: len(short)], short)


LONG = Scaling(
    "longrope", original_max_position_embeddings=10, short_factor=(1.0, 1.5),
    long_factor=(2.0, 9.0),
)  # fmt: skip


def test_longrope_turns_a_row_by_its_own_length() -> None:
    table = RopeTable(4, 1e4, LONG, 40)
    assert table.border == 10
    positions = torch.tensor([[8, 9], [9, 10], [3, 4]])
    for which in (0, 1):
        found = table.at(positions)[which]
        for row, length in enumerate((10, 11, 5)):
            assert torch.equal(found[row], table.of(length)[which][positions[row]])
    short, long = table.of(10)[0], table.of(11)[0]
    assert not torch.equal(short[:10], long[:10])


def test_rope_table_made_while_answering_serves_training() -> None:
    table = RopeTable(8, 1e4, Scaling(), 64)
    with torch.inference_mode():
        table.of(12)
    x = torch.randn(1, 12, 2, 8, requires_grad=True)
    cos, sin = table.of(12)
    rotate(x, cos[:12], sin[:12]).sum().backward()
    assert x.grad is not None


def test_rotate_leaves_what_the_tables_do_not_cover() -> None:
    x = torch.randn(1, 5, 2, 8)
    cos, sin = rope_table(6, 5, 1e4)
    found = rotate(x, cos, sin)
    assert torch.equal(found[..., 6:], x[..., 6:])
    assert torch.equal(found[..., :6], rotate(x[..., :6], cos, sin))


@pytest.mark.oracle
@pytest.mark.parametrize("length", [200, 700, 3000])
@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3", "yarn", "longrope"])
def test_inverse_frequencies_match_transformers(kind: str, length: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    numbers: dict[str, Any] = {"factor": 4.0, "original_max_position_embeddings": 512}
    if kind in ("linear", "dynamic"):
        numbers = {"factor": 4.0}
    if kind == "llama3":
        numbers |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "longrope":
        numbers["short_factor"] = [1 + 0.05 * i for i in range(32)]
        numbers["long_factor"] = [1 + 0.4 * i for i in range(32)]
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=2048,
        rope_parameters={"rope_type": kind, "rope_theta": 1e5, **numbers},
    )  # fmt: skip
    theirs, their_factor = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=length)
    ours_numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()}
    ours, factor = inverse_frequencies(64, 1e5, Scaling(kind, **ours_numbers), 2048, length)
    assert factor == pytest.approx(float(their_factor), rel=1e-12)
    assert torch.allclose(ours.float(), theirs, rtol=1e-5, atol=0)
