"""Answers what is waiting, for several students at once, one step at a time.

In: asks (conversations with options). Out: pieces of text, finished answers with their features, or
failures, by the key the asker chose. One thread drives it: submit, step while `has_work`, cancel.
Invariants: greedy answers are `model.generate`'s token for token (test_batch_matches_generate); a
student that could not be loaded fails its own asks and nobody else's
(test_batch_keeps_answering_*).

Each student has a lane with its adapter folded into weights of its own, one copy a student. For
one student that is the faster form; four that are all busy would share one pass of the base in
less time than four passes take (bench/engine_batch.py, cases `merged students=1` and
`merged students=4`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ownweights.core.errors import CompleterError, ContextTooLong, OwnError
from ownweights.core.project import Project
from ownweights.engine.lane import Lane, Sequence
from ownweights.engine.runner import Runner
from ownweights.engine.wire import Ask, Done, Piece, Reply, failure_of
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Detokenizer
from ownweights.weights.student import Student, load_student

MAX_BATCH = 32


@dataclass(frozen=True, slots=True)
class _Seat:
    """A student in the engine: its words and its lane."""

    template: ChatTemplate
    lane: Lane


@dataclass(eq=False, slots=True)
class _Pending:
    """One ask under way."""

    ask: Ask
    seat: _Seat
    sequence: Sequence
    detokenizer: Detokenizer | None


class BatchEngine:
    """Holds students and answers for them. `failures` says which could not be loaded, and why."""

    def __init__(
        self, students: Mapping[str, Student | str], *, max_batch: int = MAX_BATCH
    ) -> None:
        """`students` by the name they are asked under; a text instead says why one is missing."""
        self.failures = {name: why for name, why in students.items() if isinstance(why, str)}
        self._seats: dict[str, _Seat] = {}
        for name, student in students.items():
            if not isinstance(student, str):
                lane = Lane(Runner(student.model), student.end_ids, max_batch)
                self._seats[name] = _Seat(student.template, lane)
        self._pending: dict[Hashable, _Pending] = {}
        self._by_sequence: dict[Sequence, Hashable] = {}

    @classmethod
    def load(
        cls, project: Project, student_ids: Iterable[str], *, max_batch: int = MAX_BATCH
    ) -> BatchEngine:
        """An engine with the project's students; those that do not load are in `failures`."""
        students: dict[str, Student | str] = {}
        for student_id in student_ids:
            try:
                students[student_id] = load_student(project, student_id)
            except OwnError as error:
                students[student_id] = str(error)
        return cls(students, max_batch=max_batch)

    @property
    def num_parameters(self) -> int:
        """Of the largest student."""
        return max((seat.lane.runner.num_parameters for seat in self._seats.values()), default=0)

    @property
    def has_work(self) -> bool:
        return bool(self._pending)

    def submit(self, key: Hashable, ask: Ask) -> None:
        """Take on an ask; its replies carry `key`.

        Raises: CompleterError for a student that is not here, ContextTooLong, Ineligible
        """
        seat = self._seats.get(ask.student)
        if seat is None:
            why = self.failures.get(ask.student, "the engine was not told to load it")
            raise CompleterError(f"student {ask.student} is not available: {why}")
        prompt = seat.template.render_prompt(ask.messages)
        room = seat.lane.runner.window - len(prompt)
        if room <= 0 or not prompt:
            raise ContextTooLong(len(prompt), seat.lane.runner.window)
        limit = room if ask.max_tokens is None else min(ask.max_tokens, room)
        sequence = Sequence(prompt, limit, ask.temperature, ask.seed)
        detokenizer = Detokenizer(seat.template.tokenizer) if ask.is_stream else None
        self._pending[key] = _Pending(ask, seat, sequence, detokenizer)
        self._by_sequence[sequence] = key
        seat.lane.add(sequence)

    def cancel(self, key: Hashable) -> None:
        """Nobody waits for this answer any more; unknown keys are finished ones."""
        pending = self._pending.pop(key, None)
        if pending is not None:
            del self._by_sequence[pending.sequence]
            pending.seat.lane.cancel(pending.sequence)

    def step(self) -> list[tuple[Hashable, Reply]]:
        """One more token for everyone under way; what there is to say about it."""
        replies: list[tuple[Hashable, Reply]] = []
        for seat in self._seats.values():
            if seat.lane.has_work:
                for sequence in seat.lane.step():
                    key = self._by_sequence[sequence]
                    replies += [(key, reply) for reply in self._reply(key, sequence)]
        return replies

    def check_integrity(self) -> None:
        """What must hold between steps."""
        assert len(self._by_sequence) == len(self._pending), "every ask has one sequence"
        for seat in self._seats.values():
            seat.lane.check_integrity()

    def _reply(self, key: Hashable, sequence: Sequence) -> list[Reply]:
        pending = self._pending[key]
        replies: list[Reply] = []
        if pending.detokenizer is not None:
            ids = sequence.result.token_ids[-1:]
            piece = pending.detokenizer.push([] if sequence.result.is_ended else ids)
            if sequence.is_finished:
                piece += pending.detokenizer.flush()
            if len(sequence.result.token_ids) == 1:
                prompt, state = len(sequence.prompt), _state(sequence)
                replies.append(Piece(pending.ask.id, piece, prompt, state))
            elif piece:
                replies.append(Piece(pending.ask.id, piece))
        if sequence.is_finished:
            del self._pending[key], self._by_sequence[sequence]
            replies.append(_done(pending))
        return replies


def answer_all(
    engine: BatchEngine, asks: Mapping[Hashable, Ask], on_done: Callable[[int], None] | None = None
) -> dict[Hashable, Reply]:
    """Answer every ask, in one thread, and return its last reply by key."""
    answers: dict[Hashable, Reply] = {}
    for key, ask in asks.items():
        try:
            engine.submit(key, ask)
        except OwnError as error:
            answers[key] = failure_of(ask.id, error)
    while engine.has_work:
        for key, reply in engine.step():
            if not isinstance(reply, Piece):
                answers[key] = reply
                if on_done is not None:
                    on_done(len(answers))
    return answers


def _done(pending: _Pending) -> Done:
    result = pending.sequence.result
    ids = result.token_ids[:-1] if result.is_ended else result.token_ids
    return Done(
        id=pending.ask.id,
        text=pending.seat.template.tokenizer.decode(ids),
        finish_reason="stop" if result.is_ended else "length",
        prompt_tokens=len(pending.sequence.prompt),
        token_ids=np.array(result.token_ids, "<i4").tobytes(),
        logprobs=np.array(result.logprobs, "<f4").tobytes(),
        margins=np.array(result.margins, "<f4").tobytes(),
        prompt_state=_state(pending.sequence),
    )


def _state(sequence: Sequence) -> bytes:
    state = sequence.result.prompt_state
    return b"" if state is None else state.astype("<f4").tobytes()
