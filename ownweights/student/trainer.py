"""One trainer for every method: a step at a time, resumable to the bit.

In: a model, a plan of batches, a recipe. Out: after each step a `StepReport`; now
and then a checkpoint. The trainer is an iterator, so that something else may take turns with it.
Batches depend on the seed, the step and what a plan observed, which a checkpoint keeps, and nothing
draws random numbers while training, so a run killed at any step and resumed ends in the same bits
(test_resume_equals_uninterrupted).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ownweights.core.artefact import appearing, write_atomic, writing
from ownweights.core.errors import ArtefactError
from ownweights.model.config import ModelConfig
from ownweights.model.transformer import Transformer
from ownweights.student.capped_loss import capped_token_loss
from ownweights.student.distributed import Ranks
from ownweights.student.forming import Forming
from ownweights.student.loss import token_loss
from ownweights.student.muon import Muon

NUM_WORKERS = 2  # each computes the gradients of a share of a step's rows; they meet once a step
PIECE_BYTES = 512 << 20  # of activations that one of them keeps at a time, about
LEAST_PIECE_TOKENS = 256  # products of fewer rows are slow
CHECKPOINT_NAME = "checkpoint.pt"
_CHECKPOINT_KEYS = {"run_id", "step", "parameters", "optimisers"}
_START_AGAIN = "delete the folder to start the run again"


@dataclass(frozen=True, slots=True)
class Batch:
    """Token rows and the positions that are trained.

    What an objective needs besides is kept by name, in `of_positions` or in `of_rows`; each
    `rows_together` rows in a row are never parted.
    Shapes: tokens (B, T), where (N,) flat indices into (B·T), targets (N,), of_positions (N, ...),
    of_rows (B, ...)
    """

    tokens: Tensor
    where: Tensor
    targets: Tensor
    of_positions: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    of_rows: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    rows_together: int = 1


class Plan(Protocol):
    """The batches of a run, asked for step after step."""

    @property
    def num_steps(self) -> int: ...

    def batches(self, step: int) -> Sequence[Batch]:
        """The parts whose gradients make up one step."""
        ...


class Objective(Protocol):
    """What a batch should teach: its part of the loss of a step."""

    def weight(self, batch: Batch) -> int:
        """How many terms (trained tokens, or pairs) the batch adds to the step's mean."""
        ...

    def loss(
        self, model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
    ) -> Tensor:
        """The batch's terms, summed and divided by the whole step's `total` (so that gradients of
        parts add up to the large batch's); what each trained position cost goes to `nats`."""
        ...


@runtime_checkable
class Observer(Protocol):
    """A plan whose later batches depend on how well earlier ones were known."""

    def observe(self, step: int, nats: Tensor) -> None:
        """Take in the loss (N,) of every trained position of a step, in the batches' order."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of what was observed."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How parameters move. Matrices inside the network may use Muon, everything else AdamW.

    Muon's steps are scaled to the RMS of AdamW's, so that one rate may serve both.
    """

    learning_rate: float
    muon_learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup_frac: float = 0.05
    decay_frac: float = 1.0
    max_grad_norm: float = 1.0
    beta2: float = 0.99

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the peak learning rate at a step: warm-up, plateau, straight line to zero."""
        warm = min(1.0, (step + 1) / max(1.0, self.warmup_frac * num_steps))
        left = (num_steps - step) / max(1.0, self.decay_frac * num_steps)
        return min(warm, left, 1.0)


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: mean loss in nats per trained token, tokens read and trained, time."""

    step: int
    num_steps: int
    loss: float
    num_tokens: int
    num_trained: int
    seconds: float


class Trainer:
    """Runs a plan's steps over the trainable parameters of a model."""

    def __init__(
        self, model: Transformer, plan: Plan, *, recipe: Recipe, run_id: str,
        objective: Objective | None = None, dtype: torch.dtype = torch.float32,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.model, self.plan, self.recipe, self.run_id = model, plan, recipe, run_id
        self.objective, self.ranks = objective or TokenObjective(), ranks or Ranks()
        self.step = 0
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._forming = Forming(model, dtype)
        self._most = piece_tokens(model.config, dtype)
        self._optimisers = _make_optimisers(self.parameters, recipe)
        self._peaks = [group["lr"] for opt in self._optimisers for group in opt.param_groups]
        cores = torch.get_num_threads()
        self._num_workers = NUM_WORKERS if self.ranks.world == 1 else min(NUM_WORKERS, cores)
        threads = max(1, cores // self._num_workers)
        self._workers = ThreadPoolExecutor(
            self._num_workers, "trainer", initializer=torch.set_num_threads, initargs=(threads,)
        )

    def __iter__(self) -> Iterator[StepReport]:
        while self.step < self.plan.num_steps:
            yield self.train_step()

    def train_step(self) -> StepReport:
        """Take one optimiser step."""
        began = time.perf_counter()
        parts = self._parts()
        trained = sum(len(part.targets) for part in parts)
        total = sum(self.objective.weight(part) for part in parts)
        nats = [torch.zeros(len(part.targets)) for part in parts]
        mine = self.ranks.share([part.tokens.numel() for part in parts])
        loss = self._accumulate([parts[i] for i in mine], total, [nats[i] for i in mine])
        loss = self.ranks.sum_gradients(list(self.parameters.values()), loss)
        if isinstance(self.plan, Observer):
            self.plan.observe(self.step, self.ranks.sum(torch.cat(nats)))
        nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm)
        factor = self.recipe.factor(self.step, self.plan.num_steps)
        groups = [group for opt in self._optimisers for group in opt.param_groups]
        for group, peak in zip(groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        for optimiser in self._optimisers:
            if total:
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return StepReport(
            self.step, self.plan.num_steps, float(loss),
            sum(part.tokens.numel() for part in parts), trained, time.perf_counter() - began,
        )  # fmt: skip

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The model as a step computes with it: what is compared with a step's numbers is made so
        (test_first_step_of_a_warm_start_costs_ln_two)."""
        with self._forming.step():
            yield

    def _parts(self) -> list[Batch]:
        """The pieces of this step, the same in every process, at least one for each worker."""
        batches, most, world = self.plan.batches(self.step), self._most, self.ranks.world
        if world > 1:
            tokens = sum(batch.tokens.numel() for batch in batches)
            share = tokens // (world * self._num_workers)
            most = min(most, max(LEAST_PIECE_TOKENS, share))
        parts = [piece for batch in batches for piece in pieces(batch, most)]
        if world > 1:
            read = b"".join(t.numpy().tobytes() for p in parts for t in (p.tokens, p.where))
            self.ranks.agree(f"the batch of step {self.step + 1}", read)
        return parts

    def _accumulate(self, parts: Sequence[Batch], total: int, nats: Sequence[Tensor]) -> float:
        """Sum the gradients of all parts, in their order, and give the sum of their losses.

        `nats` receives what every trained position of each part lost. Adapted weights are formed
        once for all parts, and their summed gradients go on to the factors at the end.
        """
        own, loss = list(self.parameters.values()), 0.0
        with self._forming.step() as formed:
            wanted = [*own, *formed.leaves]
            sums: list[Tensor | None] = [None] * len(wanted)
            task = partial(self._gradients, wanted=wanted, total=total)
            for value, grads in self._workers.map(task, parts, nats):
                loss += value
                sums = [_sum(a, b) for a, b in zip(sums, grads, strict=True)]
        for parameter, grad in zip(own, sums, strict=False):
            parameter.grad = grad
        formed.pass_on(sums[len(own) :])
        return loss

    def _gradients(
        self, part: Batch, nats: Tensor, *, wanted: Sequence[Tensor], total: int
    ) -> tuple[float, Sequence[Tensor | None]]:
        loss = self.objective.loss(self.model, part, total, nats)
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        return float(loss.detach()), [None if g is None else g.float() for g in grads]

    def save_checkpoint(self, folder: Path) -> None:
        """Write everything a resumed run needs, in one atomic replace; of two that train the same
        run, neither writes into the other's draft.

        Raises: ArtefactUnwritten when the disk is full; the checkpoint before it stays
        """
        state = {
            "run_id": self.run_id,
            "step": self.step,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }
        if isinstance(self.plan, Observer):
            state["plan"] = self.plan.state()
        summary = {"run_id": self.run_id, "step": self.step, "num_steps": self.plan.num_steps}
        path = folder / CHECKPOINT_NAME
        with writing(path, RuntimeError):  # which torch raises on a full disk
            folder.mkdir(parents=True, exist_ok=True)
            with appearing(path) as draft, draft.open("wb") as file:
                torch.save(state, file)  # a file of ours keeps the reason of a failure
            write_atomic(folder / "progress.json", json.dumps(summary).encode())

    def load_checkpoint(self, folder: Path, *, other_plan: bool = False) -> bool:
        """Continue from a checkpoint; False where there is none.

        `other_plan` accepts one of a run that differs in its plan (a longer pre-training).
        Raises: ArtefactError when it is damaged or of another run
        """
        path = folder / CHECKPOINT_NAME
        if not path.is_file():
            return False
        state = read_checkpoint(path)
        if state["run_id"] != self.run_id and not other_plan:
            raise ArtefactError(
                f"{path} belongs to run {state['run_id']}, expected {self.run_id}",
                hint=_START_AGAIN,
            )
        self._refuse_other_network(path, state["parameters"])
        if isinstance(self.plan, Observer) and "plan" not in state:
            raise ArtefactError(
                f"{path} does not say what its plan had observed", hint=_START_AGAIN
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if isinstance(self.plan, Observer):
            self.plan.restore(state["plan"])
        self.step = state["step"]
        return True

    def _refuse_other_network(self, path: Path, saved: dict[str, Tensor]) -> None:
        ours = {name: tuple(p.shape) for name, p in self.parameters.items()}
        theirs = {name: tuple(p.shape) for name, p in saved.items()}
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise ArtefactError(
                    f"{path} is of another network: {name} is {theirs.get(name)}, expected"
                    f" {ours.get(name)}",
                    hint=_START_AGAIN,
                )


def halves(batch: Batch) -> list[Batch]:
    """A batch as two of half its rows each; rows that belong together stay so."""
    num_rows, width = batch.tokens.shape
    middle = num_rows // batch.rows_together // 2 * batch.rows_together
    if not middle:
        return [batch]
    is_first = batch.where < middle * width
    return [
        Batch(
            batch.tokens[rows], batch.where[chosen] - (rows.start or 0) * width,
            batch.targets[chosen],
            {name: values[chosen] for name, values in batch.of_positions.items()},
            {name: values[rows] for name, values in batch.of_rows.items()}, batch.rows_together,
        )
        for rows, chosen in ((slice(None, middle), is_first), (slice(middle, None), ~is_first))
    ]  # fmt: skip


def piece_tokens(config: ModelConfig, dtype: torch.dtype) -> int:
    """How many tokens a worker may compute at a time, by what a layer keeps of each."""
    kept = 10 * config.hidden_size + 3 * config.intermediate_size  # measured: 9.5 and 3
    of_token = config.num_hidden_layers * kept * dtype.itemsize
    return max(LEAST_PIECE_TOKENS, PIECE_BYTES // of_token)


def pieces(batch: Batch, most: int) -> list[Batch]:
    """A batch as what one worker computes at a time: halves, and halves of those beyond `most`."""
    parts = halves(batch)
    if len(parts) == 1:
        return [trimmed(batch)]
    found: list[Batch] = []
    for part in map(trimmed, parts):
        found += [part] if part.tokens.numel() <= most else pieces(part, most)
    return found


def trimmed(batch: Batch) -> Batch:
    """The batch without the columns that come after everything trained: nothing looks at them."""
    width = batch.tokens.shape[1]
    rows, columns = batch.where // width, batch.where % width
    used = int(columns.max()) + 1 if len(columns) else 1
    return replace(batch, tokens=batch.tokens[:, :used], where=rows * used + columns)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote.

    Raises: ArtefactError when the file is damaged
    """
    try:
        state: Any = torch.load(path, weights_only=True)
    except Exception as error:
        raise ArtefactError(
            f"{path} cannot be read: {type(error).__name__}", hint=_START_AGAIN
        ) from error
    if not isinstance(state, dict) or not state.keys() >= _CHECKPOINT_KEYS:
        raise ArtefactError(f"{path} is not a checkpoint of a training run", hint=_START_AGAIN)
    return state


class TokenObjective:
    """Cross-entropy of the trained tokens, each weighing the same."""

    def weight(self, batch: Batch) -> int:
        return len(batch.targets)

    def loss(
        self, model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
    ) -> Tensor:
        return batch_loss(model, batch, total, nats)


def batch_loss(
    model: Transformer, batch: Batch, total: float, nats: Tensor | None = None
) -> Tensor:
    """The loss of one batch, scored at its trained positions only; each one's goes to `nats`."""
    states, head, targets = trained_states(model, batch), model.head_weight(), batch.targets
    cap = model.logit_cap
    if cap is not None:
        return capped_token_loss(states, head, targets=targets, total=total, cap=cap, nats=nats)
    return token_loss(states, head, targets, total, nats)


def trained_states(model: Transformer, batch: Batch) -> Tensor:
    """The states that the trained tokens are told from. Shapes: → (N, E)"""
    hidden = model(batch.tokens, lengths=row_lengths(batch)).flatten(0, 1)  # (B·T, E)
    return hidden.index_select(0, batch.where)


def row_lengths(batch: Batch) -> Tensor:
    """How far each row is read: up to the last position that is trained. Shapes: → (B,)"""
    num_rows, width = batch.tokens.shape
    lengths = torch.ones(num_rows, dtype=torch.long)
    return lengths.scatter_reduce(0, batch.where // width, batch.where % width + 1, "amax")


def _make_optimisers(
    parameters: dict[str, nn.Parameter], recipe: Recipe
) -> list[torch.optim.Optimizer]:
    matrices = [
        p
        for name, p in parameters.items()
        if recipe.muon_learning_rate is not None and p.ndim == 2 and not _is_of_tokens(name)
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in parameters.values() if id(p) not in chosen]
    optimisers: list[torch.optim.Optimizer] = []
    if others:
        optimisers.append(
            torch.optim.AdamW(
                others, lr=recipe.learning_rate, betas=(0.9, recipe.beta2),
                weight_decay=recipe.weight_decay, eps=1e-8, fused=True,
            )
        )  # fmt: skip
    if matrices:
        assert recipe.muon_learning_rate is not None, "matrices are chosen only for Muon"
        optimisers.append(
            Muon(matrices, recipe.muon_learning_rate, weight_decay=recipe.weight_decay)
        )
    return optimisers


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """In place where there is something already."""
    if total is None or more is None:
        return more if total is None else total
    return total.add_(more)


def _is_of_tokens(name: str) -> bool:
    return "embed_tokens" in name or "lm_head" in name
