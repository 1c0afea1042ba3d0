"""Endpoints with known distributions of answers, for the tests of drift detection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import CompleterError, CompleterRefused
from ownweights.core.project import Project
from ownweights.verdict.drift import DriftMonitor, save_baseline, save_look, take_baseline
from ownweights.verdict.drift.asking import Manner
from ownweights.verdict.drift.baseline import Canary, Plan
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text

SEQUENTIAL = Manner(concurrency=1, stopwatch=lambda: 0.0)
FEW = Plan(num_probes=4, reference_draws=60, draws=10)
NO_PROBES = Plan(num_probes=0)


def canaries(count: int, *, references: bool = False) -> list[Canary]:
    """Questions 0, 1, 2 … of the workload `tickets`."""
    return [
        Canary(
            f"tickets/{i:04d}", "tickets",
            {"model": "rented", "messages": [{"role": "user", "content": f"question {i}"}]},
            (f"answer {i}",) if references else (),
        )
        for i in range(count)
    ]  # fmt: skip


class DrawnEndpoint(ScriptedTeacher):
    """Answers canaries by `write(number, rng)`, and one-token prompts with chance `shares[prompt]`
    of "A" (else "B"). `said` are further fields of each answer's body."""

    def __init__(
        self, write: Callable[[int, random.Random], str] | None = None, *,
        shares: Callable[[str], float] = lambda prompt: 1.0, seed: int = 0,
        model: str = "rented-1", said: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._rng = random.Random(f"endpoint-{seed}")
        self.write = write or (lambda number, rng: f"answer {number}")
        self.shares = shares
        self.said = dict(said or {})
        self.headers = dict(headers or {})
        super().__init__(self._draw, model=model)

    def _draw(self, request: ChatRequest) -> Completion:
        text = last_user_text(request)
        if request.body.get("max_tokens") == 1:
            said = "A" if self._rng.random() < self.shares(text) else "B"
        else:
            said = self.write(int(text.split()[-1]), self._rng)
        return Completion(
            said, "stop", model=self.model, body={"model": self.model, **self.said},
            headers=self.headers,
        )  # fmt: skip


def half_border(prompt: str) -> float:
    """Every third prompt is on a border: "A" with a chance between .3 and .7."""
    number = sum(map(ord, prompt))
    return 0.3 + (number % 5) / 10 if number % 3 == 0 else 1.0


def failing(inner: ScriptedTeacher, which: Sequence[bool]) -> FlakyTeacher:
    """An endpoint that fails on the calls that `which` says."""
    fault: CompleterError = CompleterRefused("the teacher answered 500: out of order", status=500)
    return FlakyTeacher(inner, [fault if fails else None for fails in which])


def down() -> FlakyTeacher:
    """An endpoint that answers nothing for a long time."""
    return failing(DrawnEndpoint(), [True] * 100_000)


def with_incident(project: Project, teacher: str = "main") -> DriftMonitor:
    """A teacher on disk that answered under another name at its first look."""

    async def steps() -> DriftMonitor:
        before = DrawnEndpoint(shares=half_border)
        taken = await take_baseline(
            before, canaries(12), teacher=teacher, plan=FEW, at=1.0, manner=SEQUENTIAL
        )
        monitor = save_baseline(project, taken)
        asked = await monitor.ask(DrawnEndpoint(shares=half_border, model="another"), SEQUENTIAL)
        found = monitor.judge(asked, at=9.0)
        save_look(project, found, asked)
        return found

    found = asyncio.run(steps())
    assert found.state.incident is not None
    return found
