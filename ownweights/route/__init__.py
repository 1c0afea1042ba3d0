"""Who answers which request: a route per workload, what it may take, and what it may send.

certificate ─ promote ─→ route/<id>.toml ─ activate ─→ read_active ─ eligible ─→ decide
"""

from ownweights.route.decide import BELOW_THRESHOLD, SERVED, Decision, decide
from ownweights.route.eligible import eligible, plain_messages, unanswerable
from ownweights.route.promotion import NotCertified, promote
from ownweights.route.route import (
    JUDGE,
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
    "JUDGE",
    "SERVED",
    "Decision",
    "NotCertified",
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
    "promote",
    "read_active",
    "rollback",
    "unanswerable",
    "write_route",
]
