"""Is the rented endpoint still the one that was certified against? Cheapest evidence first.

    baseline ─ ask ─ judge ─→ same | changed, in which channel | could not tell
                                     └→ incident ─→ certificates void

Import what you need from the files; names that need scipy are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.verdict.drift.asking import Manner
    from ownweights.verdict.drift.baseline import Baseline, Canary, Plan, take_baseline
    from ownweights.verdict.drift.canaries import pick_canaries
    from ownweights.verdict.drift.monitor import DriftMonitor
    from ownweights.verdict.drift.outcome import Finding, Incident, Look
    from ownweights.verdict.drift.report import drift_text
    from ownweights.verdict.drift.store import (
        incidents,
        load_monitor,
        save_baseline,
        save_look,
        watched_teachers,
    )

__all__ = [
    "Baseline",
    "Canary",
    "DriftMonitor",
    "Finding",
    "Incident",
    "Look",
    "Manner",
    "Plan",
    "drift_text",
    "incidents",
    "load_monitor",
    "pick_canaries",
    "save_baseline",
    "save_look",
    "take_baseline",
    "watched_teachers",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Baseline": "baseline",
        "Canary": "baseline",
        "DriftMonitor": "monitor",
        "Finding": "outcome",
        "Incident": "outcome",
        "Look": "outcome",
        "Manner": "asking",
        "Plan": "baseline",
        "drift_text": "report",
        "incidents": "store",
        "load_monitor": "store",
        "pick_canaries": "canaries",
        "save_baseline": "store",
        "save_look": "store",
        "take_baseline": "baseline",
        "watched_teachers": "store",
    },
)
