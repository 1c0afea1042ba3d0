"""What a look at a rented endpoint found, channel by channel: same, changed, or could not tell.

A look is *changed* when one of its channels is, *could not tell* when none is but one could not be
read, and *same* only when every channel says so (test_outcome_of_a_look_is_its_worst). An
`Incident` is an alarm that stays open until there is a new baseline; it decides which certificates
are void.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ownweights.verdict.certificate import Subject

Outcome = Literal["same", "changed", "could_not_tell"]
SAME: Outcome = "same"
CHANGED: Outcome = "changed"
COULD_NOT_TELL: Outcome = "could_not_tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one channel of one look says, with the evidence and the size of the effect.

    `limit` is the error that the channel could spend at this look, `p_value` what it found (0 for
    metadata, which are read and not sampled). `detectable` is the share of prompts whose answers
    would have had to change in one direction to be seen with probability 0.9.
    """

    channel: str
    outcome: Outcome
    what: str
    limit: float = 0.0
    p_value: float | None = None
    num_probes: int = 0  # comparisons that could be read
    alarm_at: int | None = None  # after how many of them the evidence sufficed
    feature: str = ""  # what differs most
    before: float | None = None
    after: float | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the endpoint; `notes` are what was seen but proves nothing."""

    number: int
    at: float  # unix seconds
    findings: tuple[Finding, ...]
    num_asked: int
    num_failed: int
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        return worst(finding.outcome for finding in self.findings)

    @property
    def changed(self) -> tuple[Finding, ...]:
        """The channels that changed."""
        return tuple(finding for finding in self.findings if finding.outcome == CHANGED)


@dataclass(frozen=True, slots=True)
class Incident:
    """Evidence that a teacher is no longer the one certified against.

    `models` and `fingerprints` are what its answers said of themselves when the baseline was
    taken; `unchanged_at` is when a look last found it the same.
    """

    teacher: str
    opened_at: float
    unchanged_at: float
    look: int
    models: tuple[str, ...]
    fingerprints: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """What a voided certificate refers to."""
        return f"{self.teacher}/{int(self.opened_at)}"

    @property
    def reason(self) -> str:
        """In one sentence."""
        seen = "; ".join(f"{finding.channel}: {finding.what}" for finding in self.findings)
        return f"the endpoint behind {', '.join(self.models) or self.teacher} changed ({seen})"

    def voids(self, subject: Subject) -> bool:
        """Whether a certificate about `subject` is void.

        It is when it names one of the models, unless all its data came after the alarm.
        """
        is_newer = subject.period is not None and subject.period[0] >= self.opened_at
        return bool(set(subject.teachers) & set(self.models)) and not is_newer


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of several; nothing at all is nothing to tell by."""
    found = set(outcomes)
    if CHANGED in found:
        return CHANGED
    return SAME if found == {SAME} else COULD_NOT_TELL
