"""What a dataset's card says besides its identity: counts, teachers, period, and what to mind.

Facts do not name the dataset: when the same records are imported once more, the id stays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.dataset.dedupe import REASONS, STUDIED, Removed
from ownweights.dataset.example import Example
from ownweights.dataset.options import DatasetOptions
from ownweights.lineage import TeacherUse, licence_fact
from ownweights.traffic.record import Record

MUCH_REMOVED_FRAC = 0.25


def dataset_facts(
    named: Sequence[tuple[str, Record]],
    splits: Mapping[str, Sequence[Example]],
    removed: Sequence[Removed],
    uses: Sequence[TeacherUse],
    options: DatasetOptions,
) -> dict[str, Any]:
    """The facts of a dataset made from the named records."""
    counts = {split: len(examples) for split, examples in splits.items()}
    lost: dict[str, Counter[str]] = {split: Counter() for split in STUDIED}
    for one in removed:
        lost[one.split][one.reason] += 1
    names = "\n".join(sorted(name for name, _ in named)).encode("utf-8", "surrogatepass")
    moments = [record.answered_at for _, record in named]
    known = [moment for moment in moments if moment is not None]
    licence = licence_fact(options.data_licence) if options.data_licence else None
    return {
        "counts": counts,
        "units": {split: len({e.unit for e in examples}) for split, examples in splits.items()},
        "removed": {s: {reason: lost[s][reason] for reason in REASONS} for s in STUDIED},
        "teachers": [use.to_json() for use in uses],
        "data_licence": licence.to_json() if licence else None,
        "prompt_hashes": sorted({record.prompt_hash for _, record in named}),
        "period": [min(known), max(known)] if known else None,
        "undated": len(moments) - len(known),
        "records": {"num": len(named), "ids_sha256": hashlib.sha256(names).hexdigest()},
        "warnings": [
            *(use.warning for use in uses if use.warning),
            *_licence_warnings(uses, options),
            *_split_warnings(counts, lost),
        ],
    }


def _licence_warnings(uses: Sequence[TeacherUse], options: DatasetOptions) -> list[str]:
    if not any(use.terms.trains == "human" for use in uses):
        return []
    if options.data_licence is None:
        return ["people wrote these answers: the licence of the data decides, and none is declared"]
    fact = licence_fact(options.data_licence)
    if fact is None:
        return [f"no facts are known about the licence {options.data_licence!r}"]
    return [] if fact.commercial == "yes" else [f"{fact.id}: {fact.why}"]


def _split_warnings(counts: Mapping[str, int], lost: Mapping[str, Counter[str]]) -> list[str]:
    warnings = [f"the {split} split is empty" for split, count in counts.items() if not count]
    for split in STUDIED:
        num_lost = lost[split]["near_held_out"] + lost[split]["same_as_held_out"]
        before = counts[split] + lost[split].total()
        if before and num_lost > MUCH_REMOVED_FRAC * before:
            warnings.append(
                f"{num_lost} of {before} {split} examples ask what a held-out one asks, or nearly,"
                " and are left out"
            )
    return warnings
