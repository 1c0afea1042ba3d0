"""Variants of the tiny model: what each family has beyond a plain Llama, without transformers.

Windows are shorter than the texts that tests read; `LONG` changes its frequencies at ten tokens.
"""

from __future__ import annotations

from typing import Any

from ownweights.model.config import Variant
from ownweights.model.scaling import Scaling

BORDER = 10
LONG: dict[str, Any] = {
    "variant": Variant("phi3", scaling=Scaling(
        "longrope", original_max_position_embeddings=BORDER,
        short_factor=(1.0, 1.5, 2.0, 2.5), long_factor=(3.0, 6.0, 9.0, 12.0),
    )),
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "biases": {"variant": Variant(has_qkv_bias=True, has_out_bias=True, has_mlp_bias=True)},
    "yarn": {"variant": Variant(
        scaling=Scaling("yarn", factor=4.0, original_max_position_embeddings=24))},
    "dynamic": {"variant": Variant(scaling=Scaling("dynamic", factor=4.0))},
    "mistral": {"variant": Variant("mistral", window=7, sliding_layers=(True, True))},
    "qwen2": {"variant": Variant(
        "qwen2", has_qkv_bias=True, window=7, sliding_layers=(False, True))},
    "qwen3": {"variant": Variant("qwen3"), "tie_word_embeddings": False},
    "gemma2": {"variant": Variant(
        "gemma2", window=7, sliding_layers=(True, False), attention_softcap=5.0,
        logit_softcap=3.0, query_scalar=11.0)},
    "gemma3": {"variant": Variant(
        "gemma3_text", scaling=Scaling("linear", factor=4.0), local_rope_theta=1000.0, window=7,
        sliding_layers=(True, False), query_scalar=11.0)},
    "phi": {"variant": Variant(
        "phi3", rotary_frac=0.75, window=7, sliding_layers=(True, True))},
}  # fmt: skip
