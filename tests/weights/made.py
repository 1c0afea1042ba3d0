"""Students of a tiny base, with what exporting looks at: canary logits, a scale, a rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.model.lora import LoraConfig
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import save_adapter
from ownweights.weights.base import base_id
from ownweights.weights.canary import save_canary
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from tests.tiny import LORA, VOCAB_SIZE, make_base, with_adapter

WORDS = VOCAB_SIZE + 1


def project_with_base(folder: Path, **changes: Any) -> Project:
    """A project beside the base folder `tiny`, whose tokenizer has one merge."""
    path = make_base(folder / "tiny", **{"vocab_size": WORDS, **changes}) / "tokenizer.json"
    raw = json.loads(path.read_text("utf-8"))
    raw["model"]["vocab"]["th"], raw["model"]["merges"] = WORDS - 1, [["t", "h"]]
    path.write_text(json.dumps(raw), "utf-8")
    return Project(folder)


def make_lora(project: Project, config: LoraConfig = LORA, *, update_std: float = 0.2) -> str:
    """A LoRA student of `tiny` with canary logits; its id."""
    base = project.root / "tiny"
    model = with_adapter(load_model(base), 3, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.mul_(update_std / 0.2)
    identity = {"base": base_id(base), "base_name": "tiny", "method": "lora"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_adapter(model, config, draft, base_id=base_id(base), base_name="tiny")
        save_canary(model, draft)
        parents = {"base": base_id(base)}
        return seal(draft, "student", identity=identity, parents=parents).id


def make_full(project: Project, *, update_std: float = 0.02) -> str:
    """A student with weights of its own; its id."""
    base = project.root / "tiny"
    model = load_model(base)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.empty_like(parameter).normal_(0.0, update_std, generator=generator)
            parameter.add_(noise)
    identity = {"base": base_id(base), "base_name": "tiny", "method": "full"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_model(model, draft, tokenizer_from=base)
        save_canary(model, draft)
        parents = {"base": base_id(base)}
        return seal(draft, "student", identity=identity, parents=parents).id


@torch.inference_mode()
def logits(model: Transformer) -> torch.Tensor:
    """Scores of twenty tokens in two rows."""
    return model.logits(model(torch.arange(7, 27).view(2, 10)))
