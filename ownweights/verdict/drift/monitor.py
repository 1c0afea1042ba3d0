"""Watch one rented endpoint: look after look against a baseline, until something changed.

In: a baseline, an endpoint, the state after earlier looks. Out: the next look and state, and an
Incident at the first alarm. State is a value; store.py keeps it on disk. Invariants: of endpoints
that stay as they are, at most `false_alarm` are ever called changed
(test_monitor_alarms_falsely_within_its_rate); one that is down is "could not tell"
(test_monitor_could_not_tell_when_the_teacher_is_down); an open incident keeps every later look from
saying "same" (test_monitor_stays_changed_until_a_new_baseline).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ownweights.core.completer import Completer
from ownweights.verdict.certificate import Subject
from ownweights.verdict.drift.asking import Manner, Reply
from ownweights.verdict.drift.baseline import Baseline, ask_canaries, texts_of
from ownweights.verdict.drift.border import Draws, Stakes, compare_borders, draw_marks
from ownweights.verdict.drift.metadata import compare_metadata, read_metadata
from ownweights.verdict.drift.outcome import (
    CHANGED,
    SAME,
    Finding,
    Incident,
    Look,
    Outcome,
    worst,
)
from ownweights.verdict.drift.paired import compare_paired
from ownweights.verdict.drift.readings import CHANNEL_FEATURES
from ownweights.verdict.drift.text import compare_texts


@dataclass(frozen=True, slots=True)
class Asked:
    """What came back at one look: to the canaries in their order, and from the probes."""

    canaries: tuple[Reply, ...]
    probes: tuple[Reply, ...] = ()
    draws: Draws | None = None


@dataclass(frozen=True, slots=True)
class DriftState:
    """All looks so far, the bets on the border, and the incident if one is open."""

    looks: tuple[Look, ...] = ()
    stakes: Stakes | None = None
    incident: Incident | None = None

    @property
    def outcome(self) -> Outcome:
        """What is known now: an alarm is not taken back."""
        if self.incident:
            return CHANGED
        return worst(look.outcome for look in self.looks[-1:])

    def voids(self, subject: Subject) -> bool:
        """Whether what was found voids a certificate about `subject`."""
        return self.incident is not None and self.incident.voids(subject)


@dataclass(frozen=True, slots=True)
class DriftMonitor:
    """A baseline and what has been seen since."""

    baseline: Baseline
    state: DriftState = DriftState()

    @property
    def spent(self) -> float:
        """How much of `false_alarm` is spent."""
        return self.baseline.budget.spent(len(self.state.looks))

    async def ask(self, completer: Completer, manner: Manner | None = None) -> Asked:
        """Everything that a look needs from the endpoint."""
        baseline, manner = self.baseline, manner or Manner()
        plan = baseline.plan
        replies = await ask_canaries(completer, baseline.canaries, plan.answers, manner)
        if baseline.borders is None:
            return Asked(tuple(replies))
        probes, draws = await draw_marks(completer, baseline.borders, plan.draws, manner)
        return Asked(tuple(replies), tuple(probes), draws)

    def judge(self, asked: Asked, *, at: float) -> DriftMonitor:
        """The monitor after one more look; the look is the last of its state's."""
        number = len(self.state.looks) + 1
        replies = [*asked.canaries, *asked.probes]
        metadata, notes = self._metadata(asked)
        border, stakes = self._border(asked, number)
        findings = (metadata, *self._canaries(asked.canaries, number), *border)
        failed = sum(reply.text is None for reply in replies)
        look = Look(number, at, findings, len(replies), failed, notes)
        incident = self._incident(look)
        return dataclasses.replace(
            self, state=DriftState((*self.state.looks, look), stakes, incident)
        )

    async def look(
        self, completer: Completer, *, at: float, manner: Manner | None = None
    ) -> DriftMonitor:
        """Ask and judge."""
        return self.judge(await self.ask(completer, manner), at=at)

    def _metadata(self, asked: Asked) -> tuple[Finding, tuple[str, ...]]:
        finding, notes = compare_metadata(self.baseline.metadata, read_metadata(asked.canaries))
        if finding.outcome == CHANGED and not self.baseline.plan.alarms_on_metadata:
            return dataclasses.replace(finding, outcome=SAME, p_value=None), (finding.what, *notes)
        return finding, notes

    def _canaries(self, replies: Sequence[Reply], number: int) -> tuple[Finding, ...]:
        baseline, budget = self.baseline, self.baseline.budget
        answers = texts_of(replies, len(baseline.canaries))
        firsts = [reply.text for reply in replies[: len(baseline.canaries)]]
        limits = {name: budget.at_look(name, number) for name in CHANNEL_FEATURES}
        limits = {name: limit for name, limit in limits.items() if name in budget.channels}
        found: tuple[Finding, ...] = ()
        if limits:
            found = compare_paired(baseline.old_readings(), baseline.readings(firsts), limits)
        if "text" in budget.channels:
            limit = budget.at_look("text", number)
            seed = baseline.plan.seed + number
            found += (compare_texts(baseline.answers, answers, limit, seed=seed),)
        return found

    def _border(self, asked: Asked, number: int) -> tuple[tuple[Finding, ...], Stakes | None]:
        borders, draws = self.baseline.borders, asked.draws
        if borders is None or draws is None:
            return (), self.state.stakes
        before = self.state.stakes or Stakes.start(len(borders.probes))
        budget = self.baseline.budget
        limit = budget.share("border") - budget.reference()
        finding, after = compare_borders(borders, before, draws, limit)
        return (finding,), after

    def _incident(self, look: Look) -> Incident | None:
        """The incident after a look: opened by its first alarm, then joined by other channels."""
        known = self.state.incident
        if known is not None:
            old = {finding.channel for finding in known.findings}
            new = tuple(finding for finding in look.changed if finding.channel not in old)
            return dataclasses.replace(known, findings=known.findings + new)
        if not look.changed:
            return None
        same = [past.at for past in self.state.looks if past.outcome == SAME]
        metadata = self.baseline.metadata
        return Incident(
            self.baseline.teacher, look.at, max([self.baseline.at, *same]), look.number,
            metadata.models, metadata.fingerprints, look.changed,
        )  # fmt: skip
