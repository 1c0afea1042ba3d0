"""The adapter profile that every reader takes: one rank among a few, alpha equal to it.

In: an adapter as it was trained. Out: one that computes the same with the scale folded into B, its
rank padded with zeros to one that vLLM serves; or a list of what a reader could not load.
Invariant: the update s·B·A is unchanged (test_portable_adapter_computes_the_same). Readers
differ in what they ignore: llama.cpp's converter takes one alpha for all layers and knows no
patterns, some loaders take alpha for alpha / rank. With alpha = rank and nothing special they all
agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.lora import LoraConfig
from ownweights.weights.adapter import ADAPTER_NAME, CONFIG_NAME, Adapter
from ownweights.weights.load import STORED, read_file

RANKS = (8, 16, 32, 64, 128, 256)  # those that vLLM has kernels for
HEADS = ("lm_head", "embed_tokens")
# Keys under which the readers named compute something else, or refuse; value → who and why.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_dora": ((False, None), "vLLM and llama.cpp know no DoRA"),
    "use_rslora": ((False, None), "llama.cpp's converter ignores it and scales wrongly"),
    "lora_bias": ((False, None), "vLLM and llama.cpp add no bias"),
    "bias": (("none",), "vLLM and llama.cpp add no bias"),
    "modules_to_save": ((None, []), "vLLM and llama.cpp load no saved modules"),
    "rank_pattern": (({}, None), "llama.cpp's converter reads no patterns"),
    "alpha_pattern": (({}, None), "llama.cpp's converter reads no patterns"),
    "layer_replication": ((None,), "the base has no such layers elsewhere"),
    "trainable_token_indices": ((None,), "only PEFT reads single tokens"),
    "target_parameters": ((None, []), "only PEFT adapts bare parameters"),
    "fan_in_fan_out": ((False, None), "the factors would be read transposed"),
}


def portable_adapter(adapter: Adapter) -> Adapter:
    """The same update with alpha equal to the rank, and a rank that every reader serves.

    Raises: ModelError when the rank is beyond the greatest
    """
    rank = next((one for one in RANKS if one >= adapter.config.rank), None)
    if rank is None:
        raise ModelError(
            f"an adapter of rank {adapter.config.rank} is served by no common engine, which take"
            f" at most {RANKS[-1]}",
            hint="own weights merge",
        )
    scale = adapter.config.scale
    factors = {
        name: (_padded(a, 0, rank), _padded(b * scale, 1, rank))
        for name, (a, b) in adapter.factors.items()
    }
    config = LoraConfig(rank, float(rank), adapter.config.targets)
    return Adapter(config, factors, adapter.base_id)


def head_layers(adapter: Adapter) -> list[str]:
    """Adapted layers that are no layers of the decoder: the output head and the embedding."""
    return sorted(name for name in adapter.factors if name.rsplit(".", 1)[-1] in HEADS)


def lint_adapter(folder: Path) -> list[str]:
    """What PEFT, vLLM or llama.cpp could not load of a PEFT folder, or would load as something
    else; empty when there is nothing.

    Raises: ModelError when it is no such folder
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG_NAME} cannot be read: {error}") from None
    found = [
        f"{key} = {config[key]!r:.60}: {why}"
        for key, (inert, why) in _REFUSED.items()
        if config.get(key, inert[0]) not in inert
    ]
    if config.get("r") not in RANKS:
        found.append(f"r = {config.get('r')!r}: vLLM serves {', '.join(map(str, RANKS))}")
    if config.get("lora_alpha") != config.get("r"):
        found.append("lora_alpha is not r: some readers scale by alpha, others by alpha / r")
    for key in ("base_model_name_or_path", "revision"):
        if not config.get(key):
            found.append(f"{key} is not said: whoever loads it cannot find the base")
    return found + _lint_tensors(read_file(folder / ADAPTER_NAME), config)


def _lint_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name, tensor in sorted(tensors.items()):
        side = name.rsplit(".", 2)[-2] if name.endswith(".weight") else ""
        layer = name.split(".lora_", 1)[0]
        if side not in ("lora_A", "lora_B"):
            found.append(f"{name}: not a LoRA factor, which vLLM and llama.cpp refuse")
            continue
        if layer.rsplit(".", 1)[-1] in HEADS:
            found.append(f"{layer}: llama.cpp loads no adapter of head or embedding")
        if tensor.ndim != 2 or tensor.shape[0 if side == "lora_A" else 1] != config.get("r"):
            found.append(
                f"{name}: its shape {tuple(tensor.shape)} is not of rank {config.get('r')}"
            )
        if tensor.dtype not in STORED or not bool(tensor.isfinite().all()):
            found.append(f"{name}: {tensor.dtype} with what is no number, or of a type few read")
        other = "lora_B" if side == "lora_A" else "lora_A"
        if f"{layer}.{other}.weight" not in tensors:
            found.append(f"{layer}: has {side} alone")
    return found


def _padded(factor: Tensor, dim: int, rank: int) -> Tensor:
    """The factor with rows or columns of zeros up to the rank: they add nothing to B·A."""
    shape = list(factor.shape)
    shape[dim] = rank - shape[dim]
    return torch.cat([factor, factor.new_zeros(shape)], dim=dim).contiguous()
