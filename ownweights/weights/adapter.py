"""An adapter as a PEFT folder: adapter_config.json and adapter_model.safetensors.

In: a model with LoRA attached, or such a folder. Out: the folder as PEFT 0.21 writes it (one rank
everywhere, no patterns, no bias, dropout 0: the profile that PEFT, vLLM and llama.cpp's converter
all read), or the factors, checked. Invariants: PEFT computes the same logits from it
(test_adapter_matches_peft); what would not compute exactly as its writer meant is refused by name
(test_read_adapter_refuses_*).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ownweights.core.errors import ArtefactMissing, ModelError
from ownweights.model.lora import HEAD, TARGETS, LoraConfig, lora_layers
from ownweights.model.transformer import Transformer
from ownweights.weights.fused import PARTS, join_adapter, split_adapter
from ownweights.weights.load import STORED, read_file
from ownweights.weights.save import write_tensors

CONFIG_NAME, ADAPTER_NAME = "adapter_config.json", "adapter_model.safetensors"
PEFT_VERSION = "0.21.2"
BASE_KEY = "ownweights_base"  # in the tensor file's metadata, which other readers skip
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Keys that would change what the adapter computes, and the values under which they do not.
_INERT: dict[str, tuple[Any, ...]] = {
    "bias": ("none",), "use_dora": (False, None), "lora_bias": (False, None),
    "fan_in_fan_out": (False, None), "rank_pattern": ({}, None), "alpha_pattern": ({}, None),
    "modules_to_save": (None, []), "layer_replication": (None,), "target_parameters": (None, []),
    "trainable_token_indices": (None,), "layers_to_transform": (None, []),
    "use_qalora": (False, None), "use_bdlora": (False, None, {}), "arrow_config": (None,),
    "alora_invocation_tokens": (None,), "exclude_modules": (None, []),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapter:
    """The factors of an adapter by layer name, A (R, in) and B (out, R), in float32."""

    config: LoraConfig
    factors: Mapping[str, tuple[Tensor, Tensor]]
    base_id: str | None

    @property
    def num_parameters(self) -> int:
        return sum(a.numel() + b.numel() for a, b in self.factors.values())


def save_adapter(
    model: Transformer, config: LoraConfig, folder: Path, *, base_id: str, base_name: str
) -> None:
    """Write the LoRA factors attached to `model` as a PEFT folder.

    For Phi, whose hub modules are fused, the folder holds factors of qkv_proj and gate_up_proj at
    three times the rank, which PEFT applies with the same logits; reading splits them again.
    """
    held: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in lora_layers(model, config.targets).items():
        assert layer.lora_a is not None and layer.lora_b is not None, f"{name} has no adapter"
        held[name] = (layer.lora_a.detach().float(), layer.lora_b.detach().float())
    factors, config = join_adapter(held, config, model.config)
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in factors.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, folder / ADAPTER_NAME, metadata={BASE_KEY: base_id})
    text = json.dumps(peft_config(config, base_name), indent=2, sort_keys=True)
    (folder / CONFIG_NAME).write_text(text + "\n", "utf-8")


def tensor_names(layer: str) -> tuple[str, str]:
    """What PEFT calls the two factors, A and B, of a layer."""
    return f"{_PREFIX}{layer}.lora_A.weight", f"{_PREFIX}{layer}.lora_B.weight"


def peft_config(config: LoraConfig, base_name: str) -> dict[str, Any]:
    """adapter_config.json with the keys that every reader needs.

    Source: peft 0.21.2, LoraConfig; absent keys take PEFT's defaults
    """
    alpha = int(config.alpha) if float(config.alpha).is_integer() else config.alpha
    return {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": base_name,
        "bias": "none", "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "layer_replication": None, "layers_pattern": None,
        "layers_to_transform": None, "lora_alpha": alpha, "lora_bias": False, "lora_dropout": 0.0,
        "modules_to_save": None, "peft_type": "LORA", "peft_version": PEFT_VERSION,
        "r": config.rank, "rank_pattern": {}, "revision": None,
        "target_modules": sorted(config.targets), "target_parameters": None,
        "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_dora": False,
        "use_rslora": False,
    }  # fmt: skip


def read_adapter(folder: Path, *, base_id: str | None = None) -> Adapter:
    """The adapter in a PEFT folder, checked on its own and, where known, against its base's id.

    Raises: ArtefactMissing without the two files; ModelError naming what cannot be applied exactly
    """
    for name in (CONFIG_NAME, ADAPTER_NAME):
        if not (folder / name).is_file():
            raise ArtefactMissing(f"{folder} has no {name}", hint="train or copy the adapter again")
    config = _read_config(folder / CONFIG_NAME)
    with_names = read_file(folder / ADAPTER_NAME)
    made_for = _metadata(folder / ADAPTER_NAME).get(BASE_KEY)
    if base_id is not None and made_for is not None and made_for != base_id:
        raise ModelError(
            f"{folder}: the adapter was trained on base {made_for}, not on {base_id}",
            hint="point `base` at the weights that it was trained on",
        )
    return Adapter(config, _pair_up(with_names, config, str(folder)), made_for)


def attach_adapter(model: Transformer, adapter: Adapter, *, where: str = "adapter") -> None:
    """Put the adapter's factors on the model's layers; the base is frozen.

    Raises: ModelError naming a layer that the model lacks, that lacks its factors, or is of another
    size
    """
    if HEAD in adapter.config.targets:
        model.own_head()
    factors, config = split_adapter(adapter.factors, adapter.config, model.config)
    layers = lora_layers(model, config.targets)
    for name in sorted(layers.keys() ^ factors.keys()):
        side = "has no factors for the layer" if name in layers else "names an unknown layer"
        raise ModelError(f"{where} {side} {name}")
    for name, layer in layers.items():
        a, b = factors[name]
        num_out, num_in = layer.weight.shape
        if a.shape[1] != num_in or b.shape[0] != num_out:
            raise ModelError(
                f"{where}: {name} has factors for {a.shape[1]} → {b.shape[0]},"
                f" the base's layer is {num_in} → {num_out}"
            )
    model.requires_grad_(False)
    for name, layer in layers.items():
        layer.lora_a, layer.lora_b = (nn.Parameter(f.clone()) for f in factors[name])
        layer.scale = config.scale


def _read_config(path: Path) -> LoraConfig:
    try:
        raw = json.loads(path.read_text("utf-8"))
        kind, rank, alpha = raw["peft_type"], raw["r"], raw["lora_alpha"]
        targets = raw["target_modules"]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a PEFT configuration: {error!r}") from None
    if kind != "LORA":
        raise ModelError(f"{path}: peft_type {kind!r} is not supported, expected 'LORA'")
    for key, inert in _INERT.items():
        if raw.get(key, inert[0]) not in inert:
            raise ModelError(f"{path}: {key} = {raw[key]!r} is not supported")
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(f"{path}: r must be a positive integer, got {rank!r}")
    known = (*TARGETS, HEAD, *PARTS)
    if not isinstance(targets, list) or not set(map(str, targets)) <= set(known):
        raise ModelError(f"{path}: target_modules {targets!r} are not all among {', '.join(known)}")
    factor = rank**0.5 if raw.get("use_rslora") else 1.0  # scale α/√R, kept as α' / R
    ordered = tuple(name for name in known if name in targets)
    return LoraConfig(rank=rank, alpha=float(alpha) * factor, targets=ordered)


def _pair_up(
    tensors: Mapping[str, Tensor], config: LoraConfig, where: str
) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise ModelError(f"{where}: {name} is not a LoRA factor of a linear layer")
        layer, side = match.groups()
        if tensor.dtype not in STORED:
            raise ModelError(f"{where}: {name} is stored as {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{where}: {name} holds NaN or infinity")
        rank = tensor.shape[0 if side == "A" else -1] if tensor.ndim == 2 else None
        if rank != config.rank:
            raise ModelError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, expected rank {config.rank}"
            )
        found.setdefault(layer, {})[side] = tensor.to(torch.float32)
    for layer, sides in found.items():
        if len(sides) != 2:
            raise ModelError(f"{where}: {layer} has only one of its two factors")
    return {layer: (sides["A"], sides["B"]) for layer, sides in found.items()}


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}
