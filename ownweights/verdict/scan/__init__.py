"""Before anything is trained: what a workload costs, and what a certificate could save of that.

records ─► gather (hashes and counts, no bodies) ─► measure ─► a WorkloadScan a workload
"""

from ownweights.verdict.scan.gather import Progress, scan_records
from ownweights.verdict.scan.values import (
    Agreement,
    Cost,
    Coverage,
    Need,
    Period,
    Plan,
    Prices,
    Repeats,
    TokenCount,
    Units,
    WorkloadScan,
)

__all__ = [
    "Agreement",
    "Cost",
    "Coverage",
    "Need",
    "Period",
    "Plan",
    "Prices",
    "Progress",
    "Repeats",
    "TokenCount",
    "Units",
    "WorkloadScan",
    "scan_records",
]
