"""How the chance of a false alarm is split: over channels, and over all looks to come.

`false_alarm` is the chance that an endpoint that never changes is ever said to have changed, at any
of the looks taken against one baseline, where its answers are independent draws: one whose answers
of a day hang together can be called changed more often
(test_border_counts_on_draws_that_are_independent_of_the_day). Each channel that the baseline can
measure gets an equal share s of it, spent like this:

    length, format, refusal, score   look k spends s·6/(π²k²), for ever: looks share the baseline's
                                     answers, so their evidence must not be multiplied
    text                             s/90 at each of 90 looks, for a resampled p-value cannot be as
                                     small as the other series asks; then the baseline is spent
    border                           a quarter of s for the reference intervals, once; the rest over
                                     the days at which a change may begin, in the series above

Metadata spend nothing: they are read, not sampled. Invariants: all that is ever spent is at most
`false_alarm` (test_budget_never_spends_more_than_it_has).
"""

from __future__ import annotations

from dataclasses import dataclass

from ownweights.verdict.statistics.budget import attempt_delta

CHANNELS = ("length", "format", "refusal", "score", "text", "border")
TEXT_LOOKS = 90
REFERENCE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Budget:
    """The error that each channel may spend at each look."""

    false_alarm: float
    channels: tuple[str, ...]

    def share(self, channel: str) -> float:
        """What a channel may spend in all; 0 where it is not measured."""
        return self.false_alarm / len(self.channels) if channel in self.channels else 0.0

    def reference(self) -> float:
        """What the intervals of the border probes may spend, once."""
        return REFERENCE_SHARE * self.share("border")

    def at_look(self, channel: str, number: int) -> float:
        """What a channel may spend at look `number` (from 1)."""
        share = self.share(channel)
        if channel == "text":
            return share / TEXT_LOOKS if number <= TEXT_LOOKS else 0.0
        if channel == "border":
            share -= self.reference()
        return attempt_delta(share, number) if share else 0.0

    def spent(self, num_looks: int) -> float:
        """What all channels have spent after so many looks."""
        once = self.reference()
        looks = range(1, num_looks + 1)
        return once + sum(self.at_look(channel, k) for channel in self.channels for k in looks)
