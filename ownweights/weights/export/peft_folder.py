"""A student's adapter as a PEFT folder for others: the portable profile, its base named, a card.

In: a student. Out: adapter_config.json, adapter_model.safetensors and README.md in a new folder.
What was written is read again, put on the base and compared with the student's canary logits, and
goes through the linter (test_export_peft_answers_as_the_student).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ownweights.core.artefact import Artefact, draft_folder, open_artefact
from ownweights.core.errors import ModelError
from ownweights.core.project import Project
from ownweights.weights.adapter import (
    ADAPTER_NAME,
    BASE_KEY,
    CONFIG_NAME,
    Adapter,
    attach_adapter,
    peft_config,
    read_adapter,
    tensor_names,
)
from ownweights.weights.base import resolve_base
from ownweights.weights.canary import MAX_RELATIVE_ERROR, canary_error
from ownweights.weights.export.profile import lint_adapter, portable_adapter
from ownweights.weights.load import load_model, read_file
from ownweights.weights.save import check_new_folder, write_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Factors of 8 or 11 bits move logits by about as much; a wrong scale moves them by more.
MAX_ROUNDED_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class PeftFolder:
    """What was written, how far from the student it answers, and what a reader may stumble over."""

    path: Path
    rank: int
    base: str
    revision: str
    canary_error: float | None
    findings: tuple[str, ...]


def read_student_adapter(project: Project, student_id: str) -> tuple[Artefact, Adapter, Path]:
    """A student, its adapter, and the folder of its base.

    Raises: ModelError when it is no adapter
    """
    artefact = open_artefact(project.kind_dir("student"), student_id, "student", verify=True)
    identity = artefact.card["identity"]
    if identity.get("method") == "full":
        raise ModelError(
            f"student {artefact.id} has weights of its own and no adapter",
            hint="own weights export --gguf without --adapter, or own weights merge",
        )
    base = resolve_base(project, str(identity["base_name"]))
    return artefact, read_adapter(artefact.path, base_id=str(identity["base"])), base


def export_peft(
    project: Project,
    student_id: str,
    *,
    to: Path,
    dtype: str = "float32",
    base_name: str | None = None,
    revision: str | None = None,
) -> PeftFolder:
    """Write the student's adapter into the new folder `to`.

    Raises: ArtefactError when `to` exists; ModelError when it would not answer as the student does
    """
    check_new_folder(project, to)
    artefact, adapter, base = read_student_adapter(project, student_id)
    portable = portable_adapter(adapter)
    _refuse_other_layers(portable, artefact)
    found_name, found_revision = base_reference(base, str(artefact.card["identity"]["base"]))
    name, revision = base_name or found_name, revision or found_revision
    with draft_folder(to.absolute().parent) as draft:
        _write(portable, draft, DTYPES[dtype], peft_config(portable.config, name) | {
            "revision": revision,
        })  # fmt: skip
        (draft / "README.md").write_text(model_card(artefact, portable, name, revision), "utf-8")
        error = _check(draft, base, artefact, is_rounded=dtype != "float32")
        findings = lint_adapter(draft)
        draft.rename(to)
    return PeftFolder(to, portable.config.rank, name, revision, error, tuple(findings))


def base_reference(folder: Path, base_id: str) -> tuple[str, str]:
    """How others find a base: repository and commit where the folder is a hub snapshot, else the
    folder and the hash of its content."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/"), folder.name
    return str(folder), base_id


def model_card(artefact: Artefact, adapter: Adapter, base: str, revision: str) -> str:
    """README.md as the hub shows it: what it was trained on, and how to load it."""
    identity, parents = artefact.card["identity"], artefact.card["parents"]
    config = adapter.config
    return f"""---
base_model: {json.dumps(base)}
library_name: peft
tags:
- lora
- ownweights
---

# Student {artefact.id}

A LoRA adapter of rank {config.rank} (alpha {config.alpha:g}) on {", ".join(config.targets)}.

- base: `{base}`, revision `{revision}`
- dataset: `{parents.get("dataset", "unknown")}`
- steps: {identity.get("steps", "unknown")}
- learning rate: {identity.get("learning_rate", "unknown")}
- made by: {artefact.card.get("made_by", "ownweights")}, {artefact.card.get("created_at", "")}

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("this folder")
```

What may be done with it follows from the base's licence and from the terms of whoever answered the
requests in the dataset: `own lineage check {artefact.id}` in the project that trained it.
"""


def _refuse_other_layers(adapter: Adapter, artefact: Artefact) -> None:
    """A family whose files hold fused projections has other layers for PEFT than for us; the
    student's own folder was written in PEFT's."""
    written = read_file(artefact.path / ADAPTER_NAME).keys()
    wanted = {name for layer in adapter.factors for name in tensor_names(layer)}
    if written != wanted:
        raise ModelError(
            f"the layers of student {artefact.id} are fused in its base's files,"
            " and are not exported in the portable profile",
            hint=f"{artefact.path} is a PEFT folder as it is; or own weights merge",
        )


def _write(adapter: Adapter, folder: Path, dtype: torch.dtype, config: Mapping[str, Any]) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for layer, (a, b) in adapter.factors.items():
        name_a, name_b = tensor_names(layer)
        tensors[name_a], tensors[name_b] = a.to(dtype).contiguous(), b.to(dtype).contiguous()
        if not bool(tensors[name_a].isfinite().all() & tensors[name_b].isfinite().all()):
            raise ModelError(
                f"{layer} holds values beyond the end of {dtype}", hint="--dtype bfloat16"
            )
    made_for = {BASE_KEY: adapter.base_id} if adapter.base_id else None
    write_tensors(tensors, folder / ADAPTER_NAME, metadata=made_for)
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG_NAME).write_text(text + "\n", "utf-8")


def _check(folder: Path, base: Path, artefact: Artefact, *, is_rounded: bool) -> float | None:
    """How far the written adapter answers from the student, on its canary inputs.

    Raises: ModelError when it is further than rounding explains
    """
    model = load_model(base)
    attach_adapter(model, read_adapter(folder), where=str(folder))
    error = canary_error(model, artefact.path)
    limit = MAX_ROUNDED_ERROR if is_rounded else MAX_RELATIVE_ERROR
    if error is not None and not error <= limit:
        raise ModelError(
            f"the exported adapter does not answer as student {artefact.id} does (canary logits"
            f" differ by {error:.2g} of their size, at most {limit})",
            hint="--dtype float32" if is_rounded else "the base was changed; train it again",
        )
    return error
