"""Turns a dataset and a base into a student: the run, its checkpoints, and the sealed folder.

In: a dataset, a base, options. Out: `.own/student/<id>/`, a PEFT adapter (or full weights) with a
card. A run is named by what determines it (data, base, options); calling again after a kill finds
its checkpoint by that name and goes on to the same bits (test_train_student_resumes_after_kill).
Develop is read for its loss alone; certify and test are never opened here.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ownweights.core.artefact import Artefact, draft_folder, hash_json, seal
from ownweights.core.errors import InputError, SettingsError
from ownweights.core.project import Project
from ownweights.core.tables import MAX_SEED
from ownweights.dataset.load import Dataset
from ownweights.model.lora import TARGETS, LoraConfig, attach_lora
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer
from ownweights.student.examples import ExamplePlan, TokenRow, hash_rows
from ownweights.student.prepare import TURNS, Counts, prepare, row_of
from ownweights.student.swap import Swapper
from ownweights.student.trainer import Recipe, StepReport, Trainer, batch_loss
from ownweights.weights.adapter import save_adapter
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.canary import save_canary
from ownweights.weights.load import load_model
from ownweights.weights.save import add_end_ids, save_model

METHODS = ("lora", "full")
TOKEN_BUDGET = 2_000_000
MIN_EPOCHS, MAX_EPOCHS = 2.0, 12.0
RATE_AT_256 = 3e-3
MAX_PART_TOKENS = 8192
NUM_DEVELOP_ROWS = 512
Progress = Callable[[StepReport], None]


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """How a student is trained; None means derived (and said on the card with its reason)."""

    base: str = "seedling"
    method: str = "lora"
    rank: int = 128
    lora_alpha: float | None = None
    epochs: float | None = None
    learning_rate: float | None = None
    rows_per_step: int = 32
    hard_frac: float = 0.5
    swap: bool = True
    turns: str = "last"
    seed: int = 1
    checkpoint_every_s: float = 30.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        if self.turns not in TURNS:
            raise SettingsError(f"turns {self.turns!r} is not one of {', '.join(TURNS)}")
        for name in ("rank", "rows_per_step"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"seed must be between 0 and {MAX_SEED}")
        if not 0 <= self.hard_frac <= 1:
            raise SettingsError(f"hard_frac must be in [0, 1], got {self.hard_frac}")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < math.inf:
            raise SettingsError(f"lora_alpha must be more than 0, got {self.lora_alpha}")
        if self.epochs is not None and not 0 < self.epochs <= 1000:
            raise SettingsError(f"epochs must be more than 0 and at most 1000, got {self.epochs}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise SettingsError(f"learning_rate must be in (0, 1), got {self.learning_rate}")


@dataclass(frozen=True, slots=True)
class Base:
    """The open weights that the student starts from, loaded."""

    name: str
    id: str
    path: Path
    model: Transformer
    template: ChatTemplate

    @property
    def window(self) -> int:
        """The most tokens that an example may have."""
        return self.model.config.max_position_embeddings


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that determines a training run, and its name."""

    id: str
    settings: Mapping[str, Any]
    recipe: Recipe
    plan: ExamplePlan
    counts: Counts


def train_student(
    dataset: Dataset,
    project: Project,
    options: StudentOptions | None = None,
    *,
    on_step: Progress | None = None,
) -> Artefact:
    """Train (or finish training) a student on a dataset's train split.

    Raises: InputError when no example fits; ModelError when the base does not
    """
    options = options or StudentOptions()
    base = load_base(project, options.base)
    run = plan_run(dataset, base, options)
    trainer = _start(base.model, run, options)
    work = project.kind_dir("student") / f".run-{run.id}"
    trainer.load_checkpoint(work)
    facts = _drive(trainer, work, options, on_step)
    held_out = dataset.examples("develop")[:NUM_DEVELOP_ROWS]
    develop = prepare(base.template, base.window, held_out, turns=options.turns)
    facts["develop_loss"] = _mean_loss(base.model, develop.rows)
    facts["skipped_too_long"] = run.counts.too_long
    facts["skipped_refused"] = run.counts.refused + run.counts.untrained
    facts["template_drops"] = run.counts.dropped
    facts["trainable_params"] = sum(p.numel() for p in trainer.parameters.values())
    student = _seal(project, dataset, base, run, facts)
    shutil.rmtree(work, ignore_errors=True)
    return student


def load_base(project: Project, name: str) -> Base:
    """A base by its name or folder, ready to be trained.

    Raises: ArtefactMissing, ModelError
    """
    path = resolve_base(project, name)
    template = ChatTemplate.load(path, Tokenizer.load(path))
    return Base(name, base_id(path), path, load_model(path), template)


def plan_run(dataset: Dataset, base: Base, options: StudentOptions) -> Run:
    """The batches and settings of a run, with every derived value filled in."""
    model = base.model
    found = dataset.examples("train")
    if not found:
        raise InputError(
            f"the train split of dataset {dataset.id} is empty",
            hint="import or record more traffic, and build the dataset again",
        )
    ready = prepare(base.template, base.window, found, turns=options.turns)
    rows = ready.rows
    if not rows:
        raise InputError(
            f"no train example of dataset {dataset.id} fits the base's window of"
            f" {base.window} tokens ({ready.counts.too_long} are too long)",
            hint="choose a base with a longer window",
        )
    epochs, why_epochs = _derive_epochs(rows, options)
    rate, why_rate = _derive_rate(model, options)
    swapper = Swapper(ready.examples if options.swap else [], seed=options.seed)
    plan = ExamplePlan(
        rows, epochs=epochs, rows_per_step=options.rows_per_step, max_tokens=MAX_PART_TOKENS,
        seed=options.seed, hard_frac=options.hard_frac,
        vary=partial(_varied, base, swapper, rows) if swapper else None,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "base": base.id, "base_name": base.name, "method": options.method, "epochs": epochs,
        "optimiser": "muon", "learning_rate": rate, "rows_per_step": plan.rows_per_step,
        "hard_frac": options.hard_frac, "swap": options.swap, "seed": options.seed,
        "steps": plan.num_steps,
        "derived": {"epochs": why_epochs, "learning_rate": why_rate},
    }  # fmt: skip
    if options.turns != "last":
        settings["turns"] = options.turns
    if options.method == "lora":
        lora = LoraConfig(options.rank, float(options.lora_alpha or 2 * options.rank), TARGETS)
        settings["lora"] = asdict(lora) | {"targets": list(lora.targets)}
    settings["prune"] = dataset.prune.to_json() if dataset.prune else None
    run_id = hash_json([settings, dataset.id, hash_rows(rows)])[:12]
    recipe = Recipe(rate, rate, warmup_frac=0.03, decay_frac=1.0)
    return Run(run_id, settings, recipe, plan, ready.counts)


def _row(base: Base, messages: Sequence[Mapping[str, Any]], answer: str) -> TokenRow | None:
    """One example as a token row; None when it does not fit the base's window."""
    return row_of(base.template.render(messages, answer), base.window)


def _varied(
    base: Base, swapper: Swapper, rows: Sequence[TokenRow], index: int, epoch: int
) -> TokenRow:
    """The row that an example has in an epoch: with values of other examples, or its own."""
    swapped = swapper.swapped(index, epoch)
    return (swapped and _row(base, *swapped)) or rows[index]


def _derive_epochs(rows: Sequence[TokenRow], options: StudentOptions) -> tuple[float, str]:
    if options.epochs is not None:
        return float(options.epochs), "as asked"
    num_tokens = sum(len(row.ids) for row in rows)
    epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, round(TOKEN_BUDGET / num_tokens, 1)))
    return epochs, f"{TOKEN_BUDGET:,} tokens over {num_tokens:,} a pass, {MIN_EPOCHS}-{MAX_EPOCHS}"


def _derive_rate(model: Transformer, options: StudentOptions) -> tuple[float, str]:
    if options.learning_rate is not None:
        return float(options.learning_rate), "as asked"
    width = model.config.hidden_size
    rate = RATE_AT_256 * math.sqrt(256 / width)
    return float(f"{rate:.2g}"), f"{RATE_AT_256} at width 256, scaled by the root of 256 / {width}"


def _start(model: Transformer, run: Run, options: StudentOptions) -> Trainer:
    torch.manual_seed(options.seed)
    if options.method == "lora":
        attach_lora(model, _lora_of(run), options.seed)
    return Trainer(model, run.plan, run.recipe, run_id=run.id)


def _lora_of(run: Run) -> LoraConfig:
    lora = run.settings["lora"]
    return LoraConfig(lora["rank"], lora["alpha"], tuple(lora["targets"]))


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
        if time.monotonic() - last_saved >= options.checkpoint_every_s:
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


@torch.inference_mode()
def _mean_loss(model: Transformer, rows: Sequence[TokenRow]) -> float | None:
    """Nats per trained token."""
    if not rows:
        return None
    plan = ExamplePlan(
        rows, epochs=1, rows_per_step=64, max_tokens=MAX_PART_TOKENS, seed=0
    )  # fmt: skip
    total, trained = 0.0, 0
    for step in range(plan.num_steps):
        for part in plan.batches(step):
            total += float(batch_loss(model, part, 1.0))
            trained += len(part.targets)
    return round(total / trained, 5)


def _seal(
    project: Project, dataset: Dataset, base: Base, run: Run, facts: Mapping[str, Any]
) -> Artefact:
    with draft_folder(project.kind_dir("student")) as draft:
        if run.settings["method"] == "lora":
            save_adapter(base.model, _lora_of(run), draft, base_id=base.id, base_name=base.name)
        else:
            save_model(base.model, draft, tokenizer_from=base.path)
            add_end_ids(draft, [base.template.end_id])
        save_canary(base.model, draft)
        return seal(
            draft, "student", identity=dict(run.settings),
            parents={"dataset": dataset.id, "base": base.id}, facts=facts,
        )  # fmt: skip
