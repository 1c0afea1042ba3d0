"""Audits of what students answer: the teacher is asked too, afterwards, and the two are compared.

In: exchanges that are over, the student's answer, whoever asks the teacher. Out: rows of the audit
log, and what follows from them: the next step of a rollout, or a rollback that voids the
certificate. Nothing here delays an answer: audits run beside the requests, at most `MAX_AT_ONCE`;
one that finds no room is left out and counted as missed (test_audits_that_find_no_room_are_missed).
Invariants: an alarm rolls back before the next request is routed
(test_gateway_rolls_a_harmful_student_back); what a check could not tell is harm, and what the
teacher did not answer is nothing (test_audit_of_a_silent_teacher_says_nothing), like what a check
that is broken says (test_audit_by_a_check_whose_file_changed_says_nothing); every audit that was
begun leaves a row, whatever goes wrong in it (test_audit_that_breaks_is_missed), also when the
gateway ends meanwhile (test_audit_under_way_at_the_end_is_missed). While its teacher has an open
incident of drift, answers are audited more often, and weighed by the chance that they had
(test_gateway_audits_more_while_an_incident_is_open). What was served and not audited counts as
much when the gateway is started anew (test_gateway_that_starts_anew_counts_all_that_was_served).
While the database cannot be written, audits wait for it
(test_gateway_keeps_audits_while_the_database_cannot_be_written).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ownweights.core.chat import Completion, Usage
from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.judges import LiveJudges
from ownweights.gateway.references import References
from ownweights.route import JUDGE, Route
from ownweights.route.rollout import Standing, audit_chance, is_audited

if TYPE_CHECKING:
    from ownweights.route.evidence import Kind
    from ownweights.route.live import Follower

log = logging.getLogger("ownweights.gateway")
MAX_AT_ONCE = 16
DRIFT_LOOK_S = 5.0  # how often the incidents on disk are read again
QUIET_S = 30.0  # so long may answers that are not audited be counted in memory alone
RETRY_S = 5.0  # so long nobody tries again to write what could not be written
CLOSE_S = 2.0  # for audits under way when the gateway ends


class Both(NamedTuple):
    """What student and teacher said, and what asking the teacher took; None: it has no answer."""

    answer: str
    told: str | None
    asked: Usage = Usage()


class _Outcome(NamedTuple):
    """The harm of an audit (None: the check could not tell; NaN: missed), and what asking took."""

    harm: float | None
    asked: Usage = Usage()
    judge: Usage = Usage()
    is_failure: bool = False  # the student did not answer, as it turned out


AskBoth = Callable[[], Awaitable[Both | None]]  # None: the student's would not have been sent


class StudentFailed(Exception):
    """The student, asked for an audit alone, did not answer, or not as it was asked to."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A request that is over, and who can say what student and teacher answer to it."""

    exchange: Exchange
    route: Route
    standing: Standing
    ask_both: AskBoth | None  # None: the student failed where it should have answered
    teacher: str = ""  # its name in own.toml: drift of it raises audits


class Auditor:
    """Draws, makes and writes down audits; moves rollouts on and back."""

    def __init__(self, project: Project, judges: LiveJudges) -> None:
        self._project, self._judges = project, judges
        self._references = References(project)
        self._quiet: Counter[str] = Counter()  # by route: served since the last audit
        self._unsure: Counter[str] = Counter()  # by route: not sent since the last audit
        self.begun: Counter[str] = Counter()  # by kind
        self._tally: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Future[_Outcome | None]] = set()  # by those tasks
        self._follower: Follower | None = None
        self._lock = asyncio.Lock()  # evidence is folded by one task at a time
        self._retry_s = -math.inf
        self._drifted: frozenset[str] = frozenset()  # teachers with an open incident
        self._looked_s = -math.inf
        self._look: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Know of open incidents before anything is audited."""
        await self._look_for_drift()

    def served(self, found: Compared, score: float) -> None:
        """The student's answer was sent: audit it if it is drawn."""
        route, standing = found.route, found.standing
        if not route.check:
            return
        is_near = route.near is not None and score < route.near
        chance = audit_chance(
            standing, route.audit_frac, is_near=is_near, has_incident=self._has_incident(found)
        )
        if is_audited(standing, found.exchange.id, chance):
            self._begin(found, "audit", chance)
        else:
            self._quiet[route.id] += 1
            self._tally_soon()

    def unsure(self, route: Route) -> None:
        """The student's answer was not sure enough to be sent, or it could not answer as asked."""
        if route.check:
            self._unsure[route.id] += 1
            self._tally_soon()

    def failed(self, found: Compared) -> None:
        """The student was asked and did not answer."""
        if found.route.check:
            self._begin(found, "failure", 1.0)

    def shadowed(self, found: Compared) -> None:
        """The teacher answered; the student's answer is only compared."""
        if found.route.check:
            self._begin(found, "shadow", 1.0)

    def _has_incident(self, found: Compared) -> bool:
        """Whether the teacher has drifted, as was known `DRIFT_LOOK_S` ago at the latest."""
        if time.monotonic() - self._looked_s > DRIFT_LOOK_S and (
            not self._look or self._look.done()
        ):
            self._look = asyncio.ensure_future(self._look_for_drift())
        return found.teacher in self._drifted

    async def _look_for_drift(self) -> None:
        self._looked_s = time.monotonic()
        self._drifted = await asyncio.to_thread(_drifted, self._project)

    async def close(self) -> None:
        """Wait shortly for audits under way, then write them down as missed."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        others = [task for task in (self._look, self._tally) if task is not None]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._catch_up(is_end=True)
        await self._write_tally()

    def _tally_soon(self) -> None:
        if self._tally is None or self._tally.done():
            self._tally = asyncio.ensure_future(self._tally_later())

    async def _tally_later(self) -> None:
        is_behind = True
        while is_behind:
            await asyncio.sleep(QUIET_S)
            await self._catch_up()
            await self._write_tally()
            is_waiting = self._follower is not None and self._follower.num_unwritten > 0
            is_behind = is_waiting or any((self._quiet + self._unsure).values())

    async def _write_tally(self) -> None:
        """Keep what was served, or kept back, since the last audits, for whoever audits next."""
        from ownweights.route.audits import AuditLog

        for route_id in {*self._quiet, *self._unsure}:
            quiet, unsure = self._quiet.pop(route_id, 0), self._unsure.pop(route_id, 0)
            try:
                await asyncio.to_thread(AuditLog(self._project, route_id).tally, quiet, unsure)
            except OwnError as error:
                self._quiet[route_id] += quiet
                self._unsure[route_id] += unsure
                log.error("route %s: %s", route_id, error)

    def _begin(self, found: Compared, kind: Kind, chance: float) -> None:
        self.begun[kind] += 1
        quiet = 0 if kind == "shadow" else self._quiet.pop(found.route.id, 0)
        is_full = len(self._tasks) >= MAX_AT_ONCE
        work = self._audit(found, kind, chance=chance, quiet=quiet, is_full=is_full)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audit(
        self, found: Compared, kind: Kind, *, chance: float, quiet: int, is_full: bool
    ) -> None:
        """Compare, write down, and let the rollout follow."""
        from ownweights.route.evidence import MISSED, Audit
        from ownweights.route.live import Follower

        asking = asyncio.ensure_future(self._outcome(found, is_full=is_full))
        self._asking.add(asking)
        try:
            outcome = await asking
        except asyncio.CancelledError:  # the gateway ends
            outcome = _Outcome(MISSED)
        finally:
            self._asking.discard(asking)
        if outcome is None:
            self.unsure(found.route)
            return
        kind = "failure" if outcome.is_failure else kind
        audit = Audit(
            found.exchange.id, found.exchange.at, found.standing.stage, kind, outcome.harm,
            chance, quiet, found.standing.share, asked=outcome.asked, judge=outcome.judge,
            unit=_unit_of(found.exchange), unsure=self._unsure.pop(found.route.id, 0),
        )  # fmt: skip
        self._follower = self._follower or Follower(self._project)
        self._follower.add(found.route, audit)
        await self._catch_up()

    async def _outcome(self, found: Compared, *, is_full: bool) -> _Outcome | None:
        """What comparing comes to; None: the student's answer would not have been sent."""
        from ownweights.route.evidence import MISSED

        if found.ask_both is None:
            return _Outcome(1.0)
        if is_full:
            return _Outcome(MISSED)
        try:
            both = await found.ask_both()
            if both is None:
                return None
            harm, judge = await self._harm_of(found, both)
            return _Outcome(harm, both.asked, judge)
        except StudentFailed:
            return _Outcome(1.0, is_failure=True)
        except Exception as error:  # who is to blame is not known: it says nothing of the student
            log.error("%s audit is missed: %s", found.exchange.id, type(error).__name__)
            return _Outcome(MISSED)

    async def _harm_of(self, found: Compared, both: Both) -> tuple[float | None, Usage]:
        """What the route's check or judge says of the two answers, and what the judge took for it.

        The harm is MISSED where it cannot be asked. Where a check finds harm, the answers recorded
        for the same request count too: any will do. Equal to any of them, nothing is judged.
        """
        from ownweights.route.evidence import MISSED
        from ownweights.verdict.checks import check_named

        if both.told is None:
            return MISSED, Usage()
        try:
            if found.route.check == JUDGE:
                answer = Completion(both.answer, "stop")
                body = found.exchange.body
                known = await self._references.of(found.route, body)
                told = (both.told, *known)
                judged = await self._judges.harm(found.route, body, answer, told)
                return MISSED if judged.is_out else judged.harm, judged.spent
            check = await asyncio.to_thread(check_named, found.route.check, self._project.root)
            harm = await asyncio.to_thread(check.harm, both.answer, [both.told])
            if harm == 0:
                return harm, Usage()
            known = await self._references.of(found.route, found.exchange.body)
            again = await asyncio.to_thread(check.harm, both.answer, known) if known else None
            least = min((one for one in (harm, again) if one is not None), default=None)
            return least, Usage()
        except OwnError as error:  # a broken check is no evidence, and what it says may be content
            kind = type(error).__name__
            log.error("%s cannot be audited: its check failed with %s", found.exchange.id, kind)
            return MISSED, Usage()

    async def _catch_up(self, *, is_end: bool = False) -> None:
        """Write audits down, and do what all so far say; what cannot be written waits."""
        async with self._lock:
            follower = self._follower
            if follower is None or (time.monotonic() < self._retry_s and not is_end):
                return
            try:
                said = await asyncio.to_thread(follower.catch_up)
            except Exception as error:  # an audit may fail; requests go on
                self._retry_s = time.monotonic() + RETRY_S
                self._tally_soon()
                what = error.what if isinstance(error, OwnError) else type(error).__name__
                waiting, fate = follower.num_unwritten, "are lost" if is_end else "wait"
                log.error("%d audits %s, %d were lost: %s", waiting, fate, follower.num_lost, what)
                return
        for workload, what in said.items():
            log.warning("%s: %s", workload, what)


def _unit_of(exchange: Exchange) -> str:
    """The hash of what goes wrong together: the session; without one, all that ask the same."""
    from ownweights.dataset.unit import SESSION_OR_PROMPT, unit_of
    from ownweights.verdict.judged import unit_hash

    return unit_hash(unit_of(exchange.record(), SESSION_OR_PROMPT))


def _drifted(project: Project) -> frozenset[str]:
    """The teachers with an open incident of drift; nothing is imported where none is watched."""
    if not (project.store_dir / "drift").is_dir():
        return frozenset()
    from ownweights.verdict.drift.store import open_incidents

    return frozenset(open_incidents(project))
