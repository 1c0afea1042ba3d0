"""Both spellings of RoPE: read alike, written alike, and refused where they differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig, Variant, parse_config
from ownweights.model.scaling import Scaling
from tests.tiny import CONFIG

HUB: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}  # fmt: skip
PHI = {**HUB, "architectures": ["Phi3ForCausalLM"]}
GEMMA = {**HUB, "architectures": ["Gemma3ForCausalLM"]}
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}  # fmt: skip
YARN = {"factor": 4.0, "original_max_position_embeddings": 1024}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2, 3, 4, 5]}
KINDS: dict[str, Scaling] = {
    "default": Scaling(),
    "linear": Scaling("linear", factor=2.5),
    "dynamic": Scaling("dynamic", factor=3.0),
    "llama3": Scaling("llama3", **LLAMA3),  # pyright: ignore
    "yarn": Scaling("yarn", **YARN),  # pyright: ignore
    "yarn_all": Scaling(
        "yarn", attention_factor=1.25, beta_fast=20.0, beta_slow=2.0, mscale=0.9,
        mscale_all_dim=0.7, truncate=False, **YARN,  # pyright: ignore
    ),
    "longrope": Scaling(
        "longrope", original_max_position_embeddings=1024, attention_factor=1.2,
        short_factor=(1.0, 1.1, 1.2, 1.3), long_factor=(2.0, 3.0, 4.0, 5.0),
    ),
}  # fmt: skip


def config_of(scaling: Scaling) -> ModelConfig:
    """A configuration with that scaling, of a family that has it."""
    family = "phi3" if scaling.rope_type == "longrope" else "llama"
    variant = Variant(family, scaling=scaling)
    return dataclasses.replace(CONFIG, max_position_embeddings=4096, variant=variant)


def old_only(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != "rope_parameters"}


def new_only(raw: dict[str, Any]) -> dict[str, Any]:
    old = {"rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor"}
    return {key: value for key, value in raw.items() if key not in old}


@pytest.mark.parametrize("kind", KINDS)
def test_rope_is_written_in_both_spellings_alike(kind: str) -> None:
    """Each alone, and both together, read as what was written (training.md c.56)."""
    config = config_of(KINDS[kind])
    raw = config.to_hub()
    for one in (raw, old_only(raw), new_only(raw)):
        assert parse_config(one) == config


def test_rope_of_gemma_3_is_written_in_both_spellings_alike() -> None:
    variant = Variant(
        "gemma3_text", scaling=Scaling("linear", factor=8.0), local_rope_theta=5000.0, window=16,
        sliding_layers=(True, False), query_scalar=8.0,
    )  # fmt: skip
    config = dataclasses.replace(CONFIG, rope_theta=1e6, variant=variant)
    raw = config.to_hub()
    assert raw["rope_parameters"]["sliding_attention"]["rope_theta"] == 5000.0
    assert raw["rope_local_base_freq"] == 5000.0
    for one in (raw, old_only(raw), new_only(raw)):
        assert parse_config(one) == config


def test_rope_of_phi_has_the_three_keys_that_old_readers_allow() -> None:
    scaling = dataclasses.replace(KINDS["longrope"], attention_factor=None)
    raw = config_of(scaling).to_hub()
    assert set(raw["rope_scaling"]) == {"type", "short_factor", "long_factor"}
    assert raw["original_max_position_embeddings"] == 1024


@pytest.mark.parametrize(
    ("old", "named"),
    [
        ({"rope_theta": 2e4}, "rope_theta twice and differently: 10000.0 and 20000.0"),
        ({"rope_scaling": None}, r"rope_scaling\.rope_type twice and differently: 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "'yarn' and 'linear'"),
        ({"rope_scaling": {"type": "yarn", **YARN, "factor": 8}},
         r"rope_scaling\.factor twice and differently: 4\.0 and 8\.0"),
        ({"rope_scaling": {"type": "yarn", **YARN, "truncate": False}}, r"rope_scaling\.truncate"),
    ],
)  # fmt: skip
def test_rope_refuses_two_spellings_that_differ(old: dict[str, Any], named: str) -> None:
    """training.md c.56"""
    new = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0, **YARN}}
    with pytest.raises(ModelError, match=named) as refusal:
        parse_config({**HUB, **new, **old})
    assert "another model" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({**HUB, "rope_scaling": {"type": "ntk", "factor": 2.0}}, "RoPE scaling 'ntk'"),
        ({**HUB, "rope_scaling": {"type": "longrope", **FACTORS}}, "RoPE scaling 'longrope'"),
        ({**HUB, "rope_scaling": {"type": ["yarn"], **YARN}}, "RoPE scaling"),
        ({**HUB, "rope_scaling": {"rope_type": "default", "mrope_section": [1]}}, "mrope_section"),
        ({**HUB, "rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast"),
        ({**HUB, "rope_scaling": {"type": "yarn"}}, "'yarn' needs factor"),
        ({**HUB, "rope_scaling": {"type": "linear", "factor": 0.5}}, "must be at least 1"),
        ({**HUB, "rope_scaling": {"type": "yarn", **YARN, "truncate": None}}, "true or false"),
        ({**HUB, "rope_scaling": {"type": "yarn", **YARN, "truncate": "no"}}, "true or false"),
        ({**HUB, "rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}},
         "high_freq_factor must be greater"),
        ({**HUB, "rope_scaling": {"rope_type": "yarn", "type": "linear", **YARN}},
         "called 'yarn' and 'linear'"),
        ({**HUB, "rope_scaling": "yarn"}, "rope_scaling must be an object"),
        ({**HUB, "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({**HUB, "rope_parameters": {"full_attention": {}}}, "by layer type"),
        ({**HUB, "rope_theta": 1}, "a base above 1"),
        ({**PHI, "partial_rotary_factor": 1.5}, "at most 1"),
        ({**PHI, "rope_scaling": {"type": "longrope", **FACTORS, "long_factor": [1.0]}},
         "long_factor must hold 4 numbers"),
        ({**PHI, "rope_scaling": {"type": "longrope", **FACTORS, "long_factor": [1, 2, "x", 4]}},
         "long_factor must be a positive number"),
        ({**PHI, "original_max_position_embeddings": 512, "rope_scaling": {
            "type": "longrope", **FACTORS, "original_max_position_embeddings": 1024}},
         "original_max_position_embeddings twice"),
        ({**PHI, "rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling 'linear'"),
        ({**GEMMA, "rope_parameters": {"rope_type": "default"}}, "must hold full_attention and"),
        ({**GEMMA, "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2}}},
         "'linear' of local layers"),
        ({**GEMMA, "rope_local_base_freq": 2e4, "rope_parameters": {
            "sliding_attention": {"rope_theta": 1e4}}}, "rope_local_base_freq twice"),
    ],
)  # fmt: skip
def test_rope_refuses_what_it_cannot_turn_by(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        parse_config(raw)


def test_rope_refuses_a_truncate_that_transformers_does_not_read() -> None:
    """transformers 5.23 looks for it outside the object it stands in (training.md e3)."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, **YARN, "truncate": False}
    with pytest.raises(ModelError, match="truncate = false in a YaRN by layer type"):
        parse_config({**GEMMA, "rope_parameters": {"full_attention": yarn}})
    flat = {**GEMMA, "rope_scaling": {**yarn, "truncate": True}}
    assert parse_config(flat).variant.scaling.rope_type == "yarn"


@pytest.mark.oracle
def test_truncate_by_layer_type_is_still_not_read_by_transformers() -> None:
    """When this fails, transformers reads it, and our refusal may go."""
    import torch
    from transformers import Gemma3TextConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def frequencies(truncate: bool) -> torch.Tensor:
        yarn = {"rope_type": "yarn", "rope_theta": 1e6, **YARN, "truncate": truncate}
        local = {"rope_type": "default", "rope_theta": 1e4}
        parameters = {"full_attention": yarn, "sliding_attention": local}
        config = Gemma3TextConfig(
            head_dim=64, max_position_embeddings=4096, rope_parameters=parameters
        )
        return ROPE_INIT_FUNCTIONS["yarn"](config, None, layer_type="full_attention")[0]

    assert torch.equal(frequencies(True), frequencies(False))


@pytest.mark.parametrize(
    ("raw", "original"),
    [
        ({**HUB, "rope_scaling": {"type": "yarn", "factor": 4}}, 4096),
        ({**HUB, "rope_scaling": {"type": "yarn", **YARN}}, 1024),
        ({**PHI, "original_max_position_embeddings": 512,
          "rope_scaling": {"type": "su", **FACTORS}}, 512),
    ],
)  # fmt: skip
def test_rope_finds_the_window_it_starts_from(raw: dict[str, Any], original: int) -> None:
    scaling = parse_config(raw).variant.scaling
    assert scaling.original_max_position_embeddings == original
    assert scaling.rope_type in ("yarn", "longrope")


def test_rope_defaults_are_the_familys() -> None:
    gemma = parse_config(GEMMA)
    assert (gemma.rope_theta, gemma.variant.local_rope_theta) == (1e6, 1e4)
    assert parse_config(HUB).variant.local_rope_theta is None
