"""What an endpoint is compared with from now on: frozen requests, their answers, border probes.

In: an endpoint and canaries, requests of the workloads that its users really send. Out: a Baseline,
immutable, with the plan of how error is spent written down before the first look. Each canary is
asked twice: the last answer is what later ones are paired with, and where the workload knows no
right answers the first is the yardstick for both, so that an endpoint that varies by itself is
compared with how much it varied then. A channel that cannot be measured is left out of the plan,
with the reason (test_baseline_names_what_it_cannot_measure).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ownweights.core.chat import ChatRequest
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, InputError
from ownweights.verdict.checks import Check, check_named
from ownweights.verdict.drift.asking import Manner, Reply, ask_all
from ownweights.verdict.drift.border import REFERENCE_DRAWS, Borders, find_probes
from ownweights.verdict.drift.budget import CHANNELS, REFERENCE_SHARE, Budget
from ownweights.verdict.drift.metadata import Metadata, read_metadata
from ownweights.verdict.drift.paired import needed
from ownweights.verdict.drift.readings import no_answer, read_answer
from ownweights.verdict.drift.text import strata_needed
from ownweights.verdict.statistics.binomial import Floats

BASELINE_DRAWS = 2


@dataclass(frozen=True, slots=True)
class Canary:
    """One frozen request: `body` as it is sent, `references` where right answers are known."""

    id: str
    workload: str
    body: Mapping[str, Any]
    references: tuple[str, ...] = ()
    check: str = "exact"

    @property
    def prompt(self) -> str:
        """The text of the last message, as far as it is text."""
        content = self.body["messages"][-1].get("content")
        return content if isinstance(content, str) else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, how often, and with which chance of ever raising a false alarm."""

    false_alarm: float = 0.05
    num_probes: int = 20
    draws: int = 20  # of each probe, at each look
    answers: int = 1  # to each canary, at each look
    alarms_on_metadata: bool = True
    reference_draws: int = REFERENCE_DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.false_alarm < 1.0:
            raise InputError(f"a false alarm rate lies between 0 and 1, got {self.false_alarm}")


@dataclass(frozen=True, slots=True)
class Baseline:
    """An endpoint as it was at `at`. `canaries` and `answers` go together, both without those that
    were not answered; `unmeasured` says for other channels why not."""

    teacher: str
    at: float
    plan: Plan
    budget: Budget
    metadata: Metadata
    canaries: tuple[Canary, ...]
    answers: tuple[tuple[str, ...], ...]
    borders: Borders | None
    unmeasured: Mapping[str, str] = field(default_factory=dict[str, str])

    def readings(self, texts: Sequence[str | None]) -> Floats:
        """The features of one answer to each canary. Shapes: (n, F)"""
        rows = [
            no_answer() if text is None else _read(canary, text, known[0])
            for canary, text, known in zip(self.canaries, texts, self.answers, strict=True)
        ]
        return np.array(rows)

    def old_readings(self) -> Floats:
        """The features of the answers that later ones are paired with. Shapes: (n, F)"""
        return self.readings([known[-1] for known in self.answers])


async def take_baseline(
    completer: Completer, canaries: Sequence[Canary], *, teacher: str, plan: Plan, at: float,
    model: str = "", manner: Manner | None = None,
) -> Baseline:  # fmt: skip
    """Ask an endpoint everything that later looks are compared with.

    Raises: CompleterError when it answers no canary, InputError when there is none to ask
    """
    manner = manner or Manner()
    _check_canaries(canaries)
    draws = max(BASELINE_DRAWS, plan.answers)
    replies = await ask_canaries(completer, canaries, draws, manner)
    answers = texts_of(replies, len(canaries))
    kept = [i for i in range(len(canaries)) if len(answers[i]) == draws]
    if not kept:
        faults = [reply.fault for reply in replies if reply.fault] or ["its answers have no text"]
        raise CompleterError(
            f"no canary was answered {draws} times by teacher {teacher!r}: {faults[0]}",
            hint="own teacher check says whether it can be reached",
        )
    borders = None
    if plan.num_probes:
        # the share of the budget is known once the channels are: no channel gets less than this
        delta = REFERENCE_SHARE * plan.false_alarm / len(CHANNELS)
        borders = await find_probes(
            completer, model, manner=manner, num_probes=plan.num_probes, delta=delta,
            seed=plan.seed, reference_draws=plan.reference_draws,
        )  # fmt: skip
    used = [canaries[i] for i in kept]
    reasons = _unmeasured(used, borders, plan)
    channels = tuple(channel for channel in CHANNELS if channel not in reasons)
    return Baseline(
        teacher, at, plan, Budget(plan.false_alarm, channels), read_metadata(replies), tuple(used),
        tuple(answers[i] for i in kept), borders, reasons,
    )  # fmt: skip


async def ask_canaries(
    completer: Completer, canaries: Sequence[Canary], draws: int, manner: Manner
) -> list[Reply]:
    """Each canary `draws` times; first all once, then all again."""
    requests = [ChatRequest(canary.body) for canary in canaries]
    return await ask_all(completer, requests * draws, manner, stage="canaries")


def texts_of(replies: Sequence[Reply], num_canaries: int) -> list[tuple[str, ...]]:
    """The readable answers to each canary, in the order they were asked."""
    texts = [reply.text for reply in replies]
    return [
        tuple(text for text in texts[i::num_canaries] if text is not None)
        for i in range(num_canaries)
    ]


def _read(canary: Canary, text: str, first: str) -> Floats:
    check: Check = check_named(canary.check)
    return read_answer(text, canary.prompt, canary.references or (first,), check)


def _unmeasured(canaries: Sequence[Canary], borders: Borders | None, plan: Plan) -> dict[str, str]:
    """Channel → why this baseline cannot measure it, judged by what the first look would need."""
    full = Budget(plan.false_alarm, CHANNELS)
    reasons: dict[str, str] = {}
    for channel in ("length", "format", "refusal", "score"):
        if len(canaries) < (least := needed(channel, full.at_look(channel, 1))):
            reasons[channel] = f"{len(canaries)} canaries were answered, and {least} are needed"
    per_stratum = 1 if plan.answers >= BASELINE_DRAWS else 4
    if len(canaries) < (least := per_stratum * strata_needed(full.at_look("text", 1))):
        reasons["text"] = f"{len(canaries)} canaries were answered, and {least} are needed"
    if borders is None:
        reasons["border"] = "no one-token prompt was answered" if plan.num_probes else "not asked"
    return reasons


def _check_canaries(canaries: Sequence[Canary]) -> None:
    if not canaries:
        what = "there is no recorded request to make a canary of"
        raise InputError(what, hint="own traffic import FILE, or record some through own serve")
    ids = [canary.id for canary in canaries]
    if len(set(ids)) < len(ids):
        raise InputError(f"{len(ids) - len(set(ids))} canaries have the id of another")
