"""Examples as token rows: what is read, what is trained, how they are put into batches.

In: (messages, answer) pairs and the chat template. Out: batches of one step, addressed by step.
Only the answer and its end-of-turn token are trained
(test_plan_trains_the_answer_and_its_end_only). Rows of a step have similar lengths and are padded
on the right, which causal attention never sees; nothing is packed. Every epoch visits every example
once, in an order drawn from (seed, epoch).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ownweights.student.trainer import Batch

SORT_WINDOW_BATCHES = 24


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One example. Shapes: ids (T,) int32, of which the first `num_prompt` are only read."""

    ids: np.ndarray
    num_prompt: int


class ExamplePlan:
    """Epochs over examples: `rows` examples a step, at most `max_tokens` padded tokens a part."""

    def __init__(
        self, rows: Sequence[TokenRow], *, epochs: float, rows_per_step: int, max_tokens: int,
        seed: int,
    ) -> None:  # fmt: skip
        assert rows, "a plan needs examples"
        self.rows, self.seed, self.max_tokens = list(rows), seed, max_tokens
        self.rows_per_step = min(rows_per_step, len(self.rows))
        self.steps_per_epoch = -(-len(self.rows) // self.rows_per_step)
        self._lengths = np.array([len(row.ids) for row in self.rows])
        self._num_steps = max(1, round(epochs * self.steps_per_epoch))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def num_steps(self) -> int:
        return self._num_steps

    @property
    def tokens_per_epoch(self) -> int:
        return int(self._lengths.sum())

    def batches(self, step: int) -> list[Batch]:
        """The parts of one step, each within the token budget."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[place]
        parts: list[list[int]] = [[]]
        for index in sorted(chosen, key=lambda i: -self._lengths[i]):
            longest = self._lengths[parts[-1][0]] if parts[-1] else 0
            if parts[-1] and longest * (len(parts[-1]) + 1) > self.max_tokens:
                parts.append([])
            parts[-1].append(index)
        return [pad_rows([self.rows[i] for i in part]) for part in parts]

    def _draw_order(self, epoch: int) -> list[np.ndarray]:
        """The example indices of every step of an epoch: shuffled, alike lengths together."""
        rng = np.random.default_rng([self.seed, epoch])
        order, size = rng.permutation(len(self.rows)), self.rows_per_step
        window = size * SORT_WINDOW_BATCHES
        steps: list[np.ndarray] = []
        for start in range(0, len(order), window):
            chunk = order[start : start + window]
            chunk = chunk[np.argsort(self._lengths[chunk], kind="stable")]
            steps += [chunk[at : at + size] for at in range(0, len(chunk), size)]
        return [steps[i] for i in rng.permutation(len(steps))]


def pad_rows(rows: Sequence[TokenRow]) -> Batch:
    """Rows side by side, padded on the right by zeros that nothing reads."""
    width = max(len(row.ids) for row in rows) - 1
    tokens = np.zeros((len(rows), width), np.int64)  # (B, T)
    where, targets = [], []
    for index, row in enumerate(rows):
        tokens[index, : len(row.ids) - 1] = row.ids[:-1]
        first = max(row.num_prompt, 1)
        where.append(index * width + np.arange(first - 1, len(row.ids) - 1))
        targets.append(row.ids[first:].astype(np.int64))
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(np.concatenate(where)),
        torch.from_numpy(np.concatenate(targets)),
    )


def hash_rows(rows: Sequence[TokenRow]) -> str:
    """A hash of everything the rows hold, so that a resumed run is the same run."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.array([len(row.ids), row.num_prompt], np.int64).tobytes())
        digest.update(row.ids.astype(np.int32).tobytes())
    return digest.hexdigest()
