"""What live traffic says of a route: audits one by one, and what follows from them.

In: audits in the order in which they were written. Out: `Evidence` (the detector of risen harm, the
stake on "harm is within the limit", counts), and from it the next step: on, back, or wait. A pure
fold: the same audits give the same decision whenever they are read again
(test_evidence_is_replayed_from_its_audits). What counts against the student:

  audit     its answer against the teacher's to the same request: harm by the certificate's check
  failure   an error or a time-out where it should have answered: nobody gets such an answer, so it
            counts against the limit for all requests, not against that among those served
            (test_failures_within_their_limit_are_no_harm_among_those_served)
  shadow    like an audit, of an answer that nobody got: for the stake, not for the detector, as
            failures in shadow are for the step alone

Requests of one session go wrong together, so a unit (the session, or all that ask the same) is bet
on once: by its first judged audit for the stake and the step
(test_rollout_promotes_wrongly_within_delta_whatever_the_sessions), by its first of a day for the
detector, which would else lose sight of sessions that never end
(test_rollback_by_mistake_is_rare_whatever_the_sessions), and by its first failure of a day
(test_failures_of_one_session_are_bet_on_once_a_day). The others are kept and counted. An audit
whose harm the check could not tell counts as harm, as in the certificate; one that the
teacher did not answer says nothing and is only counted, with the requests before it that were not
audited (test_audits_missed_hide_no_harm). Sources: the detector of
verdict/statistics/detector.py, the stake of verdict/statistics/e_process.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ownweights.core.chat import Usage
from ownweights.route.rollout import Stage, Standing
from ownweights.verdict.statistics.detector import Detector, weigh_audit
from ownweights.verdict.statistics.e_process import EProcess

Kind = Literal["audit", "failure", "shadow"]
STEP_AUDITS = 50  # judged at one step between two looks: a jump to 25 % is caught within about 70
DAY_S = 86_400.0
NO_TOKENS = Usage()
MISSED = math.nan  # the harm of an audit that the teacher did not answer


@dataclass(frozen=True, slots=True)
class Audit:
    """One request that says how the student does.

    Before it, `quiet` were served and not audited, and `unsure` were the teacher's: the student was
    not sure enough, or could not answer as asked.
    """

    request_id: str
    at: float
    stage: Stage
    kind: Kind
    harm: float | None  # None: the check could not tell; MISSED: there is nothing to compare with
    chance: float = 1.0
    quiet: int = 0
    share: float = 1.0
    asked: Usage = NO_TOKENS  # what the teacher read and wrote for this audit, as it said itself
    judge: Usage = NO_TOKENS  # likewise its judge
    unit: str = ""  # what goes wrong together; empty where it is not known
    unsure: int = 0
    # when the unit was judged before, or failed, if this is a failure; said by the log when read
    seen_at: float | None = None

    @property
    def is_judged(self) -> bool:
        return self.harm is None or not math.isnan(self.harm)

    @property
    def is_seen_today(self) -> bool:
        """Whether the unit was judged (or failed, as here) before on the same day (UTC)."""
        return self.seen_at is not None and self.seen_at // DAY_S == self.at // DAY_S

    @property
    def counted_harm(self) -> float:
        return 1.0 if self.harm is None else self.harm


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched for: the certified limits, and how often to cry wolf."""

    alpha: float  # of all requests that the route is for
    beta: float  # of the answers that it gives
    delta: float  # error of going on by live evidence
    audit_frac: float
    run_length: float  # audits between false alarms, on average or longer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all audits of a route say together."""

    detector: Detector  # of harm among the answers served
    failures: Detector  # of failures among all requests, whoever answered
    stake: EProcess
    quiet: int = 0  # served and not audited since the last audit, but known from failures
    num_judged: int = 0
    num_harms: float = 0.0
    num_missed: int = 0
    num_failures: int = 0
    num_units: int = 0  # judged for the first time
    at_step: int = 0  # units judged for the first time at the present step
    step_harms: float = 0.0
    step_asked: int = 0  # requests of the present step, whoever answered
    step_failures: int = 0
    is_within: bool = False  # at the last look of this step, harm and failures were within limits
    is_proved: bool = False  # and then the stake proved it
    step: tuple[Stage, float] | None = None

    @classmethod
    def start(cls, watch: Watch) -> Evidence:
        failures = Detector.start(watch.alpha, watch.run_length)
        return cls(_detector("shadow", watch), failures, EProcess(-watch.beta))

    @property
    def alarm_frac(self) -> float:
        """How near an alarm is; there is one from 1 on."""
        return max(d.mean_evidence / d.run_length for d in (self.detector, self.failures))

    def after(self, audit: Audit, watch: Watch) -> Evidence:
        """The evidence once one more audit is known."""
        step = (audit.stage, audit.share)
        here = self if step == self.step else self._at_new_step(step, watch)
        here = here._asked(audit)
        if audit.kind == "failure":  # nothing was sent: what was served before it waits
            quiet, num_failures = here.quiet + audit.quiet, here.num_failures + 1
            return dataclasses.replace(here, quiet=quiet, num_failures=num_failures)
        if not audit.is_judged:  # nor do the requests before it: none of them was found harmless
            return dataclasses.replace(here, quiet=0, num_missed=here.num_missed + 1)
        found = here._judged(audit, watch)
        is_look = found.at_step > here.at_step and found.at_step % STEP_AUDITS == 0
        return found._looked(watch) if is_look else found

    def _asked(self, audit: Audit) -> Evidence:
        """The requests that came, and whether the student failed at the last of them."""
        is_failure, num_before = audit.kind == "failure", audit.quiet + audit.unsure
        failures = self.failures
        if audit.stage != "shadow":
            failures = failures.after_quiet(num_before)
            if not (is_failure and audit.is_seen_today):
                failures = failures.after(float(is_failure))
        return dataclasses.replace(
            self, failures=failures, step_asked=self.step_asked + num_before + 1,
            step_failures=self.step_failures + is_failure,
        )  # fmt: skip

    def _judged(self, audit: Audit, watch: Watch) -> Evidence:
        """An answer of the student and its harm."""
        harm, is_first, detector = audit.counted_harm, audit.seen_at is None, self.detector
        if audit.kind == "audit":
            detector = detector.after_quiet(self.quiet + audit.quiet)
            if not audit.is_seen_today:
                least = watch.audit_frac if audit.stage == "served" else 1.0
                detector = detector.after(weigh_audit(harm, max(audit.chance, least), least))
        # answers audited by chance were not chosen alike: only those before `served` are a sample
        is_staked = is_first and audit.stage != "served"
        return dataclasses.replace(
            self,
            detector=detector,
            stake=self.stake.after(-harm) if is_staked else self.stake,
            quiet=0,
            num_judged=self.num_judged + 1,
            num_harms=self.num_harms + harm,
            num_units=self.num_units + is_first,
            at_step=self.at_step + is_first,
            step_harms=self.step_harms + is_first * harm,
        )

    def _at_new_step(self, step: tuple[Stage, float], watch: Watch) -> Evidence:
        """What was shown at an earlier step proves nothing of the answers at this one."""
        is_same = self.step is not None and self.step[0] == step[0]
        return dataclasses.replace(
            self, detector=self.detector if is_same else _detector(step[0], watch),
            stake=EProcess(-watch.beta), quiet=0, at_step=0, step_harms=0.0, step_asked=0,
            step_failures=0, is_within=False, is_proved=False, step=step,
        )  # fmt: skip

    def _looked(self, watch: Watch) -> Evidence:
        """What this look says: the stake as it is now, for its peak may be of better days."""
        return dataclasses.replace(
            self,
            is_within=self.step_harms <= watch.beta * self.at_step
            and self.step_failures <= watch.alpha * self.step_asked,
            is_proved=self.stake.log_stake >= -math.log(watch.delta),
        )


def _detector(stage: Stage, watch: Watch) -> Detector:
    """A detector for the audits of one stage: where few are audited, each request is a step."""
    if stage != "served":
        return Detector.start(watch.beta, watch.run_length)
    return Detector.start(watch.audit_frac * watch.beta, watch.run_length / watch.audit_frac)


def fold(audits: Iterable[Audit], watch: Watch) -> Evidence:
    """The evidence of audits in their order."""
    evidence = Evidence.start(watch)
    for audit in audits:
        evidence = evidence.after(audit, watch)
    return evidence


def next_standing(standing: Standing, evidence: Evidence, watch: Watch) -> Standing | str | None:
    """Where the rollout goes: a new standing, the reason for a rollback, or None to stay.

    It is looked at when `STEP_AUDITS` units were judged at this step, twice as many, and so on. It
    goes on when there is no more harm among them than the limit allows, and to serving everything
    only when the answers at this step prove the limit.
    """
    detector = evidence.detector
    if evidence.failures.is_alarmed:
        return (
            f"failures have risen above {100 * watch.alpha:.3g} % of all requests:"
            f" {evidence.num_failures} so far"
        )
    if detector.is_alarmed:
        return (
            f"harm has risen above {100 * watch.beta:.3g} % of the answers:"
            f" evidence {detector.mean_evidence:,.0f} after {evidence.num_judged} audits"
            f" of {evidence.num_units} units"
        )
    following = standing.next()
    is_here = evidence.step == (standing.stage, standing.share)
    if following is None or standing.is_frozen or not is_here or not evidence.is_within:
        return None
    return following if evidence.is_proved or following.stage != "served" else None
