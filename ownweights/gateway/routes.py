"""The routes in force, read again when a pointer is swapped.

In: the project's `route/active/` folder. Out: the route for a request. One `stat` a request finds a
swap; a folder whose time is too fresh to tell two swaps apart is simply read again. Invariants: a
promotion or a rollback holds from the next request on (test_gateway_follows_a_swap_while_serving);
a route that cannot be followed is said once (test_route_table_says_a_fault_once).
"""

from __future__ import annotations

import logging
import os
import time

from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.route import Route, active_dir, read_active

log = logging.getLogger("ownweights.gateway")
# File times may tick this coarsely; within it a second swap could go unseen.
TICK_NS = 50_000_000


class RouteTable:
    """Who answers what; a workload whose route cannot be read is left to the teacher."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folder = active_dir(project)
        self._seen_ns: int | None = None
        self._routes: dict[str, Route] = {}
        self._by_prompt: dict[str, Route] = {}
        self.faults: dict[str, OwnError] = {}

    def current(self) -> dict[str, Route]:
        """All routes in force, by workload."""
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
        except OSError:
            changed_ns = 0
        if changed_ns != self._seen_ns:
            is_settled = time.time_ns() - changed_ns > TICK_NS
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
        """The route of a named workload, or of whatever workload has that prompt."""
        routes = self.current()
        return self._by_prompt.get(prompt_hash) if workload is None else routes.get(workload)

    def _say_new(self, faults: dict[str, OwnError]) -> None:
        for workload, fault in faults.items():
            if str(fault) != str(self.faults.get(workload)):
                log.warning("%s goes to the teacher, for its route cannot be followed: %s",
                            workload, fault)  # fmt: skip
