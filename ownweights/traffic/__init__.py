"""What was asked and answered: records, their bodies on disk, and ways in and out.

    Recorder ─┐                       ┌─ rows in own.db
              ├─ Record → TrafficStore┤
    importer ─┘                       └─ bodies in zstd segments
"""

from ownweights.traffic.importer import ImportReport, import_file
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.store import TrafficStore, WorkloadStats
from ownweights.traffic.workload import user_text, workload_hash

__all__ = [
    "ImportReport",
    "Record",
    "TrafficStore",
    "WorkloadStats",
    "import_file",
    "make_record",
    "user_text",
    "workload_hash",
]
