"""What live evidence does to a route: a step on, or back to the teacher with the certificate void.

In: a route that is followed and the evidence of its audits. Out: the pointer swapped, and a line
that says so. Invariants: an alarm takes the route out and voids its certificate, and neither is
promoted again (test_live_alarm_rolls_back_and_voids), also where the process is killed between the
two (test_live_alarm_that_is_cut_short_leaves_a_void_certificate); a route that is followed anew is
judged by audits from then on alone (test_live_promoted_again_needs_fresh_audits); what a person did
in between stays (test_live_never_undoes_what_a_person_did), and what one does meanwhile waits
(test_live_never_undoes_what_a_person_does_meanwhile). Audits wait in memory while the database
cannot be written, and each is written once (test_follower_keeps_audits_until_they_can_be_written).
"""

from __future__ import annotations

import threading
from collections import deque

from ownweights.core.database import is_row_refused
from ownweights.core.errors import OwnError, StoreError
from ownweights.core.project import Project
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import Audit, Evidence, Watch, fold, next_standing
from ownweights.route.route import (
    Route,
    active_dir,
    active_standing,
    load_route,
    rollback,
    stand,
)
from ownweights.route.swap import swapping
from ownweights.verdict.voiding import void_certificate, void_reason

MAX_UNWRITTEN = 8192  # audits that wait for the database in memory; more are lost


def watch_of(route: Route) -> Watch:
    """What is watched for while a route is followed."""
    return Watch(route.alpha, route.beta, route.delta, route.audit_frac, route.run_length)


def evidence_of(project: Project, route: Route) -> Evidence:
    """All that audits have shown of a route since it was followed, folded anew from the log."""
    audits, _ = AuditLog(project, route.id, begin=_begin(project, route)).since()
    return fold(audits, watch_of(route))


def _begin(project: Project, route: Route) -> int:
    """The last audit before the route was followed; of one that is not, all audits count."""
    standing = active_standing(project, route.workload)
    return standing.since if standing is not None and standing.route_id == route.id else 0


class Follower:
    """Lets rollouts follow audits as one process writes them, and folds each of them once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folded: dict[tuple[str, int], tuple[Evidence, int]] = {}
        self._unwritten: deque[tuple[Route, Audit]] = deque()
        self._behind: dict[str, Route] = {}  # audits of theirs were written and not yet looked at
        self._lock = threading.Lock()
        self.num_lost = 0

    @property
    def num_unwritten(self) -> int:
        """Audits that wait until the database can be written."""
        return len(self._unwritten)

    def add(self, route: Route, audit: Audit) -> None:
        """Keep an audit until it is written down; where too many wait, it is lost and counted."""
        if len(self._unwritten) < MAX_UNWRITTEN:
            self._unwritten.append((route, audit))
        else:
            self.num_lost += 1

    def catch_up(self) -> dict[str, str]:
        """Write down what waits, oldest first, and do what it says; by workload, what was done.

        Raises: StoreError when it cannot be written now; it goes on waiting
        """
        said: dict[str, str] = {}
        with self._lock:
            while self._unwritten:
                self._write_oldest()
            while self._behind:
                _, route = self._behind.popitem()
                what = follow_evidence(self._project, route, self._fold(route))
                said |= {route.workload: what} if what else {}
        return said

    def _write_oldest(self) -> None:
        route, audit = self._unwritten[0]
        try:
            AuditLog(self._project, route.id).append(audit)
        except StoreError as error:
            if is_row_refused(error):  # it never will be written
                self._unwritten.popleft()
                self.num_lost += 1
            raise
        self._unwritten.popleft()
        self._behind[route.id] = route

    def _fold(self, route: Route) -> Evidence:
        """All that the log holds by now."""
        watch, begin = watch_of(route), _begin(self._project, route)
        evidence, seq = self._folded.get((route.id, begin)) or (Evidence.start(watch), begin)
        fresh, seq = AuditLog(self._project, route.id, begin=begin).since(seq)
        for one in fresh:
            evidence = evidence.after(one, watch)
        self._folded[route.id, begin] = evidence, seq
        return evidence


def follow_evidence(project: Project, route: Route, evidence: Evidence) -> str | None:
    """Take the step that the evidence asks for, if the route is still followed; what was done."""
    with swapping(project):
        standing = active_standing(project, route.workload)
        if standing is None or standing.route_id != route.id:
            return None
        found = next_standing(standing, evidence, watch_of(route))
        if found is None:
            return None
        if isinstance(found, str):
            return _take_back(project, route, found)
        reason = f"{evidence.at_step} units audited, {evidence.step_harms:g} of them harm"
        stand(project, route.workload, found, reason=reason)
        return f"on to {found.stage} ({100 * found.share:g} % of the sessions): {reason}"


def _take_back(project: Project, route: Route, reason: str) -> str:
    """Void first: whoever is killed between the two leaves a route that nobody follows."""
    try:
        void_certificate(project, route.verdict_id, reason=reason, by=f"route {route.id}")
    finally:
        rollback(project, route.workload, reason=reason)
    return f"rolled back to the teacher, certificate {route.verdict_id} is void: {reason}"


def withdraw_void(project: Project) -> list[str]:
    """Send back to their teachers all workloads whose certificate is void; which, and why."""
    said: list[str] = []
    for pointer in sorted(active_dir(project).glob("[!.]*")):
        with swapping(project):
            try:
                standing = active_standing(project, pointer.name)
                route = load_route(project, standing.route_id) if standing else None
            except OwnError:
                continue  # who cannot be followed is followed by nobody
            voided = void_reason(project, route.verdict_id) if route else None
            if voided is not None:
                rollback(project, pointer.name, reason=voided.reason)
                said.append(f"{pointer.name} goes to the teacher again: {voided.reason}")
    return said
