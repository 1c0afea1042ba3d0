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
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """A hub configuration as ours, or a ModelError that names what cannot be run."""
    _refuse_unknown(raw)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    heads = _integer(raw, "num_attention_heads")
    hidden = _integer(raw, "hidden_size")
    eos = raw.get("eos_token_id")
    return ModelConfig(
        vocab_size=_integer(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_integer(raw, "intermediate_size"),
        num_hidden_layers=_integer(raw, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        max_position_embeddings=int(raw.get("max_position_embeddings", 2048)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        bos_token_id=raw.get("bos_token_id"),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        pad_token_id=raw.get("pad_token_id"),
    )


def _refuse_unknown(raw: Mapping[str, Any]) -> None:
    names = raw.get("architectures") or [raw.get("model_type", "unknown")]
    if not any(name in FAMILIES for name in names):
        raise ModelError(
            f"architecture {', '.join(map(str, names))} is not supported;"
            f" expected one of {', '.join(FAMILIES)}",
            hint=_OTHER_ENGINES,
        )
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
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


def _integer(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ModelError(f"config.json: {key} must be a positive integer, got {value!r}")
    return value
