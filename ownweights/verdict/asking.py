"""Ask the student the requests of one split, and judge what it answers.

In: a Trial, a check, the examples of a split. Out: `Answers`, in the order of the examples, and the
judged rows that a verdict is decided from. An error or time-out is an outcome, not an exception
(test_run_counts_failures_and_ineligible_requests), unless nothing is answered at all.
Invariants: the order in which answers come changes nothing (test_run_is_blind_to_concurrency).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible
from ownweights.verdict.checks import Check, judged_text
from ownweights.verdict.confidence.agreement import complete_with_agreement
from ownweights.verdict.floor import Outcome
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE, Judged, unit_hash
from ownweights.verdict.trial import Asked, Judging, Trial


@dataclass(frozen=True, slots=True)
class Answers:
    """The requests of one split, what the student answered, and the harm of each answer."""

    split: str
    examples: Sequence[Asked]
    outcomes: Sequence[Outcome]
    harms: Sequence[float | None]

    def rows(self, scores: Sequence[float], slices: Sequence[Mapping[str, str]]) -> list[Judged]:
        """One judged row a request."""
        table = zip(self.examples, self.outcomes, self.harms, scores, slices, strict=True)
        return [
            Judged(example.id, unit_hash(example.unit), self.split, outcome, slices=keys)
            if isinstance(outcome, str)
            else Judged(
                example.id, unit_hash(example.unit), self.split, ANSWERED, score, harm, keys
            )
            for example, outcome, harm, score, keys in table
        ]

    def kept(self) -> list[dict[str, Any]]:
        """The answers beside their references, for those who want to read them."""
        return [
            {
                "id": example.id,
                "answer": done.text if isinstance(done, Completion) else None,
                "references": list(example.references),
            }
            for example, done in zip(self.examples, self.outcomes, strict=True)
        ]


async def answer_split(
    trial: Trial,
    check: Check | Judging,
    examples: Sequence[Asked],
    split: str,
    sampling: Check | None = None,
) -> Answers:
    """Ask and judge; `sampling` compares sampled answers with the greedy one, None draws none.

    Raises: CompleterError when every single request fails
    """
    outcomes = await _ask(trial, examples, split, sampling)
    harms = await judge(trial, check, examples, outcomes, split)
    return Answers(split, examples, outcomes, harms)


async def judge(
    trial: Trial,
    check: Check | Judging,
    examples: Sequence[Asked],
    outcomes: Sequence[Outcome],
    stage: str,
) -> list[float | None]:
    """The harm of each outcome; None where there is no answer, or nobody could judge it."""
    if isinstance(check, Judging):
        return await check.judge_all(examples, outcomes, stage=stage, on_progress=trial.on_progress)
    return [
        check.harm(judged_text(check, done), example.references)
        if isinstance(done, Completion)
        else None
        for example, done in zip(examples, outcomes, strict=True)
    ]


async def _ask(
    trial: Trial, examples: Sequence[Asked], stage: str, sampling: Check | None
) -> list[Outcome]:
    """Every example's outcome, at most `concurrency` at a time."""
    outcomes: list[Outcome] = [FAILED] * len(examples)
    waiting = iter(enumerate(examples))
    failures: list[CompleterError] = []
    num_done = 0

    async def worker() -> None:
        nonlocal num_done
        for index, example in waiting:
            try:
                outcomes[index] = await _ask_one(trial, example, sampling)
            except CompleterError as error:
                failures.append(error)
            num_done += 1
            if trial.on_progress:
                trial.on_progress(num_done, len(examples), stage)

    await asyncio.gather(*(worker() for _ in range(trial.options.concurrency)))
    if examples and len(failures) == len(examples):
        raise failures[0]
    return outcomes


async def _ask_one(trial: Trial, example: Asked, sampling: Check | None) -> Outcome:
    options = trial.options
    if options.ineligible and options.ineligible(example.request):
        return INELIGIBLE
    body = {key: v for key, v in example.request.items() if not key.startswith("stream")}
    body |= {"model": trial.student_id, "messages": list(example.messages), **trial.decoding}
    request = ChatRequest(body)
    try:
        if sampling is None:
            return await trial.completer.complete(request, timeout_s=options.timeout_s)
        return await complete_with_agreement(
            trial.completer, request, sampling, samples=options.agreement,
            timeout_s=options.timeout_s,
        )  # fmt: skip
    except (Ineligible, ContextTooLong):
        return INELIGIBLE
