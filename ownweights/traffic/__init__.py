"""What was asked and answered: records, their bodies on disk, and ways in and out.

Recorder ─┐                       ┌─ rows in own.db
          ├─ Record → TrafficStore┤
importer ─┘                       └─ bodies in zstd segments
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.recorder import Recorder, RecorderCounts
from ownweights.traffic.store import TrafficStore, WorkloadStats
from ownweights.traffic.workload import (
    asked_text,
    check_workload_name,
    content_text,
    messages_of,
    system_texts,
    workload_hash,
)

if TYPE_CHECKING:
    from ownweights.traffic.importer import ImportReport, import_file

__all__ = [
    "ImportReport",
    "Record",
    "Recorder",
    "RecorderCounts",
    "TrafficStore",
    "WorkloadStats",
    "asked_text",
    "check_workload_name",
    "content_text",
    "import_file",
    "make_record",
    "messages_of",
    "system_texts",
    "workload_hash",
]

__getattr__ = lazy_names(__name__, {"ImportReport": "importer", "import_file": "importer"})
