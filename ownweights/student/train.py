"""Turns a dataset and a base into a student: the run, its checkpoints, and the sealed folder.

In: a dataset, a base, options. Out: `.own/student/<id>/`, a PEFT adapter (or full weights) with a
card. A run is named by what determines it (data, base, options); calling again after a kill finds
its checkpoint by that name and goes on to the same bits (test_train_student_resumes_after_kill).
What is learned is a `Lesson`, made by the objective's own file; nothing here knows one from the
other. Develop is read for its loss alone; certify and test are never opened here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ownweights.core.artefact import Artefact, draft_folder, hash_json, open_artefact, seal
from ownweights.core.errors import ModelError
from ownweights.core.project import Project
from ownweights.dataset.load import Dataset
from ownweights.model.lora import HEAD, TARGETS, LoraConfig, attach_lora
from ownweights.model.transformer import Transformer
from ownweights.student.distributed import Ranks
from ownweights.student.examples import ExamplePlan, hash_rows
from ownweights.student.lessons import make_lesson
from ownweights.student.options import METHODS, PACKING, StudentOptions
from ownweights.student.packing import pack_base, packing_facts, whole_student
from ownweights.student.precision import COMPUTE_DTYPES, derive_dtype
from ownweights.student.prepare import Counts
from ownweights.student.rates import derive_rate
from ownweights.student.study import (
    MAX_EPOCHS,
    MAX_PART_TOKENS,
    MIN_EPOCHS,
    NUM_DEVELOP_ROWS,
    TOKEN_BUDGET,
    Base,
    Lesson,
    Materials,
    Study,
    develop_rows,
    load_base,
    mean_loss,
)
from ownweights.student.trainer import Recipe, StepReport, Trainer
from ownweights.weights.adapter import Adapter, attach_adapter, read_adapter, save_adapter
from ownweights.weights.canary import save_canary
from ownweights.weights.fused import split_adapter
from ownweights.weights.save import add_end_ids, save_model

__all__ = [
    "MAX_EPOCHS", "MAX_PART_TOKENS", "METHODS", "MIN_EPOCHS", "NUM_DEVELOP_ROWS", "TOKEN_BUDGET",
    "Base", "Run", "StudentOptions", "load_base", "plan_run", "train_student",
]  # fmt: skip
Progress = Callable[[StepReport], None]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that determines a training run, and its name."""

    id: str
    settings: Mapping[str, Any]
    recipe: Recipe
    lesson: Lesson
    lora: LoraConfig | None
    dtype: tuple[str, str]  # that products are computed in, and why
    start: Adapter | None = None
    packing: str | None = None

    @property
    def plan(self) -> ExamplePlan:
        return self.lesson.plan

    @property
    def counts(self) -> Counts:
        return self.lesson.counts


def train_student(
    dataset: Dataset,
    project: Project,
    *,
    options: StudentOptions | None = None,
    on_step: Progress | None = None,
    materials: Materials | None = None,
    ranks: Ranks | None = None,
) -> Artefact:
    """Train (or finish training) a student on a dataset's train split.

    `ranks`: this process among those that train it together; the first seals it.
    Raises: InputError when no example fits; ModelError when the base does not; RankError
    """
    options, ranks = options or StudentOptions(), ranks or Ranks()
    base = load_base(project, options.base)
    run = plan_run(dataset, base, options, materials=materials, project=project)
    ranks.agree("the run", run.id)
    trainer = _start(base, run, options, ranks)
    work = project.kind_dir("student") / f".run-{run.id}"
    if run.lesson.prepare is not None:
        with ranks.in_turn(), trainer.computing():
            run.lesson.prepare(base.model, work)
    trainer.load_checkpoint(work)
    ranks.agree("the checkpoint", trainer.step)
    facts = _drive(trainer, work, options, on_step)
    if not ranks.is_first:
        return open_artefact(project.kind_dir("student"), ranks.tell(), "student")
    rows = develop_rows(base, dataset, turns=options.turns)
    facts["develop_loss"] = mean_loss(base.model, rows)
    model = base.model
    if run.packing is not None:
        model = _served(base, run, work)
        facts |= {**packing_facts(base.model, model), "develop_loss_packed": facts["develop_loss"]}
        facts["develop_loss"] = mean_loss(model, rows)
    if run.lesson.measure is not None:
        with trainer.computing():  # in the numbers of what it is compared with
            facts |= run.lesson.measure(base.model)
    facts |= {
        **run.lesson.facts, "skipped_too_long": run.counts.too_long,
        "skipped_refused": run.counts.refused + run.counts.untrained,
        "template_drops": run.counts.dropped,
    }  # fmt: skip
    facts["compute_dtype"] = run.dtype[0]
    facts["trainable_params"] = sum(p.numel() for p in trainer.parameters.values())
    if ranks.world > 1:
        facts["processes"] = ranks.world
    facts["reasons"] = reasons_of(run, facts["trainable_params"])
    student = _seal(project, dataset, replace(base, model=model), run, facts)
    shutil.rmtree(work, ignore_errors=True)
    ranks.tell(student.id)
    return student


def plan_run(
    dataset: Dataset, base: Base, options: StudentOptions, *, materials: Materials | None = None,
    project: Project | None = None,
) -> Run:  # fmt: skip
    """The batches and settings of a run, with every derived value filled in."""
    project = project or Project(dataset.path.parents[2])
    lesson = make_lesson(Study(project, dataset, base, options, materials or Materials()))
    rate, why_rate = derive_rate(base.model, options)
    epochs, why_epochs = lesson.epochs
    settings: dict[str, Any] = {
        "base": base.id, "base_name": base.name, "method": options.method, "epochs": epochs,
        "optimiser": options.optimiser, "learning_rate": rate,
        "rows_per_step": lesson.plan.rows_per_step,
        "hard_frac": options.hard_frac if options.is_choosy else 1.0,
        "swap": options.swap and options.can_swap,
        "seed": options.seed, "steps": lesson.plan.num_steps,
        "derived": {"epochs": why_epochs, "learning_rate": why_rate},
    }  # fmt: skip
    if options.turns != "last":
        settings["turns"] = options.turns
    if options.objective != "sft":
        settings |= {"objective": options.objective, **lesson.settings}
    start = None if options.start is None else _read_start(project, base, options, settings)
    lora = None
    if options.method != "full":
        lora = start.config if start else _lora_of(options)
        settings["lora"] = asdict(lora) | {"targets": list(lora.targets)}
    dtype = derive_dtype(options.compute_dtype)
    if dtype[0] != "float32":
        settings["compute_dtype"] = dtype[0]
    packing = options.packing or PACKING if options.method == "qlora" else None
    if packing is not None:
        settings["packing"] = packing
    settings["prune"] = dataset.prune.to_json() if dataset.prune else None
    run_id = hash_json([settings, dataset.id, hash_rows(lesson.plan.rows)])[:12]
    muon_rate = rate if options.optimiser == "muon" else None
    recipe = Recipe(rate, muon_rate, warmup_frac=0.03, decay_frac=1.0)
    return Run(run_id, settings, recipe, lesson, lora, dtype, start, packing)


def _lora_of(options: StudentOptions) -> LoraConfig:
    targets = (*TARGETS, HEAD) if options.head else TARGETS
    return LoraConfig(options.rank, float(options.lora_alpha or 2 * options.rank), targets)


def _read_start(
    project: Project, base: Base, options: StudentOptions, settings: dict[str, Any]
) -> Adapter:
    """The adapter of the student that is trained on; its shape is the new one's.

    Raises: ArtefactMissing, ArtefactError; ModelError when it has none, none of a head that is
    asked for, or is of another base
    """
    found = open_artefact(project.kind_dir("student"), str(options.start), "student", verify=True)
    if found.card["identity"].get("method") == "full":
        raise ModelError(
            f"student {found.id} has no adapter to start from",
            hint=f"give it as the base: base = {str(found.path)!r}",
        )
    settings["start"] = found.id
    held = read_adapter(found.path, base_id=base.id)
    factors, config = split_adapter(held.factors, held.config, base.model.config)
    if options.head and HEAD not in config.targets:
        raise ModelError(
            f"student {found.id} has no adapter on the head to start from",
            hint="leave `head` out, or train one with it from the base",
        )
    return Adapter(config, factors, held.base_id)


def _start(base: Base, run: Run, options: StudentOptions, ranks: Ranks) -> Trainer:
    torch.manual_seed(options.seed)
    model = base.model
    if run.start is not None:
        attach_adapter(model, run.start, where=f"student {run.settings['start']}")
    elif run.lora is not None:
        if HEAD in run.lora.targets:
            model.own_head()
        attach_lora(model, run.lora, options.seed)
    if run.packing is not None and run.lora is not None:
        pack_base(model, run.lora.targets, run.packing)
    return Trainer(
        model, run.plan, recipe=run.recipe, run_id=run.id, objective=run.lesson.objective,
        dtype=COMPUTE_DTYPES[run.dtype[0]], ranks=ranks,
    )  # fmt: skip


def _served(base: Base, run: Run, work: Path) -> Transformer:
    """What answers once an adapter was learnt on a packed base: it, on the base's own weights."""
    assert run.lora is not None, "only adapters are learnt on packed weights"
    with draft_folder(work) as folder:
        save_adapter(base.model, run.lora, folder, base_id=base.id, base_name=base.name)
        return whole_student(base.path, folder)


def _drive(
    trainer: Trainer, work: Path, options: StudentOptions, on_step: Progress | None
) -> dict[str, Any]:
    """Run the remaining steps; what they took and where the loss went."""
    losses: list[float] = []
    num_tokens, num_trained, seconds = 0, 0, 0.0
    resumed_at, last_saved = trainer.step, time.monotonic()
    for report in trainer:
        losses.append(report.loss)
        num_tokens, num_trained = num_tokens + report.num_tokens, num_trained + report.num_trained
        seconds += report.seconds
        if on_step is not None:
            on_step(report)
        is_due = time.monotonic() - last_saved >= options.checkpoint_every_s
        if is_due and trainer.ranks.is_first:
            trainer.save_checkpoint(work)
            last_saved = time.monotonic()
    thin = max(1, len(losses) // 50)
    return {
        "seconds": round(seconds, 3), "resumed_at": resumed_at, "num_tokens": num_tokens,
        "num_trained_tokens": num_trained,
        "tokens_per_s": round(num_tokens / seconds, 1) if seconds else 0.0,
        "losses": [round(float(np.mean(losses[i : i + thin])), 4)
                   for i in range(0, len(losses), thin)],
    }  # fmt: skip


def reasons_of(run: Run, num_params: int | None = None) -> dict[str, str]:
    """Why the rest is as it is: what the card's identity does not give a reason for."""
    plan = run.plan
    trained = sum(len(row.trained_at()) for row in plan.rows)
    reasons = {
        "compute_dtype": f"{run.dtype[0]}: {run.dtype[1]}",
        "rows_per_step": f"{plan.rows_per_step} of {len(plan.rows)} examples",
    }
    if run.lora is not None:
        reasons["rows_per_step"] += "; adapters lose with steps of more than 32 to 64"
        source = f" of student {run.settings['start']}" if run.start else ""
        reasons["rank"] = f"{run.lora.rank}{source}, or as asked"
        if num_params is not None:
            enough = f" for {trained:,} trained tokens a pass; at least as many are enough"
            reasons["rank"] = f"{run.lora.rank}{source}: {num_params:,} parameters" + (
                enough if trained else ""  # of prompts alone, nobody knows yet
            )
    return reasons


def _seal(
    project: Project, dataset: Dataset, base: Base, run: Run, facts: Mapping[str, Any]
) -> Artefact:
    parents = {"dataset": dataset.id, "base": base.id, **run.lesson.parents}
    if "start" in run.settings:
        parents["start"] = run.settings["start"]
    with draft_folder(project.kind_dir("student")) as draft:
        if run.lora is not None:
            save_adapter(base.model, run.lora, draft, base_id=base.id, base_name=base.name)
        else:
            save_model(base.model, draft, tokenizer_from=base.path)
            add_end_ids(draft, [base.template.end_id])
        save_canary(base.model, draft)
        return seal(
            draft, "student", identity=dict(run.settings), parents=parents, facts=facts
        )  # fmt: skip
