"""The shape of a network, read from a hub folder's config.json.

In: the JSON of a checkpoint. Out: a frozen `ModelConfig`. What this code cannot run exactly
(another family, a RoPE scaling, a sliding window, biases) is refused by name
(test_config_refuses_*).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownweights.core.errors import ModelError

FAMILIES = {"LlamaForCausalLM": "llama"}
_MAX_NUMBER = 1e30
_OTHER_ENGINES = "serve it with vLLM or llama.cpp as a teacher endpoint instead"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A dense decoder of the Llama family."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"{self.num_attention_heads} query heads cannot share"
                f" {self.num_key_value_heads} key/value heads evenly"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ModelError(f"head_dim must be even for rotary positions, got {self.head_dim}")

    def to_hub(self) -> dict[str, Any]:
        """The config.json that transformers reads (both RoPE spellings)."""
        fields = asdict(self)
        eos = fields.pop("eos_token_ids")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "eos_token_id": list(eos) if len(eos) != 1 else eos[0],
            "torch_dtype": "float32",
            **fields,
        }


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the checkpoint in `folder`."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no config.json", hint="point `base` at a hub checkpoint's folder"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    try:
        return parse_config(raw)
    except ModelError as error:
        raise ModelError(f"{path}: {error.what}", hint=error.hint) from None


def parse_config(raw: Any) -> ModelConfig:
    """A hub configuration as ours, or a ModelError that names what cannot be run."""
    if not isinstance(raw, dict):
        raise ModelError("expected a JSON object", hint="copy the checkpoint's config.json again")
    rope = _rope(raw)
    _refuse_unknown(raw, rope)
    heads, hidden = _integer(raw, "num_attention_heads"), _integer(raw, "hidden_size")
    return ModelConfig(
        vocab_size=_integer(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_integer(raw, "intermediate_size"),
        num_hidden_layers=_integer(raw, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_integer(raw, "num_key_value_heads", heads),
        head_dim=_integer(raw, "head_dim", hidden // heads),
        rope_theta=_number(raw if raw.get("rope_theta") else rope, "rope_theta", 10_000.0),
        rms_norm_eps=_number(raw, "rms_norm_eps", 1e-6),
        max_position_embeddings=_integer(raw, "max_position_embeddings", 2048),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        bos_token_id=_token_id(raw, "bos_token_id"),
        eos_token_ids=_end_ids(raw),
        pad_token_id=_token_id(raw, "pad_token_id"),
    )


def _rope(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ModelError(f"rope_parameters must be an object, got {rope!r:.60}")
    return rope


def _refuse_unknown(raw: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    names = raw.get("architectures") or [raw.get("model_type", "unknown")]
    names = list(map(str, names)) if isinstance(names, list) else [str(names)]
    if not any(name in FAMILIES for name in names):
        raise ModelError(
            f"architecture {', '.join(names):.200} is not supported;"
            f" expected one of {', '.join(FAMILIES)}",
            hint=_OTHER_ENGINES,
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    refused = {
        f"RoPE scaling {kind!r}": kind != "default",
        f"activation {raw.get('hidden_act')!r}": raw.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(raw.get("attention_bias")),
        "mlp_bias": bool(raw.get("mlp_bias")),
        "sliding_window": bool(raw.get("sliding_window")),
    }
    for what, is_refused in refused.items():
        if is_refused:
            raise ModelError(f"the checkpoint needs {what}, not supported", hint=_OTHER_ENGINES)


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive whole number; null and absence mean the default, where there is one."""
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelError(f"{key} must be a positive integer, got {value!r:.60}")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    value = raw.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 < value < _MAX_NUMBER:
        raise ModelError(f"{key} must be a positive number, got {value!r:.60}")
    return float(value)


def _token_id(raw: Mapping[str, Any], key: str) -> int | None:
    value = raw.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**31):
        raise ModelError(f"{key} must be a token id, got {value!r:.60}")
    return value


def _end_ids(raw: Mapping[str, Any]) -> tuple[int, ...]:
    ids = raw.get("eos_token_id")
    found = [
        _token_id({"eos_token_id": one}, "eos_token_id")
        for one in (ids if isinstance(ids, list) else [ids])
    ]
    return tuple(one for one in found if one is not None)
