"""What a config.json may say, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig, parse_config, read_config
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
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "llama3"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"sliding_window": 128}, "sliding_window"),
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
