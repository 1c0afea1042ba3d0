"""What our gateway recorded, seen from outside: by /ready, and by opening its store."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from bench.load.gateways import Running
from ownweights.core.project import Project
from ownweights.traffic.store import TrafficStore


def recorded(one: Running) -> dict[str, Any]:
    """How many records are stored, waiting and lost."""
    with urllib.request.urlopen(f"http://127.0.0.1:{one.plan.door.port}/ready") as answer:
        return json.load(answer)["records"]


def check_sound(folder: Path) -> int:
    """The number of records in a store that verifies; SystemExit where it does not."""
    with TrafficStore.open(Project(folder)) as store:
        report = store.verify()
    if not report.is_sound:
        raise SystemExit(f"the store is damaged: {report.faults[:5]}")
    return report.records
