"""Continuous batching: everyone gets what they would get alone, and the books are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ownweights.engine import lane as lane_module
from ownweights.engine.lane import Lane, Sequence
from ownweights.engine.runner import Runner
from ownweights.model.generate import Generated, generate
from tests.tiny import tiny_model
from tests.variants import LONG

MODEL = tiny_model()
END_IDS = frozenset({2, 60, 61, 62})  # several, so that some sequences end by themselves
MAX_ROWS = 4


def alone(sequence: Sequence) -> Generated:
    return generate(
        MODEL, sequence.prompt, max_tokens=sequence.limit, end_ids=END_IDS,
        temperature=sequence.temperature, seed=sequence.seed,
    )  # fmt: skip


def drain(lane: Lane) -> int:
    """Step until nothing is left; how many steps that took."""
    steps = 0
    while lane.has_work:
        lane.step()
        lane.check_integrity()
        steps += 1
    return steps


def lane_of(sequences: list[Sequence], max_rows: int = MAX_ROWS) -> Lane:
    lane = Lane(Runner(MODEL), END_IDS, max_rows)
    for sequence in sequences:
        lane.add(sequence)
    return lane


def a_sequence(seed: int, length: int = 6, limit: int = 8) -> Sequence:
    return Sequence([7 + (seed * 13 + index * 7) % 250 for index in range(length)], limit)


class LaneMachine(RuleBasedStateMachine):
    """Sequences come, are cancelled, and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(Runner(MODEL), END_IDS, MAX_ROWS)
        self.under_way: list[Sequence] = []
        self.finished: list[Sequence] = []

    @rule(
        seed=st.integers(0, 9), length=st.integers(1, 40), limit=st.integers(1, 12),
        temperature=st.sampled_from([0.0, 0.0, 0.8]),
    )  # fmt: skip
    def add(self, seed: int, length: int, limit: int, temperature: float) -> None:
        sequence = a_sequence(seed, length, limit)
        sequence.temperature, sequence.seed = temperature, seed
        self.under_way.append(sequence)
        self.lane.add(sequence)

    @rule(place=st.integers(0, 20))
    def cancel(self, place: int) -> None:
        if self.under_way:
            self.lane.cancel(self.under_way.pop(place % len(self.under_way)))

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            if not self.lane.has_work:
                return
            moved = self.lane.step()
            assert all(sequence in self.under_way for sequence in moved)
            done = [sequence for sequence in moved if sequence.is_finished]
            self.finished += done
            self.under_way = [s for s in self.under_way if s not in done]

    @invariant()
    def books_are_kept(self) -> None:
        self.lane.check_integrity()
        assert self.lane.has_work == bool(self.under_way)

    def teardown(self) -> None:
        while self.lane.has_work:
            self.step(1)
        for sequence in self.finished:
            expected = alone(sequence)
            assert sequence.result.token_ids == expected.token_ids
            assert sequence.result.is_ended == expected.is_ended


def test_lane_always_keeps_its_books() -> None:
    few = settings(max_examples=25, stateful_step_count=15)
    run_state_machine_as_test(LaneMachine, settings=few)


def test_lane_reads_waiting_prompts_together() -> None:
    sequences = [a_sequence(seed, limit=1) for seed in range(MAX_ROWS)]
    lane = lane_of(sequences)
    assert set(map(id, lane.step())) == set(map(id, sequences))
    assert not lane.has_work


def test_lane_refills_rows_as_they_become_free() -> None:
    sequences = [a_sequence(0, limit=2), *(a_sequence(seed, limit=9) for seed in range(1, 6))]
    lane = lane_of(sequences)
    lane.step()
    lane.step()  # the first has its two tokens; its row is taken within the same step
    begun = [bool(sequence.result.token_ids) for sequence in sequences]
    assert begun == [True] * 5 + [False]


def test_lane_waits_for_several_free_rows_when_there_is_a_queue() -> None:
    many = 16
    limits = [2, *([9] * (many - 1)), *([1] * 4)]
    sequences = [a_sequence(seed, limit=limit) for seed, limit in enumerate(limits)]
    lane = lane_of(sequences, max_rows=many)
    lane.step()
    lane.step()
    assert not any(sequence.result.token_ids for sequence in sequences[many:])
    assert drain(lane) > 0
    assert all(sequence.is_finished for sequence in sequences)


def test_lane_reads_the_oldest_with_those_like_it() -> None:
    """At most half of what is read may be padding: 2 x 60 for 64 tokens is allowed, 3 x 60 not."""
    lengths = [60, 4, 4]
    sequences = [a_sequence(seed, length, 1) for seed, length in enumerate(lengths)]
    lane = lane_of(sequences)
    steps = [sorted(len(sequence.prompt) for sequence in lane.step()) for _ in range(2)]
    assert steps == [[4, 60], [4]]


def test_lane_never_starves_a_long_prompt() -> None:
    lane = lane_of([a_sequence(seed, 4, 3) for seed in range(MAX_ROWS)])
    long = a_sequence(9, length=80, limit=1)
    lane.add(long)
    for seed in range(40):
        lane.add(a_sequence(seed, 4, 3))
        lane.step()
        if long.is_finished:
            return
    pytest.fail("the long prompt still waits")


def test_lane_splits_what_is_too_much_for_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "MAX_PREFILL_TOKENS", 16)
    sequences = [a_sequence(seed, length=8, limit=1) for seed in range(4)]
    lane = lane_of(sequences)
    assert [len(lane.step()) for _ in range(2)] == [2, 2]


def test_lane_reads_a_prompt_that_is_too_much_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "MAX_PREFILL_TOKENS", 16)
    lane = lane_of([a_sequence(1, length=50, limit=1)])
    assert len(lane.step()) == 1


@dataclass
class CountingRunner:
    """Remembers how many rows each decode had."""

    runner: Runner
    rows: list[int] = field(default_factory=list)
    window: int = MODEL.config.max_position_embeddings

    def decode(self, tokens: list[int], positions: list[int]) -> object:
        self.rows.append(len(tokens))
        return self.runner.decode(tokens, positions)

    def __getattr__(self, name: str) -> object:
        return getattr(self.runner, name)


def test_lane_spends_nothing_on_a_cancelled_sequence() -> None:
    runner = CountingRunner(Runner(MODEL))
    lane = Lane(runner, frozenset(), MAX_ROWS)  # pyright: ignore
    sequences = [a_sequence(seed, limit=5) for seed in range(3)]
    for sequence in sequences:
        lane.add(sequence)
    lane.step()
    lane.cancel(sequences[0])
    lane.step()
    assert runner.rows == [2]
    assert len(sequences[0].result.token_ids) == 1


def test_lane_cancel_of_a_stranger_does_nothing() -> None:
    lane = lane_of([a_sequence(1)])
    lane.cancel(a_sequence(1))
    assert lane.has_work


def test_check_integrity_finds_a_sequence_that_should_have_left() -> None:
    sequence = a_sequence(1, limit=3)
    lane = lane_of([sequence])
    lane.step()
    sequence.limit = 1
    with pytest.raises(AssertionError, match="who is finished has left"):
        lane.check_integrity()


def test_lane_reads_a_text_again_that_grows_past_the_border() -> None:
    """Neighbours are on either side of it, and all get what they would get alone."""
    model = tiny_model(**LONG)
    lane = Lane(Runner(model), END_IDS, MAX_ROWS)
    sequences = [a_sequence(seed, length, limit=12) for seed, length in enumerate((5, 8, 10, 13))]
    for sequence in sequences:
        lane.add(sequence)
    drain(lane)
    for sequence in sequences:
        expected = generate(model, sequence.prompt, max_tokens=12, end_ids=END_IDS)
        assert sequence.result.token_ids == expected.token_ids
