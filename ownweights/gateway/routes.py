"""The routes in force, read again when a pointer is swapped or a certificate becomes void.

In: the project's `route/active/` and `verdict/.void/` folders. Out: the route for a request. Two
`stat`s a request find a change; a folder whose time is too fresh to tell two swaps apart is simply
read again. Invariants: a promotion or a rollback holds from the next request on
(test_gateway_follows_a_swap_while_serving), and so does the end of a certificate, whoever was
killed before its route was withdrawn (test_route_table_sees_a_certificate_become_void); a route
that cannot be followed is said once (test_route_table_says_a_fault_once).
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.route import Route, active_dir, read_active
from ownweights.verdict.voiding import void_dir

log = logging.getLogger("ownweights.gateway")
# File times may tick this coarsely; within it a second swap could go unseen.
TICK_NS = 50_000_000


class RouteTable:
    """Who answers what; a workload whose route cannot be read is left to the teacher."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folders = active_dir(project), void_dir(project)
        self._seen_ns: tuple[int, ...] | None = None
        self._routes: dict[str, Route] = {}
        self._by_prompt: dict[str, Route] = {}
        self.faults: dict[str, OwnError] = {}

    def current(self) -> dict[str, Route]:
        """All routes in force, by workload."""
        changed_ns = tuple(map(_changed_ns, self._folders))
        if changed_ns != self._seen_ns:
            is_settled = time.time_ns() - max(changed_ns) > TICK_NS
            self._routes, faults = read_active(self._project)
            self._say_new(faults)
            self.faults = faults
            self._by_prompt = {
                prompt_hash: route
                for route in self._routes.values()
                for prompt_hash in route.prompt_hashes
            }
            self._seen_ns = changed_ns if is_settled else None
        return self._routes

    def find(self, workload: str | None, prompt_hash: str) -> Route | None:
        """The route of a named workload, or of whatever workload has that prompt, as last read."""
        if workload is None:
            return self._by_prompt.get(prompt_hash)
        return self._routes.get(workload)

    def _say_new(self, faults: dict[str, OwnError]) -> None:
        for workload, fault in faults.items():
            if str(fault) != str(self.faults.get(workload)):
                log.warning("%s goes to the teacher, for its route cannot be followed: %s",
                            workload, fault)  # fmt: skip


def _changed_ns(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
