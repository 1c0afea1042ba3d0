"""How llama.cpp names the tensors of a hub checkpoint, and how it orders their rows.

Its Llama turns neighbouring pairs of a head (2i, 2i+1) where the hub's turns (i, i + D/2), so the
rows of queries and keys are put in another order; of an adapter those of B alone, which makes the
rows. Checked: test_interleave_rows_matches_rotation, and by llama.cpp itself
(tests/weights/export/test_llama_cpp.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig

_TOP = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip
_LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
_IN_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What llama.cpp calls a family, and whether it turns neighbouring pairs."""

    name: str
    is_interleaved: bool


# Mistral is a Llama there. Where windows slide, llama.cpp's version of these would look further.
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", is_interleaved=True),
    "MistralForCausalLM": Architecture("llama", is_interleaved=True),
    "Qwen2ForCausalLM": Architecture("qwen2", is_interleaved=False),
    "Qwen3ForCausalLM": Architecture("qwen3", is_interleaved=False),
}


def architecture_of(config: ModelConfig) -> Architecture:
    """The family as llama.cpp knows it.

    Raises: ModelError for one that is not exported, or whose attention slides
    """
    hub = config.to_hub()
    names = hub["architectures"]
    if hub.get("sliding_window") and hub.get("use_sliding_window", True):
        raise ModelError(
            "attention through a sliding window is not exported to GGUF",
            hint="serve it with vLLM or transformers (own weights merge)",
        )
    found = next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), None)
    if found is None:
        raise ModelError(
            f"architecture {', '.join(names)} is not exported to GGUF;"
            f" expected one of {', '.join(ARCHITECTURES)}",
            hint="own weights merge, and convert the folder with llama.cpp's convert_hf_to_gguf.py",
        )
    return found


def gguf_name(name: str) -> str:
    """The GGUF name of a hub tensor, such as `blk.0.attn_q.weight`.

    Raises: ModelError for a tensor that no name is known for
    """
    module, _, kind = name.rpartition(".")
    within = _IN_LAYER.fullmatch(module)
    if within and within[2] in _LAYER:
        return f"blk.{within[1]}.{_LAYER[within[2]]}.{kind}"
    if module in _TOP:
        return f"{_TOP[module]}.{kind}"
    raise ModelError(f"tensor {name} has no name in GGUF")


def gguf_rows(name: str, rows: Tensor, config: ModelConfig) -> Tensor:
    """The rows of a hub tensor (or of the B of its adapter) in llama.cpp's order."""
    if not architecture_of(config).is_interleaved:
        return rows
    module = name.rpartition(".")[0]  # of a weight or of a bias
    if module.endswith(".q_proj"):
        return interleave_rows(rows, config.num_attention_heads)
    if module.endswith(".k_proj"):
        return interleave_rows(rows, config.num_key_value_heads)
    return rows


def interleave_rows(rows: Tensor, num_heads: int) -> Tensor:
    """Within each head, rows (0, D/2, 1, D/2+1, ...). Shapes: (heads·D, ...) → the same"""
    halves = rows.unflatten(0, (num_heads, 2, -1))  # (heads, 2, D/2, ...)
    return halves.transpose(1, 2).reshape(rows.shape)
