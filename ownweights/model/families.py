"""The families of dense decoders that the one transformer runs, and what tells them apart.

A family fixes what every checkpoint of it has (norms on queries and keys, Gemma's sandwich of
norms, Phi's fused tensors) and what an absent key of its config.json means; the rest stands in each
checkpoint's `Variant`. Each is proved against transformers (test_family_matches_transformers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ownweights.core.errors import ModelError
from ownweights.model.fields import OTHER_ENGINES

_STATIC = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Family:
    """What all checkpoints of one architecture share.

    `name` is the hub's model_type. `windows`: which layers may look back a limited way ("none",
    "all", or "by layer"). `bias_keys`: the keys of config.json that decide about biases.
    `is_sandwich`: Gemma's norms before and after both halves of a layer, each times 1 + w, and an
    embedding times √E. `is_fused`: files hold qkv_proj and gate_up_proj, which are split when read
    and joined when written.
    """

    name: str
    architecture: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "silu"
    activation_key: str = "hidden_act"
    rope_types: tuple[str, ...] = _STATIC
    rope_theta: float = 10_000.0
    local_rope_theta: float | None = None
    windows: str = "none"
    bias_keys: tuple[str, ...] = ()
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    is_sandwich: bool = False
    is_fused: bool = False


_GEMMA: dict[str, Any] = {
    "head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": True, "bos_token_id": 2,
    "eos_token_id": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256, "sliding_window": 4096,
}  # fmt: skip
_LIKE_GEMMA: dict[str, Any] = {
    "activation": "gelu_pytorch_tanh", "activation_key": "hidden_activation",
    "windows": "by layer", "bias_keys": ("attention_bias",), "is_sandwich": True,
}  # fmt: skip

LLAMA = Family("llama", "LlamaForCausalLM", bias_keys=("attention_bias", "mlp_bias"))
ALL = (
    LLAMA,
    Family(
        "mistral", "MistralForCausalLM", windows="all",
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072,
                  "sliding_window": 4096, "bos_token_id": 1, "eos_token_id": 2},
    ),
    Family(
        "qwen2", "Qwen2ForCausalLM", windows="by layer", has_qkv_bias=True,
        defaults={"max_position_embeddings": 32_768, "sliding_window": 4096,
                  "max_window_layers": 28},
    ),
    Family(
        "qwen3", "Qwen3ForCausalLM", windows="by layer", has_qk_norm=True,
        bias_keys=("attention_bias",),
        defaults={"max_position_embeddings": 32_768, "head_dim": 128, "sliding_window": 4096,
                  "max_window_layers": 28},
    ),
    Family(
        "gemma2", "Gemma2ForCausalLM", **_LIKE_GEMMA,
        defaults={**_GEMMA, "max_position_embeddings": 8192, "attn_logit_softcapping": 50.0,
                  "final_logit_softcapping": 30.0, "sliding_window_pattern": 2},
    ),
    Family(
        "gemma3_text", "Gemma3ForCausalLM", **_LIKE_GEMMA, has_qk_norm=True,
        rope_theta=1_000_000.0, local_rope_theta=10_000.0,
        defaults={**_GEMMA, "max_position_embeddings": 131_072, "sliding_window_pattern": 6},
    ),
    Family(
        "phi3", "Phi3ForCausalLM", windows="all", rope_types=("default", "longrope"), is_fused=True,
        defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "bos_token_id": 1,
                  "eos_token_id": 32_000, "pad_token_id": 32_000},
    ),
)  # fmt: skip
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in ALL})
_BY_ARCHITECTURE = {family.architecture: family for family in ALL}


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family that a config.json names, by its architecture, else by its model_type.

    Raises: ModelError naming what is not supported, and what is
    """
    names = raw.get("architectures") or [raw.get("model_type", "unknown")]
    names = list(map(str, names)) if isinstance(names, list) else [str(names)]
    for name in names:
        found = _BY_ARCHITECTURE.get(name) or FAMILIES.get(name)
        if found is not None:
            return found
    raise ModelError(
        f"architecture {', '.join(names):.200} is not supported;"
        f" expected one of {', '.join(_BY_ARCHITECTURE)}",
        hint=OTHER_ENGINES,
    )
