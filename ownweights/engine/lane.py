"""The requests of one model: some wait, some run, one row each, all one token further at every
step.

In: prompts as token ids. Out: tokens with their logprobs, until an end token or a limit.
Invariants: what is generated does not depend on who shares the batch (test_batch_matches_generate);
running sequences fill rows 0..n-1 and each is in one place only (`check_integrity`, after every
step of test_lane_always_keeps_its_books).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from ownweights.engine.runner import Runner
from ownweights.model.generate import Dice, Generated, choose

MAX_PREFILL_TOKENS = 1024  # padded, in one step, unless a single prompt is longer
ADMIT_FRAC = 8  # with a queue, rows are refilled when an eighth is free: longer products


@dataclass(eq=False, slots=True)
class Sequence:
    """One request under way. `limit` is the most tokens it may generate."""

    prompt: list[int]
    limit: int
    temperature: float = 0.0
    seed: int = 0
    result: Generated = field(default_factory=Generated)

    @property
    def num_stored(self) -> int:
        """Positions in the store: the prompt and what was generated, but for the last token."""
        return len(self.prompt) + len(self.result.token_ids) - 1

    @property
    def is_finished(self) -> bool:
        """Whether it has begun and is at its end."""
        return self.result.is_ended or len(self.result.token_ids) >= self.limit

    def dice(self) -> Dice | None:
        """How its next token is drawn; None for the best one."""
        if not self.temperature:
            return None
        return Dice(self.temperature, self.seed, len(self.result.token_ids))


class Lane:
    """Continuous batching over one runner's rows."""

    def __init__(self, runner: Runner, end_ids: frozenset[int], max_rows: int) -> None:
        self.runner = runner
        self._end_ids = end_ids
        self._max_rows = max_rows
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for a row."""
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; its row is free for the next step."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif sequence in self._running:
            self._drop({self._running.index(sequence)})

    def step(self) -> list[Sequence]:
        """Read what waits, where there are rows, then one token for all; those that got a token.

        A finished one has left its row. Sequences that were only just read got their first token.
        """
        moved: list[Sequence] = []
        if self._running:
            last = [sequence.result.token_ids[-1] for sequence in self._running]
            logits = self.runner.decode(last, [s.num_stored for s in self._running])
            self._read_anew(logits)
            moved += self._choose(logits, 0)
        batch = self._admit()
        if batch:
            first = len(self._running)
            self._running += batch
            states = self.runner.read([sequence.prompt for sequence in batch], first)
            for sequence, state in zip(batch, states.numpy(), strict=True):
                sequence.result.prompt_state = state
            moved += self._choose(self.runner.scores(states), first)
        return moved

    def check_integrity(self) -> None:
        """What must hold between steps."""
        everyone = [*self._waiting, *self._running]
        assert len(set(map(id, everyone))) == len(everyone), "a sequence is in one place"
        assert len(self._running) <= self._max_rows, "no more rows than allowed"
        for sequence in self._running:
            assert sequence.result.token_ids, "who runs has a first token"
            assert not sequence.is_finished, "who is finished has left"
            assert sequence.num_stored < self.runner.window, "there is a position for the next"
        assert not any(s.result.token_ids for s in self._waiting), "who waits has nothing yet"

    def _admit(self) -> list[Sequence]:
        """The longest-waiting sequence and others of like length, so that little is padding."""
        free = self._max_rows - len(self._running)
        if not self._waiting or not free:
            return []
        if free < len(self._waiting) and free < self._max_rows // ADMIT_FRAC:
            return []
        ahead = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        batch = _of_like_length(ahead)
        chosen = set(map(id, batch))
        self._waiting.extendleft(s for s in reversed(ahead) if id(s) not in chosen)
        return batch

    def _read_anew(self, logits: Tensor) -> None:
        """Give texts that just grew past the base's border what reading them whole gives.

        Beyond it all their keys are others (`model.rope`), so their rows are written again.
        Shapes: logits (B, V), changed in place
        """
        for row, sequence in enumerate(self._running):
            if sequence.num_stored == self.runner.border:
                text = [*sequence.prompt, *sequence.result.token_ids]
                self.runner.read_anew(text, row, logits)

    def _choose(self, logits: Tensor, first_row: int) -> list[Sequence]:
        """Give each row from `first_row` on its next token; finished ones leave."""
        moved = self._running[first_row:]
        choices = choose(logits, [sequence.dice() for sequence in moved])
        finished: set[int] = set()
        for index, (sequence, choice) in enumerate(zip(moved, choices, strict=True)):
            sequence.result.add(choice, is_end=choice.token in self._end_ids)
            if sequence.is_finished:
                finished.add(first_row + index)
        self._drop(finished)
        return moved

    def _drop(self, rows: set[int]) -> None:
        """Free rows; the last running sequences move into the gaps."""
        for row in sorted(rows, reverse=True):
            last = len(self._running) - 1
            moved = self._running.pop()
            if row != last:
                self.runner.move(last, row, moved.num_stored)
                self._running[row] = moved


def _of_like_length(ahead: list[Sequence]) -> list[Sequence]:
    """The first of `ahead`, and those nearest to it in length while at most half is padding."""
    first = len(ahead[0].prompt)
    batch: list[Sequence] = []
    longest = total = 0
    for sequence in sorted(ahead, key=lambda s: abs(len(s.prompt) - first)):
        longest, total = max(longest, len(sequence.prompt)), total + len(sequence.prompt)
        padded = longest * (len(batch) + 1)
        if batch and (padded > MAX_PREFILL_TOKENS or padded > 2 * total):
            break
        batch.append(sequence)
    return batch
