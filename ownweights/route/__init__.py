"""Who answers which request: a route per workload, what it may take, and what it may send.

certificate ─ write_route ─ activate ─→ active_routes ─→ eligible ─→ decide
"""

from ownweights.route.decide import BELOW_THRESHOLD, SERVED, Decision, decide
from ownweights.route.eligible import eligible, plain_messages
from ownweights.route.route import (
    Route,
    activate,
    active_dir,
    active_id,
    active_routes,
    list_routes,
    load_route,
    read_active,
    rollback,
    write_route,
)

__all__ = [
    "BELOW_THRESHOLD",
    "SERVED",
    "Decision",
    "Route",
    "activate",
    "active_dir",
    "active_id",
    "active_routes",
    "decide",
    "eligible",
    "list_routes",
    "load_route",
    "plain_messages",
    "read_active",
    "rollback",
    "write_route",
]
