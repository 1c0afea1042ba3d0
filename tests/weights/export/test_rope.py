"""Rotary scaling as llama.cpp has it."""

from __future__ import annotations

import math

import pytest
import torch

from ownweights.core.errors import ModelError
from ownweights.weights.export.rope import rope_factors, rope_keys

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def test_rope_keys_of_what_needs_none() -> None:
    assert rope_keys({"rope_type": "default", "rope_theta": 1e4}, 2048) == {}
    assert rope_keys(LLAMA3, 131_072) == {}
    assert rope_factors({"rope_type": "default", "rope_theta": 1e4}, 64) is None


def test_rope_keys_of_linear_and_yarn() -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    assert rope_keys(linear, 2048) == {"scaling.type": "linear", "scaling.factor": 2.0}
    yarn = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1}
    assert rope_keys(yarn, 8192) == {
        "scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 2048,
        "scaling.yarn_beta_fast": 32.0, "scaling.yarn_beta_slow": 1.0,
    }  # fmt: skip


def test_rope_keys_take_yarns_own_temperature_out() -> None:
    """llama.cpp multiplies by 0.1 ln s + 1 whatever the file says."""
    plain = 0.1 * math.log(4.0) + 1
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    keys = rope_keys(rope | {"attention_factor": plain}, 4096)
    assert keys["scaling.attn_factor"] == pytest.approx(1.0)
    assert rope_keys(rope | {"attention_factor": 1.0}, 4096)["scaling.attn_factor"] == 1 / plain


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_keys_refuse_what_llama_cpp_does_not_compute(kind: str) -> None:
    with pytest.raises(ModelError, match=f"RoPE scaling '{kind}' is not computed by llama.cpp"):
        rope_keys({"rope_type": kind, "factor": 2.0}, 2048)


def test_rope_factors_match_the_definition() -> None:
    """θ → θ / factor where the wave is longer than L / low, θ where shorter than L / high, else
    between them."""
    found = rope_factors(LLAMA3, 128)
    assert found is not None
    for index, factor in enumerate(found.tolist()):
        theta = 500_000.0 ** (-2 * index / 128)
        wave = 2 * math.pi / theta
        if wave < 8192 / 4:
            expected = theta
        elif wave > 8192:
            expected = theta / 8
        else:
            share = (8192 / wave - 1) / (4 - 1)
            expected = (1 - share) * theta / 8 + share * theta
        assert theta / factor == pytest.approx(expected, rel=1e-6)


@pytest.mark.oracle
def test_rope_factors_match_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, max_position_embeddings=131_072,
        rope_parameters=dict(LLAMA3),
    )  # fmt: skip
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    found = rope_factors(LLAMA3, 128)
    assert found is not None
    plain = 500_000.0 ** -(torch.arange(0, 128, 2).double() / 128)
    assert torch.allclose(plain / found, theirs.double(), rtol=1e-5)
