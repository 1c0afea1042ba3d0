"""Rotary scaling as llama.cpp reads it: keys of the file, or a factor for each frequency.

In: `rope_parameters` of a hub config. Out: keys under `<architecture>.rope.`, and for Llama 3's
scaling the tensor of factors. Checked: test_rope_*, against the closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ownweights.core.errors import ModelError

_PLAIN_ATTENTION = 0.1  # YaRN's temperature is 0.1 ln s + 1; llama.cpp multiplies by it itself


def rope_keys(rope: Mapping[str, Any], window: int) -> dict[str, str | float | int]:
    """Keys of the file for a scaling; none for the default, or where factors say it all.

    Raises: ModelError for a scaling that llama.cpp does not compute
    """
    kind = str(rope.get("rope_type", "default"))
    if kind in ("default", "llama3"):
        return {}
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"RoPE scaling {kind!r} is not computed by llama.cpp, expected default, linear,"
            " llama3 or yarn",
            hint="own weights extend --method yarn makes one that is",
        )
    factor = float(rope["factor"])
    keys: dict[str, str | float | int] = {"scaling.type": kind, "scaling.factor": factor}
    if kind == "linear":
        return keys
    original = int(rope.get("original_max_position_embeddings") or round(window / factor))
    keys["scaling.original_context_length"] = original
    attention = rope.get("attention_factor")
    if attention is not None:
        keys["scaling.attn_factor"] = float(attention) / (_PLAIN_ATTENTION * math.log(factor) + 1)
    for key in ("beta_fast", "beta_slow"):
        if rope.get(key) is not None:
            keys[f"scaling.yarn_{key}"] = float(rope[key])
    return keys


def rope_factors(rope: Mapping[str, Any], head_dim: int) -> Tensor | None:
    """What each frequency is divided by, for Llama 3's scaling; else None. Shapes: → (D/2,)"""
    if rope.get("rope_type") != "llama3":
        return None
    theta, factor = float(rope["rope_theta"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    length = float(rope["original_max_position_embeddings"])
    inverse = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (D/2,)
    turns = length * inverse / (2 * math.pi)  # how often a frequency turns in the old window
    smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).float()
