"""A student as one set of weights: W + s·B·A in float32, rounded once, and what of it survived.

In: a project and a student's id. Out: a hub folder that transformers, vLLM and llama.cpp's
converter read, with a card. Rounding to 16 bits loses an update that is small beside its weights:
the weights look merged and answer like the base. So the update is measured after rounding, layer by
layer, and a merge that lost it is refused (test_merge_refuses_an_update_that_rounding_loses).
Before rounding the weights answer as the student did when it was made (its canary logits); after
writing they are read again and answer as those that were written
(test_merge_answers_as_the_student_does).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownweights.core.artefact import Artefact, draft_folder, open_artefact, seal
from ownweights.core.errors import UpdateLost
from ownweights.core.project import Project
from ownweights.weights.base import resolve_base
from ownweights.weights.canary import canary_error, check_canary, save_canary
from ownweights.weights.load import load_model
from ownweights.weights.save import check_new_folder, save_model
from ownweights.weights.student import load_student

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIN_COSINE = 0.98  # below it the stored update points elsewhere than the trained one


@dataclass(frozen=True, slots=True)
class Survival:
    """What rounding left of one layer's update: the cosine between the update as it is stored and
    as it was trained, the share of entries that are stored as the base's, and the update's norm."""

    layer: str
    cosine: float
    unchanged_frac: float
    update_norm: float


@dataclass(frozen=True, slots=True)
class Merged:
    """The folder of a merged student, its id, what survived by layer, and in all."""

    id: str
    path: Path
    layers: tuple[Survival, ...]
    overall: Survival
    canary_error: float | None


def merge_student(
    project: Project,
    student_id: str,
    *,
    to: Path | None = None,
    dtype: str = "bfloat16",
    is_forced: bool = False,
) -> Merged:
    """Write the student as a whole checkpoint: to the folder `to`, or as a base of the project.

    Raises: UpdateLost when rounding loses the update, unless forced; ArtefactError when `to` exists
    """
    if to is not None:
        check_new_folder(project, to)
    artefact = open_artefact(project.kind_dir("student"), student_id, "student")
    student = load_student(project, artefact.id)  # checks the canary before anything is rounded
    base = resolve_base(project, str(artefact.card["identity"]["base_name"]))
    layers, overall = measure_survival(
        load_model(base).state_dict(), student.model.state_dict(), lambda one: one.to(DTYPES[dtype])
    )
    if not is_forced:
        refuse_lost(artefact.id, layers, overall, dtype)
    round_weights(student.model, DTYPES[dtype])
    gap = canary_error(student.model, artefact.path)
    home = project.kind_dir("base") if to is None else to.absolute().parent
    with draft_folder(home) as draft:
        save_model(student.model, draft, dtype=DTYPES[dtype], tokenizer_from=base)
        write_end_ids(draft, student.end_ids)
        save_canary(student.model, draft)
        check_canary(load_model(draft), draft)
        made = _seal(draft, artefact, dtype, {
            "survival": shown_survival(overall), "is_forced": is_forced, "canary_error": gap,
        })  # fmt: skip
    if to is not None:
        os.rename(made.path, to)
    return Merged(made.id, to or made.path, layers, overall, gap)


def measure_survival(
    base: Mapping[str, Tensor], exact: Mapping[str, Tensor], store: Callable[[Tensor], Tensor]
) -> tuple[tuple[Survival, ...], Survival]:
    """What storing `exact` as `store` does leaves of its difference from `base`: by layer, in all.

    Layers that were not trained are left out. Sums are in float64
    (test_measure_survival_matches_float64).
    """
    found: list[Survival] = []
    sums, num_same, num_all = torch.zeros(3, dtype=torch.float64), 0, 0
    for name, weight in exact.items():
        trained = weight.double() - base[name].double()
        if not bool(trained.any()):
            continue
        stored, before = store(weight), store(base[name])
        kept = stored.double() - before.double()
        parts = torch.stack([(trained * kept).sum(), trained.square().sum(), kept.square().sum()])
        same = int((stored == before).sum())
        found.append(_survival(name.removesuffix(".weight"), parts, same, weight.numel()))
        sums, num_same, num_all = sums + parts, num_same + same, num_all + weight.numel()
    return tuple(found), _survival("all", sums, num_same, num_all)


def round_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Round every weight to what `dtype` can store; they stay float32 in memory."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))


def write_end_ids(folder: Path, end_ids: frozenset[int]) -> None:
    """Name every token that ends an answer in generation_config.json.

    The token that the chat template puts after a turn is trained, and need not be the EOS of
    config.json; a reader that does not know it runs on.
    """
    path = folder / "generation_config.json"
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    ids = sorted(end_ids)
    config["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def _survival(layer: str, parts: Tensor, num_same: int, num_all: int) -> Survival:
    dot, trained, kept = (float(part) for part in parts)
    norm = math.sqrt(trained)
    cosine = 1.0 if norm == 0 else dot / (norm * math.sqrt(kept)) if kept else 0.0
    return Survival(layer, min(cosine, 1.0), num_same / num_all if num_all else 0.0, norm)


def shown_survival(one: Survival) -> dict[str, float]:
    """As cards and JSON have it."""
    return {
        "cosine": round(one.cosine, 6), "unchanged_frac": round(one.unchanged_frac, 6),
        "update_norm": round(one.update_norm, 6),
    }  # fmt: skip


def refuse_lost(
    student_id: str, layers: tuple[Survival, ...], overall: Survival, dtype: str
) -> None:
    """Raise UpdateLost when what is stored as `dtype` holds too little of the update."""
    if overall.cosine >= MIN_COSINE:
        return
    worst = min(layers, key=lambda one: one.cosine)
    raise UpdateLost(
        f"stored as {dtype}, the update of student {student_id} keeps a cosine of"
        f" {overall.cosine:.3f} with what was trained, at least {MIN_COSINE} is expected"
        f" ({overall.unchanged_frac:.0%} of the entries stay the base's; the worst layer is"
        f" {worst.layer} with {worst.cosine:.3f})",
        cosine=overall.cosine,
        hint="store it as float32, or ship the adapter unmerged (own weights export --peft);"
        " --force writes it as it is",
    )


def _seal(draft: Path, artefact: Artefact, dtype: str, facts: Mapping[str, Any]) -> Artefact:
    """The merged weights as a base whose parents are the base and the student."""
    identity = artefact.card["identity"]
    return seal(
        draft, "base",
        identity={"merged_from": artefact.id, "base_name": identity["base_name"], "dtype": dtype},
        parents={"base": str(identity["base"]), "student": artefact.id}, facts=facts,
    )  # fmt: skip
