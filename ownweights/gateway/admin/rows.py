"""What the pages list and count by, and what they read of the traffic store.

Invariant: pages hold every record that matches, each once
(test_admin_rows_page_through_everything).
"""

from __future__ import annotations

from ownweights.traffic.feedback import feedback_of
from ownweights.traffic.query import RecordFilter, RecordRow, Stats, facets, page, row_of, stats

__all__ = [
    "DIMENSIONS", "FILTERS", "RecordFilter", "RecordRow", "Stats", "facets", "feedback_of",
    "page", "row_of", "stats",
]  # fmt: skip

DIMENSIONS = ("workload", "status", "role", "model", "upstream", "protocol")
FILTERS = (*DIMENSIONS, "key_id", "session", "end_user")  # what pages filter by
