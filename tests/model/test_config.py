"""What a config.json may say, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig, parse_config, read_config
from ownweights.model.families import ALL, Family
from tests.tiny import CONFIG

HUB: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def test_parse_config_fills_in_the_hubs_defaults() -> None:
    config = parse_config(HUB)
    assert (config.num_key_value_heads, config.head_dim) == (4, 8)
    assert (config.rope_theta, config.rms_norm_eps) == (10_000.0, 1e-6)
    assert (config.max_position_embeddings, config.tie_word_embeddings) == (2048, False)
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (None, (), None)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("eos_token_id", 3, (3,)),
        ("eos_token_id", [3, 5], (3, 5)),
        ("eos_token_id", None, ()),
    ],
)
def test_parse_config_reads_end_tokens(field: str, value: Any, expected: tuple[int, ...]) -> None:
    assert parse_config({**HUB, field: value}).eos_token_ids == expected


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": None},
    ],
)
def test_parse_config_reads_both_rope_spellings(spelling: dict[str, Any]) -> None:
    assert parse_config({**HUB, **spelling}).rope_theta == 5e5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": None, "model_type": "mamba"}, "mamba"),
        ({"rope_scaling": {"type": "ntk", "factor": 4.0}}, "ntk"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"sliding_window": 128}, "sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"lm_head_bias": True}, "lm_head_bias"),
        ({"architectures": ["MistralForCausalLM"], "attention_bias": True}, "attention_bias"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "ConditionalGeneration"),
        ({"architectures": ["Gemma2ForCausalLM"], "hidden_activation": "gelu"}, "gelu"),
        (
            {"architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": True},
            "use_bidirectional_attention",
        ),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM"),
    ],
)
def test_config_refuses_what_it_cannot_run_and_says_what_can(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=named) as refusal:
        parse_config({**HUB, **change})
    assert "vLLM or llama.cpp" in (refusal.value.hint or "")


@pytest.mark.parametrize("value", [None, 0, -1, "32", 1.5, True])
def test_config_refuses_a_size_that_is_none(value: Any) -> None:
    with pytest.raises(ModelError, match="hidden_size must be a positive integer"):
        parse_config({**HUB, "hidden_size": value})


def test_config_refuses_heads_that_cannot_share() -> None:
    with pytest.raises(ModelError, match="4 query heads cannot share 3 key/value heads evenly"):
        parse_config({**HUB, "num_key_value_heads": 3})


def test_config_round_trips_through_the_hubs_form(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_hub()), "utf-8")
    assert read_config(tmp_path) == CONFIG


def test_config_to_hub_writes_both_rope_spellings_alike() -> None:
    hub = ModelConfig(**{**_fields(), "rope_theta": 7e4}).to_hub()
    assert hub["rope_theta"] == hub["rope_parameters"]["rope_theta"] == 7e4


def test_read_config_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json") as refusal:
        read_config(tmp_path)
    assert refusal.value.hint == "point `base` at a hub checkpoint's folder"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_read_config_refuses_what_is_not_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="not readable JSON"):
        read_config(tmp_path)


def _fields() -> dict[str, Any]:
    return {name: getattr(CONFIG, name) for name in ModelConfig.__slots__}


ODD: list[Any] = [[], {}, "x", 7, -1, 1.5, 10**400, float("nan"), True, ["x"], {"a": []}]


@pytest.mark.parametrize(
    "field", [*CONFIG.to_hub(), "rope_theta", "rope_scaling", "sliding_window"]
)
def test_parse_config_meets_odd_values_with_model_errors_alone(field: str) -> None:
    for value in ODD:
        with contextlib.suppress(ModelError):
            parse_config({**CONFIG.to_hub(), field: value})


@pytest.mark.parametrize("text", ["[]", "7", "null", '"x"', "{", "", "[" * 200_000])
def test_read_config_refuses_what_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(tmp_path)


QWEN = {**HUB, "architectures": ["Qwen2ForCausalLM"]}


@pytest.mark.parametrize(
    ("raw", "window", "sliding"),
    [
        ({**HUB, "layer_types": ["full_attention"] * 2}, None, ()),
        ({**HUB, "architectures": ["MistralForCausalLM"]}, 4096, (True, True)),
        ({**HUB, "architectures": ["MistralForCausalLM"], "sliding_window": None}, None, ()),
        ({**HUB, "architectures": ["Phi3ForCausalLM"], "sliding_window": 2047}, 2047, (True, True)),
        (QWEN, None, ()),
        ({**QWEN, "use_sliding_window": True}, None, ()),
        ({**QWEN, "use_sliding_window": True, "max_window_layers": 1}, 4096, (False, True)),
        ({**QWEN, "use_sliding_window": True, "sliding_window": 8,
          "layer_types": ["sliding_attention", "full_attention"]}, 8, (True, False)),
        ({**HUB, "architectures": ["Gemma2ForCausalLM"]}, 4096, (True, False)),
        ({**HUB, "architectures": ["Gemma3ForCausalLM"]}, 4096, (True, True)),
        ({**HUB, "architectures": ["Gemma3ForCausalLM"], "sliding_window_pattern": 1},
         4096, (False, False)),
    ],
)  # fmt: skip
def test_config_reads_which_layers_look_back_how_far(
    raw: dict[str, Any], window: int | None, sliding: tuple[bool, ...]
) -> None:
    config = parse_config({"num_key_value_heads": 2, **raw})
    assert (config.variant.window, config.variant.sliding_layers) == (window, sliding)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({**QWEN, "layer_types": ["sliding_attention", "full_attention"]},
         "yet use_sliding_window is false"),
        ({**QWEN, "layer_types": ["full_attention"]}, "layer_types must name every layer"),
        ({**QWEN, "use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        ({**QWEN, "use_sliding_window": "yes"}, "use_sliding_window must be true or false"),
        ({**HUB, "architectures": ["Gemma2ForCausalLM"], "sliding_window": None},
         "sliding_window must be a positive integer"),
    ],
)  # fmt: skip
def test_config_refuses_windows_that_cannot_be(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        parse_config(raw)


def test_config_takes_a_family_by_its_model_type() -> None:
    config = parse_config({**HUB, "architectures": None, "model_type": "qwen3"})
    assert config.variant.family == "qwen3"
    assert config.head_dim == 128


def test_config_fills_in_what_a_familys_files_leave_out() -> None:
    gemma = parse_config({**HUB, "architectures": ["Gemma2ForCausalLM"]})
    assert (gemma.head_dim, gemma.num_key_value_heads, gemma.tie_word_embeddings) == (256, 4, True)
    assert (gemma.bos_token_id, gemma.eos_token_ids, gemma.pad_token_id) == (2, (1,), 0)
    variant = gemma.variant
    assert (variant.attention_softcap, variant.logit_softcap) == (50.0, 30.0)
    assert variant.query_scalar == 256.0
    assert parse_config({**HUB, "architectures": ["Phi3ForCausalLM"]}).rms_norm_eps == 1e-5


@pytest.mark.parametrize(
    ("raw", "biases"),
    [
        (HUB, (False, False, False)),
        ({**HUB, "attention_bias": True}, (True, True, False)),
        ({**HUB, "mlp_bias": True}, (False, False, True)),
        (QWEN, (True, False, False)),
        ({**HUB, "architectures": ["Qwen3ForCausalLM"], "attention_bias": True},
         (True, True, False)),
    ],
)  # fmt: skip
def test_config_reads_which_layers_have_biases(
    raw: dict[str, Any], biases: tuple[bool, ...]
) -> None:
    found = parse_config(raw).variant
    assert (found.has_qkv_bias, found.has_out_bias, found.has_mlp_bias) == biases


def test_config_of_a_plain_llama_is_written_as_ever() -> None:
    """Students with full weights are named by these bytes."""
    assert list(CONFIG.to_hub()) == [
        "architectures", "model_type", "hidden_act", "attention_bias", "mlp_bias", "rope_scaling",
        "rope_parameters", "eos_token_id", "torch_dtype", "vocab_size", "hidden_size",
        "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "rope_theta", "rms_norm_eps", "max_position_embeddings",
        "tie_word_embeddings", "bos_token_id", "pad_token_id",
    ]  # fmt: skip
    assert CONFIG.to_hub()["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}


FUZZED = [
    "sliding_window", "layer_types", "use_sliding_window", "max_window_layers", "rope_parameters",
    "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor", "head_dim",
    "original_max_position_embeddings", "attention_bias", "query_pre_attn_scalar",
    "attn_logit_softcapping", "final_logit_softcapping", "sliding_window_pattern",
    "hidden_activation", "tie_word_embeddings", "num_hidden_layers", "eos_token_id",
]  # fmt: skip


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
@pytest.mark.parametrize("field", FUZZED)
def test_parse_config_of_any_family_meets_odd_values_with_model_errors_alone(
    family: Family, field: str
) -> None:
    for value in ODD:
        for nested in (value, {"rope_type": "yarn", "factor": value}, {"full_attention": value}):
            with contextlib.suppress(ModelError):
                parse_config({**HUB, "architectures": [family.architecture], field: nested})
