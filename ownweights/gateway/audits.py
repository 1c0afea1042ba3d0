"""Audits of what students answer: the teacher is asked too, afterwards, and the two are compared.

In: exchanges that are over, the student's answer, whoever asks the teacher. Out: rows of the audit
log, and what follows from them: the next step of a rollout, or a rollback that voids the
certificate. Nothing here delays an answer: audits run beside the requests, at most `MAX_AT_ONCE`;
one that finds no room is left out and counted as missed (test_audits_that_find_no_room_are_missed).
Invariants: an alarm rolls back before the next request is routed
(test_gateway_rolls_a_harmful_student_back); what a check could not tell is harm, and what the
teacher did not answer is nothing (test_audit_of_a_silent_teacher_says_nothing), like what a check
that is broken says (test_audit_by_a_check_whose_file_changed_says_nothing). While its teacher has
an open incident of drift, answers are audited more often, and weighed by the chance that they had
(test_gateway_audits_more_while_an_incident_is_open).
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

from ownweights.core.chat import Usage
from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.gateway.exchange import Exchange
from ownweights.route import Route
from ownweights.route.rollout import Standing, audit_chance, is_audited

if TYPE_CHECKING:
    from ownweights.route.evidence import Kind
    from ownweights.route.live import Follower

log = logging.getLogger("ownweights.gateway")
MAX_AT_ONCE = 16
DRIFT_LOOK_S = 5.0  # how often the incidents on disk are read again


class Both(NamedTuple):
    """What student and teacher said, and what asking the teacher took; None: it has no answer."""

    answer: str
    told: str | None
    asked: Usage = Usage()


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

    def __init__(self, project: Project) -> None:
        self._project = project
        self._quiet: Counter[str] = Counter()  # by route: served since the last audit
        self._unsure: Counter[str] = Counter()  # by route: not sent since the last audit
        self._tasks: set[asyncio.Task[None]] = set()
        self._follower: Follower | None = None
        self._lock = asyncio.Lock()  # evidence is folded by one task at a time
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

    def unsure(self, route: Route) -> None:
        """The student was asked, and its answer was not sure enough to be sent."""
        if route.check:
            self._unsure[route.id] += 1

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
        """Wait shortly for audits under way, then give them up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        left = [*self._tasks, *([self._look] if self._look else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _begin(self, found: Compared, kind: Kind, chance: float) -> None:
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
        from ownweights.route.evidence import Audit

        harm: float | None = 1.0
        both = Both("", None)
        try:
            try:
                if found.ask_both is not None:
                    told = both if is_full else await found.ask_both()
                    if told is None:
                        self.unsure(found.route)
                        return
                    both = told
                    harm = await self._harm_of(found, both)
            except StudentFailed:
                kind = "failure"
            unsure = self._unsure.pop(found.route.id, 0)
            audit = Audit(
                found.exchange.id, found.exchange.at, found.standing.stage, kind, harm,
                chance, quiet, found.standing.share, asked=both.asked,
                unit=_unit_of(found.exchange), unsure=unsure,
            )  # fmt: skip
            async with self._lock:
                await asyncio.to_thread(self._follow, found.route, audit)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # an audit may fail; requests go on
            log.error("%s audit failed with %s", found.exchange.id, type(error).__name__)

    async def _harm_of(self, found: Compared, both: Both) -> float | None:
        """What the route's check says of the two answers; MISSED where it cannot be asked."""
        from ownweights.route.evidence import MISSED
        from ownweights.verdict.checks import check_named

        if both.told is None:
            return MISSED
        try:
            check = await asyncio.to_thread(check_named, found.route.check, self._project.root)
            return await asyncio.to_thread(check.harm, both.answer, [both.told])
        except OwnError as error:  # a broken check is no evidence, and what it says may be content
            kind = type(error).__name__
            log.error("%s cannot be audited: its check failed with %s", found.exchange.id, kind)
            return MISSED

    def _follow(self, route: Route, audit: object) -> None:
        """Write an audit down, and do what all audits so far say."""
        from ownweights.route.evidence import Audit
        from ownweights.route.live import Follower

        assert isinstance(audit, Audit)
        self._follower = self._follower or Follower(self._project)
        said = self._follower.follow(route, audit)
        if said:
            log.warning("%s: %s", route.workload, said)


def _unit_of(exchange: Exchange) -> str:
    """The hash of what goes wrong together: the session; without one, all that ask the same."""
    from ownweights.dataset.unit import unit_of
    from ownweights.verdict.judged import unit_hash

    return unit_hash(unit_of(exchange.record(), "session" if exchange.session else "prompt"))


def _drifted(project: Project) -> frozenset[str]:
    """The teachers with an open incident of drift; nothing is imported where none is watched."""
    if not (project.store_dir / "drift").is_dir():
        return frozenset()
    from ownweights.verdict.drift.store import open_incidents

    return frozenset(open_incidents(project))
