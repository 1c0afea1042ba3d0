"""Small token rows, plans and recipes for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ownweights.model.transformer import Transformer
from ownweights.student.examples import ExamplePlan, TokenRow, pad_rows
from ownweights.student.trainer import Batch, Recipe, Trainer
from tests.tiny import VOCAB_SIZE, tiny_model

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
         "num_key_value_heads": 1}  # fmt: skip
RECIPES = {
    "adamw": Recipe(1e-2, weight_decay=0.1),
    "muon": Recipe(1e-2, muon_learning_rate=2e-2, weight_decay=0.1, decay_frac=0.3),
}


def make_rows(count: int, seed: int = 0, *, shortest: int = 4, longest: int = 20) -> list[TokenRow]:
    """Rows of random lengths and prompts of random lengths; each trains at least one token."""
    rng = np.random.default_rng(seed)
    rows: list[TokenRow] = []
    for _ in range(count):
        length = int(rng.integers(shortest, longest + 1))
        ids = rng.integers(7, VOCAB_SIZE, length).astype(np.int32)
        rows.append(TokenRow(ids, int(rng.integers(1, length))))
    return rows


class ListPlan:
    """The batches given, one list of parts a step."""

    def __init__(self, steps: Sequence[Sequence[Batch]]) -> None:
        self.steps = steps

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    def batches(self, step: int) -> Sequence[Batch]:
        return self.steps[step]


def small_plan(epochs: float = 3, *, seed: int = 5, max_tokens: int = 60) -> ExamplePlan:
    """Eleven examples, three a step: four steps in the first epoch, then two, some in parts."""
    return ExamplePlan(
        make_rows(11), epochs=epochs, rows_per_step=3, max_tokens=max_tokens, seed=seed,
        hard_frac=0.5,
    )  # fmt: skip


def small_trainer(
    recipe: Recipe = RECIPES["adamw"], *, seed: int = 0, run_id: str = "run",
    model: Transformer | None = None, dtype: torch.dtype = torch.float32,
) -> Trainer:  # fmt: skip
    """A trainer over `small_plan` of a network that is smaller still."""
    model = model or tiny_model(seed, **SMALL)
    return Trainer(model, small_plan(), recipe=recipe, run_id=run_id, dtype=dtype)


def empty_batch() -> Batch:
    """A row of which nothing is trained."""
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(pad_rows(make_rows(1)).tokens, nothing, nothing)
