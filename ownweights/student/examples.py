"""Examples as token rows: what is read, what is trained, how they are put into batches.

In: (messages, answer) pairs and the chat template. Out: batches, step after step.
Only the answer and its end-of-turn token are trained
(test_plan_trains_the_answer_and_its_end_only). Rows of a step have similar lengths and are padded
on the right, which causal attention never sees; nothing is packed. The first epoch visits every
example once; a later one may visit those alone that cost most when last read, and some of the
others (test_plan_goes_back_to_what_is_not_known). Orders are drawn from (seed, epoch). Steps are
read in their order, since a step's examples depend on what was observed before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ownweights.student.trainer import Batch

SORT_WINDOW_BATCHES = 24
EASY_FRAC = 0.15  # of the examples that are not among the hard ones; they are visited all the same


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One example: the first `num_prompt` ids are only read, but where `mask` says what is trained.

    Shapes: ids (T,) int32, mask (T,) bool
    """

    ids: np.ndarray
    num_prompt: int
    mask: np.ndarray | None = None

    def trained_at(self) -> np.ndarray:
        """Where the trained tokens stand; the first token of a row never is one."""
        if self.mask is None:
            return np.arange(max(self.num_prompt, 1), len(self.ids))
        return np.flatnonzero(self.mask[1:]) + 1


Vary = Callable[[int, int], TokenRow]


class ExamplePlan:
    """Epochs over examples: `rows` examples a step, at most `max_tokens` padded tokens a part.

    `epochs` says how many steps there are: as many as so many visits to every example take. After
    the first epoch, one visits the share `hard_frac` (a step's rows at least) with the greatest
    loss when last read, and 15 % of the rest. `steps_per_epoch` is of the first epoch.
    `vary(index, epoch)`, where given, is the row that an example has in an epoch.
    """

    def __init__(
        self, rows: Sequence[TokenRow], *, epochs: float, rows_per_step: int, max_tokens: int,
        seed: int, hard_frac: float = 1.0, vary: Vary | None = None,
    ) -> None:  # fmt: skip
        assert rows, "a plan needs examples"
        self.rows, self.seed, self.max_tokens = list(rows), seed, max_tokens
        self.rows_per_step = min(rows_per_step, len(self.rows))
        self.num_hard = min(len(rows), max(self.rows_per_step, round(hard_frac * len(rows))))
        self.num_easy = int(EASY_FRAC * (len(rows) - self.num_hard))
        self.steps_per_epoch = -(-len(self.rows) // self.rows_per_step)
        self._steps_later = -(-(self.num_hard + self.num_easy) // self.rows_per_step)
        self._num_steps = max(1, round(epochs * self.steps_per_epoch))
        self._vary = vary or (lambda index, _: self.rows[index])
        self._nats = np.zeros(len(self.rows), np.float32)  # of each example, when last read
        self._epoch, self._chosen = -1, np.arange(0)
        self._epoch_rows: dict[int, TokenRow] = {}
        self._order: list[np.ndarray] = []

    @property
    def num_steps(self) -> int:
        return self._num_steps

    def batches(self, step: int) -> list[Batch]:
        """The parts of one step, each within the token budget."""
        return [pad_rows([self._epoch_rows[i] for i in part]) for part in self._parts(step)]

    def observe(self, step: int, nats: Tensor) -> None:
        """Remember how well the examples of a step are known, by the nats (N,) of their tokens."""
        read = [index for part in self._parts(step) for index in part]
        rows = [self._epoch_rows[index] for index in read]
        ends = np.cumsum([len(row.trained_at()) for row in rows])
        sums = np.concatenate([[0.0], nats.double().cumsum(0).numpy()])
        self._nats[read] = np.diff(sums[np.concatenate([[0], ends])])

    def state(self) -> dict[str, Tensor]:
        """The epoch that runs, the examples it visits, and what each was worth when last read."""
        return {
            "epoch": torch.tensor(self._epoch),
            "chosen": torch.from_numpy(self._chosen),
            "nats": torch.from_numpy(self._nats.copy()),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._nats = state["nats"].numpy().copy()
        if (epoch := int(state["epoch"])) >= 0:
            self._begin(epoch, state["chosen"].numpy())

    def _parts(self, step: int) -> list[list[int]]:
        """The example indices of a step's parts."""
        epoch, place = 0, step
        if step >= self.steps_per_epoch:
            epoch, place = divmod(step - self.steps_per_epoch, self._steps_later)
            epoch += 1
        if epoch != self._epoch:
            self._begin(epoch, self._choose(epoch))
        lengths = {int(i): len(self._epoch_rows[int(i)].ids) for i in self._order[place]}
        parts: list[list[int]] = [[]]
        for index in sorted(lengths, key=lambda i: -lengths[i]):
            longest = lengths[parts[-1][0]] if parts[-1] else 0
            if parts[-1] and longest * (len(parts[-1]) + 1) > self.max_tokens:
                parts.append([])
            parts[-1].append(index)
        return parts

    def _choose(self, epoch: int) -> np.ndarray:
        """The examples that an epoch visits: all in the first, then the hard and some others."""
        if epoch == 0 or self.num_hard == len(self.rows):
            return np.arange(len(self.rows))
        ranked = np.argsort(-self._nats, kind="stable")
        rng = np.random.default_rng([self.seed, epoch, 1])
        easy = rng.choice(ranked[self.num_hard :], self.num_easy, replace=False)
        return np.sort(np.concatenate([ranked[: self.num_hard], easy]))

    def _begin(self, epoch: int, chosen: np.ndarray) -> None:
        """Draw the steps of an epoch: its examples shuffled, alike lengths together."""
        self._epoch, self._chosen = epoch, chosen
        self._epoch_rows = {}  # the last epoch's may go before the next one's come
        self._epoch_rows = {int(i): self._vary(int(i), epoch) for i in chosen}
        lengths = np.array([len(self._epoch_rows[int(i)].ids) for i in chosen])
        rng = np.random.default_rng([self.seed, epoch])
        order, size = rng.permutation(len(chosen)), self.rows_per_step
        window = size * SORT_WINDOW_BATCHES
        steps: list[np.ndarray] = []
        for start in range(0, len(order), window):
            chunk = order[start : start + window]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            steps += [chosen[chunk[at : at + size]] for at in range(0, len(chunk), size)]
        self._order = [steps[i] for i in rng.permutation(len(steps))]


def pad_rows(rows: Sequence[TokenRow]) -> Batch:
    """Rows side by side, padded on the right by zeros that nothing reads."""
    width = max(len(row.ids) for row in rows) - 1
    tokens = np.zeros((len(rows), width), np.int64)  # (B, T)
    where, targets = [], []
    for index, row in enumerate(rows):
        tokens[index, : len(row.ids) - 1] = row.ids[:-1]
        trained = row.trained_at()
        where.append(index * width + trained - 1)
        targets.append(row.ids[trained].astype(np.int64))
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
        if row.mask is not None:
            digest.update(np.packbits(row.mask).tobytes())
    return digest.hexdigest()
