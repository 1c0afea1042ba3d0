"""QLoRA: an adapter learnt on a base that is held in 8 or 4 bits, for one held whole.

The linear weights are packed once the adapter is attached, and made whole layer by layer when they
are needed. Nothing is merged into them: what is sealed is the adapter, and what is measured is the
base's own weights with it (training.md c.33). The two differ by what packing lost, q; where that is
larger than what the adapter changed, Δ, the student may answer otherwise than it was trained
(c.34), so the card says ‖q‖/‖Δ‖ and both losses (test_qlora_card_says_what_packing_lost).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ownweights.model.lora import Linear, lora_layers
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import attach_adapter, read_adapter
from ownweights.weights.load import load_model

PACKED_BYTES = 4  # of a number that is not packed


def pack_base(model: Transformer, targets: tuple[str, ...], form: str) -> None:
    """Pack every adapted linear weight of the decoder; embedding and head stay whole."""
    for name, layer in lora_layers(model, targets).items():
        if name != "lm_head":
            layer.pack(form)


def whole_student(base: Path, adapter: Path) -> Transformer:
    """The base's own weights with the adapter that was learnt on packed ones."""
    model = load_model(base)
    attach_adapter(model, read_adapter(adapter), where=str(adapter))
    return model


@torch.no_grad()
def packing_facts(packed: Transformer, whole: Transformer) -> dict[str, Any]:
    """What packing saved, and by how much what it lost outweighs what the adapter changed."""
    kept = dict(whole.named_modules())
    ratios: dict[str, float] = {}
    num_bytes = num_whole = 0
    for name, layer in packed.named_modules():
        if not isinstance(layer, Linear) or layer.packed is None:
            continue
        original = kept[name]
        assert isinstance(original, Linear), f"{name} is a linear layer of both"
        lost = original.weight - layer.packed.whole()
        changed = original.effective_weight() - original.weight
        ratios[name] = float(lost.norm() / changed.norm().clamp_min(1e-30))
        num_bytes += layer.packed.num_bytes
        num_whole += original.weight.numel() * PACKED_BYTES
    worst = max(ratios, key=lambda name: ratios[name])
    return {
        "packed_bytes_frac": round(num_bytes / num_whole, 4),
        "lost_over_changed": {
            "median": round(sorted(ratios.values())[len(ratios) // 2], 4),
            "worst": round(ratios[worst], 4), "worst_layer": worst,
        },
    }  # fmt: skip
